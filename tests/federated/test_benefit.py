import json

import numpy as np
import pytest

from federated.benefit import band_frequencies, benefit_report
from federated.features import TEST, TRAIN
from federated.simulation import simulate
from tests.federated.builders import make_dataset, make_hospital, make_hospitals, small_plan

FIGURES = {"auroc", "auprc", "accuracy", "brier"}
MODELS = {"rule_of_thumb", "local", "global", "pooled"}


def report_of(datasets, plan=None, **options):
    plan = plan or small_plan()
    federated = simulate(datasets, plan, seed=0)
    return benefit_report(datasets, plan, federated, num_classes=3, seed=0, **options).to_json()


@pytest.fixture(scope="module")
def report():
    return report_of(make_hospitals())


def of_envoy(report, name):
    (figures,) = [envoy for envoy in report["envoys"] if envoy["name"] == name]
    return figures


# The rule of thumb


def test_the_rule_of_thumb_is_the_training_frequencies_of_each_band():
    dataset = make_dataset(
        [0, 0, 0, 1, 1, 2, 2, 2],
        bands=[0, 0, 0, 0, 1, 1, 2, 2],
        splits=[TRAIN] * 7 + [TEST],
    )
    assert band_frequencies(dataset, 3).tolist() == [[0.75, 0.25, 0], [0, 0.5, 0.5], [0, 0, 1]]


def test_a_band_that_nobody_is_in_has_the_frequencies_of_all():
    dataset = make_dataset([0, 0, 0, 1, -1], bands=[0, 0, 0, 2, 1])
    assert band_frequencies(dataset, 2).tolist() == [[1, 0], [0.75, 0.25], [0, 1]]


# The report


def test_a_report_has_four_figures_of_four_models_for_all_and_for_each_hospital(report):
    assert set(report) == {"pooled_test", "mean_of_envoys", "envoys"}
    assert [envoy["name"] for envoy in report["envoys"]] == ["north", "south", "west"]
    for part in (report["pooled_test"], report["mean_of_envoys"], *report["envoys"]):
        assert set(part) - {"name", "num_examples"} == MODELS
        assert all(set(part[model]) == FIGURES for model in MODELS)
    json.dumps(report, allow_nan=False)


def test_examples_are_those_trained_on(report):
    for name, dataset in make_hospitals().items():
        assert of_envoy(report, name)["num_examples"] == len(dataset.rows(TRAIN))


def test_models_beat_a_rule_of_thumb_that_says_nothing(report):
    # Every admission has one code: the rule of thumb puts all of them into one band.
    pooled = report["pooled_test"]
    assert pooled["rule_of_thumb"]["auroc"] == 0.5
    assert pooled["global"]["auroc"] == pooled["pooled"]["auroc"] == 1.0


def test_the_mean_of_hospitals_is_the_plain_one(report):
    accuracies = [envoy["global"]["accuracy"] for envoy in report["envoys"]]
    assert report["mean_of_envoys"]["global"]["accuracy"] == pytest.approx(np.mean(accuracies))


def test_equal_runs_are_reported_equally_whatever_the_order_of_hospitals(report):
    assert report_of(dict(reversed(make_hospitals().items()))) == report


def test_what_a_hospital_with_one_class_does_not_define_is_null():
    hospitals = make_hospitals() | {"hospice": make_hospital(40, prefix="h", tiers=[2])}
    hospice = of_envoy(report_of(hospitals), "hospice")
    for model in MODELS:
        assert hospice[model]["auroc"] is None
        assert hospice[model]["auprc"] is None
        assert 0 <= hospice[model]["accuracy"] <= 1
    assert hospice["local"]["accuracy"] == 1.0


def test_a_hospital_too_small_for_the_federation_is_still_compared():
    hospitals = make_hospitals() | {"small": make_hospital(18, prefix="c")}
    assert "small" not in simulate(hospitals, small_plan(), seed=0).client_ids
    small = of_envoy(report_of(hospitals), "small")
    assert small["local"]["brier"] is not None
    assert small["global"]["brier"] is not None


def test_a_hospital_with_nobody_to_train_on_has_no_local_model():
    dataset = make_hospital(30, prefix="t")
    object.__setattr__(dataset, "splits", np.full(30, TEST, np.int8))
    progress: list[tuple[int, int]] = []
    report = report_of(
        make_hospitals() | {"new": dataset},
        on_progress=lambda done, total: progress.append((done, total)),
    )
    new = of_envoy(report, "new")
    assert new["num_examples"] == 0
    assert set(new["local"].values()) == {None}
    assert new["global"]["auroc"] == 1.0
    assert report["pooled_test"]["local"]["brier"] is not None  # of the others' patients
    assert progress == [(done, 8) for done in range(1, 9)]  # (three alone + pooled) · two rounds


def test_an_empty_hospital_is_reported_with_nothing(report):
    empty = make_dataset([], numeric=np.zeros((0, 6)))
    with_empty = report_of(make_hospitals() | {"empty": empty})
    assert all(set(of_envoy(with_empty, "empty")[model].values()) == {None} for model in MODELS)
    assert with_empty["pooled_test"] == report["pooled_test"]


@pytest.mark.parametrize("strategy", ["trimmed_mean", "scaffold", "fedadam"])
def test_the_baselines_are_the_same_whatever_the_strategy(strategy, report):
    other = report_of(make_hospitals(), small_plan(strategy=strategy))
    for model in ("rule_of_thumb", "local", "pooled"):
        assert other["pooled_test"][model] == report["pooled_test"][model]
