"""The client's half of a round."""

import math
from collections.abc import Callable, Iterator, Sequence

import numpy as np
import torch
from numpy.typing import NDArray
from torch.nn import functional

from federated.aggregation import ClientUpdate
from federated.datasets import ClientDataset
from federated.errors import EmptyRoundError
from federated.features import TRAIN, VALIDATION
from federated.metrics import auroc, cross_entropy
from federated.networks import Tensors, logits
from federated.params import Params, check_finite, subtract, with_prefix
from federated.plan import LocalTrainingConfig
from federated.prediction import predict_rows
from federated.scaling import FeatureScaling
from federated.suppression import MIN_PATIENTS, fewest_with_an_outcome

ROWS_AT_ONCE = 8_192  # scaled together


def train_locally(
    global_params: Params,
    dataset: ClientDataset,
    scaling: FeatureScaling,
    config: LocalTrainingConfig,
    *,
    client_id: str,
    rng: np.random.Generator,
    local_steps: int | None = None,
    proximal_mu: float = 0.0,
    controls: tuple[Params, Params] | None = None,
    on_batch: Callable[[], None] = lambda: None,
) -> ClientUpdate:
    """Run E epochs of mini-batch SGD on cross-entropy from the global parameters.

    With g the gradient of a batch at the local parameters y, x the global ones and η the learning
    rate, a step is y ← y - η (g + μ (y - x) + c - cᵢ), after weight decay.

    Equal arguments give equal bits on one type of processor, with one torch thread.

    Args:
        rng: decides the order of examples, and nothing else is random.
        local_steps: stop after so many steps, from 1, however many epochs they are; by default
            after the configuration's epochs.
        proximal_mu: μ of FedProx; 0 trains as without it, to the same bits.
        controls: c of the server and cᵢ of this hospital, for SCAFFOLD; float32.
        on_batch: called after every step, to show a sign of life.
    Returns:
        The change of the parameters and `train_loss`, the mean over the last epoch, in nats. With
        controls also the change of cᵢ; the new one is cᵢ - c + (x - y) / (steps · η), the mean
        gradient along the way (weight decay counts as part of it).
    Raises:
        EmptyRoundError: the hospital has no labelled training example.
        NotFiniteError: training diverged.
    Source: McMahan et al. 2017, arXiv:1602.05629, Algorithm 1, ClientUpdate; Li et al. 2020,
        arXiv:1812.06127, equation 2; Karimireddy et al. 2020, arXiv:1910.06378, Algorithm 1,
        lines 10 and 12, option II.
    """
    rows = dataset.rows(TRAIN)
    if not len(rows):
        raise EmptyRoundError(f"{client_id} has no training example with an outcome")
    params: Tensors = {
        name: torch.from_numpy(value.astype(np.float32, copy=True)).requires_grad_()
        for name, value in sorted(global_params.items())
    }
    leaves = list(params.values())
    starting_points = [leaf.detach().clone() for leaf in leaves]
    corrections = _corrections(*controls) if controls else []
    steps_per_epoch = math.ceil(len(rows) / config.batch_size)
    num_steps = local_steps or config.local_epochs * steps_per_epoch
    for step in range(num_steps):
        if step % steps_per_epoch == 0:
            batches = _batches(dataset, scaling, rng.permutation(rows), config.batch_size)
            loss_sum, num_seen = 0.0, 0
        indices, starts, numeric, labels = next(batches)
        loss = functional.cross_entropy(logits(params, indices, starts, numeric), labels)
        # Plain gradients instead of an optimiser object: the same bits for two thirds of the
        # time, and nothing here has a state to keep.
        gradients = torch.autograd.grad(loss, leaves, materialize_grads=True)
        with torch.no_grad():
            if proximal_mu:
                ways = _sums(leaves, starting_points, alpha=-1)
                gradients = _sums(gradients, ways, alpha=proximal_mu)
            if controls:
                gradients = _sums(gradients, corrections)
            for leaf, gradient in zip(leaves, gradients, strict=True):
                if config.weight_decay:
                    leaf.mul_(1 - config.learning_rate * config.weight_decay)
                leaf.sub_(gradient, alpha=config.learning_rate)
        loss_sum += loss.item() * len(labels)
        num_seen += len(labels)
        on_batch()
    local_params: Params = {name: leaf.detach().numpy() for name, leaf in params.items()}
    check_finite(local_params)
    delta_params = subtract(local_params, global_params)
    delta_control: Params = {}
    if controls:
        step_sum = num_steps * config.learning_rate
        delta_control = {
            name: (-delta_params[name] / step_sum - value).astype(np.float32)
            for name, value in sorted(controls[0].items())
        }
        check_finite(with_prefix("control", delta_control))
    return ClientUpdate(
        client_id=client_id,
        delta_params=delta_params,
        num_examples=len(rows),
        metrics={"train_loss": loss_sum / num_seen},
        delta_control=delta_control,
    )


def _batches(
    dataset: ClientDataset,
    scaling: FeatureScaling,
    order: NDArray[np.int64],
    batch_size: int,
) -> Iterator[tuple[torch.Tensor, torch.Tensor, torch.Tensor, torch.Tensor]]:
    """Sparse inputs and where each row's start, scaled numbers and labels, batch after batch.

    What can be done for many rows at once is done for several batches; their memory is bounded.
    """
    rows_at_once = batch_size * max(1, ROWS_AT_ONCE // batch_size)
    for start in range(0, len(order), rows_at_once):
        rows = order[start : start + rows_at_once]
        sparse, starts = dataset.sparse_rows(rows)
        ends = np.append(starts, len(sparse)).tolist()
        indices, firsts = torch.from_numpy(sparse), torch.from_numpy(starts)
        numeric = torch.from_numpy(scaling.apply(dataset.numeric[rows]))
        labels = torch.from_numpy(dataset.labels[rows].astype(np.int64))
        for low in range(0, len(rows), batch_size):
            high = min(low + batch_size, len(rows))
            yield (
                indices[ends[low] : ends[high]],
                firsts[low:high] - ends[low],
                numeric[low:high],
                labels[low:high],
            )


def _sums(
    left: Sequence[torch.Tensor], right: Sequence[torch.Tensor], *, alpha: float = 1.0
) -> tuple[torch.Tensor, ...]:
    """One of left plus alpha times one of right."""
    return tuple(a.add(b, alpha=alpha) for a, b in zip(left, right, strict=True))


def _corrections(server_control: Params, client_control: Params) -> list[torch.Tensor]:
    """What is added to each gradient, c - cᵢ, in the order of the names."""
    corrections = subtract(server_control, client_control)
    return [torch.from_numpy(corrections[name]) for name in sorted(corrections)]


def validation_metrics(
    params: Params, dataset: ClientDataset, scaling: FeatureScaling
) -> dict[str, float | int | None]:
    """Loss, AUROC and accuracy of a model on a hospital's validation patients; None if undefined.

    They leave the hospital in every round. So of under 10 different patients nothing is told, not
    even `num_validation`, the number of admissions, by which the losses of hospitals are weighted.
    Nor is accuracy where a class that occurs does so in under 10 patients: of a model that always
    says the commonest class, it is the share of the others.
    """
    rows = dataset.rows(VALIDATION)
    patients = dataset.patients[rows]
    if len(np.unique(patients)) < MIN_PATIENTS:
        return dict.fromkeys(
            ("validation_loss", "validation_auroc", "validation_accuracy", "num_validation")
        )
    probabilities = predict_rows(params, scaling, dataset, rows)
    labels = dataset.labels[rows]
    accuracy = None
    if fewest_with_an_outcome(labels, patients, np.unique(labels)) >= MIN_PATIENTS:
        accuracy = float((probabilities.argmax(axis=1) == labels).mean())
    return {
        "validation_loss": cross_entropy(labels, probabilities),
        "validation_auroc": auroc(labels, probabilities),
        "validation_accuracy": accuracy,
        "num_validation": len(rows),
    }


def use_one_thread() -> None:
    """Let this process train with one torch thread: with more, sums are taken in another order."""
    torch.set_num_threads(1)
