"""Figures by age band and sex, of the groups of which figures may be told."""

from dataclasses import dataclass, field
from typing import Any

import numpy as np
from numpy.typing import NDArray

from federated.datasets import ClientDataset
from federated.features import FeatureSchema
from federated.figures import figure_statistics
from federated.intervals import Interval, resample
from federated.metrics import UNDEFINED, Labels, Metrics, Patients, Probabilities, measure
from federated.suppression import MIN_PATIENTS, fewest_with_an_outcome, suppress

AGE_BANDS = {"under 18": 0, "18–39": 18, "40–64": 40, "65–79": 65, "80 and over": 80}
UNKNOWN = "unknown"
NUM_RESAMPLES = 500


def age_bands(ages: NDArray[np.floating]) -> NDArray[np.str_]:
    """The band of each age (num_rows,) in years; "unknown" for NaN."""
    names = np.array([*AGE_BANDS, UNKNOWN])
    band = np.searchsorted(list(AGE_BANDS.values()), ages, side="right") - 1
    found: NDArray[np.str_] = names[np.where(np.isnan(ages), len(AGE_BANDS), band)]
    return found


def ages_of(
    dataset: ClientDataset, rows: NDArray[np.int64], schema: FeatureSchema
) -> NDArray[np.float32]:
    """Years (len(rows),), NaN where not known, or where age is no input."""
    if "age" not in schema.numeric_inputs:
        return np.full(len(rows), np.nan, np.float32)
    ages: NDArray[np.float32] = dataset.numeric[rows, schema.numeric_inputs.index("age")]
    return ages


def sexes_of(
    dataset: ClientDataset, rows: NDArray[np.int64], schema: FeatureSchema
) -> NDArray[np.str_]:
    """ "female", "male" or "unknown" (len(rows),)."""
    indices, starts = dataset.sparse_rows(rows)
    row_of = np.searchsorted(starts, np.arange(len(indices)), side="right") - 1
    sexes = np.full(len(rows), UNKNOWN, dtype="<U7")
    for sex in ("female", "male"):
        if sex in schema.sparse_index:
            sexes[row_of[indices == schema.sparse_index[sex]]] = sex
    return sexes


@dataclass(frozen=True)
class SubgroupFigures:
    """Figures of a group; None and undefined where they have to be hidden.

    Attributes:
        intervals: by figure; none of a hidden one.
    """

    num_patients: int | None
    metrics: Metrics
    intervals: dict[str, Interval | None] = field(default_factory=dict)

    def to_json(self) -> dict[str, Any]:
        figures = self.metrics.to_json()
        found = {figure: self.intervals.get(figure) for figure in figures}
        return {
            "num_patients": self.num_patients,
            **figures,
            "intervals": {name: each.to_json() if each else None for name, each in found.items()},
        }


def by_subgroup(
    labels: Labels,
    probabilities: Probabilities,
    patients: Patients,
    groups: NDArray[np.str_],
    *,
    num_resamples: int = NUM_RESAMPLES,
    seed: int | str,
) -> dict[str, SubgroupFigures]:
    """Figures of each group of rows of one kind (age band, sex), by name, with 95 % intervals.

    A group whose count is hidden, as too small or lest it gives another's away, has no figures
    either: of a mean over everybody, and of all groups but one, that one's could be worked out.
    Nor has one in which under 10 patients have one of the outcomes (`fewest_with_an_outcome`);
    and as long as that holds of all groups without figures together, the next smallest is one.

    Not protected: what figures by age and figures by sex say together.

    Args:
        patients: (num_rows,); one with admissions in two groups counts in both.
        groups: the name of each row's (num_rows,).
        seed: of the resampled patients.
    """
    names: list[str] = np.unique(groups).tolist()
    sizes = {name: len(np.unique(patients[groups == name])) for name in names}
    counts = dict(zip(names, suppress(np.array(list(sizes.values()), np.int64)).cells, strict=True))

    def fewest(of: list[str]) -> int:
        rows = np.isin(groups, of)
        return fewest_with_an_outcome(labels[rows], patients[rows], range(probabilities.shape[1]))

    told = [name for name in names if counts[name] is not None and fewest([name]) >= MIN_PATIENTS]
    told.sort(key=lambda name: (sizes[name], name))
    while told and len(told) < len(names):
        if fewest([name for name in names if name not in told]) >= MIN_PATIENTS:
            break
        del told[0]

    def figures(name: str) -> SubgroupFigures:
        if name not in told:
            return SubgroupFigures(counts[name], UNDEFINED)
        rows = groups == name
        drawn = resample(
            figure_statistics(labels[rows], probabilities[rows]),
            patients[rows],
            num_resamples=num_resamples,
            seed=f"{seed}:{name}",
        )
        return SubgroupFigures(
            counts[name],
            measure(labels[rows], probabilities[rows]),
            {figure: found.interval() for figure, found in drawn.items()},
        )

    return {name: figures(name) for name in names}
