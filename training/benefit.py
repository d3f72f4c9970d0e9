"""What a run brings to each hospital, as its page and the API show it.

A doctor sees the own hospital and what may be shown of all test patients together; who runs the
federation sees every hospital (`Envoy.objects.visible_to`).
"""

from dataclasses import dataclass
from typing import Any

from envoys.models import Envoy, User
from federated.small_counts import HIDDEN
from federated.targets import READINGS, target_named
from federated.words import Words
from training.models import ModelChoice, ModelVersion, TrainingRun
from training.progress import (
    TITLES,
    ReportDetails,
    examples_in_words,
    is_too_small,
    report_details,
    shown,
)

FIGURES = ("auroc", "auprc", "accuracy", "brier")


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
    auprc_interval: dict[str, float] | None
    accuracy_interval: dict[str, float] | None
    brier_interval: dict[str, float] | None


@dataclass(frozen=True)
class Gain:
    """What the models do for a hospital, or for all together."""

    name: str
    num_examples: str  # trained on
    num_patients: str  # tested on
    models: list[ModelFigures]
    sentence: str
    fine_tuned_sentence: str
    calibration: list[dict[str, Any]]  # of the global model: slope and intercept of each class
    confusion: list[list[int]] | None  # likewise, patients by class and likeliest class
    macro_f1: float | None
    macro_f1_interval: dict[str, float] | None
    choice: ModelChoice | None = None

    @property
    def of_global_model(self) -> ModelFigures:
        return next(figures for figures in self.models if figures.model == "global")

    @property
    def model_in_use(self) -> str:
        """In words that can follow "in use"; empty where there is no choice."""
        if self.choice is None:
            return ""
        words = self.choice.model_in_use
        return f"{words} model" if self.choice.kind_in_use == ModelVersion.Kind.GLOBAL else words


@dataclass(frozen=True)
class Benefit:
    run: TrainingRun
    hospitals: list[Gain]
    all_together: Gain
    details: ReportDetails | None
    num_hidden: int  # hospitals that somebody may not see

    @property
    def has_many_classes(self) -> bool:
        return len(target_named(self.run.study.target).classes) > 2

    @property
    def counted_by_rule_of_thumb(self) -> str:
        """What the rule of thumb counts; see `rule_of_thumb_band` and `readings.warning_band`."""
        return "warning signs" if self.run.study.dataset == READINGS else "diagnoses"

    @property
    def gains(self) -> list[Gain]:
        return [self.all_together, *self.hospitals]

    @property
    def confusions(self) -> list[tuple[str, list[tuple[str, list[str]]]]]:
        """By hospital that has a matrix: by class, its patients by likeliest class."""
        classes = self.details.classes if self.details else []
        return [
            (
                gain.name,
                [
                    (name, [shown(count) for count in row])
                    for name, row in zip(classes, gain.confusion, strict=True)
                ],
            )
            for gain in self.hospitals
            if gain.confusion
        ]

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
    assessed = {found["name"]: found for found in report.get("by_hospital", [])}
    words = run.study.words
    examples, total = examples_in_words(report)
    hospitals = [
        _gain(
            envoys[entry["name"]].known_as[0],
            entry,
            gains.get(entry["name"], {}),
            assessed.get(entry["name"], {}),
            words=words,
            num_examples=examples[entry["name"]],
            choice=choices.get(envoys[entry["name"]].pk),
        )
        for entry in report["envoys"]
        if entry["name"] in envoys
    ]
    num_hidden = len(report["envoys"]) - len(hospitals)
    details = report_details(run)
    assessed = {
        "calibration": report.get("calibration", []),
        "macro_f1": details.macro_f1 if details else None,
        "macro_f1_interval": details.macro_f1_interval if details else None,
    }
    return Benefit(
        run=run,
        hospitals=hospitals,
        all_together=_gain(
            f"All test {words.people} together",
            report["pooled_test"],
            benefit["pooled_test"],
            assessed,
            words=words,
            num_examples="" if num_hidden else total,
        ),
        details=details,
        num_hidden=num_hidden,
    )


def _gain(
    name: str,
    entry: dict[str, Any],
    gain: dict[str, Any],
    assessed: dict[str, Any],
    *,
    words: Words,
    num_examples: str,
    choice: ModelChoice | None = None,
) -> Gain:
    """Of a report's entry; `gain` and `assessed` are empty in one made before there were such."""
    hidden = is_too_small(gain)
    intervals = {"auroc": gain.get("intervals", {}), **gain.get("other_intervals", {})}

    def interval(figure: str, model: str) -> dict[str, float] | None:
        return intervals.get(figure, {}).get(model)

    return Gain(
        name=name,
        num_examples=num_examples,
        num_patients=HIDDEN if hidden else shown(gain.get("num_patients")),
        models=[
            ModelFigures(
                model=model,
                title=title,
                interval=interval("auroc", model),
                auprc_interval=interval("auprc", model),
                accuracy_interval=interval("accuracy", model),
                brier_interval=interval("brier", model),
                **{
                    figure: None if hidden else (entry.get(model) or {}).get(figure)
                    for figure in FIGURES
                },
            )
            for model, title in TITLES.items()
        ],
        sentence=words.instead(gain.get("sentence", "")),
        fine_tuned_sentence=words.instead(gain.get("fine_tuned_sentence", "")),
        calibration=assessed.get("calibration", []),
        confusion=assessed.get("confusion"),
        macro_f1=assessed.get("macro_f1"),
        macro_f1_interval=assessed.get("macro_f1_interval"),
        choice=choice,
    )
