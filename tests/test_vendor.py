"""The vendored front end is what its list says, and asks a browser for nothing it does not hold."""

import hashlib
import json
from typing import Any

import pytest
from django.conf import settings

VENDOR = settings.BASE_DIR / "static" / "vendor"
LISTED: list[dict[str, Any]] = json.loads((VENDOR / "VERSIONS.json").read_text())


@pytest.mark.parametrize("entry", LISTED, ids=lambda entry: entry["file"])
def test_a_vendored_file_has_the_listed_hash_and_no_source_map(entry):
    content = (VENDOR / entry["file"]).read_bytes()
    assert hashlib.sha256(content).hexdigest() == entry["sha256"]
    assert b"sourceMappingURL" not in content


def test_every_vendored_file_is_listed_and_every_folder_has_its_licence():
    present = {path.relative_to(VENDOR).as_posix() for path in VENDOR.rglob("*") if path.is_file()}
    assert present == {entry["file"] for entry in LISTED} | {"VERSIONS.json"}
    for folder in VENDOR.iterdir():
        assert not folder.is_dir() or list(folder.glob("LICENSE*"))
