"""The same files into SQLite and PostgreSQL: the same rows, and the same refusals."""

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from tests.journeys.product import ROOT
from tests.journeys.services import database_url  # noqa: F401  (a fixture)

pytestmark = pytest.mark.services

# What PostgreSQL's text of an array must not mistake: quotes, backslashes, braces, NULL, commas.
DIAGNOSES = r"""subject_id,hadm_id,seq_num,icd_code,icd_version
p1,11,1,I50.9,10
NULL,NULL,1,I10,10
"p""2","a\b",1,250,9
"{p,3}","{""x"",y}",2,0389,9
p1,11,2,E11.9,10
Zoë,13,1,I10,10
"""
OUTCOMES = r"""subject_id,hadm_id,age,gender,admitted_at,discharged_at,los_days,died_in_hospital,risk_tier
p1,11,[50-60),Female,2026-03-01 08:00:00+02:00,2026-03-04,3.125,0,2
NULL,NULL,61,,,,1e-3,1,0
"p""2","a\b",,M,2026-01-01,,,,
p1,14,0,,,,,,
"""
BAD_DIAGNOSES = """subject_id,hadm_id,seq_num,icd_code,icd_version
p1,11,1,I50.9,10
p1,11,1,E11.9,10
p2,11,2,I10,10
p1,11,2,diabetes,10
,12,1,I10,10
p1,,1,I10,10
=p1,15,1,I10,10
p1,16,two,I10,11
p1,17,70000,I1.0,10
p1,18,1,,9
"""
BAD_OUTCOMES = """subject_id,hadm_id,age,gender,admitted_at,los_days,died_in_hospital,risk_tier
p1,11,old,girl,yesterday,long,maybe,9
p1,11,40,F,,1,0,1
p1,12,200,F,,-1,0,1.5
"""


def imported(data: Path, folder: Path, **environment: str) -> dict[str, Any]:
    plain = {name: value for name, value in os.environ.items() if name != "DATABASE_URL"}
    done = subprocess.run(
        [sys.executable, "-m", "tests.imported_rows", str(data)],
        cwd=ROOT,
        env={**plain, "TECHLIFE_DATA_DIR": str(folder), **environment},
        capture_output=True,
        text=True,
    )
    assert done.returncode == 0, done.stderr
    told: dict[str, Any] = json.loads(done.stdout.splitlines()[-1])
    return told


def test_both_databases_end_with_the_same_rows_and_the_same_refusals(
    tmp_path: Path,
    database_url: str,  # noqa: F811
) -> None:
    # In order of name, those of a word into one hospital: "north-2" has what "north" has already.
    for name, diagnoses, outcomes in (
        ("north", DIAGNOSES, OUTCOMES),
        ("north-2", DIAGNOSES.replace("I50.9", "I50.1"), OUTCOMES),
        ("south", BAD_DIAGNOSES, BAD_OUTCOMES.replace("girl", "F")),
        ("west", BAD_DIAGNOSES, ""),
    ):
        envoy = tmp_path / "data" / "envoys" / name
        envoy.mkdir(parents=True)
        (envoy / "diagnoses.csv").write_text(diagnoses)
        if outcomes:
            (envoy / "outcomes.csv").write_text(outcomes)
    on_sqlite = imported(tmp_path / "data", tmp_path / "sqlite")
    on_postgres = imported(tmp_path / "data", tmp_path / "postgres", DATABASE_URL=database_url)
    assert on_postgres == on_sqlite
    stays = [row[1] for row in on_sqlite["rows"]["Admission"]]
    assert sorted(stays) == sorted(["11", "NULL", r"a\b", '{"x",y}', "13", "14"])
    assert len(on_sqlite["rows"]["Diagnosis"]) == 6
    told = on_sqlite["told"]
    assert "its hadm_id stands in" in told["north-2"][0]
    assert len(told["north-2"]) == 6
    assert len(told["south"]) > 10
    assert len(told["west"]) > 9
    assert [status for status, _ in on_sqlite["imports"]] == ["COMPLETE", *["FAILED"] * 3]
