import numpy as np
import pytest

from federated import prediction
from federated.architectures import initial_params
from federated.features import EncodedExample, encode
from federated.prediction import contributions, predict_examples, predict_rows
from federated.scaling import FeatureScaling
from federated.schemas import feature_schema
from federated.seeds import rng_for
from tests.federated.builders import CODE_OF_TIER, make_hospital, make_params, make_record

SCHEMA = feature_schema("risk_tier")
NUM_NUMERIC = len(SCHEMA.numeric_inputs)
SCALING = FeatureScaling(mean=(60.0,) + (0.0,) * (NUM_NUMERIC - 1), std=(10.0,) * NUM_NUMERIC)
AGE = SCHEMA.numeric_inputs.index("age")


def shallow_params():
    return initial_params(
        "shallow_network",
        num_sparse=len(SCHEMA.sparse_inputs),
        num_numeric=NUM_NUMERIC,
        num_classes=3,
        rng=rng_for("prediction"),
    )


def effects(**by_input):
    """Logistic regression of two classes whose inputs raise the second one's log odds."""
    codes = np.zeros((len(SCHEMA.sparse_inputs), 2))
    numeric = np.zeros((NUM_NUMERIC, 2))
    for name, log_odds in by_input.items():
        if name == "age":
            numeric[AGE, 1] = log_odds
        else:
            codes[SCHEMA.sparse_index[f"code {name}"], 1] = log_odds
    return make_params(bias=[0, 0], codes=codes, numeric=numeric)


def admission(*categories, age=np.nan):
    numeric = [np.nan] * NUM_NUMERIC
    numeric[AGE] = age
    sparse = sorted(SCHEMA.sparse_index[f"code {category}"] for category in categories)
    return EncodedExample(sparse, numeric)


def test_rows_and_admissions_are_predicted_alike():
    records = [
        make_record(f"p{tier}", codes=(CODE_OF_TIER[tier],), age=40.0 + tier, risk_tier=tier)
        for tier in range(3)
    ]
    encoded = [admission for _, admission in encode(records, SCHEMA)]
    by_row = predict_rows(shallow_params(), SCALING, make_hospital(3), np.arange(3))
    by_admission = predict_examples(shallow_params(), SCALING, encoded)
    np.testing.assert_array_equal(by_row, by_admission)
    np.testing.assert_allclose(by_row.sum(axis=1), 1, rtol=1e-6)


def test_many_rows_are_predicted_in_parts_and_in_their_order(monkeypatch):
    rows = np.array([6, 0, 3, 5, 1])
    at_once = predict_rows(shallow_params(), SCALING, make_hospital(7), rows)
    monkeypatch.setattr(prediction, "ROWS_AT_ONCE", 2)
    in_parts = predict_rows(shallow_params(), SCALING, make_hospital(7), rows)
    np.testing.assert_allclose(in_parts, at_once, rtol=1e-6)


def test_no_rows_are_no_predictions():
    nobody = np.array([], np.int64)
    assert predict_rows(shallow_params(), SCALING, make_hospital(3), nobody).shape == (0, 3)


def test_an_admission_without_any_input_gets_the_models_prior():
    params = effects() | make_params(bias=[0, np.log(3)])
    found = predict_examples(params, SCALING, [admission(), admission("I10")])
    np.testing.assert_allclose(found, [[0.25, 0.75]] * 2, rtol=1e-6)


def test_a_contribution_is_the_probability_less_that_without_the_input():
    found = contributions(effects(I50=np.log(3)), SCALING, admission("I50"), SCHEMA)
    assert [(part.input, part.change) for part in found] == [
        ("code I50", pytest.approx(0.75 - 0.5))
    ]


def test_contributions_go_by_size_then_by_name_and_may_be_negative():
    params = effects(I50=np.log(9), E11=-np.log(3), I10=0.0, N18=0.0)
    found = contributions(params, SCALING, admission("N18", "I50", "I10", "E11"), SCHEMA)
    # Odds 9/3 are 0.75. Without I50 odds 1/3 are 0.25, without E11 odds 9 are 0.9.
    assert [(part.input, part.change) for part in found] == [
        ("code I50", pytest.approx(0.50, abs=1e-6)),
        ("code E11", pytest.approx(-0.15, abs=1e-6)),
        ("code I10", 0.0),
        ("code N18", 0.0),
    ]


def test_contributions_are_those_to_the_predicted_class():
    found = contributions(effects(I50=-np.log(3)), SCALING, admission("I50"), SCHEMA)
    assert found[0].change == pytest.approx(0.25)  # what speaks against class 1 speaks for class 0


@pytest.mark.parametrize(("age", "change"), [(60.0, 0.0), (70.0, 0.25), (50.0, 0.25)])
def test_a_number_counts_by_its_distance_from_the_hospitals_mean(age, change):
    found = contributions(effects(age=np.log(3)), SCALING, admission(age=age), SCHEMA)
    assert [(part.input, part.change) for part in found] == [("age", pytest.approx(change))]


def test_what_is_not_known_contributes_nothing():
    assert contributions(effects(age=1.0), SCALING, admission(), SCHEMA) == []
