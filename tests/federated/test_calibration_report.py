import numpy as np
import pytest

from federated.calibration_report import HospitalLine, calibration_by_hospital, table
from federated.features import TEST, VALIDATION
from federated.intervals import Interval
from federated.simulation import simulate
from tests.federated.builders import make_dataset, small_plan


def line(hospital, num_patients, slope):
    interval = slope and Interval(slope, slope - 0.2, slope + 0.2)
    return HospitalLine(hospital, num_patients, "died", interval, interval and Interval(0, -1, 1))


def test_only_large_hospitals_are_held_to_the_bar():
    *rows, last = table(
        [line("north", 1000, 0.89), line("south", 1320, 1.1), line("west", 999, 0.5)], split="test"
    )
    assert " ".join(rows[0].split()) == (
        "north 1,000 test patients died slope 0.89 (0.69 to 1.09) intercept 0.00 (−1.00 to 1.00)"
    )
    assert last == (
        "hospitals with 1,000 test patients or more: 2; slopes outside 0.9 to 1.1:"
        " north, died (0.890)"
    )


def test_a_small_count_is_not_told_and_nothing_of_so_few():
    row, last = table([line("small", 9, None)], split="validation")
    assert row.split() == [
        "small",
        "under",
        "10",
        "validation",
        "patients",
        "died",
        "slope",
        "–",
        "intercept",
        "–",
    ]
    assert last.startswith("No hospital has 1,000 validation patients, which a hospital needs")
    assert last.endswith("there is nothing to compare")


def readmissions(seed, split):
    """600 patients to train on and 400 to test on, of whom more with the one input come back."""
    rng = np.random.default_rng(seed)
    numbers = rng.normal(size=1000)
    labels = (rng.random(1000) < 1 / (1 + np.exp(1 - numbers))).astype(int)
    return make_dataset(
        labels.tolist(),
        numeric=np.tile(numbers[:, np.newaxis], (1, 6)),
        splits=[0] * 600 + [split] * 400,
    )


@pytest.mark.parametrize("split", [TEST, VALIDATION])
def test_each_hospital_that_took_part_has_a_line_on_the_split_that_was_asked_for(split):
    plan = small_plan(target="readmitted_30d")
    datasets = {name: readmissions(seed, split) for seed, name in enumerate(("a", "b", "c"))}
    result = simulate(datasets, plan, seed=0)
    lines = calibration_by_hospital(datasets, plan, result, split=split, seed=0)
    assert [found.hospital for found in lines] == ["a", "b", "c"]
    for found in lines:
        assert found.num_patients == 400
        for interval in (found.slope, found.intercept):
            assert interval is not None
            assert interval.low < interval.estimate < interval.high
    other = TEST + VALIDATION - split
    for found in calibration_by_hospital(datasets, plan, result, split=other, seed=0):
        assert (found.num_patients, found.slope, found.intercept) == (0, None, None)
