"""An installation as docker-compose.yml starts it, each service a process of its own."""

import os
import secrets
import shutil
import signal
import socket
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from techlife.bench.memory import descendants
from tests.faults.plan import STORAGE_FAULTS, Fault
from tests.faults.postgres import make_cluster, server_argv
from tests.faults.storage import FaultyStorage
from tests.s3_server import free_port, running_s3

START_SECONDS = 60.0
POLL_SECONDS = 0.05
HOST = "techlife.example.org"
# How soon what was killed is noticed; a real installation takes more time and less work.
QUICK_RECOVERY = {
    "TECHLIFE_LEASE_SECONDS": "3",
    "TECHLIFE_SWEEP_SECONDS": "0.5",
    "TECHLIFE_S3_TIMEOUT_SECONDS": "2",
}
KEPT = ("PATH", "HOME", "LANG", "TMPDIR", "PYTHONPATH", "LD_LIBRARY_PATH", "VIRTUAL_ENV")


@dataclass
class Stack:
    """Processes under a supervisor that starts again what has ended."""

    supervisor: Any
    storage: FaultyStorage
    s3: dict[str, str]  # the server itself, behind that storage
    web_port: int
    struck: list[Fault] = field(default_factory=list)
    ended_by_themselves: Counter[str] = field(default_factory=Counter)  # by name
    _killed: set[int] = field(default_factory=set)

    def check(self) -> None:
        """Start again what has ended. Raises ProcessError for what ends by itself, over and over."""
        before = {name: child.pid for name, child in self.supervisor.children.items()}
        self.supervisor.check()
        for name, child in self.supervisor.children.items():
            if child.pid != before[name] and before[name] not in self._killed:
                self.ended_by_themselves[name] += 1

    def strike(self, fault: Fault) -> bool:
        """Kill, or make storage bad; False if there is nothing to kill at the moment.

        And as long as nobody has met the fault of storage before.
        """
        if not self.storage.is_met:
            return False
        if fault.target in STORAGE_FAULTS:
            self.storage.begin(fault.target, fault.seconds)
        else:
            pid = self._victim(fault)
            if pid is None:
                return False
            try:
                os.kill(pid, signal.SIGKILL)
            except ProcessLookupError:
                return False
            self._killed.add(pid)
            if child := self.supervisor.children.get(fault.target):
                child.restarts.clear()  # it has not ended by itself
        self.struck.append(fault)
        return True

    def end_storage_fault(self) -> Fault | None:
        """Have storage in order; returns the fault that nobody has met, which then never struck."""
        if self.storage.end():
            return None
        return self.struck.pop()  # nothing strikes until it is met

    def _victim(self, fault: Fault) -> int | None:
        if fault.target == "worker_child":
            candidates = self._pool()
        elif fault.target == "postgres_backend":
            candidates = self._backends()
        else:
            child = self.supervisor.children[fault.target]
            candidates = [] if child.has_ended else [child.pid]
        return candidates[int(fault.choice * len(candidates))] if candidates else None

    def _pool(self) -> list[int]:
        worker = self.supervisor.children["worker"].pid
        return sorted(descendants(worker) - {worker})

    def _backends(self) -> list[int]:
        """Those that serve a client; PostgreSQL writes whom into its command line."""
        postgres = self.supervisor.children["postgres"].pid
        return sorted(
            pid for pid in descendants(postgres) - {postgres} if " 127.0.0.1(" in _command_line(pid)
        )


def _command_line(pid: int) -> str:
    try:
        return Path(f"/proc/{pid}/cmdline").read_text()
    except OSError:  # it has ended
        return ""


@contextmanager
def running_stack(*, seed: int) -> Iterator[Stack]:
    """Everything but rows, migrated, with Django set up in this process; nothing is left of it.

    Raises NoPostgresError, ProcessError.
    """
    folder = Path(tempfile.mkdtemp(prefix="techlife-faults-"))
    folder.chmod(0o711)  # PostgreSQL's user passes through to its own folder
    try:
        with running_s3(folder / "s3", "director", "envoys") as s3:
            real_port = int(s3["AWS_S3_ENDPOINT_URL"].rpartition(":")[2])
            with FaultyStorage(real_port, seed=seed) as storage:
                yield from _start(folder, s3, storage)
    finally:
        shutil.rmtree(folder, ignore_errors=True)


def _start(folder: Path, s3: dict[str, str], storage: FaultyStorage) -> Iterator[Stack]:
    database, broker, web = free_port(), free_port(), free_port()
    password = secrets.token_urlsafe(24)
    plain = {name: os.environ[name] for name in KEPT if name in os.environ}
    os.environ.clear()  # of whoever runs this, who may have an installation of their own
    os.environ.update(plain | s3 | QUICK_RECOVERY)
    os.environ.update(
        AWS_S3_ENDPOINT_URL=f"http://127.0.0.1:{storage.port}",
        TECHLIFE_MODE="production",
        TECHLIFE_DATA_DIR=str(folder / "data"),
        TECHLIFE_ALLOWED_HOSTS=HOST,
        TECHLIFE_REQUIRE_TOTP="false",
        TECHLIFE_LOG_LEVEL="WARNING",
        TECHLIFE_LOG_FORMAT="line",
        TECHLIFE_STATIC_DIR=str(folder / "static"),
        DATABASE_URL=f"postgres://techlife@127.0.0.1:{database}/postgres",
        REDIS_URL=f"redis://:{password}@127.0.0.1:{broker}/0",
        DJANGO_SETTINGS_MODULE="techlife.settings",
        OMP_NUM_THREADS="1",
        PYTHONWARNINGS="ignore",
        **{
            name: secrets.token_urlsafe(48)
            for name in ("SECRET_KEY", "TECHLIFE_FIELD_KEY", "TECHLIFE_NAME_INDEX_KEY")
        },
    )
    make_cluster(folder / "postgres")

    import django

    django.setup()
    from django.conf import settings
    from django.core.management import call_command

    from techlife.processes import Supervisor, bundled_broker, lock_data_folder, wait_for_worker

    with (
        lock_data_folder(settings.DATA_DIR) as lock,
        Supervisor(settings.DATA_DIR, lock, report=lambda message: None) as supervisor,
    ):
        stack = Stack(supervisor, storage, s3, web)
        celery = (sys.executable, "-m", "celery", "-A", "celery_app")
        supervisor.start("postgres", server_argv(folder / "postgres", database), restart=True)
        supervisor.wait_until("postgres", lambda: _is_open(database), seconds=START_SECONDS)
        supervisor.start(
            "broker",
            [str(bundled_broker()), "-"],
            # Without a file: what it held is lost with it.
            stdin=(
                f"port {broker}\nbind 127.0.0.1\nrequirepass {password}\n"
                f'appendonly no\nsave ""\ndir "{folder}"\nloglevel warning\n'
            ).encode(),
            restart=True,
        )
        supervisor.wait_until("broker", lambda: _is_open(broker), seconds=START_SECONDS)
        _when_it_answers(lambda: call_command("migrate", verbosity=0, interactive=False))
        supervisor.start(
            "worker",
            [*celery, "worker", "-P", "prefork", "-c", "2", "--without-mingle", "--without-gossip"],
            restart=True,
        )
        supervisor.start(
            "beat",
            [*celery, "beat", "-s", str(folder / "data" / "schedule"), "--pidfile="],
            restart=True,
        )
        supervisor.start(
            "web",
            [
                *(sys.executable, "-m", "gunicorn", "techlife.wsgi:application"),
                *("--bind", f"127.0.0.1:{web}"),
            ],
            restart=True,
        )
        supervisor.wait_until("web", lambda: _is_open(web), seconds=START_SECONDS)
        wait_for_worker(supervisor)
        yield stack


def _when_it_answers(what: Any) -> None:
    """PostgreSQL listens a moment before it lets anybody in."""
    from django.db import OperationalError

    deadline = time.monotonic() + START_SECONDS
    while True:
        try:
            what()
            return
        except OperationalError:
            if time.monotonic() > deadline:
                raise
            time.sleep(POLL_SECONDS)


def _is_open(port: int) -> bool:
    with socket.socket() as probe:
        return probe.connect_ex(("127.0.0.1", port)) == 0
