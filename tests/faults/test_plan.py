from collections import Counter

import pytest

from tests.faults.plan import STORAGE_FAULTS, STORAGE_SECONDS, TARGETS, plan_faults


def test_a_seed_decides_what_is_struck_and_when():
    assert list(plan_faults(30, seed=1)) == list(plan_faults(30, seed=1))
    assert list(plan_faults(30, seed=1)) != list(plan_faults(30, seed=2))
    # More of them begin as fewer do.
    assert list(plan_faults(30, seed=1))[:20] == list(plan_faults(20, seed=1))


@pytest.mark.parametrize("seed", range(5))
def test_each_target_is_struck_as_often_as_any_other(seed):
    targets = [fault.target for fault in plan_faults(25, seed=seed)]
    assert set(targets[:10]) == set(targets[10:20]) == set(TARGETS)
    assert set(Counter(targets).values()) == {2, 3}


def test_storage_is_bad_for_a_while_and_a_process_is_killed_at_once():
    for fault in plan_faults(50, seed=0):
        if fault.target in STORAGE_FAULTS:
            assert STORAGE_SECONDS[0] <= fault.seconds <= STORAGE_SECONDS[1]
        else:
            assert fault.seconds == 0
        assert 0 <= fault.choice < 1
