"""How far the federation is from the best one model of all rows: `make pooled-best`.

The benefit report's pooled model has as many epochs as the federation, in which it may overfit or
not arrive. Here the length of training and the learning rate are chosen, for the pooled model and
for the federated one by the same rule: the lowest loss on all hospitals' validation patients. Test
patients are scored once that is done.
"""

import argparse
import json
import sys
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
from tqdm import tqdm

from federated.__main__ import read_datasets
from federated.commands import output_file, refusals
from federated.datasets import ClientDataset, concatenate
from federated.errors import FederatedError
from federated.features import TEST, VALIDATION
from federated.intervals import Interval, auroc_statistic, resample
from federated.metrics import auroc, cross_entropies
from federated.params import Params
from federated.plan import TrainingPlan, add_run_arguments, plan_of
from federated.prediction import predict_rows
from federated.scaling import FeatureScaling
from federated.simulation import simulate_rounds
from federated.strategies import StrategyParameters
from federated.suppression import MIN_PATIENTS

LEARNING_RATES = (0.1, 0.3, 1.0)
MAX_ROUNDS = 20
POOLED, FEDERATED = "pooled", "federated"


@dataclass(frozen=True)
class TrainedModel:
    """A model after some of a plan's rounds, and its figures on the validation patients."""

    plan: TrainingPlan
    num_rounds: int
    params: Params
    scaling: FeatureScaling
    validation_loss: float
    validation_auroc: float | None

    @property
    def num_epochs(self) -> int:
        return self.num_rounds * self.plan.local_training.local_epochs


@dataclass(frozen=True)
class HeldOutFigure:
    """AUROC on the test patients of all hospitals, and that less the best pooled model's, paired.

    An interval is None where too few resamples define it; that model has no difference to itself.
    """

    auroc: float | None
    interval: Interval | None
    difference: Interval | None


@dataclass(frozen=True)
class Comparison:
    """The models by name, those as planned and those chosen; and what was chosen from.

    Attributes:
        tried: by "pooled" and "federated", the best round of each learning rate.
    """

    models: dict[str, TrainedModel]
    figures: dict[str, HeldOutFigure]
    tried: dict[str, list[TrainedModel]]

    def to_json(self) -> dict[str, Any]:
        return {
            "models": {
                name: _described(model) | asdict(self.figures[name])
                for name, model in self.models.items()
            },
            "tried": {
                name: [_described(model) for model in models] for name, models in self.tried.items()
            },
        }


def _described(model: TrainedModel) -> dict[str, Any]:
    return {
        "learning_rate": model.plan.local_training.learning_rate,
        "num_rounds": model.num_rounds,
        "num_epochs": model.num_epochs,
        "validation_loss": model.validation_loss,
        "validation_auroc": model.validation_auroc,
    }


def after_each_round(
    datasets: Mapping[str, ClientDataset], plan: TrainingPlan, *, seed: int
) -> Iterator[TrainedModel]:
    """The models along the way of `simulation.simulate`, whose last is its result.

    Args:
        datasets: by client id; one with too few labelled patients sits out.
    Raises:
        As `simulate`.
    """
    validation = _everyone(datasets)
    rows = validation.rows(VALIDATION)
    labels = validation.labels[rows]
    for round_number, result in enumerate(simulate_rounds(datasets, plan, seed=seed), start=1):
        probabilities = predict_rows(result.params, result.scaling, validation, rows)
        loss = cross_entropies(labels, probabilities).mean()
        yield TrainedModel(
            plan,
            round_number,
            result.params,
            result.scaling,
            float(loss),
            auroc(labels, probabilities),
        )


def compare_with_best_pooled(
    datasets: Mapping[str, ClientDataset],
    plan: TrainingPlan,
    *,
    seed: int,
    learning_rates: Sequence[float] = LEARNING_RATES,
    max_rounds: int = MAX_ROUNDS,
) -> Comparison:
    """Choose by validation loss, then score the test patients.

    The pooled model is looked at after each epoch, up to as many as `max_rounds` of the plan have;
    the federated one after each round. A pooled model has one client, for which there is nothing to
    choose but FedAvg, whatever the plan's strategy.

    Raises:
        FederatedError: the plan cannot be carried out on these hospitals, or fewer than ten
            validation or test patients have an outcome.
    """
    everyone = {POOLED: _everyone(datasets)}
    for part, split in (("validation", VALIDATION), ("test", TEST)):
        if len(np.unique(everyone[POOLED].patients[everyone[POOLED].rows(split)])) < MIN_PATIENTS:
            raise FederatedError(f"fewer than ten {part} patients have an outcome")
    lone = replace(
        plan, min_examples=1, strategy="fedavg", strategy_parameters=StrategyParameters()
    )
    local_epochs = plan.local_training.local_epochs
    runs: list[tuple[str, Mapping[str, ClientDataset], TrainingPlan]] = []
    for rate in learning_rates:
        local_training = replace(plan.local_training, learning_rate=rate)
        by_epoch = replace(local_training, local_epochs=1)
        num_epochs = max_rounds * local_epochs
        runs.append(
            (POOLED, everyone, replace(lone, num_rounds=num_epochs, local_training=by_epoch))
        )
        runs.append(
            (
                FEDERATED,
                datasets,
                replace(plan, num_rounds=max_rounds, local_training=local_training),
            )
        )
    tried: dict[str, list[TrainedModel]] = {POOLED: [], FEDERATED: []}
    for name, hospitals, one_plan in tqdm(runs, desc="Training", leave=False, disable=None):
        tried[name].append(_best(after_each_round(hospitals, one_plan, seed=seed)))
    models = {}
    for name, hospitals, one_plan in ((POOLED, everyone, lone), (FEDERATED, datasets, plan)):
        *_, models[f"{name}, as planned"] = after_each_round(hospitals, one_plan, seed=seed)
        models[f"{name}, chosen"] = _best(tried[name])
    return Comparison(models, _test_figures(models, everyone[POOLED], seed=seed), tried)


def _everyone(datasets: Mapping[str, ClientDataset]) -> ClientDataset:
    return concatenate([datasets[name] for name in sorted(datasets)])


def _best(models: Iterator[TrainedModel] | Sequence[TrainedModel]) -> TrainedModel:
    """The lowest validation loss; of equal ones the first."""
    return min(models, key=lambda model: model.validation_loss)


def _test_figures(
    models: Mapping[str, TrainedModel], everyone: ClientDataset, *, seed: int
) -> dict[str, HeldOutFigure]:
    rows = everyone.rows(TEST)
    labels = everyone.labels[rows]
    scores = {
        name: predict_rows(model.params, model.scaling, everyone, rows)
        for name, model in models.items()
    }
    drawn = resample(
        {name: auroc_statistic(labels, scored) for name, scored in scores.items()},
        everyone.patients[rows],
        seed=str(seed),
    )
    reference = f"{POOLED}, chosen"
    return {
        name: HeldOutFigure(
            auroc=auroc(labels, scored),
            interval=drawn[name].interval(),
            difference=None if name == reference else (drawn[name] - drawn[reference]).interval(),
        )
        for name, scored in scores.items()
    }


def table(found: Comparison) -> str:
    """What was tried, on validation patients; then the models on test patients."""
    lines = [f"{'tried':22}{'rate':>6}{'rounds':>8}{'epochs':>8}{'loss':>10}{'AUROC':>9}"]
    for name, models in found.tried.items():
        lines += [_line(name, model) for model in models]
    lines += [
        "",
        f"{'model':22}{'rate':>6}{'rounds':>8}{'epochs':>8}{'loss':>10}{'AUROC':>9}"
        "  test AUROC                  less the pooled, chosen",
    ]
    for name, model in found.models.items():
        figure = found.figures[name]
        lines.append(
            f"{_line(name, model)}  {_shown(figure.interval, '.4f'):26}  "
            f"{_shown(figure.difference, '+.4f')}"
        )
    return "\n".join(lines)


def _line(name: str, model: TrainedModel) -> str:
    auroc_text = "–" if model.validation_auroc is None else f"{model.validation_auroc:.4f}"
    return (
        f"{name:22}{model.plan.local_training.learning_rate:>6g}{model.num_rounds:>8}"
        f"{model.num_epochs:>8}{model.validation_loss:>10.5f}{auroc_text:>9}"
    )


def _shown(interval: Interval | None, places: str) -> str:
    if interval is None:
        return "–"
    return f"{interval.estimate:{places}} ({interval.low:{places}} to {interval.high:{places}})"


def main() -> None:
    parser = argparse.ArgumentParser(
        prog="python -m federated.pooled_baseline", description=__doc__
    )
    parser.add_argument("--data", type=Path, required=True, help="a cohort folder")
    add_run_arguments(parser)
    parser.add_argument(
        "--learning-rates", type=float, nargs="+", default=LEARNING_RATES, help="to choose from"
    )
    parser.add_argument("--max-rounds", type=int, default=MAX_ROUNDS, help="to choose from")
    parser.add_argument("--json", type=output_file, help="write the figures to this file")
    options = parser.parse_args()
    with refusals("pooled-best"):
        plan = plan_of(vars(options))
        found = compare_with_best_pooled(
            read_datasets(options.data, options.target),
            plan,
            seed=options.seed,
            learning_rates=options.learning_rates,
            max_rounds=options.max_rounds,
        )
    sys.stdout.write(
        f"{options.target}: loss (nats) and AUROC on validation patients, after the epoch or round"
        " of the lowest loss;\nAUROC on test patients with 95 % intervals by resampling patients"
        f"\n\n{table(found)}\n"
    )
    if options.json:
        options.json.write_text(json.dumps(found.to_json(), indent=2) + "\n")


if __name__ == "__main__":
    main()
