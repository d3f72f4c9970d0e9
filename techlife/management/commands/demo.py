from argparse import ArgumentParser
from pathlib import Path
from typing import Any

from envoys.models import Envoy
from federated.cohorts import find_envoys
from federated.plan import add_run_arguments
from techlife import demonstration
from techlife.management.demonstration_command import DemonstrationCommand, check_run_options
from techlife.processes import Supervisor
from training.models import ModelVersion, TrainingRun


class Command(DemonstrationCommand):
    help = "Watch hospitals train a risk model together, through real workers, then use it."
    again = "make demo"

    def add_arguments(self, parser: ArgumentParser) -> None:
        add_demonstration_arguments(parser)
        super().add_arguments(parser)

    def check_options(self, options: dict[str, Any]) -> None:
        check_options(options)

    def load(self, options: dict[str, Any]) -> list[Envoy]:
        folder = demonstration.cohort_folder(options["data"], seed=options["seed"])
        self.stdout.write(
            "Importing hospitals" if options["data"] else "Importing synthetic hospitals"
        )
        return demonstration.import_hospitals(folder, self.stdout.write)

    def use(
        self, supervisor: Supervisor, run: TrainingRun, version: ModelVersion | None
    ) -> dict[str, str]:
        if version is None:
            return {}
        scored = demonstration.predict_all(run, supervisor)
        return {name: inference_run.counts_in_words() for name, inference_run in scored.items()}


def check_options(options: dict[str, Any]) -> None:
    """Raises CommandError, FederatedError: what is wrong with an option, or the cohort folder."""
    check_run_options(options)
    if options["data"]:
        find_envoys(options["data"])


def add_demonstration_arguments(parser: ArgumentParser) -> None:
    """What to train on and how; shared with `compare`."""
    parser.add_argument("--data", type=Path, help="a cohort folder; synthetic hospitals without")
    add_run_arguments(parser)
