from argparse import ArgumentParser
from typing import Any

from django.core.management.base import BaseCommand, CommandError
from tqdm import tqdm

from envoys.audit_chain import Findings, num_seals, verify_seals
from envoys.errors import StorageError


class Command(BaseCommand):
    help = (
        "Look for events of the audit that were changed, removed or added after they were sealed,"
        " and for seals that were cut off or rewritten. Exits with 1 if there are any, with 2 if"
        " the storage could not be asked."
    )

    def add_arguments(self, parser: ArgumentParser) -> None:
        parser.add_argument(
            "--newest-head",
            action="store_true",
            help="read only the newest head in storage: faster where they lie in a bucket, but it"
            " says less about where something was changed",
        )

    def handle(self, *args: Any, **options: Any) -> None:
        found = Findings()
        bar = tqdm(desc="Verifying", unit=" seals", total=num_seals(), leave=False, disable=None)
        try:
            with bar:
                for found in verify_seals(reads_every_head=not options["newest_head"]):
                    bar.update(found.num_seals - bar.n)
        except StorageError as error:
            raise CommandError(f"The audit could not be verified: {error}", returncode=2) from error
        self.stdout.write(
            f"{found.num_events:,} events in {found.num_seals:,} seals were looked through."
            f" {found.num_unsealed:,} events are not sealed yet, and {found.num_not_stored:,} seals"
            " are not in storage yet."
        )
        if found.num_late:
            self.stdout.write(
                f"{found.num_late:,} heads were put into storage more than a day after their seal was"
                " made. Was the storage out of reach then? Of these nobody can say whether they are"
                " the first."
            )
        if found.num_problems:
            more = found.num_problems - len(found.problems)
            texts = [*found.problems, *([f"And {more:,} more."] if more else [])]
            raise CommandError("The audit is not as it was sealed:\n" + "\n".join(texts))
        self.stdout.write("Nothing sealed was changed.")
