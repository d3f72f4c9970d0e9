"""What is installed is what was locked, by version and hash, under licences that suit."""

import re
from importlib.metadata import version

import pytest
from packaging.requirements import Requirement

from techlife.licences import LIST, LOCKS, ROOT, licensed, locked, table

ALL_LOCKS = (*LOCKS, "requirements-torch-cpu.txt", "requirements-cuda.txt")


def blocks(lock: str) -> list[str]:
    text = re.sub(r"^#.*\n", "", (ROOT / lock).read_text(), flags=re.M)
    return re.split(r"\n(?=\S)", text.strip())


@pytest.mark.parametrize("lock", ALL_LOCKS)
def test_every_package_is_locked_to_one_version_and_by_hash(lock):
    for block in blocks(lock):
        first, *hashes = re.split(r" \\\n\s+", block)
        assert re.fullmatch(r"[A-Za-z0-9_.-]+==[^*\s]+( ; .+)?", first), first
        assert hashes, f"{first} has no hash"
        assert all(re.fullmatch(r"--hash=sha256:[0-9a-f]{64}", each) for each in hashes), first


@pytest.mark.parametrize("name", ["requirements", "requirements-dev"])
def test_the_locks_hold_what_was_asked_for(name):
    asked = [
        Requirement(line)
        for line in (ROOT / f"{name}.in").read_text().splitlines()
        if line and not line.startswith(("#", "-r"))
    ]
    found = {each.lower(): version for each, version in locked(f"{name}.txt").items()}
    for each in asked:
        assert found[each.name.lower()] == str(each.specifier).removeprefix("=="), each


def test_the_tools_run_beside_the_versions_that_the_product_runs_with():
    product, tools = locked("requirements.txt"), locked("requirements-dev.txt")
    assert product.items() <= tools.items()


@pytest.mark.parametrize("lock", LOCKS)
def test_what_is_installed_is_what_was_locked(lock):
    installed = {name: version(name).partition("+")[0] for name in locked(lock)}
    assert installed == locked(lock)


def test_every_licence_is_listed_and_suits():
    packages = licensed()
    assert [each for each in packages if not each.suits] == []
    assert LIST.read_text() == table(packages), "run `make licences`"


def test_the_installation_asks_for_hashes():
    makefile = (ROOT / "Makefile").read_text()
    for lock in set(ALL_LOCKS) - {"requirements.txt"}:  # all of which the tools' lock has too
        line = next(each for each in makefile.splitlines() if f"-r {lock}" in each)
        assert "$(PIP)" in line, line
    assert re.search(r"^PIP = .*--require-hashes.*--no-deps", makefile, re.M)
