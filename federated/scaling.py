"""Round 0: one scale for all hospitals, from sums that show no row.

A hospital sends, for each number, how many values it has, their mean and the sum of squared
deviations from it; the director merges them as if it had seen all values.
"""

from collections.abc import Iterable
from dataclasses import dataclass
from functools import cached_property

import numpy as np
from numpy.typing import NDArray

from federated.datasets import ClientDataset
from federated.errors import EmptyRoundError
from federated.features import TRAIN
from federated.params import Params


@dataclass(frozen=True)
class FeatureScaling:
    """Mean and standard deviation per numeric input, as plain floats, so that JSON keeps them."""

    mean: tuple[float, ...]
    std: tuple[float, ...]

    def apply(self, numeric: NDArray[np.float32]) -> NDArray[np.float32]:
        """Standardise (num_rows, num_numeric); what is not known becomes the mean, zero."""
        mean, std = self._arrays
        scaled: NDArray[np.float32] = numeric - mean
        scaled /= std
        if np.isfinite(scaled).all():  # as it mostly is; cheaper to find out than to replace
            return scaled
        return np.nan_to_num(scaled, nan=0.0).astype(np.float32, copy=False)

    @cached_property
    def _arrays(self) -> tuple[NDArray[np.float32], NDArray[np.float32]]:
        return np.asarray(self.mean, np.float32), np.asarray(self.std, np.float32)


def feature_statistics(dataset: ClientDataset) -> Params:
    """Count, mean and squared deviations of each number over the training rows, float64."""
    numeric = dataset.numeric[dataset.rows(TRAIN)].astype(np.float64)
    known = ~np.isnan(numeric)
    count = known.sum(axis=0).astype(np.float64)
    mean = np.where(known, numeric, 0.0).sum(axis=0) / np.maximum(count, 1)
    deviations = np.where(known, numeric - mean, 0.0)
    return {"count": count, "mean": mean, "squared_deviations": (deviations**2).sum(axis=0)}


def pooled_scaling(statistics: Iterable[Params]) -> FeatureScaling:
    """Merge the hospitals' statistics, in the order given (callers sort).

    An input that never varies, or is known nowhere, is left as it is (standard deviation 1).

    Raises:
        EmptyRoundError: there are no statistics.
    Source: Chan, Golub & LeVeque 1979, "Updating formulae and a pairwise algorithm".
    """
    merged: Params | None = None
    for other in statistics:
        if merged is None:
            merged = other
            continue
        count = merged["count"] + other["count"]
        share = other["count"] / np.maximum(count, 1)
        step = other["mean"] - merged["mean"]
        merged = {
            "count": count,
            "mean": merged["mean"] + step * share,
            "squared_deviations": merged["squared_deviations"]
            + other["squared_deviations"]
            + step**2 * merged["count"] * share,
        }
    if merged is None:
        raise EmptyRoundError("no hospital sent feature statistics")
    std = np.sqrt(merged["squared_deviations"] / np.maximum(merged["count"], 1))
    std = np.where(std > 0, std, 1.0)
    return FeatureScaling(tuple(merged["mean"].tolist()), tuple(std.tolist()))
