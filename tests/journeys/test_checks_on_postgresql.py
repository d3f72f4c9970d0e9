import os
import subprocess
import sys

import pytest

from tests.journeys.product import ROOT
from tests.journeys.services import database_url  # noqa: F401  (a fixture)

pytestmark = [pytest.mark.journey, pytest.mark.services]

FILES = ("tests/training/test_checking.py", "tests/training/test_retention.py")
WHICH = "told or counts_are or lineage or beat or share or same_objects or middle or last_rounds"


def test_what_is_lost_and_what_is_let_go_is_found_on_postgresql_too(
    database_url: str,  # noqa: F811
) -> None:
    """The queries differ from SQLite's; the test's own database is made beside the one named."""
    done = subprocess.run(
        [sys.executable, "-m", "pytest", "-q", "-x", "-p", "no:cacheprovider", *FILES, "-k", WHICH],
        cwd=ROOT,
        env={**os.environ, "DATABASE_URL": database_url},
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stdout + done.stderr
    assert " passed" in done.stdout
