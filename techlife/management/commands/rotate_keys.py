import secrets
from argparse import ArgumentParser
from pathlib import Path
from typing import Any

from django.conf import settings
from django.core.management.base import BaseCommand, CommandError

from techlife import key_rotation
from techlife.demonstration import progress_bar
from techlife.processes import DataFolderInUseError, lock_data_folder

SECRETS = {
    "secret_key": ("SECRET_KEY", lambda: [settings.SECRET_KEY, *settings.SECRET_KEY_FALLBACKS]),
    "field_key": ("TECHLIFE_FIELD_KEY", lambda: settings.FIELD_KEYS),
    "name_index_key": ("TECHLIFE_NAME_INDEX_KEY", lambda: settings.NAME_INDEX_KEYS),
}


class Command(BaseCommand):
    help = (
        "Take names, phones and whatever else is encrypted to the newest keys, while the site runs."
        " How to replace a key: docs/keys.md."
    )

    def add_arguments(self, parser: ArgumentParser) -> None:
        parser = parser.add_mutually_exclusive_group()  # type: ignore[assignment]
        parser.add_argument(
            "--check",
            action="store_true",
            help="only say how many values need an older key; ends with 1 if there are any",
        )
        parser.add_argument(
            "--new-keys",
            action="store_true",
            help="embedded only, and stopped: put a new key before each one in the data folder",
        )
        parser.add_argument(
            "--drop-old-keys",
            action="store_true",
            help="embedded only: forget all keys but the newest, once no value needs them",
        )

    def handle(self, *args: Any, **options: Any) -> None:
        if options["new_keys"]:
            self._put_new_keys()
            return
        found = self._look_through(is_changing=not (options["check"] or options["drop_old_keys"]))
        if found.num_changed:
            self.stdout.write(f"{found.num_changed:,} taken to the newest keys.")
        problems = []
        if found.num_left:
            problems.append(
                f"{found.num_left:,} of {found.num_values:,} values need an older key: keep it, and"
                " run rotate_keys"
            )
        if found.num_unreadable:
            problems.append(
                f"{found.num_unreadable:,} of {found.num_values:,} values can be read with none of"
                " the keys: put the key that is missing at the end of TECHLIFE_FIELD_KEYS"
            )
        if problems:
            raise CommandError(". ".join(problems))
        self.stdout.write(f"All {found.num_values:,} values are under the newest keys.")
        if options["drop_old_keys"]:
            self._drop_old_keys()

    def _look_through(self, *, is_changing: bool) -> key_rotation.Found:
        title = "Rotating" if is_changing else "Checking"
        with progress_bar(title, unit="rows") as bar:
            bar.total = key_rotation.num_rows()
            return key_rotation.look_through(is_changing=is_changing, on_batch=bar.update)

    def _put_new_keys(self) -> None:
        files = self._files()
        try:
            with lock_data_folder(settings.DATA_DIR, wait_seconds=0):
                for path in files:
                    _write(path, [secrets.token_urlsafe(48), *path.read_text().splitlines()])
        except DataFolderInUseError as error:
            # What is written under a key that a running process does not know, it cannot read.
            raise CommandError(f"a running site would not know the new keys: {error}") from error
        self.stdout.write("There are new keys. Start the site, and run rotate_keys.")

    def _drop_old_keys(self) -> None:
        for path in self._files():
            _write(path, path.read_text().splitlines()[:1])
        self.stdout.write("The old keys are gone with the next start.")

    def _files(self) -> list[Path]:
        """Where the keys lie, if they lie in the data folder and nowhere else."""
        folder = settings.DATA_DIR / "secrets"
        for name, (variable, in_use) in SECRETS.items():
            path = folder / name
            if not path.exists() or in_use() != path.read_text().splitlines():
                raise CommandError(
                    f"{variable} comes from the environment: change it there, as docs/keys.md says"
                )
        return [folder / name for name in SECRETS]


def _write(path: Path, keys: list[str]) -> None:
    fresh = path.with_name(f".{path.name}.{secrets.token_hex(8)}")
    fresh.touch(mode=0o600)
    fresh.write_text("\n".join(keys))
    fresh.replace(path)
