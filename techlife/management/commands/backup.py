from argparse import ArgumentParser
from pathlib import Path
from typing import Any

from django.core.management.base import BaseCommand, CommandError

from federated.errors import FederatedError
from techlife.backups import MANIFEST, make_backup


class Command(BaseCommand):
    help = "Copy all rows and objects into a new folder, while the site runs: docs/operations.md."

    def add_arguments(self, parser: ArgumentParser) -> None:
        parser.add_argument("folder", type=Path, help="empty, or not there yet")

    def handle(self, *args: Any, **options: Any) -> None:
        folder: Path = options["folder"]
        was_empty = not folder.exists() or (folder.is_dir() and not any(folder.iterdir()))
        try:
            manifest = make_backup(folder, say=self.stdout.write)
        except FederatedError as error:
            words = str(error)
            if was_empty:  # else what is there is somebody else's, or a backup made before
                words += f"\nThere is no {MANIFEST} in {folder}: it is no backup, remove it"
            raise CommandError(words) from error
        except OSError as error:
            raise CommandError(
                f"The backup cannot be written: {error.strerror}. Remove {folder}, make room, and"
                " try again"
            ) from error
        num_bytes = sum(each.num_bytes for each in manifest.objects)
        self.stdout.write(
            f"{folder} is a backup: {len(manifest.objects):,} objects of {num_bytes:,} bytes.\n"
            "It holds patients' data, names encrypted: keep it as safe as the database. The keys are"
            " not in it: keep TECHLIFE_FIELD_KEY, TECHLIFE_NAME_INDEX_KEY and SECRET_KEY elsewhere,"
            " without them nobody reads a name again."
        )
