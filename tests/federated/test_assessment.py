import json
from typing import Any

import numpy as np
import pytest

from federated.assessment import assess, patient_confusion, shown_curve, whole_matrices
from federated.benefit import gain_of
from federated.scored_rows import join
from tests.federated.builders import score

CLASSES = ("No", "Yes")


def assessed(*, names=CLASSES, **hospitals):
    return assess(hospitals, names, seed="0").to_json()


def test_the_confusion_matrix_counts_patients_over_hospitals_and_hides_small_ones():
    # Right of each class 20; wrong 15 and 3. Shown, the margins would give the 3 away.
    labels = [0] * 35 + [1] * 23
    values = [0.2] * 20 + [0.8] * 15 + [0.2] * 3 + [0.8] * 20
    one = score(labels[:30], **{"global": values[:30]})
    other = score(labels[30:], **{"global": values[30:]})
    confusion = assessed(one=one, other=other)["confusion"]
    assert confusion["classes"] == ["No", "Yes"]
    assert confusion["cells"] == [[None, None], [None, None]]
    assert [*confusion["row_totals"], confusion["total"]] == [None] * 3
    assert confusion["macro_f1"] is None  # with the margins it would tell the 3

    large = score(labels * 5, **{"global": values * 5})
    shown = assessed(one=large)["confusion"]
    assert shown["cells"] == [[100, 75], [15, 100]]
    assert shown["macro_f1"] == pytest.approx((40 / 58 + 40 / 58) / 2)

    twice = score(
        [0, 0, 1, 1] * 20,
        patients=[n // 2 for n in range(80)],
        **{"global": [0.2, 0.2, 0.8, 0.8] * 20},
    )
    assert patient_confusion(twice, 2).sum() == 40


def test_subgroups_come_in_the_order_of_age_and_small_ones_hide_another():
    ages = ["80 and over"] * 20 + ["under 18"] * 5 + ["18–39"] * 15
    rows = score([0, 1] * 20, ages=ages, **{"global": [0.2, 0.8] * 20})
    age = assessed(one=rows)["subgroups"]["age"]
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


def test_a_reliability_bin_counts_patients_and_not_admissions():
    # Of the lowest bin nine patients came back, one of them twice; 91 did not.
    values = np.array([0.1] * 101 + [0.5] * 100 + [0.9] * 100, np.float32)
    outcomes = np.array([1] * 10 + [0] * 91 + ([1] * 50 + [0] * 50) * 2, bool)
    patients = np.arange(301, dtype=np.int32)
    assert None not in [shown.observed for shown in shown_curve(outcomes, values, patients)]
    patients[1] = patients[0]
    curve = shown_curve(outcomes, values, patients)
    assert [shown.observed is None for shown in curve] == [True, True, False]
    assert [shown.num_admissions for shown in curve] == [101, 100, 100]


def test_the_calibration_of_a_model_that_says_what_happens_is_a_slope_of_one():
    values = [0.2] * 50 + [0.8] * 50
    outcomes = [1] * 10 + [0] * 40 + [1] * 40 + [0] * 10
    (line,) = assessed(one=score(outcomes, **{"global": values}))["calibration"]
    assert line["class"] == "Yes"
    assert line["slope"] == pytest.approx(1, abs=1e-5)
    assert line["intercept"] == pytest.approx(0, abs=1e-5)


def test_of_nobody_and_of_under_ten_patients_nothing_is_said():
    for num_rows in (0, 9):
        rows = score(([0, 1] * 5)[:num_rows], **{"global": ([0.2, 0.8] * 5)[:num_rows]})
        found = assessed(one=rows)
        assert found["from_histograms"] == {"auroc": None, "auprc": None}
        assert found["calibration"] == [
            {
                "class": "Yes",
                "slope": None,
                "intercept": None,
                "in_the_large": None,
                "slope_interval": None,
                "intercept_interval": None,
                "curve": [],
            }
        ]
        assert found["confusion"]["total"] is None
        assert found["confusion"]["macro_f1"] is None
        assert all(g["num_patients"] is None for g in found["subgroups"]["age"])
        json.dumps(found, allow_nan=False)


def make_scored(num_rows, *, seed=0, stretch=1.0):
    """Outcomes that come as often as the probabilities say, with logits stretched."""
    rng = np.random.default_rng(seed)
    logits = rng.normal(size=num_rows)
    labels = (rng.random(num_rows) < 1 / (1 + np.exp(-logits))).astype(int)
    return score(labels, **{"global": 1 / (1 + np.exp(-stretch * logits))})


def test_each_hospital_has_its_calibration_with_an_interval():
    found = assessed(fair=make_scored(600), extreme=make_scored(600, seed=1, stretch=2.0))
    by_name = {each["name"]: each["calibration"][0] for each in found["by_hospital"]}
    for name, slope in (("fair", 1.0), ("extreme", 0.5)):
        line = by_name[name]
        assert line["class"] == "Yes"
        assert line["slope_interval"]["low"] < slope < line["slope_interval"]["high"]
        assert line["slope_interval"]["estimate"] == pytest.approx(line["slope"], abs=1e-6)
        intercept = line["intercept_interval"]
        assert intercept["low"] < intercept["estimate"] < intercept["high"]
        assert intercept["estimate"] == pytest.approx(line["intercept"], abs=1e-6)
    together = found["calibration"][0]["slope_interval"]
    assert by_name["extreme"]["slope"] < together["estimate"] < by_name["fair"]["slope"]


def test_of_under_ten_patients_with_the_outcome_there_is_no_calibration():
    values = [0.1 + 0.02 * (number * 7 % 30) for number in range(60)]
    for num_ill, is_told in ((9, False), (10, True)):
        rows = score([1] * num_ill + [0] * (60 - num_ill), **{"global": values})
        for line in (
            assessed(one=rows)["calibration"][0],
            assessed(one=rows)["by_hospital"][0]["calibration"][0],
        ):
            assert (line["slope"] is not None) == is_told


def hospital(*counts):
    """Patients by class and predicted class: so many of each cell of two classes."""
    labels = np.repeat([0, 0, 1, 1], counts)
    return score(labels, **{"global": np.repeat([0.2, 0.8, 0.2, 0.8], counts)})


def test_a_hospitals_confusion_matrix_is_shown_whole_or_not_at_all():
    found = assessed(one=hospital(30, 12, 15, 40), other=hospital(20, 9, 30, 40))
    one, other = found["by_hospital"]
    assert found["confusion"]["cells"] == [[50, 21], [45, 80]]
    assert (other["confusion"], other["macro_f1"]) == (None, None)
    # Of all less the one's, the other's would be left.
    assert (one["confusion"], one["macro_f1"]) == (None, None)

    found = assessed(one=hospital(30, 12, 15, 40), other=hospital(20, 11, 30, 40))
    assert found["by_hospital"][0]["confusion"] == [[30, 12], [15, 40]]
    f1 = (2 * 30 / (2 * 30 + 27) + 2 * 40 / (2 * 40 + 27)) / 2
    assert found["by_hospital"][0]["macro_f1"] == pytest.approx(f1)
    for each in (found["by_hospital"][0], found["confusion"]):
        interval = each["macro_f1_interval"]
        assert interval["low"] < interval["estimate"] == each["macro_f1"] < interval["high"]


def test_two_hidden_matrices_that_add_up_to_enough_hide_no_third():
    small = np.array([[20, 6], [20, 20]])
    large = np.array([[90, 50], [40, 70]])
    larger = large * 2
    assert set(whole_matrices({"a": small, "b": small, "c": large})) == {"c"}
    # 6 alone is hidden with the one whose smallest cell is smallest, and that is enough.
    assert set(whole_matrices({"a": small, "c": large, "d": larger})) == {"d"}
    assert set(whole_matrices({"c": large, "d": larger})) == {"c", "d"}


def test_a_matrix_with_a_small_cell_is_not_shown_at_all():
    ages = ["40–64"] * 40 + ["65–79"] * 40
    labels, values = [0] * 37 + [1] * 43, [0.2] * 40 + [0.8] * 40
    rows = score(labels, ages=ages, **{"global": values})
    found = assessed(one=rows)
    assert found["confusion"]["cells"] == [[None, None], [None, None]]
    assert found["confusion"]["macro_f1"] is None
    confusion = found["confusion"]
    assert [*confusion["row_totals"], *confusion["column_totals"], confusion["total"]] == [None] * 5
    assert [group["num_patients"] for group in found["subgroups"]["age"]] == [40, 40]
    # Of the older ones all had the outcome: of the others everybody could work that out.
    assert [group["accuracy"] for group in found["subgroups"]["age"]] == [None, None]
    assert patient_confusion(rows, 2).tolist() == [[37, 0], [3, 40]]


def two_models(num_rows, *, seed):
    """A better global and a worse local model on the same patients, some with two admissions."""
    rng = np.random.default_rng(seed)
    logits = rng.normal(size=num_rows)
    labels = (rng.random(num_rows) < 1 / (1 + np.exp(-logits))).astype(int)
    noisy = logits + rng.normal(size=num_rows)
    patients = np.arange(num_rows) * 4 // 5
    scores = {"global": 1 / (1 + np.exp(-logits)), "local": 1 / (1 + np.exp(-noisy))}
    return score(labels, patients=patients, **scores)


def test_every_models_ranking_from_histograms_has_bounds_and_an_interval():
    hospitals = {name: two_models(900, seed=n) for n, name in enumerate(("a", "b", "c"))}
    found = assess(hospitals, CLASSES, seed="0").to_json()["from_histograms"]
    together = join(list(hospitals.values()))
    exact: dict[str, Any] = {
        model: together.measure(model).to_json() for model in ("global", "local")
    }
    for key, tolerance in (("auroc", 0.003), ("auprc", 0.01)):
        figure = found[key]
        assert set(figure["by_model"]) == {"global", "local"}
        for model, each in figure["by_model"].items():
            assert each["value"] == pytest.approx(exact[model][key], abs=tolerance)
            assert each["low"] <= exact[model][key] <= each["high"]
            assert each["interval"]["low"] < each["value"] < each["interval"]["high"]
        beside = {name: figure[name] for name in ("value", "low", "high", "interval")}
        assert beside == figure["by_model"]["global"]
        difference = figure["difference"]
        assert difference["estimate"] == pytest.approx(
            exact["global"][key] - exact["local"][key], abs=2 * tolerance
        )
        assert 0 < difference["low"] < difference["estimate"] < difference["high"]


def test_the_difference_from_histograms_is_paired():
    """As wide as that of exact scores on the same patients, and narrower than if it were not."""
    hospitals = {name: two_models(900, seed=n) for n, name in enumerate(("a", "b", "c"))}
    figure = assess(hospitals, CLASSES, seed="0").to_json()["from_histograms"]["auroc"]
    exact = gain_of(join(list(hospitals.values())), seed="0").difference

    def width(interval):
        return interval["high"] - interval["low"]

    assert exact is not None
    assert width(figure["difference"]) == pytest.approx(exact.high - exact.low, rel=0.25)
    apart = sum(width(each["interval"]) ** 2 for each in figure["by_model"].values()) ** 0.5
    assert width(figure["difference"]) < 0.8 * apart


def test_without_a_local_model_there_is_no_difference_from_histograms():
    found = assessed(one=make_scored(300), other=make_scored(300, seed=1))["from_histograms"]
    assert set(found["auroc"]["by_model"]) == {"global"}
    assert found["auroc"]["difference"] is None
