"""FedAvg, and FedProx, which is FedAvg to the server."""

import math
from collections.abc import Iterable
from dataclasses import dataclass

from federated.aggregation import ClientUpdate
from federated.aggregation import fedavg as average
from federated.params import Params
from federated.strategies.parameters import StrategyParameters, real


def fedavg(
    global_params: Params,
    server_state: Params,
    updates: Iterable[ClientUpdate],
    parameters: StrategyParameters,
) -> tuple[Params, Params]:
    """Add the mean change, each hospital's weighted by its examples; one is in memory at a time.

    Source: McMahan et al. 2017, arXiv:1602.05629, Algorithm 1, the server's last line.
    """
    return average(global_params, updates), server_state


MU_RANGE = "lies in [0, 1 / learning_rate]"  # the upper end is the plan's to check


@dataclass(frozen=True)
class FedProxParameters(StrategyParameters):
    mu: float = real(
        0.01,
        low=0,
        high=math.inf,
        includes_low=True,
        range_in_words=MU_RANGE,
        meaning="How strongly a hospital is held near the global model; 0 is FedAvg",
    )


def fedprox(
    global_params: Params,
    server_state: Params,
    updates: Iterable[ClientUpdate],
    parameters: FedProxParameters,
) -> tuple[Params, Params]:
    """As FedAvg: the difference is the proximal term in `local_training.train_locally`.

    The paper draws hospitals by their size and then averages them alike; with everybody taking
    part, that is the mean weighted by size.

    Source: Li et al. 2020, arXiv:1812.06127, Algorithm 2, lines 4 (the client) and 6.
    """
    return fedavg(global_params, server_state, updates, parameters)
