"""How well the model of a federation is calibrated at each hospital: `make calibration`.

A line a hospital, and of three classes one a class: patients, calibration slope and intercept with
their 95 % intervals; last, which of the large hospitals have a slope that is too far from 1.
"""

import argparse
import sys
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path

from federated.__main__ import read_datasets
from federated.assessment import calibrations
from federated.commands import refusals
from federated.datasets import ClientDataset
from federated.features import TEST, VALIDATION
from federated.intervals import Interval, number_in_words
from federated.plan import TrainingPlan, add_run_arguments, plan_of
from federated.schemas import feature_schema
from federated.scored_rows import score_rows
from federated.simulation import SimulationResult, simulate
from federated.small_counts import shown
from federated.targets import target_named

SPLITS = {"test": TEST, "validation": VALIDATION}
LARGE = 1000  # patients
LOW, HIGH = 0.9, 1.1  # the bar for the slope of a large hospital


@dataclass(frozen=True)
class HospitalLine:
    """One class at one hospital; None where it is undefined or not to be told (`Calibration`)."""

    hospital: str
    num_patients: int
    class_name: str
    slope: Interval | None
    intercept: Interval | None

    @property
    def misses(self) -> bool:
        """Whether a large hospital's slope is outside the bar."""
        is_large = self.num_patients >= LARGE
        return bool(is_large and self.slope and not LOW <= self.slope.estimate <= HIGH)


def calibration_by_hospital(
    datasets: Mapping[str, ClientDataset],
    plan: TrainingPlan,
    result: SimulationResult,
    *,
    split: int,
    seed: int,
) -> list[HospitalLine]:
    """The final model at every hospital that took part, on its patients of one split."""
    schema, classes = feature_schema(plan.target), target_named(plan.target).classes
    lines = []
    for name in result.client_ids:
        rows = score_rows(
            datasets[name], split, schema, {"global": (result.params, result.scaling)}
        )
        for class_name, found in calibrations(rows, classes, seed=f"{seed}:{name}").items():
            lines.append(
                HospitalLine(
                    hospital=name,
                    num_patients=rows.num_patients,
                    class_name=class_name,
                    slope=found.slope_interval,
                    intercept=found.intercept_interval,
                )
            )
    return lines


def table(lines: list[HospitalLine], *, split: str) -> Iterator[str]:
    width = max(len(line.hospital) for line in lines)
    class_width = max(len(line.class_name) for line in lines)
    for line in lines:
        yield (
            f"{line.hospital:{width}}  {shown(line.num_patients):>8} {split} patients"
            f"  {line.class_name:{class_width}}"
            f"  slope {_in_words(line.slope):22}  intercept {_in_words(line.intercept)}"
        )
    large = {line.hospital for line in lines if line.num_patients >= LARGE}
    if not large:
        yield (
            f"No hospital has {LARGE:,} {split} patients, which a hospital needs for its slope to be"
            f" held against the bar of {LOW} to {HIGH}: there is nothing to compare"
        )
        return
    missing = [
        f"{line.hospital}, {line.class_name} ({line.slope.estimate:.3f})"
        for line in lines
        if line.misses and line.slope
    ]
    yield (
        f"hospitals with {LARGE:,} {split} patients or more: {len(large)};"
        f" slopes outside {LOW} to {HIGH}: {'; '.join(missing) or 'none'}"
    )


def _in_words(interval: Interval | None) -> str:
    if interval is None:
        return "–"
    figures = (interval.estimate, interval.low, interval.high)
    estimate, low, high = (number_in_words(figure, 2) for figure in figures)
    return f"{estimate} ({low} to {high})"


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m federated.calibration_report")
    parser.description = __doc__
    parser.add_argument("--data", type=Path, required=True, help="a cohort folder")
    parser.add_argument("--split", choices=sorted(SPLITS), default="test")
    add_run_arguments(parser)
    options = parser.parse_args()
    with refusals("calibration"):
        plan = plan_of(vars(options))
        datasets = read_datasets(options.data, options.target)
        result = simulate(datasets, plan, seed=options.seed)
        lines = calibration_by_hospital(
            datasets, plan, result, split=SPLITS[options.split], seed=options.seed
        )
    for line in table(lines, split=options.split):
        sys.stdout.write(f"{line}\n")


if __name__ == "__main__":
    main()
