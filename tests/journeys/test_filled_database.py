"""The migrations on a database that is not empty, on both kinds of database."""

import os
import subprocess
import sys
from pathlib import Path

import pytest

from tests.journeys.product import ROOT
from tests.journeys.services import database_url  # noqa: F401  (a fixture)


def migrate_filled(folder: Path, **environment: str) -> None:
    done = subprocess.run(
        [sys.executable, "-m", "tests.filled_database"],
        cwd=ROOT,
        env={**os.environ, "TECHLIFE_DATA_DIR": str(folder / "data"), **environment},
        capture_output=True,
        text=True,
    )
    assert done.returncode == 0, done.stdout + done.stderr


def test_a_filled_sqlite_database_of_the_first_tables_is_migrated_whole(tmp_path: Path) -> None:
    migrate_filled(tmp_path)


@pytest.mark.services
def test_a_filled_postgresql_database_of_the_first_tables_is_migrated_whole(
    tmp_path: Path,
    database_url: str,  # noqa: F811
) -> None:
    migrate_filled(tmp_path, DATABASE_URL=database_url)
