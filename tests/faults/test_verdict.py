from dataclasses import replace

import pytest

from tests.faults.rounds import Ended, Verdict

WHOLE = Ended(
    1,
    10.0,
    "FINISHED",
    "",
    "f" * 64,
    ((0, "AGGREGATED", "a" * 64, ("one", "two")), (1, "AGGREGATED", "b" * 64, ("one", "two"))),
)


def test_the_same_run_again_has_lost_nothing():
    verdict = Verdict(WHOLE)
    verdict.judge(replace(WHOLE, pk=2, seconds=30.0))
    assert (verdict.rounds_lost, verdict.identical, verdict.problems) == (0, True, [])
    assert verdict.seconds == [30.0]


@pytest.mark.parametrize(
    ("last", "num_lost"),
    [
        ((1, "FAILED", "", ()), 1),
        ((1, "AGGREGATED", "b" * 64, ("one",)), 1),  # went on without somebody
        ((1, "AGGREGATED", "c" * 64, ("one", "two")), 0),  # other bytes of the same hospitals
        (None, 1),
    ],
)
def test_a_round_that_is_another_one_is_told(last, num_lost):
    verdict = Verdict(WHOLE)
    rounds = (WHOLE.rounds[0], *([last] if last else []))
    verdict.judge(replace(WHOLE, pk=2, rounds=rounds))
    assert verdict.rounds_lost == num_lost
    assert not verdict.identical
