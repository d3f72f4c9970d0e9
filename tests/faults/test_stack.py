"""What ends because it was struck is told from what ends by itself."""

import signal
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from techlife.processes import MAX_RESTARTS, ProcessError, Supervisor, lock_data_folder
from tests.faults.plan import Fault
from tests.faults.stack import Stack
from tests.faults.storage import TRUNCATES, FaultyStorage

SLEEPS = (sys.executable, "-I", "-S", "-c", "import time; time.sleep(1000)")
NOBODY = 1  # a port that nothing is asked of


@pytest.fixture
def stack(tmp_path: Path) -> Iterator[Stack]:
    with (
        lock_data_folder(tmp_path) as lock,
        Supervisor(tmp_path, lock, report=lambda message: None, stop_seconds=0.1) as supervisor,
        FaultyStorage(NOBODY, seed=0) as storage,
    ):
        for name in ("web", "beat"):
            supervisor.start(name, SLEEPS, restart=True)
        yield Stack(supervisor, storage, {}, NOBODY)


def fault(target: str) -> Fault:
    return Fault(target, 0.0, False, 1.0, 0.0)


def end(stack: Stack, name: str) -> None:
    """As it would by itself."""
    process = stack.supervisor.children[name].process
    process.send_signal(signal.SIGKILL)
    process.wait()


def test_what_ends_by_itself_is_counted_and_what_was_struck_is_not(stack):
    assert stack.strike(fault("web"))
    end(stack, "web")  # waits for the one that was struck
    end(stack, "beat")
    stack.check()
    end(stack, "beat")
    stack.check()
    assert stack.ended_by_themselves == {"beat": 2}
    assert [each.target for each in stack.struck] == ["web"]


def test_what_ends_over_and_over_is_told_whatever_else_is_struck(stack):
    for _ in range(MAX_RESTARTS):
        end(stack, "beat")
        stack.check()
        assert stack.strike(fault("web"))
        end(stack, "web")
        stack.check()  # the web server any number of times: it was struck
    end(stack, "beat")
    with pytest.raises(ProcessError, match="The beat was ended"):
        stack.check()


def test_a_fault_of_storage_that_nobody_has_met_has_not_struck(stack):
    assert stack.strike(fault(TRUNCATES))
    assert not stack.strike(fault("web"))  # one after the other
    assert stack.end_storage_fault() == fault(TRUNCATES)
    assert stack.struck == []
    assert stack.strike(fault(TRUNCATES))
    stack.storage.note(TRUNCATES)
    assert stack.end_storage_fault() is None
    assert [each.target for each in stack.struck] == [TRUNCATES]
