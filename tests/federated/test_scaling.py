import json

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as arrays

from federated.errors import EmptyRoundError
from federated.features import TEST, TRAIN, VALIDATION
from federated.scaling import FeatureScaling, feature_statistics, pooled_scaling
from tests.federated.builders import as_lists, make_dataset

NAN = np.nan


def hospital(values):
    return make_dataset([0] * len(values), numeric=values)


def pool(*hospitals):
    return pooled_scaling(feature_statistics(hospital(values)) for values in hospitals)


def test_a_hospital_sends_count_mean_and_squared_deviations():
    statistics = feature_statistics(hospital([[1, 10], [3, 10], [5, NAN]]))
    assert as_lists(statistics) == {
        "count": [3, 2],
        "mean": [3, 10],
        "squared_deviations": [8, 0],
    }
    assert {array.dtype for array in statistics.values()} == {np.dtype(np.float64)}


def test_only_labelled_training_rows_count():
    dataset = make_dataset(
        [0, 0, 0, 0, -1],
        numeric=[1, 3, 100, 100, 100],
        splits=[TRAIN] * 2 + [VALIDATION, TEST, TRAIN],
    )
    assert as_lists(feature_statistics(dataset)) == {
        "count": [2],
        "mean": [2],
        "squared_deviations": [2],
    }


def test_two_hospitals_are_merged_as_if_one_had_seen_all_values():
    # 1, 3 and 5, 7: mean 4, squared deviations 9 + 1 + 1 + 9 = 20, variance 5
    assert pool([[1], [3]], [[5], [7]]) == FeatureScaling(mean=(4.0,), std=(np.sqrt(5.0),))


@settings(deadline=None, max_examples=50)
@given(
    st.lists(
        arrays.arrays(
            np.float32,
            st.tuples(st.integers(0, 6), st.just(2)),
            elements=st.floats(-100, 100, width=16) | st.just(NAN),
        ),
        min_size=1,
        max_size=4,
    )
)
def test_merged_statistics_equal_those_of_all_rows_at_once(hospitals):
    scaling = pool(*hospitals)
    for column in range(2):
        values = np.concatenate([rows[:, column] for rows in hospitals]).astype(np.float64)
        values = values[~np.isnan(values)]
        mean = values.mean() if len(values) else 0.0
        std = values.std() if len(values) else 0.0
        assert scaling.mean[column] == pytest.approx(mean, abs=1e-9)
        if std > 1e-6:
            assert scaling.std[column] == pytest.approx(std)


@pytest.mark.parametrize("value", [0.0, 7.0, 0.1, 1e6])
def test_an_input_that_never_varies_is_left_as_it_is(value):
    scaling = pool([[value]] * 3, [[value]] * 7)
    assert scaling == FeatureScaling(mean=(float(np.float32(value)),), std=(1.0,))
    assert scaling.apply(np.array([[value]], np.float32)).tolist() == [[0.0]]


def test_an_input_that_nobody_knows_has_mean_zero_and_deviation_one():
    assert pool([[NAN]], [[NAN], [NAN]]) == FeatureScaling(mean=(0.0,), std=(1.0,))


def test_a_hospital_that_does_not_know_an_input_changes_nothing_about_it():
    known = [[1], [3]]
    assert pool([[NAN]], known, [[NAN]]) == pool(known)
    assert pool([], known) == pool(known)


def test_numbers_are_standardised_and_an_unknown_one_becomes_the_mean():
    scaling = FeatureScaling(mean=(10.0, 0.0), std=(2.0, 1.0))
    scaled = scaling.apply(np.array([[14, 3], [NAN, NAN], [10, 0]], np.float32))
    assert scaled.tolist() == [[2, 3], [0, 0], [0, 0]]
    assert scaled.dtype == np.float32


def test_a_scaling_survives_json_bit_for_bit():
    scaling = pool([[0.1], [0.2]], [[0.7]])
    mean, std = json.loads(json.dumps([scaling.mean, scaling.std]))
    assert FeatureScaling(tuple(mean), tuple(std)) == scaling


def test_a_round_in_which_nobody_sent_statistics_is_refused():
    with pytest.raises(EmptyRoundError, match="no hospital sent feature statistics"):
        pooled_scaling([])
