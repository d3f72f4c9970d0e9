"""Whether one slope for all hospitals would calibrate the global model: `make recalibration-trial`.

The step that was not adopted: in the end the logits are multiplied by the calibration slope of all
hospitals' patients. It is judged on validation patients alone, in two halves: a patient's logit is
multiplied by the slope of the other half, so that no slope is judged on those it was fitted to.
"""

import argparse
import sys
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from federated.__main__ import read_datasets
from federated.calibration import calibration_line
from federated.calibration_report import LARGE
from federated.commands import refusals
from federated.datasets import ClientDataset
from federated.features import VALIDATION
from federated.histograms import logits_of
from federated.intervals import number_in_words
from federated.metrics import scored_classes
from federated.plan import TrainingPlan, add_run_arguments, plan_of
from federated.prediction import predict_rows
from federated.seeds import rng_for
from federated.simulation import SimulationResult, simulate
from federated.targets import target_named


@dataclass(frozen=True)
class Recalibration:
    """One class.

    Attributes:
        of_halves: the slope of each half of all hospitals' patients.
        before, after: the slope at each large hospital, as the model is and with the step; None
            where no line fits best.
    """

    of_halves: tuple[float, float]
    before: dict[str, float | None]
    after: dict[str, float | None]


def recalibrations(
    datasets: Mapping[str, ClientDataset],
    plan: TrainingPlan,
    result: SimulationResult,
    *,
    seed: int,
    smallest: int = LARGE,
) -> dict[str, Recalibration]:
    """By class; one without a slope in either half is left out.

    Args:
        seed: of the halves, which part patients, not rows.
        smallest: the fewest validation patients of a large hospital.
    """
    probabilities, labels, halves, large = {}, {}, {}, []
    for name in result.client_ids:
        dataset = datasets[name]
        rows = dataset.rows(VALIDATION)
        patients, patient_of_row = np.unique(dataset.patients[rows], return_inverse=True)
        probabilities[name] = predict_rows(result.params, result.scaling, dataset, rows)
        labels[name] = dataset.labels[rows]
        order = rng_for(seed, "halves", name).permutation(len(patients))
        halves[name] = (order % 2)[patient_of_row]
        if len(patients) >= smallest:
            large.append(name)
    half_of_all = np.concatenate([*halves.values()])
    classes, by_class = target_named(plan.target).classes, {}
    for cls in scored_classes(len(classes)):
        outcomes = {name: of_rows == cls for name, of_rows in labels.items()}
        logits = {name: logits_of(of_rows[:, cls]) for name, of_rows in probabilities.items()}
        outcome_of_all = np.concatenate([*outcomes.values()])
        logit_of_all = np.concatenate([*logits.values()])
        first, second = (
            _slope(outcome_of_all[half_of_all == half], logit_of_all[half_of_all == half])
            for half in (0, 1)
        )
        if first is None or second is None:
            continue
        of_other_half = np.array([second, first])
        by_class[classes[cls]] = Recalibration(
            of_halves=(first, second),
            before={name: _slope(outcomes[name], logits[name]) for name in large},
            after={
                name: _slope(outcomes[name], logits[name] * of_other_half[halves[name]])
                for name in large
            },
        )
    return by_class


def _slope(is_positive: NDArray[np.bool_], logits: NDArray[np.float64]) -> float | None:
    line = calibration_line(is_positive, 1 / (1 + np.exp(-logits)))
    return line.slope if line else None


def table(found: Mapping[str, Recalibration]) -> Iterator[str]:
    """A line for each class, and one for each large hospital."""
    for class_name, one in found.items():
        first, second = (_two_places(slope) for slope in one.of_halves)
        yield f"{class_name}: slope of all hospitals' halves {first} and {second}"
        for name, before in one.before.items():
            yield f"  {name}: {_two_places(before)}, with the step {_two_places(one.after[name])}"


def _two_places(slope: float | None) -> str:
    return "–" if slope is None else number_in_words(slope, 2)


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m federated.recalibration_trial")
    parser.description = __doc__
    parser.add_argument("--data", type=Path, required=True, help="a cohort folder")
    add_run_arguments(parser)
    options = parser.parse_args()
    with refusals("recalibration-trial"):
        plan = plan_of(vars(options))
        datasets = read_datasets(options.data, options.target)
        result = simulate(datasets, plan, seed=options.seed)
        found = recalibrations(datasets, plan, result, seed=options.seed)
    sys.stdout.write(f"{options.target}: calibration slopes on validation patients\n")
    for line in table(found):
        sys.stdout.write(f"{line}\n")


if __name__ == "__main__":
    main()
