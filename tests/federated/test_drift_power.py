import numpy as np
import pytest

from federated import drift
from federated.drift_power import (
    Detection,
    FalseAlarms,
    detections,
    false_alarms,
    make_pool,
    table,
)
from federated.readings import INPUT_NAMES, ReadingRecord
from federated.synthetic_readings import KINDS, generate


@pytest.fixture(scope="module", params=KINDS)
def pool(request):
    return make_pool(request.param, generate(request.param, num_rows=5000, seed=4).records)


def test_a_node_without_drift_seldom_gives_an_alert(pool):
    found = false_alarms(pool, num_trained_on=500, num_newest=200, num_checks=60, seed=0)
    assert found.num_checks == 60
    assert found.rate <= 0.05


def test_without_its_limits_for_chance_a_check_would_give_many(pool, monkeypatch):
    monkeypatch.setattr(drift, "_EITHER_WAY", 0.0)
    monkeypatch.setattr(drift, "_chi_square_limit", lambda degrees: 0.0)
    found = false_alarms(pool, num_trained_on=500, num_newest=100, num_checks=20, seed=0)
    assert found.rate > 0.3


def test_half_a_standard_deviation_is_found_in_every_input(pool):
    found = detections(pool, num_trained_on=500, num_checks=20, seed=0)
    measured = {name for name in INPUT_NAMES if pool.name in _kinds_that_measure(name)}
    assert {each.input_name for each in found} == measured
    assert min(each.rate for each in found) >= 0.95


def _kinds_that_measure(name):
    return [kind for kind in KINDS if name in generate(kind, num_rows=1, seed=0).records[0].values]


def test_the_same_few_people_are_told_from_independent_readings():
    rng = np.random.default_rng(0)
    levels = rng.normal(70, 40, 20).clip(0, 300)
    records = [
        ReadingRecord(f"p{person}", {"aqi": float(levels[person])})
        for person in rng.integers(20, size=1000)
    ]
    pool = make_pool("few", records)
    assert pool.has_repeats
    rows, people = (
        false_alarms(
            pool,
            num_trained_on=500,
            num_newest=200,
            num_checks=20,
            seed=0,
            whole_people=whole_people,
        )
        for whole_people in (False, True)
    )
    assert rows.rate <= 0.05
    assert people.rate > 0.3


def test_the_table_says_which_bar_is_missed():
    alarm = FalseAlarms("clinic", 500, 100, 1000, 50)
    found = Detection("clinic", "spo2", 500, 1000, 950)
    assert "5.00%: passes" in list(table([alarm], [found]))[-1]
    assert "95.00%: passes" in list(table([alarm], [found]))[-1]
    worse = FalseAlarms("clinic", 500, 100, 1000, 51)
    weaker = Detection("clinic", "spo2", 500, 1000, 949)
    assert list(table([worse], [weaker]))[-1].count("MISSES") == 2
    unbarred = FalseAlarms("clinic", 500, 100, 1000, 900, whole_people=True)
    assert "MISSES" not in list(table([alarm, unbarred], [found]))[-1]
