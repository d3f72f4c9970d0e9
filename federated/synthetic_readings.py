"""Readings of nodes that are no people's: wearables, air monitors, clinics, and nine cities.

The inputs of a node are drawn independently of each other, from distributions set by hand to
resemble what such instruments report; the outcome follows from a rule of some of them. So it is
known how often any model at all can be right, also where the outcome is noisy and values are missing.
"""

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import cache
from typing import TypeAlias

import numpy as np
from numpy.typing import NDArray

from federated.errors import FederatedError
from federated.readings import ReadingRecord
from federated.seeds import rng_for

Floats: TypeAlias = NDArray[np.float64]
Draw: TypeAlias = Callable[[np.random.Generator, int], Floats]

NUM_REFERENCE = 20_000  # draws that stand for a distribution: ± 0.004 on a probability


class InvalidRecipeError(FederatedError):
    """Synthetic readings that cannot be made."""


@dataclass(frozen=True)
class Generated:
    """A node's readings.

    Attributes:
        best_accuracy: what the best conceivable model, one that knows the rule, the noise and the
            distributions, is expected to reach on these readings.
    """

    records: list[ReadingRecord]
    best_accuracy: float


@dataclass(frozen=True)
class Measured:
    """A distribution, cut to what the instrument shows and rounded as it rounds."""

    draw: Draw
    low: float = 0.0
    high: float = 1.0
    decimals: int = 0
    is_flag: bool = False

    def take(self, rng: np.random.Generator, num: int) -> Floats:
        return self.as_shown(self.draw(rng, num))

    def as_shown(self, values: Floats) -> Floats:
        return np.asarray(np.clip(values, self.low, self.high).round(self.decimals), np.float64)


@dataclass(frozen=True)
class _Rule:
    """High risk where the sum of slope × (value − origin) is above 0."""

    terms: Mapping[str, tuple[float, float]]  # slope, origin

    def parts(self, values: Mapping[str, Floats]) -> dict[str, Floats]:
        return {name: slope * (values[name] - at) for name, (slope, at) in self.terms.items()}


@dataclass(frozen=True)
class Node:
    letter: str  # of its subject_ids
    inputs: Mapping[str, Measured]
    rule: _Rule


def _normal(mean: float, std: float) -> Draw:
    return lambda rng, num: rng.normal(mean, std, num)


def _lognormal(median: float, spread: float) -> Draw:
    return lambda rng, num: rng.lognormal(math.log(median), spread, num)


def _gamma(shape: float, scale: float) -> Draw:
    return lambda rng, num: rng.gamma(shape, scale, num)


def _below_100(shape: float, scale: float) -> Draw:
    return lambda rng, num: 100 - rng.gamma(shape, scale, num)


def _flag(share: float) -> Measured:
    return Measured(lambda rng, num: (rng.random(num) < share).astype(np.float64), is_flag=True)


def _adult_age(rng: np.random.Generator, num: int) -> Floats:
    return rng.integers(18, 90, num).astype(np.float64)


_WEARABLES = Node(
    "w",
    {
        # By day, awake: NHANES' resting pulse has mean 73 and standard deviation 12.
        "heart_rate": Measured(_normal(76, 12), 40, 180),
        # Oximeters at the wrist: mostly 95 to 99 %, with a tail below (mean 97, skewed).
        "spo2": Measured(_below_100(3, 1), 80, 100),
        # Fitbit tracker data of 2016: mean 7,600 steps a day, standard deviation 5,000, skewed.
        "steps": Measured(_gamma(2.2, 3400), 0, 40_000),
        # The same: mean 7.0 hours.
        "sleep_hours": Measured(_normal(7, 1.3), 2, 12, decimals=1),
        "age": Measured(_adult_age, 18, 89),
        "smoker": _flag(0.25),  # about the share of adults in South Asia
        "chronic": _flag(0.2),
        # Polluted cities, as in South Asia: three readings in four are of high risk. In the
        # United States' counties the median is 42.
        "aqi": Measured(_normal(110, 40), 5, 400),
    },
    _Rule(
        {
            "aqi": (0.02, 80),
            "smoker": (0.5, 0),
            "chronic": (0.7, 0),
            "spo2": (-0.03, 90),
            "sleep_hours": (-0.1, 7),
        }
    ),
)
# Concentrations of polluted city air are close to lognormal; medians and spreads as hourly values
# of a large city lie, well above the WHO's guidelines of 15, 45 and 25 µg/m³ a day.
_ENVIRONMENT = Node(
    "e",
    {
        "pm25": Measured(_lognormal(38, 0.6), 1, 400, decimals=1),
        "pm10": Measured(_lognormal(75, 0.5), 2, 600, decimals=1),
        "no2": Measured(_lognormal(27, 0.5), 1, 200, decimals=1),
        "o3": Measured(_normal(60, 20), 0, 200, decimals=1),
        "temperature": Measured(_normal(24, 8), -20, 50, decimals=1),
        "humidity": Measured(_normal(55, 18), 5, 100),
        "wind_speed": Measured(_gamma(2, 1.6), 0, 30, decimals=1),
    },
    _Rule({"pm25": (0.02, 50), "pm10": (0.01, 80), "no2": (0.05, 30)}),
)
# Who comes to a clinic: a faster heart, less oxygen and fewer steps than who wears a watch.
_CLINIC = Node(
    "c",
    {
        "heart_rate": Measured(_normal(82, 14), 40, 180),
        "spo2": Measured(_below_100(3, 1.2), 80, 100),
        "steps": Measured(_gamma(2.2, 2600), 0, 40_000),
        "age": Measured(_adult_age, 18, 89),
        "cough": _flag(0.25),
        "breathless": _flag(0.15),
    },
    _Rule(
        {
            "heart_rate": (0.04, 80),
            "spo2": (-0.05, 95),
            "cough": (0.8, 0),
            "breathless": (1.0, 0),
        }
    ),
)
NODES = {"wearables": _WEARABLES, "environment": _ENVIRONMENT, "clinic": _CLINIC}
KINDS = tuple(NODES)


def generate(
    kind: str, *, num_rows: int, seed: int, noise: float = 0.0, gaps: float = 0.0
) -> Generated:
    """Draw a node's readings, each of a subject of its own.

    The same values are drawn whatever the noise and the gaps; at least one value of each reading
    is left.

    Args:
        kind: one of KINDS.
        noise: standard deviation of the normal noise that is added to the rule's sum before it is
            held against 0.
        gaps: probability that a value is missing, below 1.
    Raises:
        InvalidRecipeError: an argument at fault, by name.
    """
    node = _checked_node(kind, num_rows, noise, gaps)
    rng = rng_for("synthetic-readings", kind, seed)
    values = {name: measured.take(rng, num_rows) for name, measured in node.inputs.items()}
    # Rounded, so that sums of 0 are 0: in floating point they come out a hair above or below.
    score = np.round(sum(node.rule.parts(values).values(), np.zeros(num_rows)), 9)
    noises = rng_for("synthetic-readings", kind, seed, "noise").normal(0, 1, num_rows)
    outcomes = score + noise * noises > 0
    gaps_rng = rng_for("synthetic-readings", kind, seed, "gaps")
    is_missing = _draw_gaps(gaps_rng, (num_rows, len(values)), gaps)
    records = [
        ReadingRecord(
            f"{node.letter}-{row:06d}",
            {
                name: float(column[row])
                for (name, column), is_gap in zip(values.items(), is_missing[row], strict=True)
                if not is_gap
            },
            int(outcomes[row]),
        )
        for row in range(num_rows)
    ]
    missing = dict(zip(values, is_missing.T, strict=True))
    return Generated(records, _best_accuracy(kind, values, missing, noise))


def check_recipe(*, num_rows: int, noise: float, gaps: float) -> None:
    """Raises InvalidRecipeError, as `generate` would."""
    for kind in KINDS:
        _checked_node(kind, num_rows, noise, gaps)


def _checked_node(kind: str, num_rows: int, noise: float, gaps: float) -> Node:
    if kind not in NODES:
        raise InvalidRecipeError(f"no node is called {kind!r}; there are {', '.join(KINDS)}")
    if num_rows < 1:
        raise InvalidRecipeError(f"a node has at least one row, not {num_rows}")
    if not 0 <= noise < math.inf:
        raise InvalidRecipeError(f"noise is a standard deviation from 0, not {noise:g}")
    if not 0 <= gaps < 1:
        raise InvalidRecipeError(f"gaps is a probability from 0 and below 1, not {gaps:g}")
    return NODES[kind]


def _draw_gaps(rng: np.random.Generator, shape: tuple[int, int], gaps: float) -> NDArray[np.bool_]:
    """(rows, inputs); a row without any value is drawn again."""
    is_missing = rng.random(shape) < gaps
    while (empty := np.flatnonzero(is_missing.all(axis=1))).size:
        is_missing[empty] = rng.random((empty.size, shape[1])) < gaps
    return is_missing


def _best_accuracy(
    kind: str, values: Mapping[str, Floats], missing: Mapping[str, NDArray[np.bool_]], noise: float
) -> float:
    """Mean over the readings of max(p, 1 − p), p being how probable high risk is given what is seen.

    Where nothing that counts is missing, p is exact: Φ(score / noise), or 0 or 1 without noise.
    Elsewhere the missing values are drawn anew from the node's distributions, which is exact up to
    the number of draws, since inputs are independent of each other and of the gaps.
    """
    parts = NODES[kind].rule.parts(values)
    names = list(parts)
    gap_rows = np.stack([missing[name] for name in names], axis=1)  # (rows, terms)
    seen = np.round(sum((np.where(missing[n], 0, parts[n]) for n in names), np.zeros(1)), 9)
    patterns, pattern_of = np.unique(gap_rows, axis=0, return_inverse=True)
    certainty = np.ones(len(gap_rows))
    for index, pattern in enumerate(patterns):
        rows = np.flatnonzero(pattern_of.ravel() == index)
        absent = [name for name, is_gap in zip(names, pattern, strict=True) if is_gap]
        if absent:
            unseen = np.sort(_unseen(kind, tuple(absent), noise))
            p_low = np.searchsorted(unseen, -seen[rows], side="right") / len(unseen)
            certainty[rows] = np.maximum(p_low, 1 - p_low)
        elif noise:
            certainty[rows] = [_normal_cdf(abs(score) / noise) for score in seen[rows]]
    return float(certainty.mean())


def _unseen(kind: str, absent: Sequence[str], noise: float) -> Floats:
    """Draws of what the absent inputs and the noise add to the rule's sum."""
    parts = NODES[kind].rule.parts(reference(kind))
    total = noise * rng_for("reference", kind, "noise").normal(0, 1, NUM_REFERENCE)
    total = total + sum((parts[name] for name in absent), np.zeros(1))
    return np.round(total, 9)


@cache
def reference(kind: str) -> dict[str, Floats]:
    """A large sample of a node, which stands for its distributions."""
    return {
        name: measured.take(rng_for("reference", kind, name), NUM_REFERENCE)
        for name, measured in NODES[kind].inputs.items()
    }


def _normal_cdf(z: float) -> float:
    return (1 + math.erf(z / math.sqrt(2))) / 2
