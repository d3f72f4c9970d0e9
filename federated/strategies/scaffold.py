"""SCAFFOLD: control variates that take out of each local step what is peculiar to one hospital.

Source: Karimireddy et al. 2020, arXiv:1910.06378, Algorithm 1. A hospital keeps its control
variate cᵢ, an estimate of its own gradient; the server keeps c, the mean of all of them, as
`control/…` in its state. The client's part is `local_training.train_locally`.
"""

from collections.abc import Iterable
from dataclasses import dataclass

import numpy as np

from federated.aggregation import ClientUpdate, WeightedSum, moved
from federated.params import Params, check_same_shapes, under, with_prefix, zeros_like
from federated.strategies.parameters import StrategyParameters, flag, real


@dataclass(frozen=True)
class ScaffoldParameters(StrategyParameters):
    server_learning_rate: float = real(
        1.0, low=0, high=100, meaning="How far the server moves to the mean local model (η)"
    )
    weighted_by_examples: bool = flag(
        False, meaning="Weight each hospital by its examples, as FedAvg does, not alike"
    )


def first_control(
    global_params: Params, parameters: ScaffoldParameters, num_clients: int
) -> Params:
    """The state before the first round: c = 0, and of how many hospitals it is the mean."""
    return {
        **with_prefix("control", zeros_like(global_params)),
        "num_clients": np.array(num_clients, np.int64),
    }


def scaffold(
    global_params: Params,
    server_state: Params,
    updates: Iterable[ClientUpdate],
    parameters: ScaffoldParameters,
) -> tuple[Params, Params]:
    """Move the global parameters and the server's control variate, lines 16 and 17.

        x ← x + η · mean of Δyᵢ        c ← c + |S|/N · mean of Δcᵢ

    S are the hospitals of this round and N those of the run (`num_clients` in the state), so that
    c stays the mean of all cᵢ when a hospital misses a round. In the paper every hospital counts
    alike, in both means: the model is then made for the mean hospital, not the mean patient, and
    weighting one mean alone would have the corrections pull against it. `weighted_by_examples`
    weights both. An update without examples counts in neither. One is in memory at a time.

    Raises:
        EmptyRoundError: no update holds an example.
        ShapeMismatchError: an update is not of this model, or brings no control variate.
    """
    control = under("control", server_state)
    delta_params, delta_control, num_updates = WeightedSum(), WeightedSum(), 0
    for update in updates:
        if update.num_examples < 1:
            continue
        check_same_shapes(
            with_prefix("control", control), with_prefix("control", update.delta_control)
        )
        weight = update.num_examples if parameters.weighted_by_examples else 1
        delta_params.add(update.delta_params, weight=weight)
        delta_control.add(update.delta_control, weight=weight)
        num_updates += 1
    rate = parameters.server_learning_rate
    share = num_updates / int(server_state["num_clients"])
    step = {name: rate * value for name, value in delta_params.mean().items()}
    turn = {name: share * value for name, value in delta_control.mean().items()}
    return moved(global_params, step), {
        **with_prefix("control", moved(control, turn)),
        "num_clients": server_state["num_clients"],
    }
