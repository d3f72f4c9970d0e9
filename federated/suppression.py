"""What has to be hidden so that nothing tells of a few people: cells of a table, exact figures."""

from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from federated.metrics import Labels, Patients
from federated.small_counts import MIN_PATIENTS as MIN_PATIENTS

Counts = NDArray[np.int64]
Hidden = NDArray[np.bool_]


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


def fewest_with_an_outcome(labels: Labels, patients: Patients, classes: Iterable[int]) -> int:
    """How many different patients the rarest of some classes occurs in.

    Exact figures tell that number where it is small: an accuracy of 98 in 99 beside an AUROC of
    48 in 49 can only be one death. So those of a hospital or of a subgroup are told where every
    class of the target occurs in 10 patients or more; one that does not occur at all hides them
    too, since they would say "none".

    Args:
        labels, patients: (num_rows,); a patient with several classes counts in each.
    """
    return min(len(np.unique(patients[labels == cls])) for cls in classes)


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
