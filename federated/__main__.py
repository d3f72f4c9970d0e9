"""Run the federation on a cohort folder, in one process and without a database."""

import argparse
import json
import sys
import time
from pathlib import Path

from federated.benefit import benefit_report
from federated.cohorts import check_envoy, find_envoys, read_admissions
from federated.commands import refusals
from federated.datasets import ClientDataset, build_dataset
from federated.plan import add_run_arguments, plan_of
from federated.schemas import feature_schema
from federated.simulation import simulate
from federated.targets import target_named


def read_datasets(data_dir: Path, target: str) -> dict[str, ClientDataset]:
    """Every hospital of a cohort folder. Raises CohortError for what the importer would refuse."""
    schema = feature_schema(target)
    datasets = {}
    for files in find_envoys(data_dir):
        check_envoy(files)
        datasets[files.client_id] = build_dataset(read_admissions(files), schema)
    return datasets


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m federated", description=__doc__)
    parser.add_argument("data", type=Path, help="a cohort folder")
    add_run_arguments(parser)
    parser.add_argument("--no-report", action="store_true", help="train, and compare with nothing")
    options = parser.parse_args()
    with refusals("federated"):
        plan = plan_of(vars(options))
        started = time.perf_counter()
        datasets = read_datasets(options.data, options.target)
        read = time.perf_counter()
        result = simulate(datasets, plan, seed=options.seed)
        trained = time.perf_counter()
        output = {
            "final_sha256": result.final_sha256,
            "seconds": {"read": round(read - started, 3), "train": round(trained - read, 3)},
        }
        if not options.no_report:
            report = benefit_report(
                {name: datasets[name] for name in result.client_ids},
                plan,
                result,
                num_classes=len(target_named(options.target).classes),
                seed=options.seed,
            )
            output |= report.to_json()
    json.dump(output, sys.stdout, indent=2)
    sys.stdout.write("\n")


if __name__ == "__main__":
    main()
