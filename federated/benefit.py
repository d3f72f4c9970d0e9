"""What each hospital gains: rule of thumb, its own model, the federation's, that one fine-tuned
there, and one of all rows pooled.

All five are scored on the same held-out patients. All rows are here, so that scores are exact;
intervals resample patients, and the models that are compared see the same resamples.

A `BenefitReport` holds nothing that may not be shown: of a hospital with under 10 test patients no
figure, and such hospitals count in those of all together as `scored_rows.told_together` has it; of
one where an outcome has under 10 patients neither, see `ScoredRows.untold_because`.
"""

from collections.abc import Callable, Collection, Mapping
from dataclasses import dataclass, field, replace
from typing import Any

import numpy as np

from federated.assessment import Assessment, assess
from federated.choosing import Choice, choose_model
from federated.datasets import ClientDataset, concatenate
from federated.features import TEST, TRAIN, VALIDATION
from federated.figures import FIGURES, figure_statistics
from federated.intervals import Interval, Resampled, in_words, resample
from federated.metrics import Metrics, mean_of
from federated.params import Params
from federated.plan import TrainingPlan
from federated.scaling import FeatureScaling
from federated.schemas import feature_schema
from federated.scored_rows import Probabilities, ScoredRows, join, score_rows, told_together
from federated.simulation import SimulationResult, simulate
from federated.strategies import StrategyParameters
from federated.suppression import suppress
from federated.targets import target_named

MODELS = ("rule_of_thumb", "local", "global", "fine_tuned", "pooled")
NUM_BANDS = 3
NUM_RESAMPLES = 500

Intervals = dict[str, dict[str, Interval | None]]  # by figure, then by model


@dataclass(frozen=True)
class Gain:
    """How sure the models' figures are, what the global one adds to local ones, fine-tuning to it.

    Attributes:
        num_patients: that the models are compared on; None where they are under 10.
        intervals: None where there is no model, or a figure is undefined or not told.
        difference: of the AUROC, global minus local, on the same resamples.
        sentence: the difference in words.
        fine_tuned_difference: fine-tuned minus global.
        fine_tuned_sentence: that in words; empty where nobody has a fine-tuned model.
    """

    num_patients: int | None
    intervals: Intervals
    difference: Interval | None
    sentence: str
    fine_tuned_difference: Interval | None
    fine_tuned_sentence: str

    def to_json(self) -> dict[str, Any]:
        plain = {
            figure: {model: _plain(interval) for model, interval in of_models.items()}
            for figure, of_models in self.intervals.items()
        }
        return {
            "num_patients": self.num_patients,
            "has_enough_patients": self.num_patients is not None,
            "intervals": plain.pop("auroc"),
            "other_intervals": plain,
            "difference": _plain(self.difference),
            "sentence": self.sentence,
            "fine_tuned_difference": _plain(self.fine_tuned_difference),
            "fine_tuned_sentence": self.fine_tuned_sentence,
        }


def _plain(interval: Interval | None) -> dict[str, float] | None:
    return interval.to_json() if interval else None


@dataclass(frozen=True)
class BenefitReport:
    """Figures per model: over all test patients, the mean of the hospitals', and each one's.

    Attributes:
        pooled_test: a figure only of a model that every hospital with test patients has.
        mean_of_envoys: of the hospitals whose figures are shown.
        num_examples: trained on, by hospital; for what is of the hospital itself.
        validation: by hospital, its validation rows scored by the models that it could use.
        local_models: by hospital, what it makes alone.
    """

    pooled_test: dict[str, Metrics]
    mean_of_envoys: dict[str, Metrics]
    envoys: dict[str, dict[str, Metrics]]
    num_examples: dict[str, int] = field(repr=False)
    pooled_gain: Gain
    gains: dict[str, Gain]
    assessment: Assessment
    validation: dict[str, ScoredRows] = field(repr=False)
    local_models: dict[str, SimulationResult] = field(repr=False)
    seed: int

    def choice(self, name: str, *, of: Collection[str]) -> Choice:
        """Which model suits a hospital best, by its validation patients.

        Args:
            of: the models that could be used there, "global" among them.
        """
        rows = self.validation[name]
        return choose_model(
            rows.labels,
            rows.patients,
            {model: rows.probabilities[model] for model in of if model in rows.probabilities},
            seed=f"{self.seed}:{name}",
        )

    def to_json(self) -> dict[str, Any]:
        """What everybody may read: counts under 10 are None, and others that would tell them."""

        def plain(figures: dict[str, Metrics]) -> dict[str, Any]:
            return {model: figures[model].to_json() for model in MODELS}

        names = sorted(self.envoys)
        examples = suppress(np.array([self.num_examples[name] for name in names], np.int64))
        return {
            "num_examples": examples.total,
            "pooled_test": plain(self.pooled_test),
            "mean_of_envoys": plain(self.mean_of_envoys),
            "envoys": [
                {"name": name, "num_examples": shown, **plain(self.envoys[name])}
                for name, shown in zip(names, examples.cells, strict=True)
            ],
            "benefit": {
                "num_resamples": NUM_RESAMPLES,
                "pooled_test": self.pooled_gain.to_json(),
                "envoys": [{"name": name, **self.gains[name].to_json()} for name in names],
            },
            **self.assessment.to_json(),
        }


def band_frequencies(dataset: ClientDataset, num_classes: int) -> Probabilities:
    """The rule of thumb: training frequencies of the classes per band (bands, classes).

    A band that nobody is in predicts the frequencies of all.
    """
    rows = dataset.rows(TRAIN)
    counts = np.zeros((NUM_BANDS, num_classes))
    np.add.at(counts, (dataset.bands[rows], dataset.labels[rows]), 1)
    counts = np.where(counts.sum(axis=1, keepdims=True) > 0, counts, counts.sum(axis=0))
    totals = np.maximum(counts.sum(axis=1, keepdims=True), 1)
    frequencies: Probabilities = (counts / totals).astype(np.float32)
    return frequencies


def benefit_report(
    datasets: Mapping[str, ClientDataset],
    plan: TrainingPlan,
    federated: SimulationResult,
    *,
    num_classes: int,
    seed: int,
    on_progress: Callable[[int, int], None] = lambda done, total: None,
) -> BenefitReport:
    """Train the baselines for as many local epochs as the federation, and score all of them.

    A baseline has one client, for which there is nothing to choose but FedAvg, whatever the plan's
    strategy. Every hospital given is trained alone, whether it took part in the federation or not;
    one without a training example has no local model, and undefined figures.

    Args:
        datasets: of the hospitals to compare, by client id, all of them hosted here. A served run's
            report and `python -m federated` leave out those that sat out.
        federated: the run to be judged.
        on_progress: how many of how many rounds of baselines are trained.
    """
    everyone = concatenate([datasets[name] for name in sorted(datasets)])
    frequencies = band_frequencies(everyone, num_classes)
    lone_plan = replace(
        plan, min_examples=1, strategy="fedavg", strategy_parameters=StrategyParameters()
    )
    num_trainable = sum(dataset.num_examples > 0 for dataset in datasets.values())
    done, total = 0, (num_trainable + 1) * plan.num_rounds

    def on_round(_: int) -> None:
        nonlocal done
        done += 1
        on_progress(done, total)

    pooled = simulate({"pooled": everyone}, lone_plan, seed=seed, on_round=on_round)

    local_models = {
        name: simulate({name: datasets[name]}, lone_plan, seed=seed, on_round=on_round)
        for name in sorted(datasets)
        if datasets[name].num_examples
    }

    def models_at(name: str) -> dict[str, tuple[Params, FeatureScaling]]:
        """What a hospital could use."""
        models = {"global": (federated.params, federated.scaling)}
        if name in federated.local_params:
            models["fine_tuned"] = (federated.local_params[name], federated.scaling)
        if name in local_models:
            models["local"] = (local_models[name].params, local_models[name].scaling)
        return models

    def test_rows(name: str) -> ScoredRows:
        dataset = datasets[name]
        everywhere = {"pooled": (pooled.params, pooled.scaling)}
        rows = score_rows(dataset, TEST, schema, models_at(name) | everywhere)
        by_rule = frequencies[dataset.bands[dataset.rows(TEST)]]
        return replace(rows, probabilities=rows.probabilities | {"rule_of_thumb": by_rule})

    schema = feature_schema(plan.target)
    scored = {name: test_rows(name) for name in sorted(datasets)}
    together = join(list(told_together(scored).values()))
    envoys = {name: _measured(rows) for name, rows in scored.items()}
    return BenefitReport(
        pooled_test=_measured(together),
        mean_of_envoys={
            model: mean_of([figures[model] for figures in envoys.values()]) for model in MODELS
        },
        envoys=envoys,
        num_examples={name: datasets[name].num_examples for name in datasets},
        pooled_gain=gain_of(
            together,
            seed=str(seed),
            other="the hospitals' own",
            without="not every hospital has such a model",
            is_tuned=any("fine_tuned" in rows.probabilities for rows in scored.values()),
        ),
        gains={name: gain_of(rows, seed=f"{seed}:{name}") for name, rows in scored.items()},
        assessment=assess(scored, target_named(plan.target).classes, seed=str(seed)),
        validation={
            name: score_rows(datasets[name], VALIDATION, schema, models_at(name))
            for name in sorted(datasets)
        },
        local_models=local_models,
        seed=seed,
    )


def _measured(rows: ScoredRows) -> dict[str, Metrics]:
    return {model: rows.measure(model) for model in MODELS}


def gain_of(
    rows: ScoredRows,
    *,
    seed: str,
    other: str = "this hospital's own",
    without: str = "it has no such model",
    is_tuned: bool | None = None,
) -> Gain:
    """The intervals of every model there is, and of global minus local where there are both.

    Args:
        seed: of the resamples, which all models share; of each hospital another.
        other: what the sentences call the local models.
        without: why there is no difference to a model that there is not.
        is_tuned: whether to speak of fine-tuning; by default where there is such a model.
    """
    models = {} if rows.untold_because else rows.probabilities
    drawn = resample(
        {
            (figure, model): statistic
            for model, probabilities in models.items()
            for figure, statistic in figure_statistics(rows.labels, probabilities).items()
        },
        rows.patients,
        num_resamples=NUM_RESAMPLES,
        seed=seed,
    )

    def compared(model: str, base: str) -> tuple[Interval | None, str]:
        """The difference, or else why there is none."""
        if not models:
            return None, rows.untold_because
        if model not in models or base not in models:
            return None, without
        difference: Resampled = drawn["auroc", model] - drawn["auroc", base]
        if not np.isfinite(difference.estimate):
            return None, "not every outcome occurs among the test patients"
        return difference.interval(), "too few patients have one of the outcomes"

    difference, because = compared("global", "local")
    tuning, no_tuning_because = compared("fine_tuned", "global")
    if is_tuned is None:
        is_tuned = "fine_tuned" in rows.probabilities
    return Gain(
        num_patients=rows.num_patients if rows.has_enough_patients else None,
        intervals={
            figure: {
                model: drawn[figure, model].interval() if model in models else None
                for model in MODELS
            }
            for figure in FIGURES
        },
        difference=difference,
        sentence=in_words(difference, other=other, because=because),
        fine_tuned_difference=tuning,
        fine_tuned_sentence=in_words(
            tuning,
            model="The fine-tuned model",
            other="the global one",
            because=no_tuning_because,
        )
        if is_tuned
        else "",
    )
