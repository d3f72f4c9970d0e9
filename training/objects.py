"""Parameters in the director's storage, under the hash of their content."""

import hashlib
from functools import lru_cache

from envoys.storage import director_storage, read_object, write_object
from federated.params import Params, from_bytes, to_bytes


def params_key(object_sha256: str) -> str:
    return f"updates/{object_sha256}.safetensors"


def save_params(params: Params) -> str:
    """Store parameters; returns the sha256 of the object. Raises StorageError."""
    content = to_bytes(params)
    sha256 = hashlib.sha256(content).hexdigest()
    return write_object(director_storage(), params_key(sha256), content)


def load_params(object_sha256: str) -> Params:
    """Read parameters, checked against their hash.

    Raises:
        StorageError: missing, unreachable or damaged.
        UnreadableParamsError: not a parameter file.
    """
    return from_bytes(
        read_object(director_storage(), params_key(object_sha256), sha256=object_sha256)
    )


# A chunk's clients all start from these; nobody writes to them.
load_base_params = lru_cache(maxsize=4)(load_params)
