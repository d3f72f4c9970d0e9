import json

import numpy as np
import pytest

from federated.assessment import assess, patient_confusion, shown_curve, whole_matrices
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
    assert [group["accuracy"] for group in found["subgroups"]["age"]] == [37 / 40, 1.0]
    assert patient_confusion(rows, 2).tolist() == [[37, 0], [3, 40]]
