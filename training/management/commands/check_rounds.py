from argparse import ArgumentParser
from typing import Any

from django.core.management.base import BaseCommand, CommandError
from tqdm import tqdm

from envoys.errors import StorageError
from training.models import TrainingRound, TrainingRun
from training.services.checking import Findings, check_rows, check_runs, num_open_rows


class Command(BaseCommand):
    help = (
        "Look for what was lost: rows past their time that nobody ends, counted updates whose"
        " objects are gone or damaged, and models that their updates do not make again. Exits with 1"
        " if there is any, with 2 if the storage could not be asked."
    )

    def add_arguments(self, parser: ArgumentParser) -> None:
        which = parser.add_mutually_exclusive_group()
        which.add_argument("--run", type=int, help="only this run's objects and models")
        which.add_argument("--newest", type=int, help="only those of so many runs, the newest")

    def handle(self, *args: Any, **options: Any) -> None:
        ids = runs_asked_for(options)
        found = Findings(num_rows=num_open_rows())
        check_rows(found)
        total = TrainingRound.objects.filter(run__in=ids).count() + len(ids)
        bar = tqdm(desc="Checking", unit=" rounds", total=total, leave=False, disable=None)
        try:
            with bar:
                for _ in check_runs(found, ids):
                    bar.update()
        except StorageError as error:
            told = "".join(f"\n{problem}" for problem in found.problems)
            raise CommandError(
                f"Storage could not be asked, so that not everything was checked: {error}{told}",
                returncode=2,
            ) from error
        for note in found.notes:
            self.stdout.write(note)
        self.stdout.write(
            f"{found.num_rows:,} rows that have not ended, and {found.num_runs:,} runs with"
            f" {found.num_rounds:,} rounds, {found.num_updates:,} counted updates and"
            f" {found.num_versions:,} versions were looked through."
        )
        if found.num_problems:
            more = found.num_problems - len(found.problems)
            texts = [*found.problems, *([f"And {more:,} more."] if more else [])]
            raise CommandError("Something is not as it was recorded:\n" + "\n".join(texts))
        self.stdout.write("Nothing was lost.")


def runs_asked_for(options: dict[str, Any]) -> list[int]:
    """The newest last, so that a check that is stopped has seen the oldest."""
    runs = TrainingRun.objects.order_by("-pk")
    if options["run"] is not None:
        runs = runs.filter(pk=options["run"])
        if not runs.exists():
            raise CommandError(f"There is no run {options['run']}.")
    return sorted(runs.values_list("pk", flat=True)[: options["newest"]])
