"""The plainest program that does a workload's steps: modules, an optimiser, tensors made beforehand.

One process, one thread, nothing stored. It is started once and waits, so that it can take turns
with the served federation: each line it reads is a number of rounds, each it writes their seconds
by the clock and of the processor.
"""

import argparse
import sys
import time
from pathlib import Path

import torch
from safetensors.torch import save_file
from torch import nn

from federated.local_training import use_one_thread
from federated.plan import make_plan
from federated.rounds import first_params
from federated.scaling import feature_statistics, pooled_scaling
from federated.seeds import rng_for
from techlife.bench.workloads import (
    HIDDEN_UNITS,
    LEARNING_RATE,
    NETWORKS,
    NUM_CLASSES,
    NUM_INPUTS,
    SEED,
    TARGET,
    WORKLOADS,
    Workload,
    make_rows,
    register_inputs,
)

Hospitals = dict[str, tuple[torch.Tensor, torch.Tensor]]


def make_model(network: str) -> nn.Module:
    """A model that starts where the served run starts."""
    plan = make_plan(target=TARGET, network=NETWORKS[network])
    first = {name: torch.from_numpy(value) for name, value in first_params(plan, seed=SEED).items()}
    if network == "logistic":
        model: nn.Module = nn.Linear(NUM_INPUTS, NUM_CLASSES)
        values = [first["numeric"].T, first["bias"]]
    else:
        model = nn.Sequential(
            nn.Linear(NUM_INPUTS, HIDDEN_UNITS), nn.ReLU(), nn.Linear(HIDDEN_UNITS, NUM_CLASSES)
        )
        values = [first["numeric"].T, first["bias"], first["output.weight"].T, first["output.bias"]]
    with torch.no_grad():
        for parameter, value in zip(model.parameters(), values, strict=True):
            parameter.copy_(value)
    return model


def load_hospitals(workload: Workload) -> Hospitals:
    """Each hospital's inputs, standardised over all of them, and classes."""
    datasets = {name: make_rows(name, workload.num_rows) for name in workload.hospitals()}
    scaling = pooled_scaling(feature_statistics(dataset) for dataset in datasets.values())
    hospitals = {}
    for name in list(datasets):
        dataset = datasets.pop(name)
        inputs = torch.from_numpy(scaling.apply(dataset.numeric))
        hospitals[name] = (inputs, torch.from_numpy(dataset.labels).long())
    return hospitals


def train_round(model: nn.Module, hospitals: Hospitals, number: int, batch_size: int) -> None:
    """One epoch at each hospital from the same parameters, then the mean, weighted by rows."""
    start = {name: value.clone() for name, value in model.state_dict().items()}
    sums = {name: torch.zeros_like(value, dtype=torch.float64) for name, value in start.items()}
    num_rows = 0
    for hospital, (inputs, labels) in hospitals.items():
        model.load_state_dict(start)
        optimizer = torch.optim.SGD(model.parameters(), lr=LEARNING_RATE)
        order = torch.from_numpy(rng_for(SEED, number, hospital).permutation(len(labels)))
        loss_sum = 0.0
        for batch in order.split(batch_size):
            optimizer.zero_grad()
            loss = nn.functional.cross_entropy(model(inputs[batch]), labels[batch])
            loss.backward()
            optimizer.step()
            loss_sum += loss.item() * len(batch)
        for name, value in model.state_dict().items():
            sums[name] += len(labels) * value
        num_rows += len(labels)
    model.load_state_dict({name: value / num_rows for name, value in sums.items()})


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("workload", choices=WORKLOADS)
    parser.add_argument("network", choices=NETWORKS)
    parser.add_argument("--params", type=Path, help="where the last parameters are written")
    options = parser.parse_args()
    use_one_thread()
    register_inputs()
    workload = WORKLOADS[options.workload]
    hospitals = load_hospitals(workload)
    train_round(make_model(options.network), hospitals, 0, workload.batch_size)  # warms up
    say("ready")
    for line in sys.stdin:
        model = make_model(options.network)
        started, busy = time.perf_counter(), time.process_time()
        for number in range(1, int(line) + 1):
            train_round(model, hospitals, number, workload.batch_size)
        seconds, busy = time.perf_counter() - started, time.process_time() - busy
        if options.params:
            save_file(dict(model.state_dict()), options.params)
        say(f"{seconds} {busy}")


def say(line: str) -> None:
    sys.stdout.write(f"{line}\n")
    sys.stdout.flush()


if __name__ == "__main__":
    main()
