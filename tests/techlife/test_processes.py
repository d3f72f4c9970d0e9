"""Starts, kills and stops real processes; those with a real broker and worker are journeys."""

import json
import os
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

import pytest
import redis
from django.conf import settings
from redis.backoff import NoBackoff
from redis.retry import Retry

from techlife import processes
from techlife.processes import (
    DataFolderInUseError,
    PortInUseError,
    ProcessError,
    Supervisor,
    check_port_free,
    lock_data_folder,
    make_private_folder,
    start_broker,
)

# A child with a child of its own, which is left behind when only the first is ended.
FAMILY = ["sh", "-c", "sleep 300 & sleep 300"]
STUBBORN = ["sh", "-c", "trap '' TERM; while :; do sleep 0.1; done"]

# What `manage.py demo` does with processes, and nothing else. It prints the sessions of its
# children as a line of JSON, first and whenever one was started again.
COMMAND = """
import json
import sys
import time

import django

django.setup()
from django.conf import settings
from techlife.processes import Supervisor, lock_data_folder, stop_on_signals
from techlife.processes import start_broker, start_web, start_worker, wait_for_worker

def tell():
    print(json.dumps({name: child.pid for name, child in supervisor.children.items()}), flush=True)

stop_on_signals()
what = sys.argv[1]
with lock_data_folder(settings.DATA_DIR) as lock, Supervisor(settings.DATA_DIR, lock) as supervisor:
    if what == "family":
        supervisor.start("family", ["sh", "-c", "sleep 300 & sleep 300"])
        supervisor.start("stubborn", ["sh", "-c", "trap '' TERM; while :; do sleep 0.1; done"])
    else:
        start_broker(supervisor)
        start_worker(supervisor)
        start_web(supervisor, int(what))
        wait_for_worker(supervisor)
    tell()
    while True:
        pids = [child.pid for child in supervisor.children.values()]
        supervisor.check()
        if pids != [child.pid for child in supervisor.children.values()]:
            wait_for_worker(supervisor)
            tell()
        time.sleep(0.1)
"""


class Command:
    """The above in a process of its own, on a data folder and temporary folder of its own."""

    def __init__(self, folder: Path, what: str) -> None:
        self.data_dir = folder / "data"
        environment = {
            name: value for name, value in os.environ.items() if not name.startswith("TECHLIFE_")
        }
        environment.pop("REDIS_URL", None)
        self.process = subprocess.Popen(
            [sys.executable, "-c", COMMAND, what],
            env=environment
            | {
                "DJANGO_SETTINGS_MODULE": "techlife.settings",
                "TECHLIFE_DATA_DIR": str(self.data_dir),
                "TMPDIR": str(folder),
            },
            stdout=subprocess.PIPE,
            text=True,
        )
        self.sessions = self.read_sessions()

    def read_sessions(self) -> dict[str, int]:
        assert self.process.stdout is not None
        line = self.process.stdout.readline()
        assert line, "the command has ended"
        sessions: dict[str, int] = json.loads(line)
        return sessions

    @property
    def num_running(self) -> int:
        return sum(num_running(session) for session in self.sessions.values())

    def close(self) -> None:
        self.process.kill()
        self.process.wait()
        assert self.process.stdout is not None
        self.process.stdout.close()


@pytest.fixture
def command(tmp_path_factory, monkeypatch):
    started: list[Command] = []

    def start(what: str) -> Command:
        # A short path: a socket's may not be longer than about a hundred bytes.
        folder = tmp_path_factory.mktemp("command")
        started.append(Command(folder, what))
        return started[-1]

    yield start
    for one in started:
        one.close()
    assert comes_true(lambda: not any(one.num_running for one in started))


@pytest.fixture
def lock(tmp_path):
    with lock_data_folder(tmp_path) as lock:
        yield lock


@pytest.fixture
def supervisor(tmp_path, lock):
    with Supervisor(tmp_path, lock, report=lambda message: None, stop_seconds=2) as supervisor:
        yield supervisor


def num_running(group: int) -> int:
    """Processes of a group that are not zombies; the group outlives the child that leads it."""
    listing = subprocess.run(
        ["ps", "-A", "-o", "pgid=,stat="], capture_output=True, text=True, check=True
    )
    rows = [line.split() for line in listing.stdout.splitlines()]
    return sum(int(pgid) == group and not state.startswith("Z") for pgid, state in rows)


def comes_true(holds: Callable[[], bool], seconds: float = 15) -> bool:
    deadline = time.monotonic() + seconds
    while not holds():
        if time.monotonic() > deadline:
            return False
        time.sleep(0.05)
    return True


def free_port() -> int:
    with socket.socket() as sock:
        sock.bind(("127.0.0.1", 0))
        port: int = sock.getsockname()[1]
    return port


def test_a_second_start_on_the_same_folder_is_refused(lock, tmp_path):
    with pytest.raises(DataFolderInUseError, match=f"in use by process {os.getpid()}; stop it"):
        lock_data_folder(tmp_path)


def test_the_folder_is_free_again_when_the_lock_is_released(tmp_path):
    for _ in range(2):
        lock_data_folder(tmp_path).release()


@pytest.fixture
def orphan(tmp_path):
    """A child that holds the lock of a command that is no more."""
    gone = subprocess.Popen(["true"])
    gone.wait()
    with lock_data_folder(tmp_path) as lock:
        child = subprocess.Popen(["sleep", "300"], pass_fds=[lock.descriptor])
        (tmp_path / ".lock").write_text(f"{gone.pid}\n")
    yield child
    child.kill()
    child.wait()


def test_a_folder_whose_command_was_killed_stays_locked_by_its_children(orphan, tmp_path):
    with pytest.raises(DataFolderInUseError):
        lock_data_folder(tmp_path, wait_seconds=0.2)


def test_a_start_after_a_killed_command_waits_for_its_children(orphan, tmp_path, monkeypatch):
    waits = []

    def wait(seconds: float) -> None:
        waits.append(seconds)
        orphan.kill()
        orphan.wait()

    monkeypatch.setattr(processes.time, "sleep", wait)
    lock_data_folder(tmp_path).release()
    assert len(waits) == 1


def test_stop_leaves_nothing_of_a_family(supervisor):
    supervisor.start("family", FAMILY)
    group = supervisor.children["family"].pid
    assert comes_true(lambda: num_running(group) == 3)

    supervisor.stop()

    assert comes_true(lambda: num_running(group) == 0)


def test_stop_kills_what_does_not_listen(tmp_path, lock):
    supervisor = Supervisor(tmp_path, lock, stop_seconds=0.2)
    supervisor.start("stubborn", STUBBORN)
    group = supervisor.children["stubborn"].pid

    supervisor.stop()

    assert comes_true(lambda: num_running(group) == 0)


def test_children_are_ended_in_reverse_order(supervisor, tmp_path):
    for name in ("first", "second"):
        script = f"trap 'echo {name} >> {tmp_path}/ended; exit' TERM; echo up; while :; do sleep 0.05; done"
        supervisor.start(name, ["sh", "-c", script])
        log = tmp_path / "logs" / f"{name}.log"
        supervisor.wait_until(name, lambda log=log: "up" in log.read_text(), seconds=5)

    supervisor.stop()

    assert (tmp_path / "ended").read_text().split() == ["second", "first"]


def test_a_killed_child_is_started_again_without_its_leftovers(tmp_path, lock):
    reports: list[str] = []
    with Supervisor(tmp_path, lock, report=reports.append, stop_seconds=2) as supervisor:
        supervisor.start("worker", FAMILY, restart=True)
        supervisor.check()
        killed = supervisor.children["worker"].pid
        assert comes_true(lambda: num_running(killed) == 3)
        os.kill(killed, signal.SIGKILL)
        assert comes_true(lambda: supervisor.children["worker"].has_ended)

        supervisor.check()

        assert reports == ["The worker was ended by SIGKILL and is started again"]
        started = supervisor.children["worker"].pid
        assert started != killed
        assert comes_true(lambda: num_running(killed) == 0 and num_running(started) == 3)


def test_a_child_that_may_not_end_is_reported_with_its_log(supervisor, tmp_path):
    (tmp_path / "logs" / "broker.log").write_text("of an earlier start\n")
    supervisor.start("broker", ["sh", "-c", "echo no space left; exit 3"])
    assert comes_true(lambda: supervisor.children["broker"].has_ended)

    with pytest.raises(ProcessError, match=r"broker has ended with exit status 3") as caught:
        supervisor.check()
    assert str(caught.value).endswith("no space left")
    assert "of an earlier start" not in str(caught.value)


def test_a_child_that_ends_at_every_start_is_given_up(supervisor):
    supervisor.start("worker", ["false"], restart=True)

    with pytest.raises(ProcessError, match="worker has ended with exit status 1"):
        comes_true(lambda: supervisor.check() is not None)  # checks until it raises


@pytest.mark.parametrize(("status", "ends"), [(0, True), (3, False)])
def test_the_city_monitors_are_started_again_only_after_a_failure(
    supervisor, monkeypatch, status, ends
):
    reports: list[str] = []
    supervisor.report = reports.append
    monkeypatch.setattr(sys, "executable", "sh")
    monkeypatch.setattr(settings, "BASE_DIR", supervisor.log_folder)
    (supervisor.log_folder / "manage.py").write_text(f"exit {status}\n")
    processes.start_city_monitors(supervisor)
    assert comes_true(lambda: supervisor.children["cities"].has_ended)

    for _ in range(2):
        supervisor.check()

    assert (supervisor.children["cities"].process is None) == ends
    assert reports[0].startswith(f"The cities has ended with exit status {status}")
    assert ("started again" not in reports[0]) == ends


def test_waiting_for_a_child_that_ends_is_over_at_once(supervisor):
    supervisor.start("web", ["sh", "-c", "echo cannot bind; exit 1"], restart=True)

    with pytest.raises(ProcessError, match="cannot bind"):
        supervisor.wait_until("web", lambda: False, seconds=60)


def test_without_a_watchdog_the_command_does_not_go_on(supervisor):
    supervisor._watchdog.kill()
    supervisor._watchdog.wait()

    with pytest.raises(ProcessError, match="watchdog has ended"):
        supervisor.check()


@pytest.mark.journey
def test_children_of_a_killed_command_are_ended_even_the_stubborn(command):
    killed = command("family")
    assert comes_true(lambda: killed.num_running >= 4)

    killed.process.kill()
    killed.process.wait()

    lock_data_folder(killed.data_dir).release()  # it waits for the children
    assert killed.num_running == 0


@pytest.mark.journey
def test_a_killed_worker_comes_back_and_a_terminated_command_leaves_nothing(command):
    running = command(str(free_port()))
    before = running.sessions
    assert num_running(before["worker"]) >= 3  # itself and the pool of two
    os.kill(before["worker"], signal.SIGKILL)

    running.sessions = running.read_sessions()

    assert running.sessions["worker"] != before["worker"]
    assert running.sessions["scheduler"] == before["scheduler"]
    assert running.sessions["broker"] == before["broker"]
    assert num_running(before["worker"]) == 0
    running.process.terminate()
    assert running.process.wait(timeout=20) == 128 + signal.SIGTERM
    assert running.num_running == 0
    lock_data_folder(running.data_dir, wait_seconds=0).release()


@pytest.mark.journey
def test_a_killed_scheduler_comes_back_beside_the_worker_that_lives(command):
    running = command(str(free_port()))
    before = running.sessions
    os.kill(before["scheduler"], signal.SIGKILL)

    running.sessions = running.read_sessions()

    assert running.sessions["scheduler"] != before["scheduler"]
    assert running.sessions["worker"] == before["worker"]


@pytest.mark.journey
def test_broker_worker_and_site_of_a_killed_command_are_gone_and_the_folder_free(command):
    killed = command(str(free_port()))
    assert killed.num_running >= 7

    killed.process.kill()
    killed.process.wait()

    assert comes_true(lambda: killed.num_running == 0, seconds=15)
    lock_data_folder(killed.data_dir).release()


@pytest.fixture
def bundled(settings, tmp_path, tmp_path_factory):
    settings.BROKER_IS_BUNDLED = True
    settings.DATA_DIR = tmp_path / 'a folder with "quotes"'
    settings.BROKER_SOCKET = tmp_path_factory.mktemp("s", numbered=True) / "private" / "b.sock"
    settings.BROKER_PASSWORD = "a password"
    return settings


@pytest.mark.journey
def test_the_broker_refuses_who_has_no_password(supervisor, bundled):
    start_broker(supervisor)

    def answer(password: str | None) -> bool:
        with redis.Redis(
            unix_socket_path=str(bundled.BROKER_SOCKET),
            password=password,
            retry=Retry(NoBackoff(), retries=0),
        ) as client:
            return bool(client.ping())

    assert answer("a password")
    for password in (None, "another"):
        with pytest.raises(redis.AuthenticationError):
            answer(password)


def test_the_password_is_not_in_the_list_of_processes(bundled):
    argv, config = processes.broker_argv_and_config()

    assert argv[1:] == ["-"]
    assert b'requirepass "a password"' in config


def test_a_broker_from_the_environment_is_not_started(supervisor, bundled):
    bundled.BROKER_IS_BUNDLED = False

    start_broker(supervisor)

    assert not supervisor.children


def test_a_machine_without_a_bundled_broker_is_told_the_way_out(supervisor, bundled, monkeypatch):
    monkeypatch.setattr("platform.machine", lambda: "riscv64")

    with pytest.raises(ProcessError, match=r"riscv64.*REDIS_URL"):
        start_broker(supervisor)


def test_a_socket_in_a_folder_open_to_others_is_refused(supervisor, bundled):
    folder = bundled.BROKER_SOCKET.parent
    folder.mkdir(parents=True)
    folder.chmod(0o755)

    with pytest.raises(ProcessError, match="only you may enter"):
        start_broker(supervisor)


def test_a_socket_behind_a_link_is_refused(tmp_path):
    (tmp_path / "theirs").mkdir(mode=0o700)
    (tmp_path / "link").symlink_to(tmp_path / "theirs")

    with pytest.raises(ProcessError, match="only you may enter"):
        make_private_folder(tmp_path / "link")


def test_a_socket_with_too_long_a_path_is_refused(supervisor, bundled):
    bundled.BROKER_SOCKET = bundled.DATA_DIR / ("long" * 30) / "broker.sock"

    with pytest.raises(ProcessError, match="too long for a socket's path"):
        start_broker(supervisor)


def test_a_port_in_use_is_refused_and_a_free_one_is_not():
    with socket.create_server(("127.0.0.1", 0)) as listener:
        port = listener.getsockname()[1]
        with pytest.raises(PortInUseError, match=f"Port {port} cannot be used"):
            check_port_free(port)
    check_port_free(port)


@pytest.mark.parametrize("port", [0, -1, 65536])
def test_a_number_that_is_no_port_is_refused(port):
    with pytest.raises(PortInUseError, match="no port"):
        check_port_free(port)
