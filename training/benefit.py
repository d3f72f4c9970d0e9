"""What a run brings to each hospital, as its page and the API show it.

A doctor sees the own hospital and what may be shown of all test patients together; who runs the
federation sees every hospital (`Envoy.objects.visible_to`).
"""

from dataclasses import dataclass
from typing import Any

from envoys.models import Envoy, User
from federated.small_counts import HIDDEN
from training.models import ModelChoice, TrainingRun
from training.progress import ReportDetails, count_of, is_too_small, report_details

TITLES = {
    "rule_of_thumb": "Rule of thumb",
    "local": "Local",
    "global": "Global",
    "fine_tuned": "Fine-tuned",
    "pooled": "Pooled",
}
FIGURES = ("auroc", "auprc", "accuracy", "brier")
ALL_TOGETHER = "All test patients together"


@dataclass(frozen=True)
class ModelFigures:
    """One model on the same held-out patients as the others; None is not defined or not shown."""

    model: str
    title: str
    auroc: float | None
    auprc: float | None
    accuracy: float | None
    brier: float | None
    interval: dict[str, float] | None  # of the AUROC: "low" and "high"


@dataclass(frozen=True)
class Gain:
    """What the models do for a hospital, or for all together."""

    name: str
    num_examples: str  # trained on
    num_patients: str  # tested on
    models: list[ModelFigures]
    sentence: str
    fine_tuned_sentence: str
    choice: ModelChoice | None = None


@dataclass(frozen=True)
class Benefit:
    run: TrainingRun
    hospitals: list[Gain]
    all_together: Gain
    details: ReportDetails | None
    num_hidden: int  # hospitals that somebody may not see

    @property
    def gains(self) -> list[Gain]:
        return [self.all_together, *self.hospitals]

    def charts(self) -> dict[str, Any]:
        """What the page's charts are drawn from; the same numbers stand in its tables."""
        return {
            "models": list(TITLES.values()),
            "rows": [
                {
                    "name": gain.name,
                    "figures": [
                        {"auroc": figures.auroc, "interval": figures.interval}
                        for figures in gain.models
                    ],
                }
                for gain in self.gains
            ],
            "curves": [
                {
                    "name": line["class"],
                    "points": [
                        {"x": each["predicted"], "y": each["observed"]}
                        for each in line["curve"]
                        if each["observed"] is not None
                    ],
                }
                for line in (self.details.calibration if self.details else [])
            ],
        }


def benefit_of(run: TrainingRun, user: User) -> Benefit | None:
    """None before the run's report is made."""
    report = run.report
    if not report:
        return None
    participants = run.participants.filter(sits_out_because="").values("envoy")
    visible = Envoy.objects.visible_to(user).filter(pk__in=participants)
    envoys = {name: envoy for envoy in visible for name in envoy.known_as}
    choices = {
        choice.envoy_id: choice
        for choice in ModelChoice.objects.filter(run=run).visible_to(user).select_related("envoy")
    }
    benefit = report.get("benefit", {"envoys": [], "pooled_test": {}})
    gains = {gain["name"]: gain for gain in benefit["envoys"]}
    hospitals = [
        _gain(
            envoys[entry["name"]].known_as[0],
            entry,
            gains.get(entry["name"], {}),
            choices.get(envoys[entry["name"]].pk),
        )
        for entry in report["envoys"]
        if entry["name"] in envoys
    ]
    return Benefit(
        run=run,
        hospitals=hospitals,
        all_together=_gain(ALL_TOGETHER, report["pooled_test"], benefit["pooled_test"]),
        details=report_details(run),
        num_hidden=len(report["envoys"]) - len(hospitals),
    )


def _gain(
    name: str, entry: dict[str, Any], gain: dict[str, Any], choice: ModelChoice | None = None
) -> Gain:
    """Of a report's entry; `gain` is empty in one made before there were intervals."""
    intervals = gain.get("intervals", {})
    hidden = is_too_small(gain)
    return Gain(
        name=name,
        num_examples=count_of(entry.get("num_examples")),
        num_patients=HIDDEN if hidden else count_of(gain.get("num_patients")),
        models=[
            ModelFigures(
                model=model,
                title=title,
                interval=intervals.get(model),
                **{
                    figure: None if hidden else (entry.get(model) or {}).get(figure)
                    for figure in FIGURES
                },
            )
            for model, title in TITLES.items()
        ],
        sentence=gain.get("sentence", ""),
        fine_tuned_sentence=gain.get("fine_tuned_sentence", ""),
        choice=choice,
    )
