"""Figures by hospital, age band and sex."""

from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from federated.datasets import ClientDataset
from federated.features import FeatureSchema
from federated.metrics import UNDEFINED, Labels, Metrics, Patients, Probabilities, measure
from federated.suppression import suppress

AGE_BANDS = {"under 18": 0, "18–39": 18, "40–64": 40, "65–79": 65, "80 and over": 80}
UNKNOWN = "unknown"


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
    """Figures of a group; None and undefined where they have to be hidden."""

    num_patients: int | None
    metrics: Metrics

    def to_json(self) -> dict[str, Any]:
        return {"num_patients": self.num_patients, **self.metrics.to_json()}


def by_subgroup(
    labels: Labels,
    probabilities: Probabilities,
    patients: Patients,
    groups: NDArray[np.str_],
) -> dict[str, SubgroupFigures]:
    """Figures of each group of rows (hospital, age band, sex), by name.

    A group whose count is hidden, as too small or lest it gives another's away, has no figures
    either: of a mean over everybody, and of all groups but one, that one's could be worked out.

    Args:
        patients: (num_rows,); one with admissions in two groups counts in both.
        groups: the name of each row's (num_rows,).
    """
    names: list[str] = np.unique(groups).tolist()
    counts = np.array([len(np.unique(patients[groups == name])) for name in names], np.int64)
    shown = suppress(counts).cells
    found = {}
    for name, count in zip(names, shown, strict=True):
        rows = groups == name
        metrics = UNDEFINED if count is None else measure(labels[rows], probabilities[rows])
        found[name] = SubgroupFigures(count, metrics)
    return found
