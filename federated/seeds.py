import hashlib

import numpy as np


def rng_for(*parts: str | int) -> np.random.Generator:
    """A generator that depends on what it is for and on nothing else.

    Seeds come from sha256 and names, never from `hash()` or primary keys, so that work done again
    by another process, after a crash or in a simulation, draws the same numbers.
    """
    text = "\0".join(str(part) for part in parts)
    return np.random.default_rng(int.from_bytes(hashlib.sha256(text.encode()).digest()[:16]))
