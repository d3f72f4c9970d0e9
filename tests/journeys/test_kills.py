import os
import signal
from functools import partial
from pathlib import Path

import pytest

from federated.synthetic import write_synthetic_cohort
from tests.journeys.product import Demo, running_demo, simulate, wait_for, worker_of

pytestmark = pytest.mark.journey

ROUNDS = "--rounds=60"
QUICK_RECOVERY = {"TECHLIFE_LEASE_SECONDS": "2", "TECHLIFE_SWEEP_SECONDS": "0.5"}


def training_process(demo: Demo, after_round: int) -> int | None:
    """The process that trains right now, in a round later than the one given."""
    rows = demo.rows(
        "select holder from training_roundassignment a join training_traininground r"
        f" on r.id = a.training_round_id where a.status = 'TRAINING' and r.number > {after_round}"
    )
    return int(rows[0][0].split(":")[1]) if rows else None


def num_taken_over(demo: Demo) -> int:
    return int(demo.rows("select count(*) from training_roundassignment where attempt > 1")[0][0])


def test_a_run_survives_killed_children_and_a_killed_worker_to_the_same_bytes(
    tmp_path: Path,
) -> None:
    cohort = tmp_path / "cohort"
    write_synthetic_cohort(cohort, seed=3, scale=0.5)
    with running_demo(tmp_path, f"--data={cohort}", ROUNDS, "--no-serve", **QUICK_RECOVERY) as demo:
        for after_round in (1, 8):
            child = wait_for(partial(training_process, demo, after_round), demo)
            os.kill(child, signal.SIGKILL)

        wait_for(lambda: training_process(demo, 16), demo)
        os.kill(worker_of(demo), signal.SIGKILL)

        report = demo.report()
        assert num_taken_over(demo) >= 3  # each kill hit somebody in the middle of training
    assert "is started again" in demo.output
    assert report["final_sha256"] == simulate(cohort, ROUNDS)


def test_a_killed_demonstration_goes_on_where_it_was(tmp_path: Path) -> None:
    cohort = tmp_path / "cohort"
    write_synthetic_cohort(cohort, seed=4, scale=0.5)
    options = (f"--data={cohort}", ROUNDS, "--no-serve")
    with running_demo(tmp_path, *options, **QUICK_RECOVERY) as demo:
        wait_for(lambda: training_process(demo, 5), demo)
        demo.process.kill()
        demo.process.wait()
        demo.process = demo.start()
        report = demo.report()
        assert demo.rows("select count(*) from training_trainingrun") == [(1,)]
    assert "Resuming run 1" in demo.output
    assert report["final_sha256"] == simulate(cohort, ROUNDS)
