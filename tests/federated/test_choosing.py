import json
import math

import numpy as np
import pytest

from federated.choosing import choose_model


def chosen(labels, *, patients=None, **of_second):
    """The choice of a hospital whose models give its rows these probabilities of class 1."""
    return choose_model(
        np.array(labels, np.int8),
        np.array(range(len(labels)) if patients is None else patients, np.int32),
        {
            model: np.array([[1 - p, p] for p in values], np.float32)
            for model, values in of_second.items()
        },
        seed=0,
    )


LABELS = [0, 1] * 20
GUESS = [0.5] * 40  # a loss of ln 2 = 0.693
GOOD = [0.2, 0.8] * 20  # −ln 0.8 = 0.223
BETTER = [0.1, 0.9] * 20  # −ln 0.9 = 0.105
BAD = [0.6, 0.4] * 20  # −ln 0.4 = 0.916


def test_the_model_with_the_lowest_loss_is_chosen_where_that_is_no_chance():
    choice = chosen(LABELS, **{"global": GUESS, "fine_tuned": GOOD, "local": BETTER})
    assert choice.model == "local"
    assert choice.losses == {
        "global": pytest.approx(math.log(2)),
        "fine_tuned": pytest.approx(-math.log(0.8)),
        "local": pytest.approx(-math.log(0.9)),
    }
    # Every row gains the same, so that every resample does.
    lower_by = choice.lower_by["local"]
    assert lower_by is not None
    assert lower_by.low == pytest.approx(lower_by.high) == pytest.approx(math.log(2 * 0.9))
    assert choice.reason == (
        "On 40 validation patients the model trained here alone has a loss of 0.105, the global"
        " one 0.693: lower by 0.588 (0.588 to 0.588)"
    )


def test_the_global_model_stays_where_another_is_worse_or_better_by_chance():
    # Fine-tuned is right of one patient more than it is wrong of: 0.5 ± 0.4.
    by_chance = [0.1 if label == 0 else 0.9 for label in LABELS]
    by_chance[:19] = [1 - p for p in by_chance[:19]]
    mixed = {"global": GUESS, "fine_tuned": by_chance, "local": BAD}
    choice = chosen(LABELS, **mixed)
    assert choice.model == "global"
    assert "no other is lower by more than chance" in choice.reason
    assert "the model trained here alone 0.916, higher by 0.223 (0.223 to 0.223)" in choice.reason
    json.dumps(choice.figures_to_json(), allow_nan=False)


def test_the_admissions_of_one_patient_count_as_one():
    # 30 of 40 admissions are better by 0.588, but they are of one patient of eleven.
    patients = [0] * 30 + list(range(1, 11))
    local = BETTER[:30] + [0.7, 0.3] * 5
    assert chosen(LABELS, **{"global": GUESS, "local": local}).model == "local"
    assert chosen(LABELS, patients=patients, **{"global": GUESS, "local": local}).model == "global"


def test_under_ten_patients_choose_nothing_and_no_figure_of_them_is_shown():
    patients = [number % 9 for number in range(40)]
    choice = chosen(LABELS, patients=patients, **{"global": GUESS, "local": BETTER})
    assert choice.model == "global"
    assert choice.figures_to_json() == {
        "losses": {"global": None, "local": None},
        "lower_by": {"local": None},
    }
    assert choice.reason == (
        "There are under 10 validation patients, too few to prefer another model to the global one"
    )
    assert chosen([], **{"global": [], "local": []}).model == "global"


def test_without_another_model_there_is_nothing_to_choose_from():
    choice = chosen(LABELS, **{"global": GOOD})
    assert (choice.model, choice.lower_by) == ("global", {})
    assert choice.reason.endswith("a loss of 0.223, and there is no other model")


def test_a_model_that_is_no_number_is_not_chosen():
    choice = chosen(LABELS, **{"global": GUESS, "local": [math.nan] * 40})
    assert choice.model == "global"
    assert choice.losses["local"] is None
    json.dumps(choice.figures_to_json(), allow_nan=False)


def test_validation_patients_of_one_outcome_choose_no_model_that_always_says_it():
    choice = chosen([0] * 40, **{"global": [0.1] * 40, "local": [0.0] * 40})
    assert choice.model == "global"
    assert "the same outcome" in choice.reason
    assert choice.lower_by == {"local": None}
