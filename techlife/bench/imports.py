"""Import of a large hospital on PostgreSQL, beside a bare COPY of the same file of diagnoses.

What the import does besides: it reads both files twice, refuses what is wrong in any row, writes
patients and admissions too, finds each diagnosis its admission, and keeps the indexes that pages
and foreign keys need. How much of it PostgreSQL needs for these alone, a COPY of the finished rows of
diagnoses into a second table like theirs shows.
"""

import argparse
import csv
import json
import os
import resource
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

import numpy as np
import psycopg2

from federated import icd
from federated.cohorts import DIAGNOSES_HEADER
from federated.seeds import rng_for
from techlife.bench.report import say, say_json, verdict
from techlife.bench.stacks import NoServiceError, environment_of, postgres_database

ROOT = Path(__file__).resolve().parent.parent.parent
NUM_CODES = 5_000
DIAGNOSES_EACH, ADMISSIONS_EACH = 5, 2  # of an admission, of a patient
MAX_RATIO = 4.0
MAX_GROWTH = 1.1  # of memory, against a quarter of the rows


def bench_import(options: argparse.Namespace) -> None:
    """Print seconds and memory of both, on all rows and on a quarter of them."""
    peaks = []
    for num_rows in (options.rows // 4, options.rows):
        with tempfile.TemporaryDirectory(prefix="techlife-bench-") as name:
            folder = Path(name, "envoys", "large")
            write_hospital(folder, num_rows)
            try:
                figures = [_turn(folder, options) for _ in range(options.turns)]
            except NoServiceError as error:
                say(f"import: not measured, {error}")
                return
        ratios = sorted(figure["ratio"] for figure in figures)
        ratio = statistics.median(ratios)
        peaks.append(max(figure["peak_bytes"] for figure in figures))
        middle = {
            key: statistics.median(figure[key] for figure in figures)
            for key in ("copy_seconds", "like_copy_seconds", "seconds", "checked_seconds")
        }
        say(
            f"{num_rows:,} diagnoses: COPY {middle['copy_seconds']:.1f} s, import"
            f" {middle['seconds']:.1f} s ({middle['checked_seconds']:.1f} s of it to check the"
            f" files), {ratio:.1f} times ({ratios[0]:.1f} to {ratios[-1]:.1f}),"
            f" {peaks[-1] / 1e6:.0f} MB: {verdict(ratio, MAX_RATIO)}; a COPY of the diagnoses alone"
            f" with their indexes and foreign keys {middle['like_copy_seconds']:.1f} s,"
            f" {middle['like_copy_seconds'] / middle['copy_seconds']:.1f} times"
        )
        say_json(
            what="import",
            rows=num_rows,
            turns=len(figures),
            **middle,
            ratio=ratio,
            ratio_min=ratios[0],
            ratio_max=ratios[-1],
            peak_bytes=peaks[-1],
        )
    growth = peaks[1] / peaks[0]
    say(f"memory, all rows against a quarter: {growth:.2f} times, {verdict(growth, MAX_GROWTH)}")


def write_hospital(folder: Path, num_rows: int) -> None:
    """A cohort's two files, of made-up patients with codes of the public list."""
    folder.mkdir(parents=True)
    rng = rng_for("bench", "import")
    known = [row.code for row in icd.all_codes() if row.version == 10 and row.code[1].isdigit()]
    known = rng.permutation(known)[:NUM_CODES].tolist()
    often = 1 / np.arange(1, NUM_CODES + 1)  # some codes are written every day, most hardly ever
    picked = rng.choice(NUM_CODES, size=num_rows, p=often / often.sum()).tolist()
    with (
        (folder / "diagnoses.csv").open("w", newline="") as diagnoses_file,
        (folder / "outcomes.csv").open("w", newline="") as outcomes_file,
    ):
        diagnoses, outcomes = csv.writer(diagnoses_file), csv.writer(outcomes_file)
        diagnoses.writerow(DIAGNOSES_HEADER)
        outcomes.writerow(("subject_id", "hadm_id", "age", "gender", "risk_tier"))
        for number in range(num_rows):
            admission, place = divmod(number, DIAGNOSES_EACH)
            patient = admission // ADMISSIONS_EACH
            subject_id, hadm_id = f"S{patient:07}", f"H{admission:07}"
            if place == 0:
                outcomes.writerow(
                    (subject_id, hadm_id, 20 + patient % 70, "FM"[patient % 2], admission % 3)
                )
            diagnoses.writerow((subject_id, hadm_id, place + 1, known[picked[number]], 10))


def _turn(folder: Path, options: argparse.Namespace) -> dict[str, Any]:
    """A COPY, an import into a fresh installation, and a COPY again."""
    before = copy_seconds(folder / "diagnoses.csv", options.postgres)
    with environment_of(
        "production", postgres=options.postgres, redis_url=options.redis
    ) as environment:
        done = subprocess.run(
            [sys.executable, "-m", "techlife.bench.imports", str(folder.parent.parent)],
            cwd=ROOT,
            env=environment,
            stdout=subprocess.PIPE,
            check=True,
        )
    figures: dict[str, Any] = json.loads(done.stdout.splitlines()[-1])
    after = copy_seconds(folder / "diagnoses.csv", options.postgres)
    copied = (before + after) / 2
    return figures | {"copy_seconds": copied, "ratio": figures["seconds"] / copied}


def copy_seconds(path: Path, server: str) -> float:
    """COPY of a file of diagnoses into a table of its columns, without an index."""
    with postgres_database(server) as url:
        connection = psycopg2.connect(url)
        with connection, connection.cursor() as cursor, path.open() as file:
            cursor.execute(
                "CREATE TABLE copied (subject_id varchar(64), hadm_id varchar(64),"
                " seq_num integer, icd_code varchar(8), icd_version smallint)"
            )
            started = time.perf_counter()
            cursor.copy_expert("COPY copied FROM STDIN WITH (FORMAT csv, HEADER)", file)
            connection.commit()
            seconds = time.perf_counter() - started
        connection.close()
    return seconds


def like_copy_seconds() -> float:
    """COPY of this database's diagnoses into a table of their columns, indexes and foreign keys."""
    from django.db import connection

    from diagnoses.models import Diagnosis

    table = Diagnosis._meta.db_table
    with connection.cursor() as cursor, tempfile.TemporaryFile("w+") as file:
        cursor.execute(f"CREATE TABLE copied (LIKE {table} INCLUDING ALL)")
        cursor.execute(
            "SELECT pg_get_constraintdef(oid) FROM pg_constraint"
            " WHERE conrelid = %s::regclass AND contype = 'f'",
            [table],
        )
        for (foreign_key,) in cursor.fetchall():
            cursor.execute(f"ALTER TABLE copied ADD {foreign_key}")
        cursor.copy_expert(f"COPY {table} TO STDOUT", file)
        file.seek(0)
        started = time.perf_counter()
        cursor.copy_expert("COPY copied FROM STDIN", file)
        return time.perf_counter() - started


def import_here(data: Path) -> dict[str, float]:
    """Import the one hospital of a cohort folder into the database of this process."""
    import django

    django.setup()
    from django.core.management import call_command

    from diagnoses.models import Import
    from diagnoses.services import import_cohort
    from envoys.models import Envoy
    from federated.cohorts import find_envoys

    call_command("migrate", verbosity=0, interactive=False)
    (files,) = find_envoys(data)
    envoy = Envoy.objects.create(name=files.name, slug=files.client_id)
    started = time.perf_counter()
    checked: list[float] = []

    def note(row: Import) -> None:
        if row.status == Import.Status.INSERTING and not checked:
            checked.append(time.perf_counter() - started)

    import_cohort(envoy, files, on_progress=note)
    return {
        "seconds": time.perf_counter() - started,
        "checked_seconds": checked[0] if checked else 0.0,
        "peak_bytes": resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024,
        "like_copy_seconds": like_copy_seconds(),
    }


if __name__ == "__main__":
    os.environ["DJANGO_SETTINGS_MODULE"] = "techlife.settings"
    sys.stdout.write(json.dumps(import_here(Path(sys.argv[1]))) + "\n")
