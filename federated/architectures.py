"""The models that ship, as parameter shapes and a forward pass in NumPy.

Serving needs no more than this file; `federated.networks` is the same mathematics in PyTorch, for
training, and a test holds the two together.

    logistic regression:  logits = sum of codes[i] over sparse inputs i + x · numeric + bias
    shallow network:      the same with hidden units, ReLU, and one more layer
"""

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from federated.errors import UnknownNetworkError
from federated.params import Params

HIDDEN_UNITS = 32

Array = NDArray[np.float32]


@dataclass(frozen=True)
class Architecture:
    """A model family: the shape of each parameter, given its inputs and classes."""

    name: str
    title: str
    definition: str
    shapes: Callable[[int, int, int], dict[str, tuple[int, ...]]]


def _logistic_regression(
    num_sparse: int, num_numeric: int, num_classes: int
) -> dict[str, tuple[int, ...]]:
    return {
        "bias": (num_classes,),
        "codes": (num_sparse, num_classes),
        "numeric": (num_numeric, num_classes),
    }


def _shallow_network(
    num_sparse: int, num_numeric: int, num_classes: int
) -> dict[str, tuple[int, ...]]:
    return _logistic_regression(num_sparse, num_numeric, HIDDEN_UNITS) | {
        "output.bias": (num_classes,),
        "output.weight": (HIDDEN_UNITS, num_classes),
    }


_ARCHITECTURES = {
    "logistic_regression": Architecture(
        "logistic_regression",
        "Logistic regression",
        "Each input adds to the score of a class, by a weight that anybody can read.",
        _logistic_regression,
    ),
    "shallow_network": Architecture(
        "shallow_network",
        "Shallow network",
        f"One layer of {HIDDEN_UNITS} units between inputs and classes: it can learn what two"
        " inputs mean together, and needs more examples.",
        _shallow_network,
    ),
}


def architectures() -> tuple[Architecture, ...]:
    return tuple(_ARCHITECTURES.values())


def register(architecture: Architecture) -> None:
    """Offer one more model family; its hidden layer, if any, is `shallow_network`'s of another size."""
    _ARCHITECTURES[architecture.name] = architecture


def architecture_named(name: str) -> Architecture:
    """Raises UnknownNetworkError, which says what there is."""
    if name not in _ARCHITECTURES:
        raise UnknownNetworkError(
            f"no network is called {name!r}; there are {', '.join(sorted(_ARCHITECTURES))}"
        )
    return _ARCHITECTURES[name]


def initial_params(
    name: str, *, num_sparse: int, num_numeric: int, num_classes: int, rng: np.random.Generator
) -> Params:
    """The parameters a run starts from, float32.

    Logistic regression starts at zero, where its loss is convex anyway; hidden layers start
    uniform in ±1/sqrt(fan in), biases at zero. A sparse layer's fan in is what an admission has of
    inputs (about 16), not what the vocabulary holds.

    Raises:
        UnknownNetworkError: there is no such architecture.
    """
    shapes = architecture_named(name).shapes(num_sparse, num_numeric, num_classes)
    if "output.weight" not in shapes:
        return {key: np.zeros(shape, np.float32) for key, shape in shapes.items()}
    fan_in = {"codes": 16, "numeric": num_numeric, "output.weight": shapes["bias"][0]}
    params: Params = {}
    for key, shape in sorted(shapes.items()):
        if key in fan_in:
            bound = 1.0 / np.sqrt(max(fan_in[key], 1))
            params[key] = rng.uniform(-bound, bound, shape).astype(np.float32)
        else:
            params[key] = np.zeros(shape, np.float32)
    return params


def logits(
    params: Params, indices: NDArray[np.int64], starts: NDArray[np.int64], numeric: Array
) -> Array:
    """Scores before softmax.

    Args:
        indices: sparse inputs of all rows, end to end (num_values,).
        starts: where each row's begin (num_rows,).
        numeric: scaled numbers (num_rows, num_numeric), without NaN.
    Returns:
        (num_rows, num_classes) float32.
    """
    num_rows = len(starts)
    ends = np.append(starts[1:], len(indices))
    # A running sum has no special case for a row without inputs, which `reduceat` would have.
    running = np.zeros((len(indices) + 1, params["codes"].shape[1]), np.float64)
    np.cumsum(params["codes"][indices], axis=0, dtype=np.float64, out=running[1:])
    sums = (running[ends] - running[starts]).reshape(num_rows, -1)
    layer = (sums + numeric @ params["numeric"] + params["bias"]).astype(np.float32)
    if "output.weight" in params:
        layer = np.maximum(layer, 0) @ params["output.weight"] + params["output.bias"]
    scores: Array = layer.astype(np.float32)
    return scores


def softmax(scores: Array) -> Array:
    """Probabilities (num_rows, num_classes) that sum to 1."""
    shifted = np.exp(scores - scores.max(axis=1, keepdims=True))
    probabilities: Array = shifted / shifted.sum(axis=1, keepdims=True)
    return probabilities
