"""Figures by hospital, age band and sex, and which cells of a table have to be hidden."""

from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from federated.datasets import ClientDataset
from federated.features import FeatureSchema
from federated.metrics import UNDEFINED, Labels, Metrics, Patients, Probabilities, measure

MIN_PATIENTS = 10  # a count below is not shown, nor is a figure of fewer
AGE_BANDS = {"under 18": 0, "18–39": 18, "40–64": 40, "65–79": 65, "80 and over": 80}
UNKNOWN = "unknown"

Counts = NDArray[np.int64]
Hidden = NDArray[np.bool_]


def age_bands(ages: NDArray[np.floating]) -> NDArray[np.str_]:
    """The band of each age (num_rows,) in years; "unknown" for NaN."""
    names = np.array([*AGE_BANDS, UNKNOWN])
    band = np.searchsorted(list(AGE_BANDS.values()), ages, side="right") - 1
    found: NDArray[np.str_] = names[np.where(np.isnan(ages), len(AGE_BANDS), band)]
    return found


def ages_of(
    dataset: ClientDataset, rows: NDArray[np.int64], schema: FeatureSchema
) -> NDArray[np.float32]:
    """Years (len(rows),), NaN where not known."""
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


@dataclass(frozen=True)
class SuppressedTable:
    """Counts to be shown, None where hidden: nested as the table given, and its margins."""

    cells: list[Any]
    row_totals: list[int | None]  # empty of a one-way table
    column_totals: list[int | None]  # empty of a one-way table
    total: int | None


def suppress(table: Counts) -> SuppressedTable:
    """Hide every count of a one-way (n,) or two-way (rows, columns) table that is too small.

    Hidden are cells and margins under 10, zero included; then, as long as what is shown gives a
    hidden count away, the next smallest count beside it. It is given away where it is the only
    one hidden in its row or column, where the hidden ones of a row or column add up to less than
    10 (their sum is a count of a small group), or where all margins together determine it.

    Not protected: that a hidden count lies in a range narrower than "under 10", which follows
    from the margins and from no count being negative; and what other tables of the same patients,
    or of the day before, say.

    Args:
        table: counts of patients, not negative. Margins are the sums of its cells.
    Source: Hundepool et al. 2012, "Statistical Disclosure Control", sections 4.2 and 4.4 (primary
        and secondary suppression; the linear relations that an attacker uses).
    """
    two_way = np.atleast_2d(table)
    full = _with_margins(two_way) if table.ndim == 2 else _with_row_margin(two_way)
    hidden = full < MIN_PATIENTS
    while (next_cell := _next_to_hide(full, hidden)) is not None:
        hidden[next_cell] = True
    shown: list[list[int | None]] = [
        [None if is_hidden else int(count) for count, is_hidden in zip(*row, strict=True)]
        for row in zip(full, hidden, strict=True)
    ]
    if table.ndim == 1:
        return SuppressedTable(shown[0][:-1], [], [], shown[0][-1])
    return SuppressedTable(
        cells=[row[:-1] for row in shown[:-1]],
        row_totals=[row[-1] for row in shown[:-1]],
        column_totals=shown[-1][:-1],
        total=shown[-1][-1],
    )


def _with_row_margin(table: Counts) -> Counts:
    return np.append(table, table.sum(axis=1, keepdims=True), axis=1)


def _with_margins(table: Counts) -> Counts:
    return _with_row_margin(_with_row_margin(table).T).T


def _lines(shape: tuple[int, ...]) -> list[NDArray[np.int64]]:
    """The flat positions of each row and column that adds up; the last is the sum of the others."""
    positions = np.arange(shape[0] * shape[1]).reshape(shape)
    rows = list(positions)
    return rows if shape[0] == 1 else rows + list(positions.T)


def _next_to_hide(full: Counts, hidden: Hidden) -> tuple[int, int] | None:
    """The smallest shown count of a line that gives a hidden one away; a margin only at last."""
    counts, is_hidden = full.ravel(), hidden.ravel()
    lines = [line for line in _lines(full.shape) if not is_hidden[line].all()]
    revealing = [line for line in lines if _reveals(counts[line], is_hidden[line])]
    if not revealing:  # no single line does: perhaps several together
        determined = _determined(full.shape, is_hidden)
        revealing = [line for line in lines if determined[line].any()]
    if not revealing:
        return None
    *inner, margin = revealing[0].tolist()
    shown = [position for position in inner if not is_hidden[position]] or [margin]
    row, column = divmod(min(shown, key=lambda position: int(counts[position])), full.shape[1])
    return row, column


def _reveals(counts: Counts, is_hidden: Hidden) -> bool:
    """Whether a line, its margin last, gives one hidden count or a small sum of some away."""
    hidden_sum = counts[:-1][is_hidden[:-1]].sum()
    small_sum = is_hidden.any() and not is_hidden[-1] and hidden_sum < MIN_PATIENTS
    return bool(small_sum or is_hidden.sum() == 1)


def _determined(shape: tuple[int, ...], is_hidden: Hidden) -> Hidden:
    """Which hidden counts follow from those shown: no solution of the sums lets them vary."""
    found = np.zeros(len(is_hidden), bool)
    unknown = np.flatnonzero(is_hidden)
    if not len(unknown):
        return found
    sums = np.zeros((len(_lines(shape)), len(is_hidden)))
    for equation, line in zip(sums, _lines(shape), strict=True):
        equation[line] = 1
        equation[line[-1]] = -1
    _, singular, directions = np.linalg.svd(sums[:, unknown])
    rank = int((singular > 1e-9).sum())
    free = np.abs(directions[rank:]).max(axis=0, initial=0) > 1e-9
    found[unknown] = ~free
    return found
