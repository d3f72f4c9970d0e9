"""Median, trimmed mean and Multi-Krum: what a few bad hospitals send cannot move the model far.

Each looks at single updates, and counts them alike: a number of examples is but a claim, and a
bad hospital could claim a million. An update without examples does not count. All updates of a
round are in memory at once, as float32; sums are float64, on blocks of coordinates.
"""

from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from federated.aggregation import ClientUpdate, moved
from federated.errors import TooFewUpdatesError
from federated.params import Params, check_same_shapes
from federated.strategies.parameters import StrategyParameters, whole

BLOCK_SIZE = 2**18  # coordinates; times eight bytes and the number of updates

_NUM_BAD = "How many bad hospitals are tolerated"

Array = NDArray[np.float64]


@dataclass(frozen=True)
class MedianParameters(StrategyParameters):
    num_bad: int = whole(1, low=0, meaning=_NUM_BAD)

    @property
    def min_updates(self) -> int:
        return 2 * self.num_bad + 1  # the good are more than half


@dataclass(frozen=True)
class TrimmedMeanParameters(StrategyParameters):
    num_bad: int = whole(1, low=0, meaning=_NUM_BAD)

    @property
    def min_updates(self) -> int:
        return 2 * self.num_bad + 1  # or nothing would be left


@dataclass(frozen=True)
class MultiKrumParameters(StrategyParameters):
    num_bad: int = whole(1, low=0, meaning=_NUM_BAD)
    num_kept: int | None = whole(
        None, low=1, meaning="How many updates are averaged; empty: all but the bad"
    )

    @property
    def min_updates(self) -> int:
        return max(2 * self.num_bad + 3, self.num_bad + (self.num_kept or 0))


def median(
    global_params: Params,
    server_state: Params,
    updates: Iterable[ClientUpdate],
    parameters: MedianParameters,
) -> tuple[Params, Params]:
    """Add each coordinate's median change; of an even number, the mean of the two in the middle.

    Raises:
        TooFewUpdatesError: there are not more than 2 · num_bad.
        ShapeMismatchError: an update is not of this model.
    Source: Yin et al. 2018, arXiv:1803.01498, Algorithm 1, option I.
    """
    held = _hold(global_params, updates, parameters)

    def middle(block: Array) -> Array:
        values: Array = np.median(block, axis=0)
        return values

    return _combine(global_params, held, middle), server_state


def trimmed_mean(
    global_params: Params,
    server_state: Params,
    updates: Iterable[ClientUpdate],
    parameters: TrimmedMeanParameters,
) -> tuple[Params, Params]:
    """Add each coordinate's mean change without its num_bad largest and num_bad smallest.

    Raises:
        TooFewUpdatesError: there are not more than 2 · num_bad.
        ShapeMismatchError: an update is not of this model.
    Source: Yin et al. 2018, arXiv:1803.01498, Algorithm 1, option II, β = num_bad / updates.
    """
    held = _hold(global_params, updates, parameters)

    def mean_within(block: Array) -> Array:
        within = np.sort(block, axis=0)[parameters.num_bad : len(block) - parameters.num_bad]
        values: Array = within.mean(axis=0)
        return values

    return _combine(global_params, held, mean_within), server_state


def multi_krum(
    global_params: Params,
    server_state: Params,
    updates: Iterable[ClientUpdate],
    parameters: MultiKrumParameters,
) -> tuple[Params, Params]:
    """Add the mean of the num_kept changes that lie closest to their neighbours.

    An update's score is the sum of squared distances to the n - num_bad - 2 others nearest to it;
    the lowest scores are kept, of equal ones the first in the order given (callers sort).

    Raises:
        TooFewUpdatesError: there are not more than 2 · num_bad + 2, or too few to keep num_kept.
        ShapeMismatchError: an update is not of this model.
    Source: Blanchard et al. 2017, arXiv:1703.02757, the choice function Krum and its variant
        Multi-Krum.
    """
    held = _hold(global_params, updates, parameters)
    num_nearest = len(held) - parameters.num_bad - 2
    distances = _squared_distances(global_params, held)
    np.fill_diagonal(distances, np.inf)
    scores = np.sort(distances, axis=1)[:, :num_nearest].sum(axis=1)
    num_kept = parameters.num_kept or len(held) - parameters.num_bad
    kept = [held[i] for i in sorted(np.argsort(scores, kind="stable")[:num_kept])]

    def mean(block: Array) -> Array:
        values: Array = block.mean(axis=0)
        return values

    return _combine(global_params, kept, mean), server_state


def _hold(
    global_params: Params,
    updates: Iterable[ClientUpdate],
    parameters: MedianParameters | TrimmedMeanParameters | MultiKrumParameters,
) -> list[Params]:
    held = [update.delta_params for update in updates if update.num_examples > 0]
    if len(held) < parameters.min_updates:
        raise TooFewUpdatesError(
            f"tolerating num_bad = {parameters.num_bad} needs {parameters.min_updates} updates"
            f" or more, not {len(held)}"
        )
    for delta_params in held:
        check_same_shapes(global_params, delta_params)
    return held


def _blocks(held: list[Params], name: str) -> Iterator[tuple[slice, Array]]:
    """A parameter of all updates, (updates, coordinates), float64, a block at a time."""
    rows: list[NDArray[Any]] = [delta_params[name].reshape(-1) for delta_params in held]
    for start in range(0, rows[0].size, BLOCK_SIZE):
        block = slice(start, start + BLOCK_SIZE)
        yield block, np.stack([row[block] for row in rows]).astype(np.float64)


def _combine(
    global_params: Params, held: list[Params], combine: Callable[[Array], Array]
) -> Params:
    """Global parameters plus a change that each coordinate decides for itself."""
    change: Params = {}
    for name, value in sorted(global_params.items()):
        flat = np.zeros(value.size)
        for block, rows in _blocks(held, name):
            flat[block] = combine(rows)
        change[name] = flat.reshape(value.shape)
    return moved(global_params, change)


def _squared_distances(global_params: Params, held: list[Params]) -> Array:
    """Between all pairs of updates, (updates, updates)."""
    distances = np.zeros((len(held), len(held)))
    for name in sorted(global_params):
        for _, rows in _blocks(held, name):
            for i, row in enumerate(rows):
                distances[i] += ((rows - row) ** 2).sum(axis=1)
    return distances
