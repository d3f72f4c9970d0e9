import math

import numpy as np
import pytest

from federated.errors import InvalidValueError
from federated.features import split_of
from federated.readings import (
    CROSSED,
    GROUPS,
    INPUT_NAMES,
    INPUTS,
    NUMERIC_INPUTS,
    REFERENCE_SCALING,
    ReadingRecord,
    build_readings,
    encode_reading,
    input_named,
    reading_schema,
    warning_band,
)
from federated.schemas import feature_schema


def test_a_value_outside_its_range_is_refused_with_its_unit():
    assert input_named("heart_rate").check(88) == 88
    with pytest.raises(InvalidValueError, match="heart_rate lies between 20 and 250 bpm, not 300"):
        input_named("heart_rate").check(300)
    with pytest.raises(InvalidValueError, match=r"pm25 .* µg/m³"):
        input_named("pm25").check(-1)
    with pytest.raises(InvalidValueError, match="smoker is 0"):
        input_named("smoker").check(0.5)


@pytest.mark.parametrize("each", INPUTS, ids=lambda each: each.name)
def test_neither_nan_nor_infinity_is_a_value(each):
    for value in (math.nan, math.inf, -math.inf):
        with pytest.raises(InvalidValueError):
            each.check(value)


def test_every_grouped_input_is_in_the_table_once():
    grouped = [name for members in GROUPS.values() for name in members]
    assert len(set(grouped)) == len(grouped)
    assert set(INPUT_NAMES) - set(grouped) == {"age", "bmi"}
    assert set(REFERENCE_SCALING) == set(NUMERIC_INPUTS)


def test_what_was_not_measured_is_said_to_be_unknown():
    encoded = encode_reading({"heart_rate": 88.0, "aqi": 60.0})
    names = reading_schema("health_risk").sparse_inputs
    unknown = {names[i].removesuffix(" unknown") for i in encoded.sparse}
    assert unknown == set(INPUT_NAMES) - {"heart_rate", "aqi"}


def test_an_input_counts_again_where_a_group_is_absent_altogether():
    def numbers(values):
        known = zip(NUMERIC_INPUTS, encode_reading(values).numeric, strict=True)
        return {name: value for name, value in known if not math.isnan(value)}

    assert numbers({"heart_rate": 88.0, "cough": 1.0}) == {
        "heart_rate": 88.0,
        "cough": 1.0,
        "heart_rate without daily life": 88.0,
        "heart_rate without outdoor air": 88.0,
        "cough without daily life": 1.0,
        "cough without outdoor air": 1.0,
    }
    assert "heart_rate without vital signs" not in NUMERIC_INPUTS
    assert len(NUMERIC_INPUTS) == len(INPUT_NAMES) + len(CROSSED)


def test_readings_become_rows_of_one_subject_on_one_side_of_the_split():
    records = [
        ReadingRecord("a", {"age": 40.0}, outcome=1),
        ReadingRecord("a", {"age": 41.0}, outcome=None),
        ReadingRecord("b", {"spo2": 90.0, "smoker": 1.0}, outcome=0),
    ]
    dataset = build_readings(records, feature_schema("health_risk"))
    assert dataset.labels.tolist() == [1, -1, 0]
    assert dataset.patients.tolist() == [0, 0, 1]
    assert dataset.splits.tolist() == [split_of("a"), split_of("a"), split_of("b")]
    assert dataset.bands.tolist() == [0, 0, 2]
    assert dataset.numeric.shape == (3, len(NUMERIC_INPUTS))
    indices, starts = dataset.sparse_rows(np.arange(3))
    assert starts.tolist() == [0, len(INPUTS) - 1, 2 * len(INPUTS) - 2]
    assert len(indices) == 3 * len(INPUTS) - 4


def test_the_tier_is_the_label_of_the_other_target():
    dataset = build_readings(
        [ReadingRecord("a", {"age": 40.0}, tier=2)], feature_schema("health_tier")
    )
    assert dataset.labels.tolist() == [2]


def test_the_rule_of_thumb_counts_warning_signs():
    assert warning_band({"heart_rate": 80, "aqi": 100}) == 0
    assert warning_band({"heart_rate": 101, "aqi": 100}) == 1
    assert warning_band({"heart_rate": 101, "aqi": 101, "cough": 1}) == 2


def test_both_targets_have_the_same_inputs_and_another_schema():
    risk, tier = feature_schema("health_risk"), feature_schema("health_tier")
    assert risk.numeric_inputs == tier.numeric_inputs
    assert risk.sha256 != tier.sha256
