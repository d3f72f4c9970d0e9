"""Twenty faults, as `make faults` strikes them; more, with other seeds, are for a quiet machine."""

import json
import subprocess
import sys

import pytest

from tests.faults.plan import TARGETS
from tests.faults.postgres import NoPostgresError, postgres_program
from tests.journeys.product import ROOT
from tests.journeys.services import missing

pytestmark = [pytest.mark.journey, pytest.mark.services]


def test_no_round_is_lost_to_twenty_faults_and_the_bytes_stay_the_same() -> None:
    try:
        postgres_program("initdb")
    except NoPostgresError as error:
        missing(str(error))
    done = subprocess.run(
        [sys.executable, "-W", "ignore", "-m", "tests.faults", "--kills=20", "--seed=20"],
        cwd=ROOT,
        capture_output=True,
        text=True,
        timeout=600,
        check=False,
    )
    assert done.returncode == 0, done.stdout + done.stderr
    told = json.loads(done.stdout)
    assert told["kills"] == 20
    assert told["by_target"] == dict.fromkeys(sorted(TARGETS), 2)
    assert (told["rounds_lost"], told["stuck_rows"], told["identical"]) == (0, 0, True)
    assert told["problems"] == 0, done.stderr
    assert all(told["spoilt_answers"].values()), told
    assert told["rounds"] == 20
