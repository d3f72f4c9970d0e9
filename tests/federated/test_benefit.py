import dataclasses
import json

import numpy as np
import pytest

from federated.benefit import (
    ScoredRows,
    assess,
    band_frequencies,
    benefit_report,
    gain_of,
    shown_curve,
)
from federated.features import TEST, TRAIN
from federated.simulation import simulate
from tests.federated.builders import make_dataset, make_hospital, make_hospitals, small_plan

FIGURES = {"auroc", "auprc", "accuracy", "brier"}
MODELS = {"rule_of_thumb", "local", "global", "fine_tuned", "pooled"}


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


def test_a_report_has_four_figures_of_five_models_for_all_and_for_each_hospital(report):
    assert set(report) > {"pooled_test", "mean_of_envoys", "envoys"}
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


# How sure the figures are, and the global model on all test patients


def score(labels, *, patients=None, ages=None, **of_second_class):
    """Rows of two classes, with each model's probability of the second."""
    num_rows = len(labels)
    return ScoredRows(
        labels=np.array(labels, np.int8),
        patients=np.array(range(num_rows) if patients is None else patients, np.int32),
        age_bands=np.array(ages or ["40–64"] * num_rows),
        sexes=np.array(["female"] * num_rows),
        probabilities={
            model: np.array([[1 - p, p] for p in values], np.float32).reshape(-1, 2)
            for model, values in of_second_class.items()
        },
    )


def test_a_global_model_that_is_always_right_beats_a_local_one_that_is_always_wrong():
    rows = score(
        [0] * 20 + [1] * 20, **{"global": [0.2] * 20 + [0.8] * 20, "local": [0.8] * 20 + [0.2] * 20}
    )
    gain = gain_of(rows, seed="0").to_json()
    assert gain["intervals"]["global"] == {"estimate": 1, "low": 1, "high": 1}
    assert gain["intervals"]["local"] == {"estimate": 0, "low": 0, "high": 0}
    assert gain["intervals"]["pooled"] is None
    assert gain["difference"] == {"estimate": 1, "low": 1, "high": 1}
    assert gain["sentence"] == ("The global model beats this hospital's own by 1.00 (1.00 to 1.00)")


def test_equal_models_have_an_interval_each_and_no_difference():
    values = [0.1 * (number * 7 % 10) for number in range(40)]
    gain = gain_of(score([0, 1] * 20, **{"global": values, "local": values}), seed="0")
    interval = gain.intervals["global"]
    assert interval is not None
    assert interval.low < interval.estimate < interval.high
    assert gain.to_json()["difference"] == {"estimate": 0, "low": 0, "high": 0}
    assert gain.sentence.startswith("No difference can be told")


def test_of_under_ten_patients_there_is_no_interval_however_many_their_admissions():
    values = [0.2, 0.8] * 20
    rows = {"global": values, "local": values}
    nine = gain_of(score([0, 1] * 20, patients=[n % 9 for n in range(40)], **rows), seed="0")
    assert set(nine.intervals.values()) == {None}
    assert nine.sentence.endswith("too few patients")
    ten = gain_of(score([0, 1] * 20, patients=[n // 2 % 10 for n in range(40)], **rows), seed="0")
    assert ten.intervals["global"] is not None


def test_a_report_has_intervals_and_a_sentence_for_each_hospital_and_for_all(report):
    benefit = report["benefit"]
    assert [gain["name"] for gain in benefit["envoys"]] == ["north", "south", "west"]
    for gain in (benefit["pooled_test"], *benefit["envoys"]):
        assert set(gain["intervals"]) == MODELS
    pooled = benefit["pooled_test"]["intervals"]
    for model in MODELS:
        assert pooled[model]["estimate"] == pytest.approx(
            report["pooled_test"][model]["auroc"], abs=1e-6
        )


def test_a_count_of_test_patients_under_ten_is_hidden_and_another_so_that_no_sum_tells_it():
    hospitals = make_hospitals()
    federated = simulate(hospitals, small_plan(), seed=0)
    made = benefit_report(hospitals, small_plan(), federated, num_classes=3, seed=0)
    counts = {"north": 180, "south": 28, "west": 9}
    gains = {
        name: dataclasses.replace(gain, num_patients=counts[name])
        for name, gain in made.gains.items()
    }
    benefit = dataclasses.replace(made, gains=gains).to_json()["benefit"]
    assert [gain["num_patients"] for gain in benefit["envoys"]] == [180, None, None]
    assert [gain["has_enough_patients"] for gain in benefit["envoys"]] == [True, True, False]
    assert benefit["pooled_test"]["num_patients"] == 217


def test_fine_tuning_is_compared_with_the_global_model_where_the_last_round_had_the_hospital():
    hospitals = make_hospitals()
    plan = small_plan()
    federated = simulate(hospitals, plan, seed=0)
    assert set(federated.local_params) == set(hospitals)
    without = dataclasses.replace(
        federated, local_params={"north": federated.local_params["north"]}
    )
    result = benefit_report(hospitals, plan, without, num_classes=3, seed=0).to_json()
    gains = {gain["name"]: gain for gain in result["benefit"]["envoys"]}
    assert "the fine-tuned model and the global one" in gains["north"]["fine_tuned_sentence"]
    assert gains["south"]["fine_tuned_sentence"] == ""
    assert set(of_envoy(result, "south")["fine_tuned"].values()) == {None}
    # Of all together it is judged on the patients of those that have one.
    assert result["pooled_test"]["fine_tuned"] == of_envoy(result, "north")["fine_tuned"]
    json.dumps(result, allow_nan=False)


def test_the_fine_tuned_model_is_the_last_base_plus_the_hospitals_last_update():
    hospitals = make_hospitals()
    one_round = simulate(hospitals, small_plan(num_rounds=1), seed=0)
    deltas = {}

    def note(update, round_number):
        if round_number == 2:
            deltas[update.client_id] = update.delta_params
        return update

    two_rounds = simulate(hospitals, small_plan(num_rounds=2), seed=0, on_update=note)
    for name in hospitals:
        for parameter, value in two_rounds.local_params[name].items():
            base = one_round.params[parameter]
            np.testing.assert_array_equal(value, base + deltas[name][parameter])


def test_hospitals_without_a_local_model_count_for_the_others_only():
    dataset = make_hospital(60, prefix="t")
    object.__setattr__(dataset, "splits", np.full(60, TEST, np.int8))
    report = report_of(make_hospitals() | {"new": dataset})
    (new,) = [gain for gain in report["benefit"]["envoys"] if gain["name"] == "new"]
    assert new["intervals"]["local"] is None
    assert new["intervals"]["global"]["estimate"] == 1.0
    pooled = report["benefit"]["pooled_test"]
    for model in MODELS:
        assert pooled["intervals"][model]["estimate"] == pytest.approx(
            report["pooled_test"][model]["auroc"], abs=1e-6
        )
    json.dumps(report, allow_nan=False)


def test_the_confusion_matrix_counts_patients_over_hospitals_and_hides_small_ones():
    # Right of each class 20; wrong 15 and 3. Shown, the margins would give the 3 away.
    labels = [0] * 35 + [1] * 23
    values = [0.2] * 20 + [0.8] * 15 + [0.2] * 3 + [0.8] * 20
    one = score(labels[:30], **{"global": values[:30]})
    other = score(labels[30:], **{"global": values[30:]})
    confusion = assess({"one": one, "other": other}, ("No", "Yes")).to_json()["confusion"]
    assert confusion["classes"] == ["No", "Yes"]
    assert confusion["cells"] == [[None, None], [None, None]]
    assert confusion["row_totals"] == [35, 23]
    assert confusion["total"] == 58
    assert confusion["macro_f1"] is None  # with the margins it tells the 3

    large = score(labels * 5, **{"global": values * 5})
    shown = assess({"one": large}, ("No", "Yes")).to_json()["confusion"]
    assert shown["cells"] == [[100, 75], [15, 100]]
    assert shown["macro_f1"] == pytest.approx((40 / 58 + 40 / 58) / 2)

    twice = score(
        [0, 0, 1, 1] * 20,
        patients=[n // 2 for n in range(80)],
        **{"global": [0.2, 0.2, 0.8, 0.8] * 20},
    )
    assert assess({"one": twice}, ("No", "Yes")).confusion.total == 40


def test_subgroups_come_in_the_order_of_age_and_small_ones_hide_another():
    ages = ["80 and over"] * 20 + ["under 18"] * 5 + ["18–39"] * 15
    rows = score([0, 1] * 20, ages=ages, **{"global": [0.2, 0.8] * 20})
    age = assess({"one": rows}, ("No", "Yes")).to_json()["subgroups"]["age"]
    assert [(group["name"], group["num_patients"], group["auroc"]) for group in age] == [
        ("under 18", None, None),
        ("18–39", None, None),
        ("80 and over", 20, 1.0),
    ]


def test_a_reliability_bin_does_not_tell_of_under_ten_outcomes():
    values = np.array([0.1] * 100 + [0.5] * 100 + [0.9] * 100, np.float32)
    outcomes = np.array([1] * 10 + [0] * 90 + [1] * 50 + [0] * 50 + [1] * 80 + [0] * 20, bool)
    curve = shown_curve(outcomes, values, np.arange(300, dtype=np.int32))
    assert [shown.observed for shown in curve] == [0.1, 0.5, 0.8]
    outcomes[0] = False
    curve = shown_curve(outcomes, values, np.arange(300, dtype=np.int32))
    # 9 of the 100, and another bin's, so that the total does not give the 9 away.
    assert [shown.observed for shown in curve] == [None, 0.5, None]
    assert [shown.num_admissions for shown in curve] == [100, 100, 100]


def test_the_calibration_of_a_model_that_says_what_happens_is_a_slope_of_one():
    values = [0.2] * 50 + [0.8] * 50
    outcomes = [1] * 10 + [0] * 40 + [1] * 40 + [0] * 10
    (line,) = assess({"one": score(outcomes, **{"global": values})}, ("No", "Yes")).to_json()[
        "calibration"
    ]
    assert line["class"] == "Yes"
    assert line["slope"] == pytest.approx(1, abs=1e-5)
    assert line["intercept"] == pytest.approx(0, abs=1e-5)


def test_of_nobody_and_of_under_ten_patients_nothing_is_said():
    for num_rows in (0, 9):
        rows = score(([0, 1] * 5)[:num_rows], **{"global": ([0.2, 0.8] * 5)[:num_rows]})
        found = assess({"one": rows}, ("No", "Yes")).to_json()
        assert found["from_histograms"] == {"auroc": None, "auprc": None}
        assert found["calibration"] == [
            {"class": "Yes", "slope": None, "intercept": None, "in_the_large": None, "curve": []}
        ]
        assert found["confusion"]["total"] is None
        assert found["confusion"]["macro_f1"] is None
        assert all(g["num_patients"] is None for g in found["subgroups"]["age"])
        json.dumps(found, allow_nan=False)
