"""Drives the product as its users do: by its commands, in a data folder of its own."""

import json
import os
import signal
import sqlite3
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parent.parent.parent
PATIENCE_SECONDS = 120


class Demo:
    """A `manage.py demo`, or another demonstration, in the background."""

    def __init__(
        self, folder: Path, *options: str, command: str = "demo", **environment: str
    ) -> None:
        self.data_dir = folder / "data"
        self.report_path = folder / "report.json"
        self.output_path = folder / "output.txt"
        self.options = [command, f"--report={self.report_path}", *options]
        self.environment = {
            **os.environ,
            "TECHLIFE_DATA_DIR": str(self.data_dir),
            **environment,
        }
        self.process = self.start()

    def start(self) -> "subprocess.Popen[bytes]":
        with self.output_path.open("ab") as output:
            return subprocess.Popen(
                [sys.executable, "manage.py", *self.options],
                cwd=ROOT,
                env=self.environment,
                stdout=output,
                stderr=output,
                start_new_session=True,
            )

    @property
    def output(self) -> str:
        return self.output_path.read_text()

    def wait(self) -> int:
        try:
            return self.process.wait(PATIENCE_SECONDS)
        except subprocess.TimeoutExpired:
            raise AssertionError(f"the demonstration does not end:\n{self.output}") from None

    def report(self) -> dict[str, Any]:
        assert self.wait() == 0, self.output
        report: dict[str, Any] = json.loads(self.report_path.read_text())
        return report

    def interrupt(self) -> int:
        self.process.send_signal(signal.SIGINT)
        return self.wait()

    def rows(self, query: str) -> list[tuple[Any, ...]]:
        """Rows of the embedded database; none before it exists."""
        try:
            with sqlite3.connect(f"file:{self.data_dir}/db.sqlite3?mode=ro", uri=True) as database:
                return database.execute(query).fetchall()
        except sqlite3.OperationalError:
            return []


@contextmanager
def running_demo(
    folder: Path, *options: str, command: str = "demo", **environment: str
) -> Iterator[Demo]:
    """A demonstration that is stopped at the end, whatever happens."""
    demo = Demo(folder, *options, command=command, **environment)
    try:
        yield demo
    finally:
        if demo.process.poll() is None:
            demo.process.send_signal(signal.SIGTERM)
            demo.process.wait(PATIENCE_SECONDS)


def wait_for(what: Callable[[], Any], demo: Demo) -> Any:
    """What the callable returns once it is true; fails if the demonstration ends before."""
    deadline = time.monotonic() + PATIENCE_SECONDS
    while not (found := what()):
        assert demo.process.poll() is None, f"the demonstration has ended:\n{demo.output}"
        assert time.monotonic() < deadline, f"waited in vain:\n{demo.output}"
        time.sleep(0.01)
    return found


def simulate(cohort: Path, *options: str) -> str:
    """The sha256 in which the simulation of a cohort ends."""
    done = subprocess.run(
        [sys.executable, "-m", "federated", str(cohort), "--no-report", *options],
        cwd=ROOT,
        check=True,
        capture_output=True,
    )
    final_sha256: str = json.loads(done.stdout)["final_sha256"]
    return final_sha256


def processes_with(text: str) -> dict[int, str]:
    """Command lines, by process id, that hold a text."""
    listing = subprocess.run(
        ["ps", "-ww", "-eo", "pid=,args="], check=True, capture_output=True, text=True
    ).stdout
    lines = (line.strip().split(maxsplit=1) for line in listing.splitlines())
    return {int(line[0]): line[1] for line in lines if len(line) == 2 and text in line[1]}


def worker_of(demo: Demo) -> int:
    """The head of the worker, which leads a session of its own with its pool."""
    data_dir = f"TECHLIFE_DATA_DIR={demo.data_dir}".encode()
    (head,) = [
        pid
        for pid in processes_with("celery_app worker")
        if os.getsid(pid) == pid and data_dir in Path(f"/proc/{pid}/environ").read_bytes()
    ]
    return head
