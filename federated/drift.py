"""Whether a node's newest readings are still like those that a model was trained on.

What a node was trained on stays known as a histogram and moments per input, never as rows. The
node holds its newest readings against that, and gives away two figures per input: the population
stability index, which sees any change of shape, and how far the mean has moved.

Both move by chance, the more so the fewer readings. So each alerts above a limit that is the
larger of two: what is worth acting upon, and what chance reaches once in 20 checks of a node, over
all inputs and figures together (Bonferroni). That holds for readings that are independent of each
other. Where a few people give many readings each, other people are a change, and mostly an alert.
`make drift-power` measures both.
"""

import math
from collections.abc import Mapping
from dataclasses import dataclass
from statistics import NormalDist
from typing import Any

import numpy as np
from numpy.typing import NDArray

from federated.histograms import merge_small_bins
from federated.readings import INPUT_NAMES, INPUTS, ReadingInput, input_named

MIN_COMPARED = 100  # known values on either side; of fewer only the share known is compared

# What is worth acting upon. PSI: below 0.1 "no significant change" (Siddiqi 2006, "Credit Risk
# Scorecards", chapter 9). A mean that moved by 0.2 standard deviations is a "small" effect (Cohen
# 1988, section 2.2). A share known that moved by ten in a hundred is ours.
PSI_WORTH = 0.1
SHIFT_WORTH = 0.2
SHARE_WORTH = 0.1

FALSE_ALARMS = 0.05  # of checks of a node without drift, at most
NUM_FIGURES = 3  # of an input: index, mean, share known
_PER_FIGURE = FALSE_ALARMS / (NUM_FIGURES * len(INPUTS))
_ABOVE = NormalDist().inv_cdf(1 - _PER_FIGURE)  # 3.1 standard deviations
_EITHER_WAY = NormalDist().inv_cdf(1 - _PER_FIGURE / 2)  # 3.3

NUM_BINS = 20
# Bins are equally probable for a normal half as wide again as an input's rough scale: a node that
# lies well to one side of the others then still fills several.
WIDENING = 1.5
MIN_EXPECTED = 10.0  # in a compared bin: below, a chi-square is no description of chance

Values = NDArray[np.floating]
Bins = NDArray[np.int64]


@dataclass(frozen=True)
class Drift:
    """How an input's newest readings differ from those trained on.

    Attributes:
        num_readings: the newest in which it is known.
        psi: population stability index; None where too few are known on either side.
        shift: the newest mean less that trained on, in standard deviations of the latter; None
            as above, or where the value never varied.
        share_known: the newest share of readings in which it is known, less that trained on.
        psi_limit, shift_limit, share_limit: above which (either way) each is an alert.
    """

    num_readings: int
    psi: float | None
    shift: float | None
    share_known: float
    psi_limit: float
    shift_limit: float
    share_limit: float

    @property
    def alerts(self) -> list[str]:
        """Which of the figures are beyond their limit."""
        pairs = {
            "psi": (self.psi, self.psi_limit),
            "shift": (self.shift, self.shift_limit),
            "share_known": (self.share_known, self.share_limit),
        }
        return [
            name
            for name, (value, limit) in pairs.items()
            if value is not None and abs(value) > limit
        ]

    @property
    def is_alert(self) -> bool:
        return bool(self.alerts)


def distributions(
    values: Values, subjects: NDArray[np.integer] | None = None
) -> dict[str, dict[str, Any]]:
    """What a node releases of its readings: `distribution` of each input it has measured.

    Args:
        values: (num_rows, at least len(INPUT_NAMES)), the first columns in that order, as
            `readings.build_readings` has them; NaN where not measured.
        subjects: see `distribution`.
    """
    return {
        name: distribution(name, values[:, column], subjects)
        for column, name in enumerate(INPUT_NAMES)
        if not np.isnan(values[:, column]).all()
    }


def distribution(
    name: str, values: Values, subjects: NDArray[np.integer] | None = None
) -> dict[str, Any]:
    """What a node releases of one input, for JSON.

    Counts of the input's fixed bins, neighbours merged until each holds 10 different subjects; of
    fewer than 10, no count of a bin and no moment. How many rows there are, and in how many the
    input is known, is told as it is: round 0 tells the director that too.

    Args:
        name: of `readings.INPUTS`.
        values: (num_rows,), NaN where not measured.
        subjects: (num_rows,) of whom each is, where several rows may be of one person; else each
            row counts as its own, as readings of air do.
    """
    known = ~np.isnan(values)
    found = values[known].astype(np.float64)
    people = np.arange(len(found)) if subjects is None else subjects[known]
    bins = _bins_of(input_named(name), found)
    starts = merge_small_bins(bins, people, num_bins=NUM_BINS)
    released: dict[str, Any] = {"num_rows": len(values), "num_readings": len(found)}
    if not len(starts):
        return released | {"starts": [], "counts": [], "mean": None, "squared_deviations": None}
    return released | {
        "starts": starts.tolist(),
        "counts": _counts(bins, starts).tolist(),
        "mean": float(found.mean()),
        "squared_deviations": float(((found - found.mean()) ** 2).sum()),
    }


def compare_all(reference: Mapping[str, Mapping[str, Any]], values: Values) -> dict[str, Drift]:
    """`compare` every input that the model was trained on at a node, or that is measured now.

    Args:
        reference: by input, as `distributions` gives it.
        values: (num_rows, at least len(INPUT_NAMES)), as `distributions` takes it.
    """
    num_rows = max((each["num_rows"] for each in reference.values()), default=0)
    nothing: dict[str, Any] = {"num_rows": num_rows, "num_readings": 0, "starts": [], "counts": []}
    return {
        name: compare(name, reference.get(name, nothing), values[:, column])
        for column, name in enumerate(INPUT_NAMES)
        if name in reference or not np.isnan(values[:, column]).all()
    }


def compare(name: str, reference: Mapping[str, Any], values: Values) -> Drift:
    """Hold a node's newest values of one input against what was released of it before.

    The values are counted in the bins of the reference, so that none of theirs leaves the node.

    Args:
        name: of `readings.INPUTS`.
        reference: as `distribution` gives it.
        values: (num_rows,), the newest, NaN where not measured.
    """
    found = values[~np.isnan(values)].astype(np.float64)
    num_before, num_now = int(reference["num_readings"]), len(found)
    psi = shift = None
    psi_limit, shift_limit = PSI_WORTH, SHIFT_WORTH
    if min(num_before, num_now) >= MIN_COMPARED and reference["counts"]:
        spread = 1 / num_before + 1 / num_now
        before, now = _common_counts(input_named(name), reference, found)
        psi = population_stability(before, now)
        psi_limit = max(PSI_WORTH, spread * _chi_square_limit(len(before) - 1))
        shift_limit = max(SHIFT_WORTH, _EITHER_WAY * math.sqrt(spread))
        deviation = math.sqrt(reference["squared_deviations"] / num_before)
        if deviation > 0:
            shift = float(found.mean() - reference["mean"]) / deviation
    share, share_limit = _share_known(reference, num_now, len(values))
    return Drift(num_now, psi, shift, share, psi_limit, shift_limit, share_limit)


def population_stability(before: NDArray[np.floating], now: NDArray[np.floating]) -> float:
    """The index of two histograms (num_bins,) over the same bins: 0 where their shares are alike.

    Half a reading is added to each bin (Krichevsky & Trofimov 1981), so that an empty one is a
    small share and not an infinite index. Without drift the index is near (1/n + 1/m) times a
    chi-square of num_bins - 1 degrees of freedom, for n and m readings.

    Source: Siddiqi 2006, chapter 9; Yurdakul 2018, "Statistical Properties of Population Stability
        Index" (dissertation, Western Michigan University), chapter 3, for the distribution.
    """
    expected = (before + 0.5) / (before + 0.5).sum()
    actual = (now + 0.5) / (now + 0.5).sum()
    return float(((actual - expected) * np.log(actual / expected)).sum())


def bin_edges(each: ReadingInput) -> NDArray[np.float64]:
    """Between the fixed bins of an input (num_bins - 1,), rising; public, the same everywhere."""
    if each.is_flag:
        return np.array([0.5])
    mean, deviation = each.scale
    normal = NormalDist(mean, WIDENING * deviation)
    edges = [normal.inv_cdf(place / NUM_BINS) for place in range(1, NUM_BINS)]
    return np.array([edge for edge in edges if each.low < edge < each.high])


def _bins_of(each: ReadingInput, values: NDArray[np.float64]) -> Bins:
    return np.searchsorted(bin_edges(each), values, side="right").astype(np.int64)


def _counts(bins: Bins, starts: Bins) -> Bins:
    """Of fixed bins (num_rows,), how many lie in each of the merged ones."""
    merged = np.searchsorted(starts, bins, side="right") - 1
    return np.bincount(merged, minlength=len(starts))


def _common_counts(
    each: ReadingInput, reference: Mapping[str, Any], values: NDArray[np.float64]
) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Both in the bins of the reference, merged on until each expects enough of the newest.

    Where to merge is decided by the reference alone: a decision by the newest would hide a bin
    that they have left.
    """
    counts = np.array(reference["counts"], np.float64)
    expected = counts * len(values) / counts.sum()
    first = []
    running = 0.0
    for place in range(len(counts) - 1, -1, -1):  # from the top, as `merge_small_bins`
        running += expected[place]
        if running >= MIN_EXPECTED:
            first.append(place)
            running = 0.0
    first[-1] = 0  # what is left over joins the lowest
    kept = np.array(first[::-1])
    now = _counts(_bins_of(each, values), np.array(reference["starts"])[kept])
    return np.add.reduceat(counts, kept), now.astype(np.float64)


def _share_known(
    reference: Mapping[str, Any], num_now: int, num_rows_now: int
) -> tuple[float, float]:
    """How much the share of known values has changed, and above what that is an alert."""
    num_rows = int(reference["num_rows"])
    if not num_rows or not num_rows_now:
        return 0.0, SHARE_WORTH
    change = num_now / num_rows_now - reference["num_readings"] / num_rows
    pooled = (num_now + reference["num_readings"]) / (num_rows_now + num_rows)
    by_chance = math.sqrt(pooled * (1 - pooled) * (1 / num_rows_now + 1 / num_rows))
    return change, max(SHARE_WORTH, _EITHER_WAY * by_chance)


def _chi_square_limit(degrees: int) -> float:
    """What a chi-square exceeds with the probability of one figure's false alarm.

    Source: Wilson & Hilferty 1931; within 2 % from three degrees on, 4 % too high at one.
    """
    if degrees < 1:
        return 0.0
    part = 2 / (9 * degrees)
    return float(degrees * (1 - part + _ABOVE * math.sqrt(part)) ** 3)
