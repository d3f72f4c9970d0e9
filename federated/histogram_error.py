"""What score histograms cost: their AUROC and AUPRC beside the exact ones, `make histogram-error`.

On the validation and the test patients of a cohort folder, or, without one, on scores drawn from
normal distributions.
"""

import argparse
import json
import sys
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from federated.__main__ import read_datasets
from federated.commands import output_file, refusals
from federated.datasets import ClientDataset
from federated.features import TEST, VALIDATION
from federated.histograms import (
    PooledFigure,
    ScoreHistogram,
    fixed_bins,
    pooled_ranking,
    score_histograms,
)
from federated.metrics import (
    Labels,
    Metrics,
    Patients,
    Probabilities,
    mean_of,
    measure,
    scored_classes,
)
from federated.plan import add_run_arguments, plan_of
from federated.prediction import predict_rows
from federated.seeds import rng_for
from federated.simulation import SimulationResult, simulate
from federated.small_counts import MIN_PATIENTS

NUM_SHUFFLES = 200
NUM_SHUFFLES_OF_DRAW = 20  # of which there are many
PARTS = {"validation": VALIDATION, "test": TEST}

# Of the test patients of diabetes130's hospitals there are about as many.
EIGHT_HOSPITALS = (610, 840, 833, 1645, 1824, 3779, 1026, 875)

Rows = tuple[Labels, Probabilities, Patients]


@dataclass(frozen=True)
class DrawnCase:
    """Hospitals of scores drawn from normal distributions, see `draw_hospital`."""

    name: str
    sizes: tuple[int, ...]
    prevalence: float
    distance: float
    spread: float
    num_draws: int


DRAWN_CASES = (
    DrawnCase("eight hospitals, 11 %", EIGHT_HOSPITALS, 0.11, 0.55, 0.6, 20),
    DrawnCase("eight hospitals, 2 %", EIGHT_HOSPITALS, 0.02, 1.5, 1.2, 40),
    DrawnCase("five of 400 rows, 2 %", (400,) * 5, 0.02, 1.5, 1.2, 40),
)


@dataclass(frozen=True)
class BinnedFigure:
    """A figure over all hospitals: exact, and from what they would release.

    Attributes:
        figure: "AUROC" or "AUPRC".
        binned, low, high: from each hospital's histogram, with the bounds printed beside it.
        merged_together: from one histogram of all hospitals, neighbours merged until ten patients
            of all of them are in a bin; it would take adding up under encryption.
        spread: the standard deviation of the exact figure when the outcomes within each released
            bin change places: what the counts leave open, whatever is made of them.
    """

    figure: str
    exact: float
    binned: float
    low: float
    high: float
    merged_together: float
    spread: float

    @property
    def error(self) -> float:
        return self.binned - self.exact


def histogram_errors(
    hospitals: Sequence[Rows], *, seed: int = 0, num_shuffles: int = NUM_SHUFFLES
) -> list[BinnedFigure]:
    """The errors of AUROC and AUPRC; none where a class does not occur.

    Args:
        hospitals: labels (num_rows,), probabilities (num_rows, num_classes) and patients
            (num_rows,) of each, rows of one patient sharing a number.
        seed: of the shuffles.
    """
    everyone = _joined(hospitals)
    released = [score_histograms(*rows) for rows in hospitals]
    binned = pooled_ranking(released)
    together = pooled_ranking([score_histograms(*everyone)])
    exact = measure(*everyone[:2])
    shuffled = _shuffled(hospitals, released, seed=seed, num_shuffles=num_shuffles)
    found = []
    for name in ("auroc", "auprc"):
        value: float | None = getattr(exact, name)
        figure: PooledFigure | None = getattr(binned, name)
        figure_together: PooledFigure | None = getattr(together, name)
        if value is None or figure is None or figure_together is None:
            continue
        found.append(
            BinnedFigure(
                figure=name.upper(),
                exact=value,
                binned=figure.value,
                low=figure.low,
                high=figure.high,
                merged_together=figure_together.value,
                spread=float(np.std([getattr(metrics, name) for metrics in shuffled])),
            )
        )
    return found


def why_nothing(hospitals: Sequence[Rows]) -> str:
    """Why `histogram_errors` is empty, in words."""
    labels, probabilities, _ = _joined(hospitals)
    num_missing = probabilities.shape[1] - len(np.unique(labels))
    if num_missing:
        return f"{num_missing} of {probabilities.shape[1]} outcomes happened to nobody"
    if all(len(np.unique(patients)) < MIN_PATIENTS for _, _, patients in hospitals):
        return (
            f"no hospital has {MIN_PATIENTS} patients whose outcome is known, and of fewer none"
            " sends a histogram"
        )
    return f"the hospitals of {MIN_PATIENTS} patients or more do not have every outcome"


def _joined(hospitals: Sequence[Rows]) -> Rows:
    """All rows; a patient seen by two hospitals counts as two."""
    starts = np.cumsum([0, *(int(patients.max(initial=-1)) + 1 for _, _, patients in hospitals)])
    labels, probabilities, patients = zip(*hospitals, strict=True)
    moved = [one + start for one, start in zip(patients, starts[:-1], strict=True)]
    return np.concatenate(labels), np.concatenate(probabilities), np.concatenate(moved)


def _shuffled(
    hospitals: Sequence[Rows],
    released: Sequence[tuple[ScoreHistogram, ...]],
    *,
    seed: int,
    num_shuffles: int,
) -> list[Metrics]:
    """Exact figures of outcomes that have changed places within each hospital's released bins."""
    labels, probabilities, _ = _joined(hospitals)
    rng = rng_for(seed, "shuffle outcomes within bins")
    by_class = []
    for position, cls in enumerate(scored_classes(probabilities.shape[1])):
        bins = _released_bins(hospitals, [of[position] for of in released], cls)
        by_class.append(((labels == cls).astype(np.int8), bins, probabilities[:, cls]))
    found = []
    for _ in range(num_shuffles):
        of_classes = []
        for is_positive, bins, scores in by_class:
            changed = np.empty_like(is_positive)
            changed[np.argsort(bins, kind="stable")] = is_positive[
                np.lexsort((rng.random(len(bins)), bins))
            ]
            of_classes.append(measure(changed, np.stack([1 - scores, scores], axis=1)))
        found.append(mean_of(of_classes))
    return found


def _released_bins(
    hospitals: Sequence[Rows], histograms: Sequence[ScoreHistogram], cls: int
) -> NDArray[np.int64]:
    """A number for the released bin of each row, different between hospitals."""
    parts, num_bins = [], 0
    for (_, probabilities, _), histogram in zip(hospitals, histograms, strict=True):
        merged = np.searchsorted(histogram.starts, fixed_bins(probabilities[:, cls]), "right")
        parts.append(merged + num_bins)
        num_bins += len(histogram.starts) + 1
    return np.concatenate(parts)


def scored(
    datasets: Mapping[str, ClientDataset], result: SimulationResult, split: int
) -> list[Rows]:
    """The rows of one side of the split as the global model scores them, by hospital."""
    hospitals: list[Rows] = []
    for name in sorted(datasets):
        dataset = datasets[name]
        rows = dataset.rows(split)
        probabilities = predict_rows(result.params, result.scaling, dataset, rows)
        hospitals.append((dataset.labels[rows], probabilities, dataset.patients[rows]))
    return hospitals


def draw_hospital(num_rows: int, case: DrawnCase, rng: np.random.Generator) -> Rows:
    """Rows whose logits are normal, at a level of the hospital's own; of fewer patients.

    The means with and without the outcome are `distance` standard deviations (`spread`) apart.
    """
    labels = (rng.random(num_rows) < case.prevalence * rng.uniform(0.7, 1.3)).astype(np.int8)
    level = np.log(case.prevalence / (1 - case.prevalence)) + rng.normal(0, 0.2)
    logits = level + case.spread * (rng.normal(size=num_rows) + case.distance * labels)
    scores = 1 / (1 + np.exp(-logits))
    patients = rng.integers(0, num_rows, num_rows).astype(np.int32)
    return labels, np.stack([1 - scores, scores], axis=1).astype(np.float32), patients


def errors_of_draws(case: DrawnCase) -> list[list[BinnedFigure]]:
    """By draw, whose number is its seed."""
    found = []
    for seed in range(case.num_draws):
        rng = np.random.default_rng(seed)
        hospitals = [draw_hospital(num_rows, case, rng) for num_rows in case.sizes]
        found.append(histogram_errors(hospitals, seed=seed, num_shuffles=NUM_SHUFFLES_OF_DRAW))
    return found


def table(found: Mapping[str, Sequence[BinnedFigure]], reasons: Mapping[str, str]) -> str:
    """A line for each figure of each part; of a part without any, its reason."""
    lines = [
        f"{'patients':12}{'figure':8}{'exact':>8}{'binned':>8}{'error':>9}  {'bounds':18}"
        f"{'spread in bins':>15}{'merged together':>17}{'error':>9}"
    ]
    for part, errors in found.items():
        if not errors:
            lines.append(f"{part:12}nothing to compare: {reasons[part]}")
        for one in errors:
            bounds = f"{one.low:.4f} to {one.high:.4f}"
            lines.append(
                f"{part:12}{one.figure:8}{one.exact:>8.4f}{one.binned:>8.4f}{one.error:>+9.4f}"
                f"  {bounds:18}{one.spread:>15.4f}{one.merged_together:>17.4f}"
                f"{one.merged_together - one.exact:>+9.4f}"
            )
    return "\n".join(lines)


def table_of_draws(found: Mapping[str, Sequence[Sequence[BinnedFigure]]]) -> str:
    """A line for each figure of each case: of the draws' errors, regardless of their sign."""
    lines = [
        f"{'scores drawn':24}{'draws':>6}  {'figure':8}{'median':>8}{'largest':>9}{'mean':>9}"
        f"{'spread in bins':>16}{'merged together, median':>25}{'largest':>9}"
    ]
    for case, draws in found.items():
        for figure in ("AUROC", "AUPRC"):
            mine = [one for draw in draws for one in draw if one.figure == figure]
            errors = np.array([one.error for one in mine])
            together = np.abs([one.merged_together - one.exact for one in mine])
            lines.append(
                f"{case:24}{len(mine):>6}  {figure:8}{np.median(np.abs(errors)):>8.4f}"
                f"{np.abs(errors).max():>9.4f}{errors.mean():>+9.4f}"
                f"{np.median([one.spread for one in mine]):>16.4f}"
                f"{np.median(together):>25.4f}{together.max():>9.4f}"
            )
    return "\n".join(lines)


def main() -> None:
    parser = argparse.ArgumentParser(
        prog="python -m federated.histogram_error", description=__doc__
    )
    parser.add_argument("--data", type=Path, help="a cohort folder; without one, scores are drawn")
    add_run_arguments(parser)
    parser.add_argument("--json", type=output_file, help="write the figures to this file")
    options = parser.parse_args()
    plain: dict[str, Any]
    if options.data is None:
        of_draws = {case.name: errors_of_draws(case) for case in DRAWN_CASES}
        text = table_of_draws(of_draws)
        plain = {
            name: [[asdict(one) for one in draw] for draw in draws]
            for name, draws in of_draws.items()
        }
    else:
        with refusals("histogram-error"):
            plan = plan_of(vars(options))
            datasets = read_datasets(options.data, options.target)
            result = simulate(datasets, plan, seed=options.seed)
        rows = {part: scored(datasets, result, split) for part, split in PARTS.items()}
        of_parts = {
            part: histogram_errors(hospitals, seed=options.seed) for part, hospitals in rows.items()
        }
        reasons = {part: why_nothing(rows[part]) for part, errors in of_parts.items() if not errors}
        text = f"The global model of {options.target}\n{table(of_parts, reasons)}"
        plain = {part: [asdict(one) for one in errors] for part, errors in of_parts.items()}
    sys.stdout.write(f"{text}\n")
    if options.json:
        options.json.write_text(json.dumps(plain, indent=2) + "\n")


if __name__ == "__main__":
    main()
