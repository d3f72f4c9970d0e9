import dataclasses
import json

import numpy as np
import pytest

from federated.benefit import band_frequencies, benefit_report, gain_of
from federated.features import TEST, TRAIN
from federated.metrics import UNDEFINED
from federated.simulation import simulate
from tests.federated.builders import make_dataset, make_hospital, score, small_plan

FIGURES = {"auroc", "auprc", "accuracy", "brier"}
MODELS = {"rule_of_thumb", "local", "global", "fine_tuned", "pooled"}


def make_hospitals():
    """With 75, 41 and 41 test patients, 10 or more of each tier."""
    return {
        "north": make_hospital(480, prefix="n"),
        "south": make_hospital(300, prefix="s"),
        "west": make_hospital(300, prefix="w"),
    }


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
    scores = [envoy["global"]["brier"] for envoy in report["envoys"]]
    assert report["mean_of_envoys"]["global"]["brier"] == pytest.approx(np.mean(scores))


def test_equal_runs_are_reported_equally_whatever_the_order_of_hospitals(report):
    assert report_of(dict(reversed(make_hospitals().items()))) == report


def test_of_a_hospital_with_one_class_no_figure_says_so():
    hospitals = make_hospitals() | {"hospice": make_hospital(100, prefix="h", tiers=[2])}
    found = report_of(hospitals)
    hospice = of_envoy(found, "hospice")
    assert {hospice[model][figure] for model in MODELS for figure in FIGURES} == {None}
    (gain,) = [gain for gain in found["benefit"]["envoys"] if gain["name"] == "hospice"]
    assert gain["has_enough_patients"]
    assert gain["sentence"].endswith("own: under 10 patients with one of the outcomes")
    # Its patients count in the figures of all together.
    assert found["benefit"]["pooled_test"]["num_patients"] == (
        75 + 41 + 41 + len(hospitals["hospice"].rows(TEST))
    )


@pytest.mark.parametrize(("num_dead", "is_told"), [(9, False), (10, True)])
def test_exact_figures_of_a_hospital_do_not_tell_of_under_ten_deaths(num_dead, is_told):
    values = [0.01 + 0.009 * (number * 7 % 100) for number in range(100)]
    models = {"global": values, "local": values[::-1]}
    rows = score([1] * num_dead + [0] * (100 - num_dead), **models)
    gain = gain_of(rows, seed="0")
    assert (rows.measure("global").auroc is not None) == is_told
    assert (rows.measure("global").accuracy is not None) == is_told
    assert (gain.difference is not None) == is_told
    for figure in FIGURES:
        assert (gain.intervals[figure]["global"] is not None) == is_told
    because = "this hospital's own: under 10 patients with one of the outcomes"
    assert gain.sentence.endswith(because) != is_told
    assert gain.num_patients == 100


def test_deaths_are_counted_by_patient():
    values = [0.1 + 0.02 * (number * 7 % 40) for number in range(40)]
    patients = [*[0] * 6, *range(1, 9), *range(10, 36)]  # nine with the outcome, in 14 admissions
    rows = score([1] * 14 + [0] * 26, patients=patients, **{"global": values})
    assert rows.measure("global") == UNDEFINED
    assert gain_of(rows, seed="0").intervals["brier"]["global"] is None


def test_a_hospital_too_small_for_the_federation_is_still_compared():
    hospitals = make_hospitals() | {"small": make_hospital(250, prefix="c")}
    plan = small_plan(min_examples=251)
    assert "small" not in simulate(hospitals, plan, seed=0).client_ids
    small = of_envoy(report_of(hospitals, plan), "small")
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
    assert new["num_examples"] is None
    assert set(new["local"].values()) == {None}
    assert new["global"]["auroc"] == 1.0
    assert set(report["pooled_test"]["local"].values()) == {None}  # not every hospital has one
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
    interval = gain.intervals["auroc"]["global"]
    assert interval is not None
    assert interval.low < interval.estimate < interval.high
    assert gain.to_json()["difference"] == {"estimate": 0, "low": 0, "high": 0}
    assert gain.sentence.startswith("No difference can be told")


def test_of_under_ten_patients_there_is_no_interval_however_many_their_admissions():
    values = [0.2, 0.8] * 20
    rows = {"global": values, "local": values}
    nine = gain_of(score([0, 1] * 20, patients=[n % 9 for n in range(40)], **rows), seed="0")
    for figure in FIGURES:
        assert set(nine.intervals[figure].values()) == {None}
    assert nine.sentence.endswith("too few patients")
    ten = gain_of(score([0, 1] * 20, patients=[n // 2 % 10 for n in range(40)], **rows), seed="0")
    assert ten.intervals["auroc"]["global"] is not None


@pytest.mark.parametrize(
    ("labels", "models", "because"),
    [
        ([0] * 40, ("global", "local"), "not every outcome occurs among the test patients"),
        ([1] * 2 + [0] * 38, ("global", "local"), "too few patients have one of the outcomes"),
        ([0, 1] * 20, ("global",), "it has no such model"),
    ],
    ids=["one outcome", "two with the outcome", "no local model"],
)
def test_where_no_difference_is_defined_for_all_together_the_sentence_says_why(
    labels, models, because
):
    values = [0.1 * (number * 7 % 10) for number in range(40)]
    rows = dataclasses.replace(score(labels, **dict.fromkeys(models, values)), num_hospitals=2)
    gain = gain_of(rows, seed="0")
    assert gain.difference is None
    assert gain.sentence == (
        f"No difference can be told between the global model and this hospital's own: {because}"
    )
    assert gain.fine_tuned_sentence == ""


def test_every_figure_of_every_model_has_an_interval():
    rng = np.random.default_rng(0)
    labels = (rng.random(400) < 0.4).astype(int)
    values = np.clip(0.4 + 0.2 * (labels - 0.4) + 0.2 * rng.normal(size=400), 0.01, 0.99)
    rows = score(labels, **{"global": values})
    gain, found = gain_of(rows, seed="0").to_json(), rows.measure("global").to_json()
    intervals = {"auroc": gain["intervals"], **gain["other_intervals"]}
    for figure in FIGURES:
        interval = intervals[figure]["global"]
        assert interval["low"] < interval["estimate"] < interval["high"]
        assert interval["estimate"] == pytest.approx(found[figure], abs=1e-6)
    accuracy = intervals["accuracy"]["global"]
    error = (accuracy["estimate"] * (1 - accuracy["estimate"]) / 400) ** 0.5
    assert accuracy["high"] - accuracy["low"] == pytest.approx(2 * 1.96 * error, rel=0.15)


def test_a_report_has_intervals_and_a_sentence_for_each_hospital_and_for_all():
    # The outcome of every seventh patient is not what the code says: no model is always right.
    report = report_of(
        {
            name: dataclasses.replace(
                dataset,
                labels=(dataset.labels + (np.arange(len(dataset.labels)) % 7 == 0)) % 3,
            )
            for name, dataset in make_hospitals().items()
        }
    )
    benefit = report["benefit"]
    assert [gain["name"] for gain in benefit["envoys"]] == ["north", "south", "west"]
    parts = [(benefit["pooled_test"], report["pooled_test"], "the hospitals' own")]
    parts += [
        (gain, of_envoy(report, gain["name"]), "this hospital's own") for gain in benefit["envoys"]
    ]
    for gain, figures, other in parts:
        assert set(gain["intervals"]) == MODELS
        for model in MODELS:
            interval = gain["intervals"][model]
            assert interval["estimate"] == pytest.approx(figures[model]["auroc"], abs=1e-6)
            assert interval["low"] <= interval["estimate"] <= interval["high"]
            assert (interval["low"] < interval["high"]) == (model != "rule_of_thumb")
        assert gain["difference"]["estimate"] == pytest.approx(
            figures["global"]["auroc"] - figures["local"]["auroc"], abs=1e-6
        )
        assert f"the global model and {other}:" in gain["sentence"]


def test_of_a_hospital_with_under_ten_test_patients_nothing_is_told_and_no_sum_tells_it(report):
    hospitals = make_hospitals() | {"small": make_hospital(30, prefix="s")}
    assert len(hospitals["small"].rows(TEST)) == 8
    found = report_of(hospitals)
    small = of_envoy(found, "small")
    assert {small[model][figure] for model in MODELS for figure in FIGURES} == {None}
    gains = {gain["name"]: gain for gain in found["benefit"]["envoys"]}
    assert gains["small"]["num_patients"] is None
    assert not gains["small"]["has_enough_patients"]
    assert set(gains["small"]["intervals"].values()) == {None}
    assert gains["small"]["sentence"].endswith("too few patients")
    # A total or a mean less those of the others would be that of the small one.
    assert [gains[name]["num_patients"] for name in ("north", "south", "west")] == [75, 41, 41]
    assert found["benefit"]["pooled_test"]["num_patients"] == 75 + 41 + 41
    mean = np.mean([of_envoy(found, n)["global"]["brier"] for n in ("north", "south", "west")])
    assert found["mean_of_envoys"]["global"]["brier"] == pytest.approx(mean)
    brier = found["pooled_test"]["rule_of_thumb"]["brier"]  # no hospital's model decides it
    counted = sum(
        of_envoy(found, name)["rule_of_thumb"]["brier"] * len(hospitals[name].rows(TEST))
        for name in ("north", "south", "west")
    )
    assert brier == pytest.approx(counted / (75 + 41 + 41), abs=1e-6)


def test_small_hospitals_count_together_where_they_have_ten_test_patients():
    hospitals = make_hospitals() | {
        name: make_hospital(30, prefix=prefix) for name, prefix in (("one", "s"), ("two", "x"))
    }
    small = [len(hospitals[name].rows(TEST)) for name in ("one", "two")]
    assert max(small) < 10 <= sum(small)
    found = report_of(hospitals)
    assert found["benefit"]["pooled_test"]["num_patients"] == 75 + 41 + 41 + sum(small)
    assert of_envoy(found, "one")["global"]["brier"] is None


def test_a_count_of_examples_under_ten_is_hidden_and_another_so_that_no_sum_tells_it():
    hospitals = make_hospitals()
    made = benefit_report(
        hospitals,
        small_plan(),
        simulate(hospitals, small_plan(), seed=0),
        num_classes=3,
        seed=0,
    )
    counts = {"north": 180, "south": 28, "west": 9}
    found = dataclasses.replace(made, num_examples=counts).to_json()
    assert [envoy["num_examples"] for envoy in found["envoys"]] == [180, None, None]
    assert found["num_examples"] == 217


def test_accuracy_is_told_also_where_the_confusion_matrix_is_not(report):
    # Of three classes some cells are empty: the model is right of nearly everybody.
    assert report["confusion"]["macro_f1"] is None
    assert report["confusion"]["total"] is None
    accuracy = report["pooled_test"]["global"]["accuracy"]
    assert report["benefit"]["pooled_test"]["other_intervals"]["accuracy"]["global"][
        "estimate"
    ] == pytest.approx(accuracy)


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
    # Of all together it would be north's own.
    pooled = result["benefit"]["pooled_test"]
    assert set(result["pooled_test"]["fine_tuned"].values()) == {None}
    assert pooled["intervals"]["fine_tuned"] is None
    assert pooled["fine_tuned_difference"] is None
    assert pooled["fine_tuned_sentence"] == (
        "No difference can be told between the fine-tuned model and the global one:"
        " not every hospital has such a model"
    )
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


def test_where_a_hospital_has_no_local_model_all_together_have_none():
    dataset = make_hospital(60, prefix="t")
    object.__setattr__(dataset, "splits", np.full(60, TEST, np.int8))
    report = report_of(make_hospitals() | {"new": dataset})
    (new,) = [gain for gain in report["benefit"]["envoys"] if gain["name"] == "new"]
    assert new["intervals"]["local"] is None
    assert new["intervals"]["global"]["estimate"] == 1.0
    assert new["sentence"].endswith("and this hospital's own: it has no such model")
    pooled = report["benefit"]["pooled_test"]
    assert pooled["intervals"]["local"] is None
    assert pooled["difference"] is None
    assert pooled["sentence"].endswith(
        "and the hospitals' own: not every hospital has such a model"
    )
    for model in MODELS - {"local", "fine_tuned"}:
        assert pooled["intervals"][model]["estimate"] == pytest.approx(
            report["pooled_test"][model]["auroc"], abs=1e-6
        )
    json.dumps(report, allow_nan=False)
