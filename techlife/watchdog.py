"""Ends the embedded mode's processes when their parent has gone, whatever way it went.

A script of its own on the standard library alone: it is started by its path, so that it costs
some megabytes and not a Django. It reads a pipe whose other end only the parent holds: a line
`+<group>` for each process group begun, `-<group>` for each one ended. The end of the file means
that there is no parent any more. Nothing here is particular to Linux.
"""

import os
import signal
import sys
import time
from collections.abc import Iterable

GRACE_SECONDS = 5.0
POLL_SECONDS = 0.05


def watch(lines: Iterable[str]) -> None:
    groups: list[int] = []
    for line in lines:
        if line.startswith("+"):
            groups.append(int(line[1:]))
        else:
            groups.remove(int(line[1:]))
    end_groups(groups)


def end_groups(groups: list[int]) -> None:
    """Ask each group's first process to end its own; then kill whatever is left."""
    for group in groups:
        ask_to_end(group)
    deadline = time.monotonic() + GRACE_SECONDS
    while any(is_alive(group) for group in groups) and time.monotonic() < deadline:
        time.sleep(POLL_SECONDS)
    for group in groups:
        kill_group(group)


def ask_to_end(pid: int) -> None:
    try:
        os.kill(pid, signal.SIGTERM)
    except ProcessLookupError:
        pass


def is_alive(pid: int) -> bool:
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    except PermissionError:
        return True
    return True


def kill_group(group: int) -> None:
    try:
        os.killpg(group, signal.SIGKILL)
    except (ProcessLookupError, PermissionError):  # macOS denies it where only zombies are left
        pass


if __name__ == "__main__":
    for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
        signal.signal(number, signal.SIG_IGN)  # it ends when its work is done
    watch(sys.stdin)
