import json
import subprocess
import sys

import pytest

from tests.journeys.product import ROOT

pytestmark = pytest.mark.journey

NUM_ENVOYS, NUM_ROUNDS, KEPT_ROUNDS = 3, 24, 2


def test_a_long_run_with_kills_ends_whole_and_its_storage_does_not_grow_with_its_rounds(
    monkeypatch,
):
    monkeypatch.setenv("TECHLIFE_KEEP_ROUNDS", str(KEPT_ROUNDS))
    done = subprocess.run(
        [
            *(sys.executable, "-m", "techlife.bench.soak", f"--envoys={NUM_ENVOYS}"),
            *(f"--rounds={NUM_ROUNDS}", "--rows=200", "--kills=2", "--requests-afterwards=10"),
        ],
        cwd=ROOT,
        capture_output=True,
        text=True,
        timeout=180,
        check=False,
    )
    assert done.returncode == 0, done.stdout + done.stderr
    figures = json.loads(done.stdout.splitlines()[-1])
    assert (figures["rounds"], figures["status"], figures["problems"]) == (24, "FINISHED", 0)
    assert sum(figures["kills"].values()) >= 1
    assert figures["requests"] >= 10
    assert figures["requests_failed"] == 0
    assert figures["last_round_let_go"] == NUM_ROUNDS - 1
    # Left are the updates of round 0 and of the last, with the first, last but one and last parameters.
    assert figures["after_the_end"]["objects"] == 2 * NUM_ENVOYS + 3
    assert len(figures["storage"]) == 4
