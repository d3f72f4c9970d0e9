from argparse import ArgumentParser
from contextlib import nullcontext
from pathlib import Path
from typing import Any

from django.conf import settings
from django.core.management.base import BaseCommand, CommandError

from federated.errors import FederatedError
from techlife.backups import lacks_keys, restore_backup
from techlife.processes import DataFolderInUseError, lock_data_folder


class Command(BaseCommand):
    help = "Bring back what `backup` has copied, into an empty installation: docs/operations.md."

    def add_arguments(self, parser: ArgumentParser) -> None:
        parser.add_argument("folder", type=Path, help="what `backup` has made")
        parser.add_argument(
            "--replace",
            action="store_true",
            help="lose the rows that are there now, and write over objects of the same key",
        )

    def handle(self, *args: Any, **options: Any) -> None:
        try:
            lock = lock_data_folder(settings.DATA_DIR) if settings.EMBEDDED else nullcontext()
            with lock:
                manifest = restore_backup(
                    options["folder"], is_replacing=options["replace"], say=self.stdout.write
                )
        except (FederatedError, DataFolderInUseError) as error:
            raise CommandError(str(error)) from error
        self.stdout.write(
            f"Restored the state of {manifest.made_at}. Start the site: work that was under way goes"
            " on by itself."
        )
        if lacks_keys(manifest):
            self.stderr.write(
                "None of this installation's TECHLIFE_FIELD_KEYS is one that the backup was made"
                " with: names cannot be read until it is the last of them (docs/keys.md)."
            )
