"""Serving a model of readings, any inputs present: many readings at once, or one explained.

NumPy only, on a plain matrix of values with NaN for what was not measured. The result is that of
`prediction.predict_examples` on `readings.encode_reading`, which a test holds it to, but for gaps.
"""

import math
from collections.abc import Iterable, Mapping
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from federated.params import Params
from federated.prediction import Contribution, ranked_contributions
from federated.readings import CROSSED, GROUPS, INPUT_NAMES
from federated.scaling import FeatureScaling

Values = NDArray[np.float64]  # (num_rows, num_inputs), NaN where not measured
Column = NDArray[np.float64]  # (num_rows,)

_NUM_INPUTS = len(INPUT_NAMES)
_PLACE = {name: place for place, name in enumerate(INPUT_NAMES)}
_GROUP_NAMES = tuple(GROUPS)
# (num_inputs, num_groups): 1 where the input belongs to the group
_MEMBERS = np.array(
    [[name in GROUPS[group] for group in _GROUP_NAMES] for name in INPUT_NAMES], np.float64
)
_GROUP_OF = {name: number for number, group in enumerate(_GROUP_NAMES) for name in GROUPS[group]}
# Which group and which input each crossed number is of.
_CROSSED = (
    np.array([_GROUP_NAMES.index(group) for _, group in CROSSED]),
    np.array([INPUT_NAMES.index(name) for name, _ in CROSSED]),
)


def to_values(readings: Iterable[Mapping[str, float]]) -> Values:
    """Readings as a matrix (num_readings, num_inputs); what was not measured is NaN."""
    rows = [[reading.get(name, np.nan) for name in INPUT_NAMES] for reading in readings]
    return np.array(rows, np.float64).reshape(-1, _NUM_INPUTS)


def risks_of(margins: Column, *, slope: float, intercept: float) -> Column:
    """Calibrated probabilities (num_rows,), between 0 and 1, both included."""
    # As 1 / (1 + exp(-odds)), and without its overflow.
    risks: Column = 0.5 + 0.5 * np.tanh(0.5 * (slope * margins + intercept))
    return risks


class RiskModel:
    """A model of readings, with its weights laid out once for all readings to come.

    The risk is the probability of the last class: high risk, or the tier High. A number adds
    value × slope - offset to each unit, where slope and offset depend on which groups are absent;
    what is unknown adds a weight of its own.
    """

    def __init__(self, params: Params, scaling: FeatureScaling) -> None:
        weights = {name: value.astype(np.float64) for name, value in params.items()}
        has_hidden_layer = "output.weight" in weights
        # Of two classes the difference of their scores is all that counts: one column.
        last = (
            ("output.weight", "output.bias") if has_hidden_layer else ("codes", "numeric", "bias")
        )
        if weights[last[-1]].shape == (2,):
            weights |= {name: weights[name][..., 1:] - weights[name][..., :1] for name in last}
        self._bias = weights["bias"]
        self._num_units = len(self._bias)
        self._output = (
            (weights["output.weight"], weights["output.bias"]) if has_hidden_layer else None
        )
        numeric = weights["numeric"]  # (num_numeric, num_units)
        slopes = numeric / np.array(scaling.std)[:, np.newaxis]
        offsets = slopes * np.array(scaling.mean)[:, np.newaxis]
        # Slope, offset and weight of the scaled number (3, num_inputs, num_units), and what each
        # absent group adds to them.
        own = np.stack([table[:_NUM_INPUTS] for table in (slopes, offsets, numeric)])
        crossed = np.zeros((len(_GROUP_NAMES), *own.shape))
        for kind, table in enumerate((slopes, offsets, numeric)):
            crossed[_CROSSED[0], kind, _CROSSED[1]] = table[_NUM_INPUTS:]
        self._own, self._crossed = own.reshape(-1), crossed.reshape(len(_GROUP_NAMES), -1)
        self._unknown = weights["codes"]  # (num_inputs, num_units)
        self._averages_gaps = not has_hidden_layer and self._num_units == 1
        self._sums: dict[tuple[bool, ...], _Sums] = {}

    def margins(self, values: Values) -> Column:
        """Log-odds of the last class (num_rows,), before calibration.

        A number that is missing although others of its group are there could have been anything:
        the log-odds is averaged over it, as if it were normal with the pooled mean and deviation.
        A group that is absent altogether is no gap: the model was trained on such rows. Nor are
        gaps averaged over in a network with a hidden layer or of more than two classes.

        Source: MacKay 1992, "The evidence framework applied to classification networks",
            kappa(s²): log-odds / sqrt(1 + pi s² / 8), s² their variance.
        """
        known = values == values  # not NaN
        is_present = known @ _MEMBERS > 0  # (num_rows, num_groups)
        tables = self._own + ~is_present @ self._crossed
        slopes, offsets, weights = tables.reshape(
            len(values), 3, _NUM_INPUTS, self._num_units
        ).transpose(1, 0, 2, 3)
        parts = np.where(
            known[:, :, np.newaxis], values[:, :, np.newaxis] * slopes - offsets, self._unknown
        )
        layer = parts.sum(axis=1) + self._bias  # (num_rows, num_units)
        if self._output is not None:
            layer = np.maximum(layer, 0) @ self._output[0] + self._output[1]
        odds: Column = layer[:, -1]
        if layer.shape[1] > 1:
            odds = odds - np.logaddexp.reduce(layer[:, :-1], axis=1)
        if self._averages_gaps:
            is_gap = (is_present @ _MEMBERS.T > 0) & ~known
            if is_gap.any():
                variance = (is_gap * weights[:, :, 0] ** 2).sum(axis=1)
                odds = odds / np.sqrt(1 + np.pi / 8 * variance)
        return odds

    def margins_without_each(self, reading: Mapping[str, float]) -> tuple[float, list[float]]:
        """The margin of one reading, and those without each of its inputs in turn."""
        if self._averages_gaps:
            return self._linear_margins(reading)
        values = np.repeat(to_values([reading]), 1 + len(reading), axis=0)
        values[range(1, 1 + len(reading)), [_PLACE[name] for name in reading]] = np.nan
        first, *others = self.margins(values).tolist()
        return first, others

    def _linear_margins(self, reading: Mapping[str, float]) -> tuple[float, list[float]]:
        """As `margins` has them, in plain Python: each variant is one sum with one part changed.

        For a single reading NumPy's calls would take five times as long as the arithmetic.
        """
        num_known = [0] * len(_GROUP_NAMES)
        for name in reading:
            if name in _GROUP_OF:
                num_known[_GROUP_OF[name]] += 1
        sums = self._sums_for(tuple(number == 0 for number in num_known))
        odds, variance, parts = sums.odds, sums.variance, []
        for name, value in reading.items():
            place = _PLACE[name]
            part = value * sums.slopes[place] - sums.offsets[place]
            parts.append((part, sums.variances[place]))
            odds += part
            variance -= sums.variances[place]
        without = []
        for name, (part, gap) in zip(reading, parts, strict=True):
            if name in _GROUP_OF and num_known[_GROUP_OF[name]] == 1:  # its group is absent then
                rest = {other: value for other, value in reading.items() if other != name}
                without.append(self.margins(to_values([rest])).item())
            else:
                without.append((odds - part) / math.sqrt(1 + math.pi / 8 * (variance + gap)))
        return odds / math.sqrt(1 + math.pi / 8 * max(variance, 0.0)), without

    def _sums_for(self, is_absent: tuple[bool, ...]) -> "_Sums":
        """What one column of weights comes to where these groups are absent; 16 at the most."""
        if is_absent not in self._sums:
            tables = self._own + np.array(is_absent, float) @ self._crossed
            slopes, offsets, weights = tables.reshape(3, _NUM_INPUTS)
            unknown = self._unknown[:, 0]
            is_expected = _MEMBERS @ ~np.array(is_absent) > 0
            variances = is_expected * weights**2
            self._sums[is_absent] = _Sums(
                float(self._bias[0] + unknown.sum()),
                float(variances.sum()),
                slopes.tolist(),
                (offsets + unknown).tolist(),
                variances.tolist(),
            )
        return self._sums[is_absent]


@dataclass(frozen=True)
class _Sums:
    """Of a reading in which nothing is known, and what each input changes once it is.

    Attributes:
        slopes, offsets, variances: (num_inputs,): a known value adds value × slope - offset to the
            log-odds and takes its variance away.
    """

    odds: float
    variance: float
    slopes: list[float]
    offsets: list[float]
    variances: list[float]


@dataclass(frozen=True)
class Assessed:
    """A reading's risk, and what each of its inputs adds, largest first."""

    risk: float
    drivers: list[Contribution]


def assess(
    model: RiskModel, reading: Mapping[str, float], *, slope: float, intercept: float
) -> Assessed:
    """The risk, and of each input the risk less the risk without it.

    Source: occlusion, as in `prediction.contributions`.
    """
    margin, without = model.margins_without_each(reading)
    risk = _risk_of(slope * margin + intercept)
    changes = [risk - _risk_of(slope * each + intercept) for each in without]
    return Assessed(risk, ranked_contributions(list(reading), changes))


def _risk_of(odds: float) -> float:
    return 0.5 + 0.5 * math.tanh(0.5 * odds)
