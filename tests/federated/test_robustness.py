"""Hospitals as they come: each oddity has its defined effect, and stops nobody else."""

import json
from dataclasses import replace

import numpy as np
import pytest

from federated import benefit
from federated.datasets import build_dataset, concatenate
from federated.features import TEST, TRAIN
from federated.params import check_finite, subtract
from federated.prediction import predict_rows
from federated.schemas import feature_schema
from federated.simulation import simulate
from federated.strategies import strategies
from federated.suppression import fewest_with_an_outcome
from tests.federated.builders import (
    make_dataset,
    make_hospital,
    make_hospitals,
    make_record,
    small_plan,
    split_evenly,
)

AGE = feature_schema("risk_tier").numeric_inputs.index("age")
HOSPITALS = make_hospitals() | {"east": make_hospital(60, prefix="e")}


def nobody():
    return make_dataset([], numeric=np.zeros((0, 6)))


def without_inputs(num_patients):
    """Neither a code, nor a number, nor a sex; the outcome alone is known."""
    return build_dataset(
        (make_record(f"blank{n}", codes=(), risk_tier=n % 3) for n in range(num_patients)),
        feature_schema("risk_tier"),
    )


def unknown_ages(dataset):
    numeric = dataset.numeric.copy()
    numeric[:, AGE] = np.nan
    return replace(dataset, numeric=numeric)


def twice(dataset):
    """Every admission is there twice, each patient's under one number."""
    doubled = concatenate([dataset, dataset])
    return replace(doubled, patients=np.tile(dataset.patients, 2))


ODD = {
    "one class": split_evenly(make_hospital(100, prefix="h", tiers=[2])),
    "one patient too few": make_hospital(19, prefix="q"),
    "nobody": nobody(),
    "duplicated patients": twice(split_evenly(make_hospital(100, prefix="d"))),
    "no ages": unknown_ages(split_evenly(make_hospital(100, prefix="u"))),
    "no inputs at all": split_evenly(without_inputs(100)),
}
SIT_OUT = {"one patient too few", "nobody"}


@pytest.mark.parametrize("strategy", [strategy.name for strategy in strategies()])
def test_odd_hospitals_stop_no_strategy_and_make_nothing_that_is_no_number(strategy):
    result = simulate(HOSPITALS | ODD, small_plan(strategy=strategy, num_rounds=1), seed=0)
    check_finite(result.params)
    assert np.isfinite([*result.scaling.mean, *result.scaling.std]).all()
    assert set(result.client_ids) == {*HOSPITALS, *ODD} - SIT_OUT


@pytest.mark.parametrize("odd", ODD)
def test_a_report_with_an_odd_hospital_says_null_where_a_figure_is_undefined(odd, monkeypatch):
    monkeypatch.setattr(benefit, "NUM_RESAMPLES", 20)
    plan, datasets = small_plan(num_rounds=1), HOSPITALS | {"odd": ODD[odd]}
    result = simulate(datasets, plan, seed=0)
    check_finite(result.params)
    assert ("odd" in result.client_ids) == (odd not in SIT_OUT)
    report = benefit.benefit_report(datasets, plan, result, num_classes=3, seed=0).to_json()
    json.dumps(report, allow_nan=False)
    figures = next(row for row in report["envoys"] if row["name"] == "odd")
    tested = ODD[odd].rows(TEST)
    labels, patients = ODD[odd].labels[tested], ODD[odd].patients[tested]
    is_told = fewest_with_an_outcome(labels, patients, range(3)) >= 10
    assert is_told == (odd not in SIT_OUT | {"one class"})
    assert (figures["global"]["auroc"] is not None) == is_told
    assert (figures["global"]["brier"] is not None) == is_told
    assert (figures["local"]["brier"] is not None) == is_told
    assert report["pooled_test"]["global"]["auroc"] is not None


def test_of_one_patient_too_few_nothing_is_used_and_one_more_takes_part():
    few, enough = make_hospital(19, prefix="q"), make_hospital(20, prefix="q")
    many_admissions = concatenate([few, few, few])
    many_admissions = replace(many_admissions, patients=np.tile(few.patients, 3))
    taking_part = {
        name: "odd" in simulate(HOSPITALS | {"odd": odd}, small_plan(), seed=0).client_ids
        for name, odd in (("19", few), ("20", enough), ("19 with 57", many_admissions))
    }
    assert taking_part == {"19": False, "20": True, "19 with 57": False}


def test_a_hospital_ten_thousand_times_larger_outweighs_the_others_and_they_stay_in():
    small = make_hospital(20, prefix="s")
    large = make_hospital(20, prefix="l")
    size = len(large.labels)
    many = replace(
        large,
        indices=np.tile(large.indices, 10_000),
        offsets=np.append(
            (np.arange(10_000)[:, np.newaxis] * large.offsets[-1] + large.offsets[:-1]).ravel(),
            10_000 * large.offsets[-1],
        ),
        numeric=np.tile(large.numeric, (10_000, 1)),
        labels=np.tile(large.labels, 10_000),
        splits=np.tile(large.splits, 10_000),
        bands=np.tile(large.bands, 10_000),
        patients=np.arange(10_000 * size, dtype=np.int32),
    )
    one_step = replace(small_plan().local_training, batch_size=200_000)
    plan = small_plan(num_rounds=1, local_training=one_step)
    together = simulate({"large": many, "small": small}, plan, seed=0)
    alone = simulate({"large": many}, plan, seed=0)
    assert together.client_ids == ("large", "small")
    check_finite(together.params)
    assert max(np.abs(d).max() for d in subtract(together.params, alone.params).values()) < 1e-3
    rows = small.rows(TEST)
    assert np.isfinite(predict_rows(together.params, together.scaling, small, rows)).all()
    # Where hospitals count alike, the small one is heard.
    plan = small_plan(num_rounds=1, local_training=one_step, strategy="median")
    heard = simulate({"large": many, "small": small, "third": small}, plan, seed=0)
    assert max(np.abs(d).max() for d in subtract(heard.params, alone.params).values()) > 1e-3


def test_a_patient_at_two_hospitals_is_on_one_side_of_the_split_and_trains_at_both():
    here, there = make_hospital(60, prefix="same"), make_hospital(60, prefix="same")
    assert (here.splits == there.splits).all()
    result = simulate({"here": here, "there": there}, small_plan(), seed=0)
    assert result.client_ids == ("here", "there")


def test_repeated_admissions_count_as_examples_and_not_as_patients():
    once = make_hospital(40, prefix="d")
    doubled = twice(once)
    assert doubled.num_examples == 2 * once.num_examples
    assert doubled.num_labelled_patients == once.num_labelled_patients == 40


def test_an_input_that_is_missing_everywhere_gets_no_weight():
    datasets = {name: unknown_ages(dataset) for name, dataset in HOSPITALS.items()}
    result = simulate(datasets, small_plan(), seed=0)
    assert (result.scaling.mean[AGE], result.scaling.std[AGE]) == (0, 1)
    assert not result.params["numeric"][AGE].any()


def test_an_input_that_is_missing_at_one_hospital_is_scaled_by_the_others():
    odd = {"odd": unknown_ages(make_hospital(100, prefix="u"))}
    without = simulate(HOSPITALS, small_plan(), seed=0).scaling
    beside = simulate(HOSPITALS | odd, small_plan(), seed=0).scaling
    assert (beside.mean[AGE], beside.std[AGE]) == (without.mean[AGE], without.std[AGE])
    assert np.isnan(odd["odd"].numeric[odd["odd"].rows(TRAIN), AGE]).all()
