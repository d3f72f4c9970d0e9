"""What each hospital gains: rule of thumb, its own model, the federation's, that one fine-tuned
there, and one of all rows pooled.

All five are scored on the same held-out patients. All rows are here, so that scores are exact;
intervals resample patients, and the models that are compared see the same resamples.
"""

from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import asdict, dataclass, field, replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from federated.calibration import CalibrationLine, calibration_lines, reliability_curve
from federated.choosing import Choice, choose_model
from federated.classification import confusion_matrix, macro_f1
from federated.datasets import ClientDataset, concatenate
from federated.features import TEST, TRAIN, VALIDATION, FeatureSchema, feature_schema
from federated.histograms import PooledFigure, pooled_ranking, score_histograms
from federated.intervals import Interval, auroc_statistic, in_words, resample
from federated.metrics import UNDEFINED, Metrics, mean_of, measure, scored_classes
from federated.params import Params
from federated.plan import TrainingPlan
from federated.prediction import predict_rows
from federated.scaling import FeatureScaling
from federated.simulation import SimulationResult, simulate
from federated.strategies import StrategyParameters
from federated.subgroups import (
    AGE_BANDS,
    UNKNOWN,
    SubgroupFigures,
    age_bands,
    ages_of,
    by_subgroup,
    sexes_of,
)
from federated.suppression import MIN_PATIENTS, SuppressedTable, suppress
from federated.targets import target_named

MODELS = ("rule_of_thumb", "local", "global", "fine_tuned", "pooled")
SEXES = ("female", "male", UNKNOWN)
NUM_BANDS = 3
NUM_RESAMPLES = 500

Probabilities = NDArray[np.float32]


@dataclass(frozen=True)
class ScoredRows:
    """Held-out rows and what each model makes of them; a model that there is not is left out.

    Attributes:
        labels, patients, age_bands, sexes: (num_rows,); rows of one patient share a number.
        probabilities: by model, (num_rows, num_classes).
    """

    labels: NDArray[np.int8]
    patients: NDArray[np.int32]
    age_bands: NDArray[np.str_]
    sexes: NDArray[np.str_]
    probabilities: dict[str, Probabilities]

    @property
    def num_patients(self) -> int:
        return len(np.unique(self.patients))

    def measure(self, model: str) -> Metrics:
        if model not in self.probabilities:
            return UNDEFINED
        return measure(self.labels, self.probabilities[model])


@dataclass(frozen=True)
class Gain:
    """How sure the models' AUROC are, what the global one adds to local ones, and fine-tuning to it.

    Attributes:
        num_patients: that the models are compared on; under 10, nothing of them may be shown.
        intervals: of each model's AUROC; None where there is no model or too few patients.
        difference: global minus local on the same resamples.
        sentence: the difference in words.
        fine_tuned_difference: fine-tuned minus global.
        fine_tuned_sentence: that in words; empty where there is no fine-tuned model.
    """

    num_patients: int
    intervals: dict[str, Interval | None]
    difference: Interval | None
    sentence: str
    fine_tuned_difference: Interval | None
    fine_tuned_sentence: str

    def to_json(self) -> dict[str, Any]:
        return {
            "has_enough_patients": self.num_patients >= MIN_PATIENTS,
            "intervals": {model: _plain(self.intervals[model]) for model in MODELS},
            "difference": _plain(self.difference),
            "sentence": self.sentence,
            "fine_tuned_difference": _plain(self.fine_tuned_difference),
            "fine_tuned_sentence": self.fine_tuned_sentence,
        }


@dataclass(frozen=True)
class ShownBin:
    """A bin of a reliability curve; None where one of its outcomes is too rare to be shown."""

    predicted: float
    observed: float | None
    num_admissions: int | None

    def to_json(self) -> dict[str, float | None]:
        return asdict(self)


@dataclass(frozen=True)
class Assessment:
    """The global model on all test patients, as it may be shown.

    Attributes:
        auroc, auprc: from the score histograms that hospitals would release.
        lines, curves: calibration by class; of two classes the second's alone.
        confusion: patients by class (rows) and predicted class (columns); a patient with
            admissions in several cells counts in each.
        macro_f1: over admissions.
        subgroups: by "age" and "sex", then by the group's name.
    """

    auroc: PooledFigure | None
    auprc: PooledFigure | None
    lines: dict[str, CalibrationLine | None]
    curves: dict[str, list[ShownBin]]
    classes: tuple[str, ...]
    confusion: SuppressedTable
    macro_f1: float | None
    subgroups: dict[str, dict[str, SubgroupFigures]]

    def to_json(self) -> dict[str, Any]:
        def binned(figure: PooledFigure | None) -> dict[str, float] | None:
            if figure is None:
                return None
            return {"value": figure.value, "low": figure.low, "high": figure.high}

        nothing = dict.fromkeys(("slope", "intercept", "in_the_large"))
        return {
            "from_histograms": {"auroc": binned(self.auroc), "auprc": binned(self.auprc)},
            "calibration": [
                {
                    "class": name,
                    **(line.to_json() if line else nothing),
                    "curve": [shown.to_json() for shown in self.curves[name]],
                }
                for name, line in self.lines.items()
            ],
            "confusion": {
                "classes": list(self.classes),
                **asdict(self.confusion),
                "macro_f1": self.macro_f1,
            },
            "subgroups": {
                kind: [{"name": name, **figures.to_json()} for name, figures in groups.items()]
                for kind, groups in self.subgroups.items()
            },
        }


def _plain(interval: Interval | None) -> dict[str, float] | None:
    return interval.to_json() if interval else None


@dataclass(frozen=True)
class BenefitReport:
    """Figures per model: over all test patients, the mean of the hospitals', and each one's.

    Attributes:
        validation: by hospital, its validation rows scored by the models that it could use.
        local_models: by hospital, what it makes alone.
    """

    pooled_test: dict[str, Metrics]
    mean_of_envoys: dict[str, Metrics]
    envoys: dict[str, dict[str, Metrics]]
    num_examples: dict[str, int]
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
        def plain(figures: dict[str, Metrics]) -> dict[str, Any]:
            return {model: figures[model].to_json() for model in MODELS}

        names = sorted(self.gains)
        patients = suppress(np.array([self.gains[name].num_patients for name in names], np.int64))
        return {
            "pooled_test": plain(self.pooled_test),
            "mean_of_envoys": plain(self.mean_of_envoys),
            "envoys": [
                {"name": name, "num_examples": self.num_examples[name], **plain(figures)}
                for name, figures in sorted(self.envoys.items())
            ],
            "benefit": {
                "num_resamples": NUM_RESAMPLES,
                "pooled_test": {"num_patients": patients.total, **self.pooled_gain.to_json()},
                "envoys": [
                    {"name": name, "num_patients": shown, **self.gains[name].to_json()}
                    for name, shown in zip(names, patients.cells, strict=True)
                ],
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
    strategy. A hospital too small for the federation is still trained alone, to be compared; one without a
    training example has no local model, and undefined figures.

    Args:
        datasets: every hospital's, by client id; all of them hosted here.
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

    def scored_by(
        models: Mapping[str, tuple[Params, FeatureScaling]], name: str, split: int
    ) -> ScoredRows:
        dataset = datasets[name]
        rows = dataset.rows(split)
        probabilities = {
            model: predict_rows(params, scaling, dataset, rows)
            for model, (params, scaling) in models.items()
        }
        if split == TEST:
            probabilities["rule_of_thumb"] = frequencies[dataset.bands[rows]]
        return _scored_rows(dataset, rows, schema, probabilities)

    schema = feature_schema(plan.target)
    everywhere = {"pooled": (pooled.params, pooled.scaling)}
    scored = {
        name: scored_by(models_at(name) | everywhere, name, TEST) for name in sorted(datasets)
    }
    envoys = {
        name: {model: rows.measure(model) for model in MODELS} for name, rows in scored.items()
    }
    return BenefitReport(
        pooled_test={model: _join(_having(model, scored)).measure(model) for model in MODELS},
        mean_of_envoys={
            model: mean_of([figures[model] for figures in envoys.values()]) for model in MODELS
        },
        envoys=envoys,
        num_examples={name: datasets[name].num_examples for name in datasets},
        pooled_gain=_pooled_gain(scored, seed=str(seed)),
        gains={name: gain_of(rows, seed=f"{seed}:{name}") for name, rows in scored.items()},
        assessment=assess(scored, target_named(plan.target).classes),
        validation={
            name: scored_by(models_at(name), name, VALIDATION) for name in sorted(datasets)
        },
        local_models=local_models,
        seed=seed,
    )


def _having(model: str, hospitals: Mapping[str, ScoredRows]) -> list[ScoredRows]:
    """A local or fine-tuned model is judged on the patients of the hospitals that have one."""
    return [rows for rows in hospitals.values() if model in rows.probabilities]


def _scored_rows(
    dataset: ClientDataset,
    rows: NDArray[np.int64],
    schema: FeatureSchema,
    probabilities: dict[str, Probabilities],
) -> ScoredRows:
    return ScoredRows(
        labels=dataset.labels[rows],
        patients=dataset.patients[rows],
        age_bands=age_bands(ages_of(dataset, rows, schema)),
        sexes=sexes_of(dataset, rows, schema),
        probabilities=probabilities,
    )


def _join(hospitals: Sequence[ScoredRows]) -> ScoredRows:
    """All hospitals' rows, with the models that all of them have.

    A patient seen by two hospitals counts as two: nobody can tell they are one.
    """
    if not hospitals:
        empty = np.empty(0, "<U1")
        return ScoredRows(np.empty(0, np.int8), np.empty(0, np.int32), empty, empty, {})
    starts = np.cumsum([0, *(int(part.patients.max(initial=-1)) + 1 for part in hospitals)])
    return ScoredRows(
        labels=np.concatenate([part.labels for part in hospitals]),
        patients=np.concatenate(
            [part.patients + start for part, start in zip(hospitals, starts[:-1], strict=True)]
        ),
        age_bands=np.concatenate([part.age_bands for part in hospitals]),
        sexes=np.concatenate([part.sexes for part in hospitals]),
        probabilities={
            model: np.concatenate([part.probabilities[model] for part in hospitals])
            for model in MODELS
            if all(model in part.probabilities for part in hospitals)
        },
    )


def gain_of(rows: ScoredRows, *, seed: str, other: str = "this hospital's own") -> Gain:
    """The intervals of every model there is, and of global minus local where there are both.

    Args:
        seed: of the resamples, which all models share; of each hospital another.
        other: what the sentence calls the local models.
    """
    enough = rows.num_patients >= MIN_PATIENTS
    drawn = resample(
        {
            model: auroc_statistic(rows.labels, probabilities)
            for model, probabilities in rows.probabilities.items()
            if enough
        },
        rows.patients,
        num_resamples=NUM_RESAMPLES,
        seed=seed,
    )
    difference = (drawn["global"] - drawn["local"]).interval() if "local" in drawn else None
    is_tuned = "fine_tuned" in rows.probabilities
    tuning = (drawn["fine_tuned"] - drawn["global"]).interval() if is_tuned and enough else None
    return Gain(
        num_patients=rows.num_patients,
        intervals={model: drawn[model].interval() if model in drawn else None for model in MODELS},
        difference=difference,
        sentence=in_words(difference, other=other),
        fine_tuned_difference=tuning,
        fine_tuned_sentence=in_words(tuning, model="The fine-tuned model", other="the global one")
        if is_tuned
        else "",
    )


def _pooled_gain(hospitals: Mapping[str, ScoredRows], *, seed: str) -> Gain:
    """Of all hospitals; a difference of those that have both models."""
    having = {
        model: tuple(name for name, rows in hospitals.items() if model in rows.probabilities)
        for model in MODELS
    }
    gains = {
        names: gain_of(
            _join([hospitals[name] for name in names]), seed=seed, other="the hospitals' own"
        )
        for names in sorted(set(having.values()))
    }
    of_local, of_tuned = gains[having["local"]], gains[having["fine_tuned"]]
    return replace(
        of_local,
        num_patients=gains[having["global"]].num_patients,
        intervals={model: gains[having[model]].intervals[model] for model in MODELS},
        fine_tuned_difference=of_tuned.fine_tuned_difference,
        fine_tuned_sentence=of_tuned.fine_tuned_sentence,
    )


def assess(hospitals: Mapping[str, ScoredRows], classes: tuple[str, ...]) -> Assessment:
    """The global model on the test patients of all hospitals; little is shown of under 10.

    Args:
        hospitals: by name, each with the global model's probabilities.
        classes: the names of the classes, by label.
    """
    rows = _join(list(hospitals.values()))
    probabilities, ranked = rows.probabilities["global"], scored_classes(len(classes))
    enough = rows.num_patients >= MIN_PATIENTS
    ranking = pooled_ranking(
        [
            score_histograms(part.labels, part.probabilities["global"], part.patients)
            for part in hospitals.values()
        ]
    )
    predicted = probabilities.argmax(axis=1)
    people = np.unique(np.stack([rows.patients, rows.labels, predicted]), axis=1)
    counts = confusion_matrix(people[1], people[2], num_classes=len(classes))
    confusion = confusion_matrix(rows.labels, predicted, num_classes=len(classes))
    lines = calibration_lines(rows.labels, probabilities)
    table = suppress(counts)
    return Assessment(
        auroc=ranking.auroc,
        auprc=ranking.auprc,
        lines={
            classes[cls]: line if enough else None for cls, line in zip(ranked, lines, strict=True)
        },
        curves={
            classes[cls]: shown_curve(rows.labels == cls, probabilities[:, cls], rows.patients)
            for cls in ranked
        },
        classes=classes,
        confusion=table,
        # With the margins, it would tell the hidden counts.
        macro_f1=None if _hides_a_cell(table) else macro_f1(confusion),
        subgroups={
            "age": _in_order(rows, rows.age_bands, (*AGE_BANDS, UNKNOWN)),
            "sex": _in_order(rows, rows.sexes, SEXES),
        },
    )


def _hides_a_cell(table: SuppressedTable) -> bool:
    return any(count is None for row in table.cells for count in row)


def _in_order(
    rows: ScoredRows, groups: NDArray[np.str_], names: tuple[str, ...]
) -> dict[str, SubgroupFigures]:
    found = by_subgroup(rows.labels, rows.probabilities["global"], rows.patients, groups)
    return {name: found[name] for name in names if name in found}


def shown_curve(
    is_positive: NDArray[np.bool_],
    probabilities: Probabilities,
    patients: NDArray[np.int32],
) -> list[ShownBin]:
    """The reliability curve without the bins that would tell of under 10 outcomes.

    All arrays (num_rows,). Of a bin of 100 with 3 %, everybody can work out the 3.
    """
    curve = reliability_curve(is_positive, probabilities, patients)
    if not curve:
        return []
    totals = np.array([each.num_rows for each in curve], np.int64)
    positives = np.rint([each.observed * each.num_rows for each in curve]).astype(np.int64)
    table = suppress(np.stack([totals - positives, positives], axis=1))
    return [
        ShownBin(
            predicted=each.predicted,
            observed=None if None in (*cells, total) else each.observed,
            num_admissions=total,
        )
        for each, cells, total in zip(curve, table.cells, table.row_totals, strict=True)
    ]
