"""What processes hold together, from /proc: pages that several share are counted once."""

import os
import threading
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Self

SAMPLE_SECONDS = 1.0  # each sample walks the pages of every process, which costs it some time


def descendants(pid: int) -> set[int]:
    """A process with its children, theirs, and so on; sessions of their own make no difference."""
    parents = {}
    for stat in Path("/proc").glob("[0-9]*/stat"):
        try:
            fields = stat.read_text().rpartition(")")[2].split()
        except OSError:  # it has ended meanwhile
            continue
        parents[int(stat.parent.name)] = int(fields[1])
    found, size = {pid}, 0
    while len(found) > size:
        size = len(found)
        found |= {child for child, parent in parents.items() if parent in found}
    return found


def cpu_seconds(pids: Iterable[int]) -> float:
    """What they have used of a processor so far, with children of theirs that have ended."""
    ticks = 0
    for pid in pids:
        try:
            fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
        except OSError:  # it has ended
            continue
        ticks += sum(int(field) for field in fields[11:15])
    return ticks / os.sysconf("SC_CLK_TCK")


def pss_bytes(pids: Iterable[int]) -> int:
    """Their proportional set sizes added up."""
    total = 0
    for pid in pids:
        try:
            lines = Path(f"/proc/{pid}/smaps_rollup").read_text().splitlines()
        except OSError:  # it has ended, or is somebody else's
            continue
        total += sum(int(line.split()[1]) * 1024 for line in lines if line.startswith("Pss:"))
    return total


def own_bytes(pid: int) -> tuple[int, int] | None:
    """Of one process, what is resident, and what of that no other shares; None if it has ended."""
    try:
        lines = Path(f"/proc/{pid}/smaps_rollup").read_text().splitlines()
    except OSError:
        return None
    kilobytes = {
        name: int(rest.split()[0]) for name, _, rest in (x.partition(":") for x in lines[1:])
    }
    if not kilobytes:  # it is a zombie
        return None
    private = kilobytes["Private_Clean"] + kilobytes["Private_Dirty"]
    return kilobytes["Rss"] * 1024, private * 1024


class PeakMemory:
    """Samples processes in the background until it is left, where it samples once more."""

    def __init__(self, processes: Callable[[], Iterable[int]]) -> None:
        self.num_bytes = 0
        self._processes = processes
        self._ended = threading.Event()
        self._thread = threading.Thread(target=self._watch, daemon=True)

    def __enter__(self) -> Self:
        self._thread.start()
        return self

    def __exit__(self, *error: object) -> None:
        self._ended.set()
        self._thread.join()
        self.sample()

    def sample(self) -> None:
        self.num_bytes = max(self.num_bytes, pss_bytes(self._processes()))

    def _watch(self) -> None:
        while not self._ended.wait(SAMPLE_SECONDS):
            self.sample()
