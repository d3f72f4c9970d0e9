import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from federated.aggregation import ClientUpdate, fedavg, weighted_mean
from federated.errors import EmptyRoundError, ShapeMismatchError
from federated.params import PART_SIZE
from tests.federated.builders import as_lists, make_params


def update(client_id="north", num_examples=1, **delta_params):
    return ClientUpdate(client_id, make_params(**delta_params), num_examples)


def test_the_mean_is_weighted_by_the_number_of_examples():
    mean = weighted_mean([update(num_examples=1, bias=[1, 0]), update(num_examples=2, bias=[4, 3])])
    assert as_lists(mean) == {"bias": [3, 2]}  # (1 + 2 · 4) / 3 and (0 + 2 · 3) / 3


def test_sums_are_float64():
    # In float32, 2^24 + 1 is 2^24, and the small one would be lost.
    updates = [update(bias=[2.0**24]), update(bias=[1]), update(bias=[-(2.0**24)])]
    mean = weighted_mean(updates)
    assert mean["bias"].dtype == np.float64
    assert mean["bias"][0] == pytest.approx(1 / 3)


def test_a_model_of_several_parts_is_added_up_as_a_whole():
    rng = np.random.default_rng(0)
    size = 2 * PART_SIZE + 1
    updates = [update(num_examples=n, bias=rng.normal(size=size)) for n in (3, 7)]
    first, second = (each.delta_params["bias"].astype(np.float64) for each in updates)
    expected = (3 * first + 7 * second) / 10
    np.testing.assert_array_equal(weighted_mean(updates)["bias"], expected)
    start = make_params(bias=rng.normal(size=size))
    moved = (start["bias"].astype(np.float64) + expected).astype(np.float32)
    np.testing.assert_array_equal(fedavg(start, updates)["bias"], moved)


def test_a_mean_of_equal_updates_in_equal_order_has_equal_bits():
    rng = np.random.default_rng(0)
    updates = [update(num_examples=n, bias=rng.normal(size=100)) for n in (3, 7, 11)]
    first, second = weighted_mean(updates)["bias"], weighted_mean(iter(updates))["bias"]
    assert first.tobytes() == second.tobytes()


@settings(deadline=None, max_examples=50)
@given(
    st.lists(
        st.tuples(st.integers(1, 10**6), st.floats(-(2.0**60), 2.0**60, width=32)),
        min_size=1,
        max_size=6,
    )
)
def test_a_mean_lies_between_the_smallest_and_the_largest(parts):
    mean = weighted_mean(update(num_examples=n, bias=[value]) for n, value in parts)["bias"][0]
    values = [value for _, value in parts]
    rounding = 1e-12 * max(abs(value) for value in values)
    assert min(values) - rounding <= mean <= max(values) + rounding


def test_fedavg_adds_the_mean_change_to_the_global_parameters():
    global_params = make_params(bias=[10, 20], codes=[[1]])
    updates = [
        update("north", 1, bias=[1, 0], codes=[[0]]),
        update("south", 3, bias=[5, 4], codes=[[4]]),
    ]
    after = fedavg(global_params, updates)
    assert as_lists(after) == {"bias": [14, 23], "codes": [[4]]}
    assert {array.dtype for array in after.values()} == {np.dtype(np.float32)}
    assert as_lists(global_params) == {"bias": [10, 20], "codes": [[1]]}


def test_an_update_without_examples_has_no_weight():
    updates = [update("north", 2, bias=[3]), update("south", 0, bias=[100])]
    assert as_lists(weighted_mean(updates)) == {"bias": [3]}


@pytest.mark.parametrize("updates", [[], [update(num_examples=0, bias=[1])]])
def test_a_round_without_an_example_is_refused(updates):
    assert as_lists(fedavg(make_params(bias=[1]), [update(bias=[1])])) == {"bias": [2]}
    with pytest.raises(EmptyRoundError, match="no update of this round holds an example"):
        fedavg(make_params(bias=[1]), updates)


@pytest.mark.parametrize(
    "updates",
    [
        [update(bias=[1, 2]), update(bias=[1])],
        [update(bias=[1, 2]), update(other=[1, 2])],
        [update(bias=[1])],
    ],
    ids=["of two shapes", "of two models", "of another model"],
)
def test_updates_that_are_not_of_this_model_are_refused(updates):
    fedavg(make_params(bias=[0, 0]), [update(bias=[1, 2])])
    with pytest.raises(ShapeMismatchError):
        fedavg(make_params(bias=[0, 0]), updates)
