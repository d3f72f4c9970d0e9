"""What was copied while a run was under way goes on elsewhere, to the same bytes."""

import os
import shutil
import signal
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import psycopg2
import pytest

from federated.synthetic import write_synthetic_cohort
from tests.journeys.product import (
    ROOT,
    Demo,
    running_demo,
    simulate,
    wait_for,
    worker_of,
)
from tests.journeys.services import (  # noqa: F401  (fixtures)
    database_url,
    new_database,
    redis_url,
    s3_environment,
)
from tests.s3_server import s3_client

pytestmark = pytest.mark.journey

NUM_ROUNDS = 40
ROUNDS = f"--rounds={NUM_ROUNDS}"


def manage(demo_environment: dict[str, str], *arguments: str) -> "subprocess.CompletedProcess[str]":
    return subprocess.run(
        [sys.executable, "manage.py", *arguments],
        cwd=ROOT,
        env=demo_environment,
        capture_output=True,
        text=True,
    )


def move_in_mid_flight(
    tmp_path: Path, here: dict[str, str], there: dict[str, str], last_round: Callable[[Demo], int]
) -> tuple[Demo, str]:
    """Start a run, copy it in the middle of a round, end it, bring it back, let it finish.

    Returns the demonstration that finished it, and what that says of the run.
    """
    cohort, backup = tmp_path / "cohort", tmp_path / "backup"
    write_synthetic_cohort(cohort, seed=6, scale=0.3)
    options = (f"--data={cohort}", ROUNDS, "--no-serve")
    (tmp_path / "here").mkdir()
    (tmp_path / "there").mkdir()
    with running_demo(tmp_path / "here", *options, **here) as first:
        wait_for(lambda: last_round(first) >= 2, first)
        os.killpg(
            worker_of(first), signal.SIGSTOP
        )  # a backup takes longer than the rest of a run as small as this
        made = manage(first.environment, "backup", str(backup))
        assert made.returncode == 0, made.stderr
        rounds_then = last_round(first)
        first.process.kill()
        first.process.wait()
    assert 2 <= rounds_then < NUM_ROUNDS

    data_dir = tmp_path / "there" / "data"
    data_dir.mkdir(mode=0o700)
    shutil.copytree(first.data_dir / "secrets", data_dir / "secrets")  # kept apart
    environment = {**os.environ, "TECHLIFE_DATA_DIR": str(data_dir), **there}

    restored = manage(environment, "restore", str(backup))
    assert restored.returncode == 0, restored.stderr
    assert "names cannot be read" not in restored.stderr

    with running_demo(tmp_path / "there", *options, **there) as second:
        final_sha256 = second.report()["final_sha256"]
    assert "Resuming run 1" in second.output
    assert final_sha256 == simulate(cohort, ROUNDS)
    return second, final_sha256


def test_a_run_in_mid_flight_goes_on_from_a_backup_of_folders_and_sqlite(tmp_path: Path) -> None:
    def last_round(demo: Demo) -> int:
        rows = demo.rows("select max(number) from training_traininground")
        return (rows and rows[0][0]) or 0

    second, _ = move_in_mid_flight(tmp_path, {}, {}, last_round)
    assert second.rows("select count(*) from training_trainingrun") == [(1,)]
    for path in (tmp_path / "backup", *(tmp_path / "backup").rglob("*")):
        assert not path.stat().st_mode & 0o077, f"{path} may be read by others"
    secrets = {path.read_text() for path in (second.data_dir / "secrets").iterdir()}
    for path in (tmp_path / "backup").rglob("*"):
        if path.is_file():
            content = path.read_bytes()
            assert not any(secret.encode() in content for secret in secrets), path


@pytest.mark.services
def test_a_run_in_mid_flight_goes_on_from_a_backup_of_s3_and_postgresql(
    tmp_path: Path,
    database_url: str,  # noqa: F811
    redis_url: str,  # noqa: F811
    s3_environment: dict[str, str],  # noqa: F811
) -> None:
    def last_round(demo: Demo) -> int:
        try:
            with psycopg2.connect(database_url) as connection, connection.cursor() as cursor:
                cursor.execute("select max(number) from training_traininground")
                return int(cursor.fetchall()[0][0] or 0)
        except psycopg2.errors.UndefinedTable:
            return 0

    for bucket in ("director-2", "envoys-2"):
        s3_client(s3_environment).create_bucket(
            Bucket=bucket, CreateBucketConfiguration={"LocationConstraint": "eu-north-1"}
        )
    elsewhere = {"DIRECTOR_S3_BUCKET_NAME": "director-2", "ENVOY_S3_BUCKET_NAME": "envoys-2"}
    here = {"DATABASE_URL": database_url, "REDIS_URL": redis_url, **s3_environment}
    with new_database() as second_url:
        there = here | elsewhere | {"DATABASE_URL": second_url}
        move_in_mid_flight(tmp_path, here, there, last_round)
        delivered = s3_client(s3_environment).list_objects_v2(
            Bucket="envoys-2", Prefix="envoys/winterholm-cottage/global_model/"
        )
    assert delivered["KeyCount"] == 3
