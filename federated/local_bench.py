"""Local training beside a bare PyTorch loop that does the same steps: `make bench-local`.

The bare loop is what a tutorial writes: modules, an optimiser, tensors made beforehand. Both take the
same steps on the same batches and must end at the same loss; they take turns, so that a busy machine
slows both alike.
"""

import argparse
import json
import statistics
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

import numpy as np
import torch
from torch import nn

from federated.__main__ import read_datasets
from federated.architectures import architectures
from federated.commands import refusals
from federated.datasets import ClientDataset
from federated.features import TRAIN
from federated.local_training import train_locally, use_one_thread
from federated.params import Params
from federated.plan import TrainingPlan, make_plan
from federated.rounds import first_params
from federated.scaling import FeatureScaling, feature_statistics, pooled_scaling
from federated.seeds import rng_for
from federated.synthetic import write_synthetic_cohort

NUM_TURNS = 7


class Bare(nn.Module):
    """`federated.networks` as modules, started at the same parameters."""

    def __init__(self, params: Params) -> None:
        super().__init__()
        codes = torch.from_numpy(params["codes"].copy())
        self.codes = nn.EmbeddingBag.from_pretrained(codes, freeze=False, mode="sum")
        self.numeric = _linear(params["numeric"], params["bias"])
        self.output: nn.Linear | None = None
        if "output.weight" in params:
            self.output = _linear(params["output.weight"], params["output.bias"])

    def forward(
        self, indices: torch.Tensor, starts: torch.Tensor, numeric: torch.Tensor
    ) -> torch.Tensor:
        layer: torch.Tensor = self.codes(indices, starts) + self.numeric(numeric)
        return layer if self.output is None else self.output(torch.relu(layer))


def _linear(weight: np.ndarray, bias: np.ndarray) -> nn.Linear:
    """A layer with these values; ours are (inputs, outputs), PyTorch's (outputs, inputs)."""
    layer = nn.Linear(*weight.shape)
    with torch.no_grad():
        layer.weight.copy_(torch.from_numpy(weight.T.copy()))
        layer.bias.copy_(torch.from_numpy(bias.copy()))
    return layer


def train_bare(
    params: Params,
    dataset: ClientDataset,
    scaling: FeatureScaling,
    plan: TrainingPlan,
    rng: np.random.Generator,
) -> float:
    """The steps of `train_locally`; returns the mean loss of the last epoch, in nats."""
    config, rows = plan.local_training, dataset.rows(TRAIN)
    model = Bare(params)
    optimizer = torch.optim.SGD(
        model.parameters(), lr=config.learning_rate, weight_decay=config.weight_decay
    )
    for _ in range(config.local_epochs):
        order, loss_sum = rng.permutation(rows), 0.0
        for start in range(0, len(order), config.batch_size):
            batch = order[start : start + config.batch_size]
            indices, starts = dataset.sparse_rows(batch)
            optimizer.zero_grad()
            loss = nn.functional.cross_entropy(
                model(
                    torch.from_numpy(indices),
                    torch.from_numpy(starts),
                    torch.from_numpy(scaling.apply(dataset.numeric[batch])),
                ),
                torch.from_numpy(dataset.labels[batch].astype(np.int64)),
            )
            loss.backward()  # type: ignore[no-untyped-call]
            optimizer.step()
            loss_sum += loss.item() * len(batch)
    return loss_sum / len(rows)


def compare(dataset: ClientDataset, plan: TrainingPlan) -> dict[str, float]:
    """Median seconds of both, taking turns after a warm-up each, and their ratio."""
    scaling = pooled_scaling([feature_statistics(dataset)])
    params = first_params(plan, seed=0)

    def ours() -> float:
        update = train_locally(
            params, dataset, scaling, plan.local_training, client_id="bench", rng=rng_for(0)
        )
        loss: float = update.metrics["train_loss"]
        return loss

    def bare() -> float:
        return train_bare(params, dataset, scaling, plan, rng_for(0))

    losses = ours(), bare()
    if abs(losses[0] - losses[1]) > 1e-4:
        raise AssertionError(f"not the same steps: the losses are {losses[0]} and {losses[1]}")
    seconds: dict[Callable[[], float], list[float]] = {ours: [], bare: []}
    for _ in range(NUM_TURNS):
        for train, measured in seconds.items():
            started = time.perf_counter()
            train()
            measured.append(time.perf_counter() - started)
    middle = [statistics.median(measured) for measured in seconds.values()]
    return {
        "seconds": middle[0],
        "bare_seconds": middle[1],
        "ratio": statistics.median(
            a / b for a, b in zip(seconds[ours], seconds[bare], strict=True)
        ),
    }


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m federated.local_bench", description=__doc__)
    parser.add_argument("--data", type=Path, help="a cohort folder; synthetic hospitals without")
    parser.add_argument("--target", default="risk_tier")
    options = parser.parse_args()
    use_one_thread()
    with refusals("bench-local"), tempfile.TemporaryDirectory() as made:
        plans = [make_plan(target=options.target, network=each.name) for each in architectures()]
        if options.data is None:
            write_synthetic_cohort(Path(made), seed=0)
        datasets = read_datasets(options.data or Path(made), options.target)
        dataset = max(datasets.values(), key=lambda each: each.num_examples)
        for plan in plans:
            figures = compare(dataset, plan)
            line = {"network": plan.network, "num_examples": dataset.num_examples}
            sys.stdout.write(
                json.dumps(line | {name: round(value, 4) for name, value in figures.items()}) + "\n"
            )


if __name__ == "__main__":
    main()
