"""Each notebook runs from its first cell to its last, which asserts what the notebook claims."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import nbformat
import pytest
from nbclient import NotebookClient

from tests.shared_data import ROOT, shared_data

FOLDER = ROOT / "notebooks"
NOTEBOOKS = sorted(path.name for path in FOLDER.glob("*.ipynb"))
SECONDS_A_CELL = 240  # ends a cell that hangs: each takes a few on a machine that is not busy


def read(name: str) -> Any:
    return nbformat.read(FOLDER / name, as_version=4)


def run(name: str, *, folder: Path) -> str:
    """What a notebook prints when it is started in this folder. Raises CellExecutionError."""
    notebook = read(name)
    resources: Mapping[str, Any] = {"metadata": {"path": str(folder)}}
    NotebookClient(notebook, timeout=SECONDS_A_CELL, resources=dict(resources)).execute()
    outputs = [output for cell in notebook.cells for output in cell.get("outputs", [])]
    return "".join(output.text for output in outputs if output.output_type == "stream")


def test_the_five_notebooks_are_there():
    assert NOTEBOOKS == [
        "01_eda.ipynb",
        "02_local_baseline.ipynb",
        "03_federated_training.ipynb",
        "04_drift.ipynb",
        "05_evaluation.ipynb",
    ]


@pytest.mark.parametrize("name", NOTEBOOKS)
def test_a_notebook_is_kept_without_what_a_run_leaves_in_it(name):
    notebook = read(name)
    nbformat.validate(notebook)
    assert notebook.metadata.kernelspec.name == "python3"
    code = [cell for cell in notebook.cells if cell.cell_type == "code"]
    assert all(not cell.outputs and cell.execution_count is None for cell in code)
    assert all(not cell.metadata for cell in notebook.cells)


@pytest.mark.parametrize("name", NOTEBOOKS)
def test_a_notebook_ends_by_asserting_what_it_claims(name):
    assert "\nassert " in "\n" + read(name).cells[-1].source


@pytest.mark.parametrize("name", NOTEBOOKS)
def test_a_notebook_runs_to_its_end(name, monkeypatch):
    monkeypatch.delenv("TECHLIFE_DATA", raising=False)
    assert run(name, folder=ROOT)


def test_the_first_notebook_reads_real_data_where_there_is_any_and_runs_beside_itself(monkeypatch):
    folder = shared_data("nhanes_2009_2012").parent
    for name in ("fitbit_2016", "epa_aqi_2023"):
        shared_data(name)
    monkeypatch.setenv("TECHLIFE_DATA", str(folder.resolve()))
    assert "0 rows refused" in run("01_eda.ipynb", folder=FOLDER)
