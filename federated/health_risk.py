"""Serving a model of readings, any inputs present: many readings at once, or one explained.

A reading is answered as a row of the nodes whose inputs are most like its own: the model has been
trained on rows of these nodes and of no others, and what it would say of other sets of inputs is
nothing that a row has ever held it to.

NumPy only, on a plain matrix of values with NaN for what was not measured. Of a whole row of a node
the result is that of `prediction.predict_examples` on `readings.encode_reading`, which a test holds
it to.
"""

import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from federated.errors import UnusedInputsError
from federated.params import Params
from federated.prediction import Contribution, ranked_contributions
from federated.readings import CROSSED, GROUPS, INPUT_NAMES
from federated.scaling import FeatureScaling

Values = NDArray[np.float64]  # (num_rows, num_inputs), NaN where not measured
Column = NDArray[np.float64]  # (num_rows,)

ALWAYS_KNOWN = 0.995  # from this share of rows on: a few rows teach no weight for what is unknown
_NUM_INPUTS = len(INPUT_NAMES)
_PLACE = {name: place for place, name in enumerate(INPUT_NAMES)}
_GROUP_NAMES = tuple(GROUPS)
# Which group and which input each crossed number is of.
_CROSSED = (
    np.array([_GROUP_NAMES.index(group) for _, group in CROSSED]),
    np.array([INPUT_NAMES.index(name) for name, _ in CROSSED]),
)


@dataclass(frozen=True)
class View:
    """A kind of node: the nodes whose training rows knew the same inputs.

    Attributes:
        inputs: what at least one of their rows knew.
        always: those of them that all rows knew, or nearly all.
        num_rows: all that they were trained on.
    """

    inputs: frozenset[str]
    always: frozenset[str]
    num_rows: int


def views_of(nodes: Iterable[Mapping[str, Mapping[str, Any]]]) -> tuple[View, ...]:
    """The kinds of nodes that a model was trained at.

    Args:
        nodes: what each released of its training rows, by input, as `drift.distributions` has it.
    """
    merged: dict[frozenset[str], list[Mapping[str, Mapping[str, Any]]]] = {}
    for node in nodes:
        if node:
            merged.setdefault(frozenset(node), []).append(node)
    views = []
    for inputs, alike in merged.items():
        # Every input of a node is told of with the number of all its rows.
        num_rows = sum(next(iter(node.values()))["num_rows"] for node in alike)
        num_known = {name: sum(node[name]["num_readings"] for node in alike) for name in inputs}
        always = frozenset(name for name in inputs if num_known[name] >= ALWAYS_KNOWN * num_rows)
        views.append(View(inputs, always, num_rows))
    return tuple(views)


def nearest_views(views: Sequence[View], names: Iterable[str]) -> list[View]:
    """The views that use most of these inputs; of those, the ones that miss the fewest others.

    Raises:
        UnusedInputsError: no view knows any of them.
    """
    given = frozenset(names)
    num_used = [len(view.inputs & given) for view in views]
    most = max(num_used, default=0)
    if not most:
        raise UnusedInputsError(f"The model was trained without {', '.join(sorted(given))}.")
    using = [view for view, number in zip(views, num_used, strict=True) if number == most]
    fewest = min(len(view.inputs) for view in using)
    return [view for view in using if len(view.inputs) == fewest]


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
    value × slope - offset to each unit, where slope and offset depend on which groups the view has
    nothing of; what its rows did not always know adds a weight of its own where it is unknown.
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
        self._sums: dict[View, _Sums] = {}

    def margins(self, values: Values, view: View) -> Column:
        """Log-odds of the last class (num_rows,), before calibration, as rows of the view's nodes.

        What the view has no row of is ignored. What its rows always knew and is missing here is
        taken as the mean.
        """
        sums = self._sums_of(view)
        is_known = ~np.isnan(values) & sums.is_used
        # What is known makes a difference from the row of which nothing is.
        parts = np.where(
            is_known[:, :, np.newaxis],
            values[:, :, np.newaxis] * sums.slopes - sums.offsets,
            0,
        )
        layer = parts.sum(axis=1) + sums.unknown  # (num_rows, num_units)
        if self._output is not None:
            layer = np.maximum(layer, 0) @ self._output[0] + self._output[1]
        odds: Column = layer[:, -1]
        if layer.shape[1] > 1:
            odds = odds - np.logaddexp.reduce(layer[:, :-1], axis=1)
        return odds

    def risks(self, values: Values, view: View, *, slope: float, intercept: float) -> Column:
        """Calibrated probabilities of the last class (num_rows,), as rows of the view's nodes.

        What the view's rows always knew and is missing here could have been anything: the risk is
        averaged over it, as if it were normal with the pooled mean and deviation. A network with a
        hidden layer or of more than two classes takes the mean alone.

        Source: MacKay 1992, "The evidence framework applied to classification networks",
            kappa(s²): log-odds / sqrt(1 + pi s² / 8), s² their variance; here of the calibrated
            ones, for it is these that are true of a whole row.
        """
        odds = slope * self.margins(values, view) + intercept
        if self._averages_gaps:
            variances = slope**2 * (np.isnan(values) @ self._sums_of(view).variances)
            odds = odds / np.sqrt(1 + np.pi / 8 * variances)
        return risks_of(odds, slope=1, intercept=0)

    def risk_without_each(
        self, reading: Mapping[str, float], view: View, *, slope: float, intercept: float
    ) -> tuple[float, list[float]]:
        """The risk of one reading, and those without each of its inputs in turn."""
        if self._averages_gaps:
            return self._linear_risks(reading, view, slope, intercept)
        values = np.repeat(to_values([reading]), 1 + len(reading), axis=0)
        values[range(1, 1 + len(reading)), [_PLACE[name] for name in reading]] = np.nan
        first, *others = self.risks(values, view, slope=slope, intercept=intercept).tolist()
        return first, others

    def _linear_risks(
        self, reading: Mapping[str, float], view: View, slope: float, intercept: float
    ) -> tuple[float, list[float]]:
        """As `risks` has them, in plain Python: each variant is one sum with one part changed.

        For a single reading NumPy's calls would take five times as long as the arithmetic.
        """
        sums = self._sums_of(view)
        odds, variance, parts = sums.plain_odds, sums.plain_variance, []
        for name, value in reading.items():
            weight, offset, gap = sums.plain.get(name, (0.0, 0.0, 0.0))
            part = value * weight - offset
            parts.append((part, gap))
            odds += part
            variance -= gap
        odds, variance = slope * odds + intercept, max(variance, 0.0)  # but for rounding
        factor = math.pi / 8 * slope**2
        without = [
            _risk_of((odds - slope * part) / math.sqrt(1 + factor * (variance + gap)))
            for part, gap in parts
        ]
        return _risk_of(odds / math.sqrt(1 + factor * variance)), without

    def _sums_of(self, view: View) -> "_Sums":
        """What the weights come to for rows of the view's nodes."""
        if view not in self._sums:
            is_absent = np.array([view.inputs.isdisjoint(GROUPS[name]) for name in _GROUP_NAMES])
            slopes, offsets, weights = (self._own + is_absent @ self._crossed).reshape(
                3, _NUM_INPUTS, self._num_units
            )
            is_used, is_always = (
                np.array([name in names for name in INPUT_NAMES])
                for names in (view.inputs, view.always)
            )
            signs = np.where(is_always[:, np.newaxis], 0, self._unknown)
            self._sums[view] = _Sums(
                is_used,
                self._bias + signs.sum(axis=0),
                slopes,
                offsets + signs,
                # Of the last unit: with more of them nothing is averaged.
                is_always * weights[:, -1] ** 2,
            )
        return self._sums[view]


class _Sums:
    """Of a reading of a view in which nothing is known, and what each input changes once it is.

    Attributes:
        is_used: (num_inputs,): whether the view has the input.
        unknown: (num_units,): what a reading adds up to of which nothing is known.
        slopes, offsets: (num_inputs, num_units): a known value adds value × slope - offset.
        variances: (num_inputs,): of the log-odds, while the input is missing.
        plain, plain_odds, plain_variance: the same of one unit in plain numbers: by input of the
            view slope, offset and variance; and their sums while nothing is known.
    """

    def __init__(
        self,
        is_used: NDArray[np.bool_],
        unknown: Column,
        slopes: Values,
        offsets: Values,
        variances: Column,
    ) -> None:
        self.is_used, self.unknown = is_used, unknown
        self.slopes, self.offsets, self.variances = slopes, offsets, variances
        columns = slopes[:, -1].tolist(), offsets[:, -1].tolist(), variances.tolist()
        self.plain = {
            name: part
            for name, part, used in zip(
                INPUT_NAMES, zip(*columns, strict=True), is_used, strict=True
            )
            if used
        }
        self.plain_odds, self.plain_variance = float(unknown[-1]), float(variances.sum())


@dataclass(frozen=True)
class Assessed:
    """A reading's risk, and what each of its inputs adds, largest first.

    Attributes:
        ignored: inputs that played no part, as no node like this one was trained on them.
    """

    risk: float
    drivers: list[Contribution]
    ignored: list[str]


def assess(
    model: RiskModel,
    reading: Mapping[str, float],
    *,
    views: Sequence[View],
    slope: float,
    intercept: float,
) -> Assessed:
    """The risk, and of each input the risk less the risk without it.

    Where several views are as near, their risks are averaged by the rows they were trained on. The
    views are those of the whole reading, also for the risks without an input.

    Raises UnusedInputsError: no view knows any of the inputs.
    Source: occlusion, as in `prediction.contributions`.
    """
    chosen = nearest_views(views, reading)
    used = frozenset().union(*(view.inputs for view in chosen))
    kept = {name: value for name, value in reading.items() if name in used}
    risk, changes = 0.0, [0.0] * len(kept)
    num_rows = sum(view.num_rows for view in chosen)
    for view in chosen:
        share = view.num_rows / num_rows
        own, without = model.risk_without_each(kept, view, slope=slope, intercept=intercept)
        risk += share * own
        for place, each in enumerate(without):
            changes[place] += share * (own - each)
    ignored = [name for name in reading if name not in used]
    return Assessed(risk, ranked_contributions(list(kept), changes), ignored)


def _risk_of(odds: float) -> float:
    return 0.5 + 0.5 * math.tanh(0.5 * odds)
