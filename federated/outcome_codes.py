"""What codes that say "dead or dying" are worth to a model of death: `make outcome-codes`.

The study drops them, since they are the outcome and not what leads to it. Here the federation is
trained twice from one seed, without them and with them, and scored on the same test patients.
"""

import argparse
import json
import sys
from collections.abc import Iterable, Mapping
from dataclasses import asdict, dataclass
from pathlib import Path

import numpy as np

from federated import icd
from federated.cohorts import AdmissionRecord, EnvoyFiles, check_envoy, find_envoys, read_admissions
from federated.commands import output_file, refusals
from federated.datasets import ClientDataset, build_dataset, concatenate
from federated.features import TEST, defines_death
from federated.intervals import Interval, auroc_statistic, bootstrap
from federated.metrics import auroc
from federated.plan import TrainingPlan, make_plan, seed_from
from federated.prediction import predict_rows
from federated.schemas import feature_schema
from federated.simulation import SimulationResult, simulate
from federated.suppression import MIN_PATIENTS

TARGET = "died_in_hospital"


@dataclass(frozen=True)
class Figure:
    """AUROC on the test patients of all hospitals; None of under ten, or where it is undefined."""

    auroc: float | None
    interval: Interval | None


@dataclass(frozen=True)
class OutcomeCodes:
    """What dropping the codes costs.

    Attributes:
        num_patients: with such a code; None where they are fewer than ten.
        without, with_codes: the figure as the study has it, and that with the codes as inputs.
    """

    num_patients: int | None
    without: Figure
    with_codes: Figure


def num_patients_with(records: Iterable[AdmissionRecord]) -> int:
    """How many patients have a code that defines death."""
    return len(
        {
            record.subject_id
            for record in records
            for diagnosis in record.diagnoses
            if defines_death(
                diagnosis, icd.icd10_category(diagnosis.icd_code, diagnosis.icd_version)
            )
        }
    )


def compare_outcome_codes(
    hospitals: Mapping[str, EnvoyFiles], plan: TrainingPlan, *, seed: int
) -> OutcomeCodes:
    """Train and score the plan without and with the codes.

    Args:
        hospitals: cohort files by client id, checked.
    Raises:
        FederatedError: the plan cannot be carried out on these hospitals.
    """
    schema = feature_schema(plan.target)
    figures = []
    for keeps in (False, True):
        datasets = {
            name: build_dataset(read_admissions(files), schema, keeps_death_codes=keeps)
            for name, files in hospitals.items()
        }
        figures.append(_figure(datasets, simulate(datasets, plan, seed=seed), seed=seed))
    count = sum(num_patients_with(read_admissions(files)) for files in hospitals.values())
    return OutcomeCodes(count if count >= MIN_PATIENTS else None, *figures)


def _figure(
    datasets: Mapping[str, ClientDataset], result: SimulationResult, *, seed: int
) -> Figure:
    everyone = concatenate([datasets[name] for name in sorted(datasets)])
    rows = everyone.rows(TEST)
    labels = everyone.labels[rows]
    probabilities = predict_rows(result.params, result.scaling, everyone, rows)
    found = auroc(labels, probabilities)
    if found is None or len(np.unique(everyone.patients[rows])) < MIN_PATIENTS:
        return Figure(None, None)
    statistic = auroc_statistic(labels, probabilities)
    return Figure(found, bootstrap(statistic, everyone.patients[rows], seed=str(seed)))


def table(found: OutcomeCodes) -> str:
    def line(title: str, figure: Figure) -> str:
        if figure.auroc is None:
            return f"{title:28}{'–':>8}"
        text = f"{title:28}{figure.auroc:>8.4f}"
        if figure.interval:
            text += f"  ({figure.interval.low:.4f} to {figure.interval.high:.4f})"
        return text

    number = "fewer than ten" if found.num_patients is None else f"{found.num_patients:,}"
    return "\n".join(
        (
            f"{number} patients have a code that defines death",
            line("without the codes (the study)", found.without),
            line("with the codes as inputs", found.with_codes),
        )
    )


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m federated.outcome_codes", description=__doc__)
    parser.add_argument("--data", type=Path, required=True, help="a cohort folder")
    parser.add_argument("--rounds", type=int, default=10)
    parser.add_argument("--seed", type=seed_from, default=0)
    parser.add_argument("--json", type=output_file, help="write the figures to this file")
    options = parser.parse_args()
    with refusals("outcome codes"):
        hospitals = {files.client_id: files for files in find_envoys(options.data)}
        for files in hospitals.values():
            check_envoy(files)
        plan = make_plan(target=TARGET, num_rounds=options.rounds)
        found = compare_outcome_codes(hospitals, plan, seed=options.seed)
    sys.stdout.write(
        f"Federated AUROC of {TARGET} on all test patients, 95 % interval by resampling"
        f" patients\n{table(found)}\n"
    )
    if options.json:
        options.json.write_text(json.dumps(asdict(found), indent=2) + "\n")


if __name__ == "__main__":
    main()
