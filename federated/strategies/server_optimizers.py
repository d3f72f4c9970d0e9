"""FedAdagrad, FedAdam and FedYogi: the mean change as the gradient of an optimizer on the server.

Source: Reddi et al. 2021, arXiv:2003.00295, Algorithm 2. With Δ the mean change of a round, each
hospital's weighted by its examples, m its moving mean and v a second moment, per coordinate:

    m ← β₁ m + (1 - β₁) Δ
    v ← v + Δ²                             FedAdagrad
        v - (1 - β₂) Δ² sign(v - Δ²)       FedYogi
        β₂ v + (1 - β₂) Δ²                 FedAdam
    x ← x + η m / (√v + τ)

m starts at 0 and v at τ², the smallest that the paper allows. Both are the server's state, as `m/…`
and `v/…`, float32. Sums are float64, and one update is in memory at a time.
"""

from collections.abc import Callable, Iterable
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from federated.aggregation import ClientUpdate, moved, weighted_mean
from federated.params import Params, check_same_shapes, under, with_prefix, zeros_like
from federated.strategies.parameters import StrategyParameters, real

Array = NDArray[np.float64]

_RATE = "How far the server steps (η)"
_BETA_1 = "How much of the earlier rounds' direction is kept (β₁)"
_BETA_2 = "How much of the earlier rounds' second moment is kept (β₂)"
_TAU = "Adaptivity: coordinates that change less than this are not sped up further (τ)"
# v is float32 and starts at τ²: of a far smaller τ that is 0, and a step is divided by next to nothing.
_LEAST_TAU = 1e-12


@dataclass(frozen=True)
class FedAdagradParameters(StrategyParameters):
    server_learning_rate: float = real(0.1, low=0, high=100, meaning=_RATE)
    beta_1: float = real(0.0, low=0, high=1, includes_low=True, meaning=_BETA_1)
    tau: float = real(1e-3, low=_LEAST_TAU, high=100, includes_low=True, meaning=_TAU)


@dataclass(frozen=True)
class FedAdamParameters(StrategyParameters):
    """Of FedAdam and FedYogi; β₁, β₂ and τ are the paper's."""

    server_learning_rate: float = real(0.03, low=0, high=100, meaning=_RATE)
    beta_1: float = real(0.9, low=0, high=1, includes_low=True, meaning=_BETA_1)
    beta_2: float = real(0.99, low=0, high=1, includes_low=True, meaning=_BETA_2)
    tau: float = real(1e-3, low=_LEAST_TAU, high=100, includes_low=True, meaning=_TAU)


def first_moments(
    global_params: Params,
    parameters: FedAdagradParameters | FedAdamParameters,
    num_clients: int,
) -> Params:
    """The state before the first round: m = 0 and v = τ²."""
    v = {
        name: np.full_like(value, parameters.tau**2)
        for name, value in sorted(global_params.items())
    }
    return with_prefix("m", zeros_like(global_params)) | with_prefix("v", v)


def fedadagrad(
    global_params: Params,
    server_state: Params,
    updates: Iterable[ClientUpdate],
    parameters: FedAdagradParameters,
) -> tuple[Params, Params]:
    """Raises EmptyRoundError or ShapeMismatchError, as `weighted_mean`."""

    def next_v(v: Array, squared: Array) -> Array:
        return v + squared

    return _step(global_params, server_state, updates, parameters, next_v)


def fedadam(
    global_params: Params,
    server_state: Params,
    updates: Iterable[ClientUpdate],
    parameters: FedAdamParameters,
) -> tuple[Params, Params]:
    """Raises EmptyRoundError or ShapeMismatchError, as `weighted_mean`."""

    def next_v(v: Array, squared: Array) -> Array:
        return parameters.beta_2 * v + (1 - parameters.beta_2) * squared

    return _step(global_params, server_state, updates, parameters, next_v)


def fedyogi(
    global_params: Params,
    server_state: Params,
    updates: Iterable[ClientUpdate],
    parameters: FedAdamParameters,
) -> tuple[Params, Params]:
    """Raises EmptyRoundError or ShapeMismatchError, as `weighted_mean`."""

    def next_v(v: Array, squared: Array) -> Array:
        return v - (1 - parameters.beta_2) * squared * np.sign(v - squared)

    return _step(global_params, server_state, updates, parameters, next_v)


def _step(
    global_params: Params,
    server_state: Params,
    updates: Iterable[ClientUpdate],
    parameters: FedAdagradParameters | FedAdamParameters,
    next_v: Callable[[Array, Array], Array],
) -> tuple[Params, Params]:
    old_m, old_v = under("m", server_state), under("v", server_state)
    mean = weighted_mean(updates)
    check_same_shapes({name: value.astype(np.float64) for name, value in old_m.items()}, mean)
    m: dict[str, NDArray[Any]] = {}
    v: dict[str, NDArray[Any]] = {}
    step: Params = {}
    for name, delta in mean.items():
        m[name] = parameters.beta_1 * old_m[name] + (1 - parameters.beta_1) * delta
        v[name] = next_v(old_v[name].astype(np.float64), delta**2)
        step[name] = parameters.server_learning_rate * m[name] / (np.sqrt(v[name]) + parameters.tau)
    moments = with_prefix("m", m) | with_prefix("v", v)
    return moved(global_params, step), {
        name: value.astype(np.float32) for name, value in moments.items()
    }
