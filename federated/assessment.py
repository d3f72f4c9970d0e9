"""The global model on test patients, as it may be shown: of all together, and hospital by hospital.

Calibration with intervals, reliability curves, confusion matrices and macro-F1, figures by age and
sex; and of every model AUROC and AUPRC from the score histograms that hospitals would release.
"""

from collections.abc import Iterable, Mapping
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from federated.calibration import (
    CalibrationLine,
    calibration_line,
    reliability_curve,
    resampled_line,
)
from federated.classification import confusion_matrix, macro_f1_statistic
from federated.histograms import PooledFigure, PooledRanking, pooled_ranking, score_histograms
from federated.intervals import Interval, bootstrap
from federated.metrics import scored_classes
from federated.scored_rows import Probabilities, ScoredRows, join, told_together
from federated.subgroups import AGE_BANDS, UNKNOWN, SubgroupFigures, by_subgroup
from federated.suppression import MIN_PATIENTS, Counts, SuppressedTable, suppress

SEXES = ("female", "male", UNKNOWN)
NUM_SLOPE_RESAMPLES = 200  # a slope is fitted to each
NUM_HISTOGRAM_RESAMPLES = 200  # each of them a histogram that every hospital would send
NUM_F1_RESAMPLES = 500


@dataclass(frozen=True)
class Calibration:
    """The calibration line of one class; None where it is undefined or not to be told.

    That is of fewer than 10 patients with the class, or without it.
    """

    line: CalibrationLine | None
    slope_interval: Interval | None
    intercept_interval: Interval | None

    def to_json(self) -> dict[str, Any]:
        nothing = dict.fromkeys(("slope", "intercept", "in_the_large"))
        return {
            **(self.line.to_json() if self.line else nothing),
            "slope_interval": _plain(self.slope_interval),
            "intercept_interval": _plain(self.intercept_interval),
        }


def _plain(interval: Interval | None) -> dict[str, float] | None:
    return interval.to_json() if interval else None


@dataclass(frozen=True)
class ShownBin:
    """A bin of a reliability curve; None where one of its outcomes is too rare to be shown."""

    predicted: float
    observed: float | None
    num_admissions: int | None

    def to_json(self) -> dict[str, float | None]:
        return asdict(self)


@dataclass(frozen=True)
class HospitalAssessment:
    """The global model on one hospital's test patients.

    Attributes:
        calibrations: by class; of two classes the second's alone.
        confusion: patients by class (rows) and predicted class (columns), whole or not at all.
        macro_f1: over admissions, with its interval; None where there is no matrix.
    """

    calibrations: dict[str, Calibration]
    confusion: list[list[int]] | None
    macro_f1: Interval | None

    def to_json(self) -> dict[str, Any]:
        return {
            "calibration": _by_class(self.calibrations),
            "confusion": self.confusion,
            **_macro_f1_to_json(self.macro_f1),
        }


def _macro_f1_to_json(found: Interval | None) -> dict[str, Any]:
    return {"macro_f1": found.estimate if found else None, "macro_f1_interval": _plain(found)}


@dataclass(frozen=True)
class Assessment:
    """The global model on the test patients of all hospitals together, and of each.

    Attributes:
        rankings: by model, from the score histograms that hospitals would release.
        calibrations, curves: by class; of two classes the second's alone.
        confusion: patients by class (rows) and predicted class (columns), whole or not at all:
            with accuracy, margins would tell a hidden cell. A patient with admissions in several
            cells counts in each.
        macro_f1: over admissions, with its interval; None where there is no matrix.
        subgroups: by "age" and "sex", then by the group's name.
        hospitals: by name.
    """

    rankings: dict[str, PooledRanking]
    calibrations: dict[str, Calibration]
    curves: dict[str, list[ShownBin]]
    classes: tuple[str, ...]
    confusion: SuppressedTable
    macro_f1: Interval | None
    subgroups: dict[str, dict[str, SubgroupFigures]]
    hospitals: dict[str, HospitalAssessment]

    def to_json(self) -> dict[str, Any]:
        return {
            "from_histograms": {
                "auroc": _binned({model: each.auroc for model, each in self.rankings.items()}),
                "auprc": _binned({model: each.auprc for model, each in self.rankings.items()}),
            },
            "calibration": [
                {**line, "curve": [shown.to_json() for shown in self.curves[line["class"]]]}
                for line in _by_class(self.calibrations)
            ],
            "confusion": {
                "classes": list(self.classes),
                **asdict(self.confusion),
                **_macro_f1_to_json(self.macro_f1),
            },
            "subgroups": {
                kind: [{"name": name, **figures.to_json()} for name, figures in groups.items()]
                for kind, groups in self.subgroups.items()
            },
            "by_hospital": [
                {"name": name, **found.to_json()} for name, found in sorted(self.hospitals.items())
            ],
        }


def _binned(by_model: dict[str, PooledFigure | None]) -> dict[str, Any] | None:
    """The global model's figure, beside it those of all models and its difference to local ones.

    "low" and "high" bound what binning may have cost; "interval" is the sampling error alone.
    """
    found = {model: figure for model, figure in by_model.items() if figure}
    if "global" not in found:
        return None
    plain = {
        model: {
            "value": figure.value,
            "low": figure.low,
            "high": figure.high,
            "interval": _plain(figure.interval()),
        }
        for model, figure in found.items()
    }
    difference = None
    if "local" in found:
        difference = (found["global"].resampled - found["local"].resampled).interval()
    return {**plain["global"], "by_model": plain, "difference": _plain(difference)}


def _by_class(calibrations: dict[str, Calibration]) -> list[dict[str, Any]]:
    return [{"class": name, **found.to_json()} for name, found in calibrations.items()]


def assess(
    hospitals: Mapping[str, ScoredRows], classes: tuple[str, ...], *, seed: str
) -> Assessment:
    """The global model on the test patients of all hospitals; little is shown of under 10.

    Args:
        hospitals: by name, each with the probabilities of the global model, and of others if the
            histograms are to compare them.
        classes: the names of the classes, by label.
        seed: of the resampled patients.
    """
    counted = told_together(hospitals)
    rows = join(list(counted.values()))
    probabilities = rows.probabilities["global"]
    matrix = patient_confusion(rows, len(classes))
    is_whole = bool(matrix.min() >= MIN_PATIENTS)
    return Assessment(
        rankings={} if rows.untold_because else _rankings(counted, rows.probabilities, seed=seed),
        calibrations=calibrations(rows, classes, seed=seed),
        curves={
            classes[cls]: shown_curve(rows.labels == cls, probabilities[:, cls], rows.patients)
            for cls in scored_classes(len(classes))
        },
        classes=classes,
        confusion=suppress(matrix if is_whole else np.zeros_like(matrix)),
        macro_f1=_macro_f1(rows, len(classes), seed=seed) if is_whole else None,
        subgroups={
            "age": _in_order(rows, rows.age_bands, (*AGE_BANDS, UNKNOWN), seed=seed),
            "sex": _in_order(rows, rows.sexes, SEXES, seed=seed),
        },
        hospitals=_each(hospitals, counted, classes, seed=seed),
    )


def _rankings(
    hospitals: Mapping[str, ScoredRows], models: Iterable[str], *, seed: str
) -> dict[str, PooledRanking]:
    """By model; all of them on the same resamples, of each hospital its own."""
    return {
        model: pooled_ranking(
            [
                score_histograms(
                    rows.labels,
                    rows.probabilities[model],
                    rows.patients,
                    num_resamples=NUM_HISTOGRAM_RESAMPLES,
                    seed=f"{seed}:{name}",
                )
                for name, rows in hospitals.items()
            ]
        )
        for model in models
    }


def _each(
    hospitals: Mapping[str, ScoredRows],
    counted: Mapping[str, ScoredRows],
    classes: tuple[str, ...],
    *,
    seed: str,
) -> dict[str, HospitalAssessment]:
    matrices = whole_matrices(
        {name: patient_confusion(rows, len(classes)) for name, rows in counted.items()}
    )
    return {
        name: HospitalAssessment(
            calibrations=calibrations(rows, classes, seed=f"{seed}:{name}"),
            confusion=matrices[name].tolist() if name in matrices else None,
            macro_f1=_macro_f1(rows, len(classes), seed=f"{seed}:{name}")
            if name in matrices
            else None,
        )
        for name, rows in hospitals.items()
    }


def calibrations(
    rows: ScoredRows, classes: tuple[str, ...], *, seed: str
) -> dict[str, Calibration]:
    """The global model's calibration by class; of two classes the second's alone."""
    return {
        classes[cls]: _calibration(rows, cls, seed=seed) for cls in scored_classes(len(classes))
    }


def _calibration(rows: ScoredRows, cls: int, *, seed: str) -> Calibration:
    is_positive = rows.labels == cls
    sides = (rows.patients[is_positive], rows.patients[~is_positive])
    if min(len(np.unique(side)) for side in sides) < MIN_PATIENTS:
        return Calibration(None, None, None)
    probabilities = rows.probabilities["global"][:, cls]
    slope, intercept = resampled_line(
        is_positive,
        probabilities,
        rows.patients,
        num_resamples=NUM_SLOPE_RESAMPLES,
        seed=f"{seed}:calibration",
    )
    return Calibration(
        line=calibration_line(is_positive, probabilities),
        slope_interval=slope.interval(),
        intercept_interval=intercept.interval(),
    )


def patient_confusion(rows: ScoredRows, num_classes: int) -> Counts:
    """Patients by class and the global model's likeliest; one in several cells counts in each."""
    predicted = rows.probabilities["global"].argmax(axis=1)
    people = np.unique(np.stack([rows.patients, rows.labels, predicted]), axis=1)
    return confusion_matrix(people[1], people[2], num_classes=num_classes)


def _macro_f1(rows: ScoredRows, num_classes: int, *, seed: str) -> Interval | None:
    predicted = rows.probabilities["global"].argmax(axis=1)
    return bootstrap(
        macro_f1_statistic(rows.labels, predicted, num_classes=num_classes),
        rows.patients,
        num_resamples=NUM_F1_RESAMPLES,
        seed=f"{seed}:macro-f1",
    )


def whole_matrices(matrices: Mapping[str, Counts]) -> dict[str, Counts]:
    """The hospitals' matrices that may be shown, beside the one that they add up to.

    One with a cell under 10 is not; and as long as the sum of those not shown (that of all less
    those shown) has such a cell, the one with the smallest cell goes with them.
    """
    shown = {name: each for name, each in matrices.items() if each.min() >= MIN_PATIENTS}
    rising = sorted(shown, key=lambda name: (int(shown[name].min()), name))
    for name in rising:
        hidden = [each for other, each in matrices.items() if other not in shown]
        if not hidden or np.sum(hidden, axis=0).min() >= MIN_PATIENTS:
            break
        del shown[name]
    return shown


def _in_order(
    rows: ScoredRows, groups: NDArray[np.str_], names: tuple[str, ...], *, seed: str
) -> dict[str, SubgroupFigures]:
    found = by_subgroup(rows.labels, rows.probabilities["global"], rows.patients, groups, seed=seed)
    return {name: found[name] for name in names if name in found}


def shown_curve(
    is_positive: NDArray[np.bool_],
    probabilities: Probabilities,
    patients: NDArray[np.int32],
) -> list[ShownBin]:
    """The reliability curve without the bins that would tell of under 10 patients' outcomes.

    All arrays (num_rows,). Of a bin of 100 with 3 %, everybody can work out the 3; and 12
    admissions with the outcome may be those of one patient.
    """
    curve = reliability_curve(is_positive, probabilities, patients)
    if not curve:
        return []
    table = suppress(np.array([each.num_patients for each in curve], np.int64))
    return [
        ShownBin(
            predicted=each.predicted,
            observed=None if None in (*cells, total) else each.observed,
            num_admissions=None if total is None else each.num_rows,
        )
        for each, cells, total in zip(curve, table.cells, table.row_totals, strict=True)
    ]
