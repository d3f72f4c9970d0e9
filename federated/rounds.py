"""The steps of a round, as the simulation and the served federation both take them."""

from collections.abc import Callable, Iterable

from federated.aggregation import ClientUpdate, strategy_named
from federated.architectures import initial_params
from federated.datasets import ClientDataset
from federated.errors import EmptyRoundError
from federated.features import feature_schema
from federated.params import Params, check_finite, check_same_shapes
from federated.plan import TrainingPlan
from federated.scaling import FeatureScaling
from federated.seeds import rng_for
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


def client_update(
    plan: TrainingPlan,
    global_params: Params,
    dataset: ClientDataset,
    scaling: FeatureScaling,
    *,
    seed: int,
    round_number: int,
    client_id: str,
    on_batch: Callable[[], None] = lambda: None,
) -> ClientUpdate:
    """A hospital's update of one round, with the metrics of the model it started from.

    Raises:
        EmptyRoundError: the hospital has no labelled training example.
        NotFiniteError: training diverged.
    """
    from federated.local_training import train_locally, validation_metrics  # torch: workers only

    update = train_locally(
        global_params,
        dataset,
        scaling,
        plan.local_training,
        client_id=client_id,
        rng=rng_for(seed, round_number, client_id),
        on_batch=on_batch,
    )
    update.metrics.update(validation_metrics(global_params, dataset, scaling))
    return update


def next_params(
    plan: TrainingPlan, global_params: Params, updates: Iterable[ClientUpdate]
) -> Params:
    """The global parameters after a round; `updates` sorted by client id.

    Raises:
        EmptyRoundError: no update holds an example.
        ShapeMismatchError: an update is not of this model.
    """
    return strategy_named(plan.strategy).aggregate(global_params, updates)


def takes_part(plan: TrainingPlan, dataset: ClientDataset) -> bool:
    """Whether a hospital has enough labelled patients, and one of them to train on."""
    return dataset.num_labelled_patients >= plan.min_examples and dataset.num_examples > 0


def check_update(global_params: Params, update: ClientUpdate) -> None:
    """Refuse an update that must not count.

    Raises:
        ShapeMismatchError, NotFiniteError, EmptyRoundError: what is wrong with it, in words.
    """
    check_same_shapes(global_params, update.delta_params)
    check_finite(update.delta_params)
    if update.num_examples < 1:
        raise EmptyRoundError(f"the update of {update.client_id} holds no example")
