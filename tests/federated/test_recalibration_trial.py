import sys

import numpy as np
import pytest

from federated import recalibration_trial
from federated.features import TEST, VALIDATION
from federated.plan import make_plan
from federated.recalibration_trial import Recalibration, main, recalibrations, table
from federated.scaling import FeatureScaling
from federated.simulation import SimulationResult
from tests.federated.builders import make_dataset, small_plan

APPROX = 0.12  # of a slope of 4,000 patients


def hospital(seed, *, true_slope, split=VALIDATION, num_patients=4000):
    """Patients whose outcome has the logit true_slope · number; a model says twice the number."""
    rng = np.random.default_rng(seed)
    numbers = rng.normal(size=num_patients)
    labels = (rng.random(num_patients) < 1 / (1 + np.exp(-true_slope * numbers))).astype(int)
    return make_dataset(
        labels.tolist(), numeric=numbers[:, np.newaxis], splits=[split] * num_patients
    )


def model_of(*names):
    """Of two scores, 0 and twice the number."""
    params = {
        "bias": np.zeros(2, np.float32),
        "codes": np.zeros((0, 2), np.float32),
        "numeric": np.array([[0, 2]], np.float32),
    }
    return SimulationResult(params, FeatureScaling((0.0,), (1.0,)), tuple(sorted(names)))


PLAN = small_plan(target="readmitted_30d")


def tried(datasets, **options):
    (found,) = recalibrations(datasets, PLAN, model_of(*datasets), seed=0, **options).values()
    return found


def test_one_slope_for_all_brings_hospitals_that_miss_it_alike_to_1():
    found = tried({name: hospital(seed, true_slope=1) for seed, name in enumerate("ab")})
    assert found.of_halves == pytest.approx((0.5, 0.5), abs=APPROX / 2)
    for name in "ab":
        assert found.before[name] == pytest.approx(0.5, abs=APPROX / 2)
        assert found.after[name] == pytest.approx(1, abs=APPROX)


def test_hospitals_that_miss_it_in_opposite_ways_stay_where_they_are():
    found = tried({"a": hospital(0, true_slope=3), "b": hospital(1, true_slope=1.4)})
    for name, slope in (("a", 1.5), ("b", 0.7)):
        assert found.before[name] == pytest.approx(slope, abs=APPROX)
        assert abs(found.after[name] - 1) > 0.2


def test_a_half_is_judged_by_the_slope_of_the_other():
    """Few patients: their own slope would bring each half, and so the hospital, to 1."""
    few = {"a": hospital(0, true_slope=1, num_patients=60)}
    found = tried(few, smallest=1)
    first, second = found.of_halves
    assert first != second
    both = recalibrations(few, PLAN, model_of("a"), seed=0, smallest=1)
    assert found.after["a"] != pytest.approx(1, abs=1e-3)
    assert both["readmitted"] == found


def test_only_validation_patients_of_large_hospitals_are_shown():
    datasets = {
        "a": hospital(0, true_slope=1),
        "b": hospital(1, true_slope=1, num_patients=999),
        "c": hospital(2, true_slope=1, split=TEST),
    }
    found = tried(datasets)
    assert set(found.before) == set(found.after) == {"a"}
    without_test = tried({name: datasets[name] for name in "ab"})
    assert without_test == found


def test_the_table_names_the_halves_and_each_large_hospital():
    found = {
        "died": Recalibration(
            (1.249, 1.05), {"north": 1.03, "south": None}, {"north": 0.85, "south": None}
        )
    }
    assert list(table(found)) == [
        "died: slope of all hospitals' halves 1.25 and 1.05",
        "  north: 1.03, with the step 0.85",
        "  south: –, with the step –",
    ]


def test_the_command_trains_the_plan_that_was_asked_for(monkeypatch, capsys):
    seen = []

    def simulated(datasets, plan, *, seed):
        seen.append((plan, seed))
        return model_of(*datasets)

    monkeypatch.setattr(
        recalibration_trial, "read_datasets", lambda *_: {"a": hospital(0, true_slope=1)}
    )
    monkeypatch.setattr(recalibration_trial, "simulate", simulated)
    options = ["--data", ".", "--target", "readmitted_30d", "--rounds", "4", "--seed", "7"]
    monkeypatch.setattr(sys, "argv", ["recalibration-trial", *options])
    main()
    assert seen == [(make_plan(target="readmitted_30d", num_rounds=4), 7)]
    assert capsys.readouterr().out.startswith("readmitted_30d: calibration slopes on validation")
