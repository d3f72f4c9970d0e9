"""Where the real, openly licensed data sets lie that some tests read; they are no part of this."""

import os
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parent.parent
SHARED_DATA = Path(os.environ.get("TECHLIFE_TEST_DATA", ROOT.parent / "shared" / "data"))


def shared_data(name: str) -> Path:
    """The folder of a data set; where there is none, the test is skipped."""
    folder = SHARED_DATA / name
    if not folder.is_dir():
        pytest.skip(f"{folder} is not there; TECHLIFE_TEST_DATA names another place")
    return folder
