"""Which faults come when: a schedule that a seed decides."""

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np

KILLS = ("worker_child", "worker", "beat", "web", "broker", "postgres", "postgres_backend")
STORAGE_FAULTS = ("storage_fails", "storage_hangs", "storage_truncates")
TARGETS = (*KILLS, *STORAGE_FAULTS)
GAP_SECONDS = (0.0, 1.5)
WAITING_SHARE = 0.75  # the others strike what still recovers
STORAGE_SECONDS = (0.5, 3.0)


@dataclass(frozen=True)
class Fault:
    target: str
    gap_seconds: float  # after the fault before, or after something went on since
    waits: bool  # until something has gone on since the fault before
    seconds: float  # how long storage is bad; 0 where a process is killed
    choice: float  # from 0 to 1: which of several processes


def plan_faults(num_faults: int, *, seed: int) -> Iterator[Fault]:
    """So many faults; of any ten in a row from the start, each target has one."""
    rng = np.random.default_rng(seed)
    for number in range(num_faults):
        if number % len(TARGETS) == 0:
            deck = list(rng.permutation(TARGETS))
        target = str(deck.pop())
        seconds = float(rng.uniform(*STORAGE_SECONDS)) if target in STORAGE_FAULTS else 0.0
        waits = bool(rng.random() < WAITING_SHARE)
        gap_seconds = float(rng.uniform(*GAP_SECONDS))
        yield Fault(target, gap_seconds, waits, seconds, float(rng.random()))
