import hashlib
from argparse import ArgumentParser
from pathlib import Path
from typing import Any

from django.core.management.base import BaseCommand, CommandError

from federated.cohorts import check_envoy, find_envoys, read_admissions, write_records
from federated.errors import FederatedError


class Command(BaseCommand):
    help = "Write a cohort folder with a share of another one's patients, to try things on."

    def add_arguments(self, parser: ArgumentParser) -> None:
        parser.add_argument("source", type=Path)
        parser.add_argument("target", type=Path)
        parser.add_argument("--share", type=float, default=0.25, help="of the patients, 0 to 1")

    def handle(self, *args: Any, **options: Any) -> None:
        if not 0 < options["share"] <= 1:
            raise CommandError(f"--share lies between 0 and 1, not {options['share']}")
        if options["target"].exists():
            raise CommandError(f"{options['target']} is there already")
        try:
            for files in find_envoys(options["source"]):
                check_envoy(files)
                chosen = [
                    record
                    for record in read_admissions(files)
                    if is_chosen(record.subject_id, options["share"])
                ]
                folder = options["target"] / "envoys" / files.client_id
                folder.mkdir(parents=True)
                with (
                    (folder / "diagnoses.csv").open("w", newline="") as diagnoses,
                    (folder / "outcomes.csv").open("w", newline="") as outcomes,
                ):
                    write_records(chosen, diagnoses, outcomes)
                self.stdout.write(f"  {files.name}: {len(chosen):,} admissions")
        except FederatedError as error:
            raise CommandError(str(error)) from error


def is_chosen(subject_id: str, share: float) -> bool:
    """The same patients each time, in every hospital, and apart from the split's hash."""
    digest = hashlib.sha256(f"sample\0{subject_id}".encode()).digest()
    return int.from_bytes(digest[:8]) / 2**64 < share
