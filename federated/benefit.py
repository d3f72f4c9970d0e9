"""What each hospital gains: rule of thumb, its own model, the federation's, all rows pooled.

All four are scored on the same held-out patients.
"""

from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from federated.datasets import ClientDataset, concatenate
from federated.features import TEST, TRAIN
from federated.metrics import UNDEFINED, Metrics, mean_of, measure
from federated.plan import TrainingPlan
from federated.prediction import predict_rows
from federated.simulation import SimulationResult, simulate
from federated.strategies import StrategyParameters

MODELS = ("rule_of_thumb", "local", "global", "pooled")
NUM_BANDS = 3

Probabilities = NDArray[np.float32]


@dataclass(frozen=True)
class BenefitReport:
    """Figures per model: over all test patients, the mean of the hospitals', and each one's."""

    pooled_test: dict[str, Metrics]
    mean_of_envoys: dict[str, Metrics]
    envoys: dict[str, dict[str, Metrics]]
    num_examples: dict[str, int]

    def to_json(self) -> dict[str, Any]:
        def plain(figures: dict[str, Metrics]) -> dict[str, Any]:
            return {model: figures[model].to_json() for model in MODELS}

        return {
            "pooled_test": plain(self.pooled_test),
            "mean_of_envoys": plain(self.mean_of_envoys),
            "envoys": [
                {"name": name, "num_examples": self.num_examples[name], **plain(figures)}
                for name, figures in sorted(self.envoys.items())
            ],
        }


def band_frequencies(dataset: ClientDataset, num_classes: int) -> Probabilities:
    """The rule of thumb: training frequencies of the classes per band (bands, classes).

    A band that nobody is in predicts the frequencies of all.
    """
    rows = dataset.rows(TRAIN)
    counts = np.zeros((NUM_BANDS, num_classes))
    np.add.at(counts, (dataset.bands[rows], dataset.labels[rows]), 1)
    counts = np.where(counts.sum(axis=1, keepdims=True) > 0, counts, counts.sum(axis=0))
    totals = np.maximum(counts.sum(axis=1, keepdims=True), 1)
    frequencies: Probabilities = (counts / totals).astype(np.float32)
    return frequencies


def benefit_report(
    datasets: Mapping[str, ClientDataset],
    plan: TrainingPlan,
    federated: SimulationResult,
    *,
    num_classes: int,
    seed: int,
    on_progress: Callable[[int, int], None] = lambda done, total: None,
) -> BenefitReport:
    """Train the baselines for as many local epochs as the federation, and score all of them.

    A baseline has one client, for which there is nothing to choose but FedAvg, whatever the plan's
    strategy. A hospital too small for the federation is still trained alone, to be compared; one without a
    training example has no local model, and undefined figures.

    Args:
        datasets: every hospital's, by client id; all of them hosted here.
        federated: the run to be judged.
        on_progress: how many of how many rounds of baselines are trained.
    """
    everyone = concatenate([datasets[name] for name in sorted(datasets)])
    frequencies = band_frequencies(everyone, num_classes)
    lone_plan = replace(
        plan, min_examples=1, strategy="fedavg", strategy_parameters=StrategyParameters()
    )
    num_trainable = sum(dataset.num_examples > 0 for dataset in datasets.values())
    done, total = 0, (num_trainable + 1) * plan.num_rounds

    def on_round(_: int) -> None:
        nonlocal done
        done += 1
        on_progress(done, total)

    pooled = simulate({"pooled": everyone}, lone_plan, seed=seed, on_round=on_round)

    labels: list[NDArray[np.int8]] = []
    scores: dict[str, list[Probabilities]] = {model: [] for model in MODELS}
    envoys: dict[str, dict[str, Metrics]] = {}
    local_labels: list[NDArray[np.int8]] = []
    for name in sorted(datasets):
        dataset = datasets[name]
        rows = dataset.rows(TEST)
        labels.append(dataset.labels[rows])
        scored = {
            "rule_of_thumb": frequencies[dataset.bands[rows]],
            "global": predict_rows(federated.params, federated.scaling, dataset, rows),
            "pooled": predict_rows(pooled.params, pooled.scaling, dataset, rows),
        }
        if dataset.num_examples:
            alone = simulate({name: dataset}, lone_plan, seed=seed, on_round=on_round)
            scored["local"] = predict_rows(alone.params, alone.scaling, dataset, rows)
            local_labels.append(dataset.labels[rows])
        envoys[name] = {
            model: measure(labels[-1], scored[model]) if model in scored else UNDEFINED
            for model in MODELS
        }
        for model, probabilities in scored.items():
            scores[model].append(probabilities)

    return BenefitReport(
        pooled_test={
            model: measure(
                np.concatenate(local_labels if model == "local" else labels),
                np.concatenate(scores[model]),
            )
            if scores[model]
            else UNDEFINED
            for model in MODELS
        },
        mean_of_envoys={
            model: mean_of([figures[model] for figures in envoys.values()]) for model in MODELS
        },
        envoys=envoys,
        num_examples={name: datasets[name].num_examples for name in datasets},
    )
