"""A model's parameters: arrays by name, and nothing that could run.

Files hold no metadata, so that equal parameters are equal bytes; what is needed to use them
(schema, scaling, lineage) stands in a manifest beside them.
"""

import hashlib
import json
import math
import operator
from collections.abc import Iterator
from typing import Any

import numpy as np
from numpy.typing import NDArray
from safetensors import SafetensorError
from safetensors.numpy import load, save

from federated.errors import NotFiniteError, ShapeMismatchError, UnreadableParamsError

Params = dict[str, NDArray[Any]]
PART_SIZE = 2**16
# By safetensors' names; parameters are of no other types.
_DTYPES: dict[str, np.dtype[Any]] = {
    "F32": np.dtype("<f4"),
    "F64": np.dtype("<f8"),
    "I64": np.dtype("<i8"),
}
# What a header that is no header makes of itself.
_UNREADABLE = (ValueError, KeyError, TypeError, AttributeError, RecursionError, OverflowError)


def add(left: Params, right: Params) -> Params:
    check_same_shapes(left, right)
    return {name: np.add(left[name], right[name]) for name in sorted(left)}


def zeros_like(params: Params) -> Params:
    return {name: np.zeros_like(params[name]) for name in sorted(params)}


def with_prefix(prefix: str, params: Params) -> Params:
    """The same arrays as `prefix/name`, so that several sets of them go into one file."""
    return {f"{prefix}/{name}": value for name, value in params.items()}


def under(prefix: str, params: Params) -> Params:
    """The arrays that `with_prefix` put under a prefix."""
    start = f"{prefix}/"
    return {
        name.removeprefix(start): value for name, value in params.items() if name.startswith(start)
    }


def subtract(left: Params, right: Params) -> Params:
    check_same_shapes(left, right)
    return {name: np.subtract(left[name], right[name]) for name in sorted(left)}


def in_parts(*arrays: NDArray[Any]) -> Iterator[tuple[NDArray[Any], ...]]:
    """Arrays of one shape, side by side as flat views of what fits into a processor's cache.

    What is computed of a part takes the memory of a part, however large the model is.
    """
    flat = [array.reshape(-1) for array in arrays]
    for start in range(0, flat[0].size, PART_SIZE):
        yield tuple(array[start : start + PART_SIZE] for array in flat)


def shapes_of(params: Params, dtype: type[np.generic] | None = None) -> Params:
    """Zeros of these shapes, which take no memory, to compare with; of another type if given."""
    return {
        name: np.broadcast_to(np.zeros((), dtype or value.dtype), value.shape)
        for name, value in params.items()
    }


def check_same_shapes(expected: Params, given: Params) -> None:
    """Refuse parameters of another model.

    Raises:
        ShapeMismatchError: names the first parameter that is missing, unexpected, or of another
            shape or type.
    """
    for name in sorted(expected.keys() | given.keys()):
        if name not in given:
            raise ShapeMismatchError(f"parameter {name!r} is missing")
        if name not in expected:
            raise ShapeMismatchError(f"parameter {name!r} is not part of the model")
        if expected[name].shape != given[name].shape or expected[name].dtype != given[name].dtype:
            raise ShapeMismatchError(
                f"parameter {name!r} is {given[name].dtype}{given[name].shape},"
                f" the model's is {expected[name].dtype}{expected[name].shape}"
            )


def check_finite(params: Params) -> None:
    """Raises NotFiniteError, naming the first parameter that holds NaN or infinity."""
    for name in sorted(params):
        if not np.isfinite(params[name]).all():
            raise NotFiniteError(f"parameter {name!r} is not finite")


def params_sha256(params: Params) -> str:
    """Identify parameters by sorted (name, dtype, shape, raw bytes), whatever file holds them."""
    digest = hashlib.sha256()
    for name in sorted(params):
        array = np.asarray(params[name], order="C")
        digest.update(f"{name}\0{array.dtype.str}\0{array.shape}\0".encode())
        digest.update(array.tobytes())
    return digest.hexdigest()


def to_bytes(params: Params) -> bytes:
    """Serialise as safetensors without metadata: equal parameters give equal bytes."""
    return save({name: np.asarray(params[name], order="C") for name in sorted(params)})


def from_bytes(content: bytes) -> Params:
    """Read safetensors.

    Raises:
        UnreadableParamsError: the bytes are something else, cut short, or lie about their size.
    """
    try:
        return dict(load(content))
    except (SafetensorError, KeyError, ValueError) as error:
        raise UnreadableParamsError(f"not a readable parameter file: {error}") from error


def views_into(buffer: memoryview) -> Params:
    """As `from_bytes`, of a buffer that nobody else writes to: arrays are views into it, not copies.

    For large parameters: to copy these takes longer than to add them up.

    Raises:
        UnreadableParamsError: as `from_bytes`.
    """
    params: Params = {}
    try:
        data_start = end = 8 + int.from_bytes(buffer[:8], "little")
        header = json.loads(bytes(buffer[8:data_start]))
        header.pop("__metadata__", None)
        for name, told in sorted(header.items(), key=lambda item: item[1]["data_offsets"]):
            dtype, shape = _DTYPES[told["dtype"]], [*map(operator.index, told["shape"])]
            size = math.prod(shape)
            offsets = [end - data_start, end - data_start + size * dtype.itemsize]
            if min(shape, default=0) < 0 or told["data_offsets"] != offsets:
                raise ValueError(f"{name!r} does not lie where its shape says")
            array = np.frombuffer(buffer, dtype, size, offset=end).reshape(shape)
            params[name] = np.require(array, requirements="A")
            end += array.nbytes
        if end != len(buffer):
            raise ValueError("it has more data than its header says")
    except _UNREADABLE as error:
        raise UnreadableParamsError(f"not a readable parameter file: {error}") from error
    return params
