from pathlib import Path
from typing import Any

import pytest

from federated.words import OF_HOSPITALS, OF_NODES
from techlife.demonstration import import_hospitals, table

MODELS = ("rule_of_thumb", "local", "global", "fine_tuned", "pooled")


def figures(auroc: float | None) -> dict[str, Any]:
    return {model: {"auroc": auroc} for model in MODELS}


REPORT = {
    "num_examples": 1_241,
    "pooled_test": figures(0.65),
    "envoys": [
        {"name": "alpha", "num_examples": None, **figures(0.7)},
        {"name": "beta", "num_examples": None, **figures(None)},
    ],
    "from_histograms": {
        "auroc": {"value": 0.652, "low": 0.651, "high": 0.653},
        "auprc": None,
    },
}


def test_the_table_tells_no_small_count_and_the_figures_from_histograms() -> None:
    lines = list(table(REPORT, {}, words=OF_HOSPITALS))
    assert lines[0].split()[:3] == ["AUROC", "trained", "on"]
    assert [line.split() for line in lines[1:4]] == [
        ["alpha", "–", *["0.700"] * 5],
        ["beta", "–", *["–"] * 5],
        ["all", "test", "patients", "1,241", *["0.650"] * 5],
    ]
    assert lines[4:] == [
        "AUROC over all hospitals from exchanged score histograms 0.652 (0.651 to 0.653 possible)"
    ]


def test_the_table_of_nodes_says_people_and_nodes() -> None:
    text = "\n".join(table(REPORT, {}, words=OF_NODES))
    assert "all test people" in text
    assert "AUROC over all nodes from exchanged" in text
    assert "patient" not in text
    assert "hospital" not in text


@pytest.mark.django_db
def test_the_import_counts_no_few_rows_and_points_to_none_of_them(tmp_path: Path) -> None:
    """One code that no list has, and ten more that lack their leading zero."""
    folder = tmp_path / "envoys" / "north"
    folder.mkdir(parents=True)
    codes = [("E1199", 10), *[("38", 9)] * 10]
    rows = [f"p{n},a{n},1,{code},{version}" for n, (code, version) in enumerate(codes)]
    (folder / "diagnoses_icd.csv").write_text(
        "\n".join(["subject_id,hadm_id,seq_num,icd_code,icd_version", *rows])
    )
    said: list[str] = []
    import_hospitals(tmp_path, said.append)
    assert said[0] == "  north: 11 admissions, 11 diagnoses"
    few = [line for line in said if "under 10 ×" in line]
    many = [line for line in said if line.strip().startswith(("10 ×", "11 ×"))]
    assert len(few) == 1
    assert "E1199" not in few[0]
    assert "line" not in few[0]
    assert any(", for instance 38 " in line for line in many)
    assert len(few) + len(many) == len(said) - 1
