from argparse import ArgumentParser
from typing import Any

from django.core.management.base import BaseCommand

from training.services.retention import remove_old_objects


class Command(BaseCommand):
    help = (
        "Let go of updates, parameters and states of rounds that nobody needs any more, as beat does"
        " every few seconds: see TECHLIFE_KEEP_ROUNDS and TECHLIFE_KEEP_HOURS."
    )

    def add_arguments(self, parser: ArgumentParser) -> None:
        parser.add_argument(
            "--dry-run", action="store_true", help="only say what would go; nothing is changed"
        )

    def handle(self, *args: Any, **options: Any) -> None:
        is_dry_run = options["dry_run"]
        removed = remove_old_objects(is_dry_run=is_dry_run)
        for reason in removed.put_off:
            self.stdout.write(reason)
        self.stdout.write(
            f"{removed.num_objects:,} objects with {removed.num_bytes:,} bytes, of"
            f" {removed.num_runs:,} runs, {'would be' if is_dry_run else 'were'} removed."
        )
