"""The steps of a round, as the simulation and the served federation both take them."""

from collections.abc import Callable, Iterable
from dataclasses import fields, replace

import numpy as np

from federated.aggregation import ClientUpdate
from federated.architectures import initial_params
from federated.datasets import ClientDataset
from federated.errors import EmptyRoundError, NotFiniteError, OneClassError
from federated.features import TRAIN
from federated.params import (
    Params,
    add,
    check_finite,
    check_same_shapes,
    under,
    with_prefix,
    zeros_like,
)
from federated.plan import TrainingPlan
from federated.scaling import FeatureScaling
from federated.schemas import feature_schema
from federated.seeds import rng_for
from federated.strategies import FedProxParameters, strategy_named
from federated.targets import target_named


def first_params(plan: TrainingPlan, *, seed: int) -> Params:
    """The global parameters before round 1."""
    schema = feature_schema(plan.target)
    return initial_params(
        plan.network,
        num_sparse=len(schema.sparse_inputs),
        num_numeric=len(schema.numeric_inputs),
        num_classes=len(target_named(plan.target).classes),
        rng=rng_for(seed, "initial parameters"),
    )


def first_server_state(plan: TrainingPlan, global_params: Params, *, num_clients: int) -> Params:
    """What the plan's strategy remembers on the server before round 1; often nothing.

    Args:
        num_clients: how many hospitals take part in the run.
    """
    strategy = strategy_named(plan.strategy)
    return strategy.first_state(global_params, plan.strategy_parameters, num_clients)


def client_update(
    plan: TrainingPlan,
    global_params: Params,
    dataset: ClientDataset,
    scaling: FeatureScaling,
    *,
    seed: int,
    round_number: int,
    client_id: str,
    server_state: Params | None = None,
    client_state: Params | None = None,
    on_batch: Callable[[], None] = lambda: None,
) -> ClientUpdate:
    """A hospital's update of one round, with the metrics of the model it started from.

    Args:
        server_state: what the strategy remembered after the last round. Only one that
            `uses_controls` looks at it.
        client_state: the `client_state` of this hospital's last update that was counted; none
            before its first.
    Raises:
        EmptyRoundError: the hospital has no labelled training example.
        NotFiniteError: training diverged.
        ShapeMismatchError: the strategy's state is missing, or of another model.
    """
    from federated.local_training import train_locally, validation_metrics  # torch: workers only

    parameters = plan.strategy_parameters
    controls = None
    if strategy_named(plan.strategy).uses_controls:
        controls = _controls(global_params, server_state or {}, client_state or {})
    update = train_locally(
        global_params,
        dataset,
        scaling,
        plan.local_training,
        client_id=client_id,
        rng=rng_for(seed, round_number, client_id),
        proximal_mu=parameters.mu if isinstance(parameters, FedProxParameters) else 0.0,
        controls=controls,
        on_batch=on_batch,
    )
    update.metrics.update(validation_metrics(global_params, dataset, scaling))
    if controls is None:
        return update
    control = add(controls[1], update.delta_control)
    return replace(update, client_state=with_prefix("control", control))


def _controls(
    global_params: Params, server_state: Params, client_state: Params
) -> tuple[Params, Params]:
    """The server's control variate, and the hospital's own, which starts at zero."""
    first = zeros_like(global_params)
    expected = with_prefix("control", first)
    server_control = under("control", server_state)
    check_same_shapes(expected, with_prefix("control", server_control))
    if not client_state:
        return server_control, first
    check_same_shapes(expected, client_state)
    return server_control, under("control", client_state)


def next_params(
    plan: TrainingPlan,
    global_params: Params,
    updates: Iterable[ClientUpdate],
    server_state: Params | None = None,
) -> tuple[Params, Params]:
    """The global parameters after a round, and what the strategy's server remembers for the next.

    Args:
        updates: sorted by client id.
        server_state: as this returned it after the last round, or `first_server_state`; a
            strategy without a state needs none.
    Raises:
        EmptyRoundError: no update holds an example.
        TooFewUpdatesError: a robust strategy needs more of them.
        ShapeMismatchError: an update, or the state, is not of this model, or is missing.
        NotFiniteError: the new model, or what the server would remember, is not finite; says which
            of the plan's parameters to change.
    """
    state = server_state or {}
    check_same_shapes(first_server_state(plan, global_params, num_clients=1), state)
    aggregate = strategy_named(plan.strategy).aggregate
    with np.errstate(over="ignore", invalid="ignore"):  # refused below, in words
        params, new_state = aggregate(global_params, state, updates, plan.strategy_parameters)
    try:
        check_finite(params)
        check_finite(new_state)
    except NotFiniteError as error:
        raise NotFiniteError(
            f"the next global model cannot be made, {error}: {_smaller_steps(plan)}"
        ) from error
    return params, new_state


def _smaller_steps(plan: TrainingPlan) -> str:
    """What to change where steps are too large, by the names that the plan has."""
    names = {field.name for field in fields(plan.strategy_parameters)}
    advice = "choose a lower learning_rate"
    if "server_learning_rate" in names:
        advice += " or server_learning_rate"
    return f"{advice}, or a higher tau" if "tau" in names else advice


def classes_seen(dataset: ClientDataset) -> list[int]:
    """Which classes occur among a hospital's training examples; how often is not said."""
    return [int(cls) for cls in np.unique(dataset.labels[dataset.rows(TRAIN)])]


def check_classes(plan: TrainingPlan, seen: Iterable[Iterable[int]]) -> None:
    """Refuse to train where every example of every hospital has the same outcome.

    Args:
        seen: the `classes_seen` of each hospital.
    Raises:
        OneClassError: which class that is.
    """
    classes = {cls for of_hospital in seen for cls in of_hospital}
    if len(classes) == 1:
        target = target_named(plan.target)
        raise OneClassError(
            f"every known outcome of {target.name} is {target.classes[classes.pop()]!r} at every"
            f" hospital: there is nothing to learn. {target.definition}"
        )


def takes_part(plan: TrainingPlan, dataset: ClientDataset) -> bool:
    """Whether a hospital has enough labelled patients, and one of them to train on."""
    return dataset.num_labelled_patients >= plan.min_examples and dataset.num_examples > 0


def check_update(
    global_params: Params, update: ClientUpdate, *, with_control: bool = False
) -> None:
    """Refuse an update that must not count.

    Args:
        with_control: whether the run's strategy `uses_controls`; under another, an update that
            brings a control variate says more than the plan allows.
    Raises:
        ShapeMismatchError, NotFiniteError, EmptyRoundError: what is wrong with it, in words.
    """
    check_same_shapes(global_params, update.delta_params)
    check_finite(update.delta_params)
    delta_control = with_prefix("control", update.delta_control)
    check_same_shapes(with_prefix("control", global_params) if with_control else {}, delta_control)
    check_finite(delta_control)
    if update.num_examples < 1:
        raise EmptyRoundError(f"the update of {update.client_id} holds no example")
