"""Parameters in the director's storage, under the hash of their content."""

import hashlib
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from dataclasses import dataclass
from functools import lru_cache

from envoys.storage import director_storage, read_buffer, write_objects
from federated.params import Params, to_bytes, views_into

REMEMBERED_BYTES = 64 * 2**20  # all together
_remembered: ContextVar[dict[str, Params] | None] = ContextVar("remembered", default=None)


def params_key(object_sha256: str) -> str:
    return f"updates/{object_sha256}.safetensors"


@dataclass(frozen=True)
class PackedParams:
    """Parameters as the object that holds them, and its hash, by which it is stored."""

    sha256: str
    content: bytes


def pack_params(params: Params) -> PackedParams:
    content = to_bytes(params)
    return PackedParams(hashlib.sha256(content).hexdigest(), content)


def save_packed(packed: Iterable[PackedParams]) -> None:
    """Store several at once. Raises StorageError; some may stand."""
    write_objects(director_storage(), {params_key(each.sha256): each.content for each in packed})


def save_params(params: Params) -> str:
    """Store parameters; returns the sha256 of the object. Raises StorageError."""
    packed = pack_params(params)
    save_packed([packed])
    return packed.sha256


def load_params(object_sha256: str) -> Params:
    """Read parameters, checked against their hash. Nobody writes to what this returns.

    Raises:
        StorageError: missing, unreachable or damaged.
        UnreadableParamsError: not a parameter file.
    """
    remembered = _remembered.get()
    if remembered is not None and object_sha256 in remembered:
        return remembered[object_sha256]
    content = read_buffer(director_storage(), params_key(object_sha256), sha256=object_sha256)
    params = views_into(content)
    if remembered is not None and len(content) * (len(remembered) + 1) <= REMEMBERED_BYTES:
        remembered[object_sha256] = params
    return params


@contextmanager
def read_once() -> Iterator[None]:
    """Within, what has been read is not read again, as long as the model is small.

    A round's updates are read to compare them, again to add them up, and for the versions.
    """
    token = _remembered.set({})
    try:
        yield
    finally:
        _remembered.reset(token)


# A chunk's clients all start from these; nobody writes to them.
load_base_params = lru_cache(maxsize=4)(load_params)
