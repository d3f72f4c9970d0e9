"""The director's half of a round."""

from collections.abc import Iterable
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from numpy.typing import NDArray

from federated.errors import EmptyRoundError
from federated.params import PART_SIZE, Params, check_same_shapes, in_parts, shapes_of


@dataclass(frozen=True)
class ClientUpdate:
    """What a hospital sends, never a row; and what it keeps for its next round."""

    client_id: str
    delta_params: Params  # local minus global
    num_examples: int
    metrics: dict[str, Any] = field(default_factory=dict)
    delta_control: Params = field(default_factory=dict)  # new control variate minus old, if any
    client_state: Params = field(default_factory=dict)  # stays at the hospital: it is never sent


class WeightedSum:
    """Σ weight · params in float64, one term in memory at a time."""

    def __init__(self) -> None:
        self._weight = 0
        self._sums: dict[str, NDArray[np.float64]] = {}
        self._shapes: Params = {}  # as the first one's, without its values
        self._term = np.empty(PART_SIZE)

    def add(self, params: Params, *, weight: int) -> None:
        if not self._sums:
            self._shapes = shapes_of(params)
            self._sums = {name: np.zeros(params[name].shape) for name in sorted(params)}
        check_same_shapes(self._shapes, params)
        for name, total in self._sums.items():
            for part, added in in_parts(total, params[name]):
                term = np.multiply(added, weight, out=self._term[: part.size], dtype=np.float64)
                part += term
        self._weight += weight

    def mean(self) -> Params:
        """The weighted mean, float64, in place of the sum: it can be asked for once.

        Raises EmptyRoundError where nothing has weight.
        """
        if not self._weight:
            raise EmptyRoundError("no update of this round holds an example")
        for total in self._sums.values():
            total /= self._weight
        return dict(self._sums)


def weighted_mean(updates: Iterable[ClientUpdate]) -> Params:
    """Average the client deltas, each weighted by its number of examples.

    One update is in memory at a time; sums are float64, in the order given (callers sort).

    Raises:
        EmptyRoundError: there is no update, or none holds an example.
        ShapeMismatchError: the updates are not of one model.
    Source: McMahan et al. 2017, arXiv:1602.05629, Algorithm 1, the server's line.
    """
    total = WeightedSum()
    for update in updates:
        total.add(update.delta_params, weight=update.num_examples)
        del update  # else it would be in memory while the next one is read
    return total.mean()


def moved(global_params: Params, change: Params) -> Params:
    """Global parameters plus a change in float64, as float32.

    Raises:
        ShapeMismatchError: the change is not of this model.
    """
    check_same_shapes(global_params, shapes_of(change, np.float32))
    result = {name: np.empty_like(global_params[name]) for name in sorted(global_params)}
    for name, value in result.items():
        for part, old, step in in_parts(value, global_params[name], change[name]):
            part[:] = old.astype(np.float64) + step
    return result


def fedavg(global_params: Params, updates: Iterable[ClientUpdate]) -> Params:
    """The next global parameters: the old ones plus the weighted mean of the deltas, float32."""
    return moved(global_params, weighted_mean(updates))
