import json
import subprocess
import sys

import pytest

from tests.journeys.product import ROOT

pytestmark = pytest.mark.journey


def bench(*options: str) -> list[str]:
    done = subprocess.run(
        [sys.executable, "-m", "techlife.bench", *options],
        cwd=ROOT,
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    return done.stdout.splitlines()


def test_the_benchmark_of_rounds_ends_where_the_bare_loop_ends_and_prints_what_it_promises():
    *_, words, line = bench(
        *("--workload=tiny", "--network=logistic", "--stack=embedded", "--turns=1")
    )
    figures = json.loads(line)
    assert figures["what"] == "round"
    assert (figures["workload"], figures["network"]) == ("tiny", "logistic")
    assert (figures["stack"], figures["rounds"], figures["turns"]) == ("embedded", 2, 1)
    ratio = figures["seconds"] / figures["bare_seconds"]
    assert figures["ratio"] == pytest.approx(ratio, rel=0.01)
    assert figures["first_seconds"] > 0
    assert figures["last_seconds"] > 0
    assert figures["cpu_ratio"] > 0
    assert figures["peak_bytes"] > 100e6  # four processes with torch or Django
    assert words.startswith("tiny logistic embedded")
    assert words.endswith("no bar")


def test_the_benchmark_of_aggregation_reads_screens_and_adds_up_what_it_was_told_to():
    lines = bench("--what=aggregation", "--updates=4", "--values=1000", "--turns=1")
    added, screened = (json.loads(line) for line in lines if line.startswith("{"))
    assert (added["what"], screened["what"]) == ("aggregate", "screen_and_aggregate")
    assert (added["updates"], added["values"]) == (4, 1000)
    assert added["ratio"] == pytest.approx(added["seconds"] / added["read_seconds"], rel=0.01)


def test_a_stack_that_does_not_answer_is_said_not_to_be_measured():
    nowhere = "postgres://postgres@127.0.0.1:1"
    lines = bench(
        *("--workload=tiny", "--network=logistic", "--stack=production", "--turns=1"),
        f"--postgres={nowhere}",
    )
    assert lines[-1] == (
        f"tiny logistic production: not measured, PostgreSQL does not answer at {nowhere}"
    )
