import numpy as np
import pytest
import torch

from federated import networks
from federated.architectures import (
    HIDDEN_UNITS,
    architecture_named,
    initial_params,
    logits,
    softmax,
)
from federated.errors import UnknownNetworkError
from federated.seeds import rng_for
from tests.federated.builders import make_params

NETWORKS = ("logistic_regression", "shallow_network")


def random_params(network):
    shapes = architecture_named(network).shapes(5, 2, 3)
    rng = rng_for("architectures")
    return {name: rng.normal(size=shape).astype(np.float32) for name, shape in shapes.items()}


def scores(params, rows, numeric):
    indices = np.array([index for row in rows for index in row], np.int64)
    starts = np.cumsum([0, *(len(row) for row in rows)])[:-1].astype(np.int64)
    return logits(params, indices, starts, np.array(numeric, np.float32)), (indices, starts)


@pytest.mark.parametrize("network", NETWORKS)
@pytest.mark.parametrize(
    "rows",
    [[[0, 2], [1, 3, 4]], [[0, 2], []], [[], [4]], [[], []], [[1, 1], [1]]],
    ids=["usual", "last without inputs", "first without inputs", "none with inputs", "repeated"],
)
def test_numpy_and_torch_compute_the_same_scores(network, rows):
    params = random_params(network)
    numeric = np.array([[0.5, -1], [2, 0]], np.float32)
    found, (indices, starts) = scores(params, rows, numeric)
    expected = networks.logits(
        {name: torch.from_numpy(value) for name, value in params.items()},
        torch.from_numpy(indices),
        torch.from_numpy(starts),
        torch.from_numpy(numeric),
    )
    assert (found.shape, found.dtype) == ((2, 3), np.float32)
    np.testing.assert_allclose(found, expected.numpy(), rtol=1e-5, atol=1e-5)


def test_logistic_regression_adds_codes_numbers_and_bias():
    params = make_params(bias=[1, 0], codes=[[10, 0], [20, 5]], numeric=[[2, -1]])
    found, _ = scores(params, [[0, 1], []], [[3], [1]])
    assert found.tolist() == [[10 + 20 + 3 * 2 + 1, 5 - 3], [2 + 1, -1]]


def test_a_hidden_unit_below_zero_passes_nothing_on():
    params = make_params(
        bias=[0, 0],
        codes=[[2, -3]],
        numeric=[[0, 0]],
        **{"output.bias": [1, 1], "output.weight": [[10, 20], [100, 100]]},
    )
    found, _ = scores(params, [[0]], [[0]])
    assert found.tolist() == [[2 * 10 + 1, 2 * 20 + 1]]


@pytest.mark.parametrize("network", NETWORKS)
def test_a_row_scores_the_same_alone_and_among_others(network):
    params = random_params(network)
    together, _ = scores(params, [[0, 1], [2], [3, 4]], [[1, 1], [2, 2], [3, 3]])
    alone, _ = scores(params, [[2]], [[2, 2]])
    np.testing.assert_allclose(together[1:2], alone, rtol=1e-6)


def test_probabilities_sum_to_one_and_large_scores_do_not_overflow():
    probabilities = softmax(np.array([[0, 0], [np.log(3), 0], [1e4, -1e4]], np.float32))
    expected = np.array([[0.5, 0.5], [0.75, 0.25], [1, 0]])
    np.testing.assert_allclose(probabilities, expected, rtol=1e-6)


def test_logistic_regression_starts_at_zero():
    params = initial_params(
        "logistic_regression", num_sparse=4, num_numeric=2, num_classes=3, rng=rng_for(0)
    )
    assert {name: value.shape for name, value in params.items()} == {
        "bias": (3,),
        "codes": (4, 3),
        "numeric": (2, 3),
    }
    assert not any(value.any() for value in params.values())


def test_a_shallow_network_starts_small_and_from_its_seed():
    first, again, other = (
        initial_params(
            "shallow_network", num_sparse=4, num_numeric=4, num_classes=3, rng=rng_for(seed)
        )
        for seed in (0, 0, 1)
    )
    assert first["codes"].tobytes() == again["codes"].tobytes()
    assert first["codes"].tobytes() != other["codes"].tobytes()
    assert first["codes"].shape == (4, HIDDEN_UNITS)
    for name, bound in (("codes", 1 / 4), ("numeric", 1 / 2), ("output.weight", 32**-0.5)):
        assert bound / 2 < np.abs(first[name]).max() <= bound  # 1 / sqrt(fan in)
    assert not first["bias"].any()
    assert not first["output.bias"].any()
    assert {value.dtype for value in first.values()} == {np.dtype(np.float32)}


def test_an_unknown_network_is_refused_with_those_there_are():
    for network in NETWORKS:
        assert architecture_named(network).name == network
    with pytest.raises(
        UnknownNetworkError, match="'transformer'; there are logistic_regression, shallow_network"
    ):
        architecture_named("transformer")
