"""A long run with faults on the embedded stack: whether memory or storage grows with its rounds.

Meanwhile the run's page, its live part and its API are asked for, and one pool process, never the
other, and the broker are killed now and then. Prints its figures as JSON; exits with 1 where the run
or a check of it fails. How memory grows is told and not judged by the exit: it is a measurement.
"""

import argparse
import os
import random
import shutil
import signal
import socket
import sys
import tempfile
import threading
import time
import urllib.error
import urllib.request
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Self

import numpy as np

from techlife.bench.memory import descendants, own_bytes
from techlife.bench.report import say, say_json, verdict

MAX_BYTES_PER_100_ROUNDS = 1e6
POLL_SECONDS = 0.1
SAMPLE_SECONDS = 0.5
ASK_SECONDS = 0.5
ROUNDS_THAT_TELL = 100
WARM_UP = 0.25  # of the rounds, and of those that a process lives through
ENVIRONMENT = {
    "DJANGO_SETTINGS_MODULE": "techlife.bench.settings",
    "TECHLIFE_WORKER_PROCESSES": "2",
    "TECHLIFE_LOG_LEVEL": "WARNING",
    # Faults are recovered from in seconds, and rounds are let go while the run lasts.
    "TECHLIFE_LEASE_SECONDS": "3",
    "TECHLIFE_SWEEP_SECONDS": "0.5",
    "TECHLIFE_KEEP_HOURS": "0",
}


def main() -> int:
    parser = argparse.ArgumentParser(prog="python -m techlife.bench.soak", description=__doc__)
    parser.add_argument("--envoys", type=int, default=10)
    parser.add_argument("--rounds", type=int, default=200)
    parser.add_argument("--rows", type=int, default=2_000, help="of each envoy")
    parser.add_argument("--network", choices=("logistic", "hidden"), default="logistic")
    parser.add_argument("--kills", type=int, help="one in 20 rounds, if not given")
    parser.add_argument("--requests-afterwards", type=int, default=300)
    parser.add_argument("--samples", type=Path, help="where every sample is written, as CSV")
    parser.add_argument("--seed", type=int, default=0, help="of when and whom to kill")
    options = parser.parse_args()
    with tempfile.TemporaryDirectory(prefix="techlife-soak-") as folder:
        os.environ |= ENVIRONMENT | {"TECHLIFE_DATA_DIR": f"{folder}/data"}
        import django

        django.setup()
        return soak(options)


def soak(options: argparse.Namespace) -> int:
    from django.conf import settings
    from django.core.management import call_command

    from techlife.bench.served import make_run
    from techlife.bench.workloads import WORKLOADS, Workload
    from techlife.processes import (
        Supervisor,
        lock_data_folder,
        start_broker,
        start_web,
        start_worker,
        stop_on_signals,
        wait_for_worker,
    )

    stop_on_signals()
    options.workload = "soak"
    WORKLOADS["soak"] = Workload("soak", options.envoys, options.rows, options.rounds, 256)
    kills = Kills(options)
    try:
        with (
            lock_data_folder(settings.DATA_DIR) as lock,
            Supervisor(settings.DATA_DIR, lock) as supervisor,
        ):
            call_command("migrate", verbosity=0, interactive=False)
            start_broker(supervisor)
            start_worker(supervisor)
            port = free_port()
            start_web(supervisor, port)
            run = make_run(options, when_ready=lambda: wait_for_worker(supervisor))
            memory, storage = Memory(supervisor), Storage(options.rounds)
            started = time.monotonic()
            with Visitor(port, run) as visitor:
                while run.is_active:
                    supervisor.check()
                    time.sleep(POLL_SECONDS)
                    run.refresh_from_db(fields=["status", "reason"])
                    done = run.rounds.filter(number__gt=0, status="AGGREGATED").count()
                    memory.sample(done)
                    storage.sample(done)
                    kills.strike(done, supervisor, memory)
                seconds = time.monotonic() - started
                afterwards = memory.afterwards(visitor, options.requests_afterwards)
    finally:
        shutil.rmtree(settings.BROKER_SOCKET.parent, ignore_errors=True)
    return tell(options, run, memory, storage, kills, visitor, seconds, afterwards)


def tell(
    options: argparse.Namespace,
    run: Any,
    memory: "Memory",
    storage: "Storage",
    kills: "Kills",
    visitor: "Visitor",
    seconds: float,
    afterwards: dict[str, float],
) -> int:
    from training.services.checking import Findings, check_runs
    from training.services.retention import remove_old_objects

    found = Findings()
    for _ in check_runs(found, [run.pk]):
        pass
    removed = remove_old_objects()
    growth = memory.growth(options.rounds)
    if options.samples:
        memory.write(options.samples)
    for kind, figures in growth.items():
        slope = figures["resident_bytes_per_100_rounds"]
        said = "of so few rounds it tells nothing"
        if options.rounds >= ROUNDS_THAT_TELL:
            said = verdict(slope / 1e6, MAX_BYTES_PER_100_ROUNDS / 1e6)
        say(f"{kind}: {slope / 1e6:+.2f} MB per 100 rounds, {said}")
    for problem in [*found.problems, *removed.put_off, *visitor.troubles[:5]]:
        say(problem)
    run.refresh_from_db()
    say_json(
        what="soak",
        envoys=options.envoys,
        rounds=run.rounds.filter(number__gt=0, status="AGGREGATED").count(),
        seconds=seconds,
        status=run.status,
        problems=found.num_problems,
        kills=kills.num_by_target,
        requests=visitor.num_answers,
        requests_failed=len(visitor.troubles),
        growth=growth,
        web_afterwards=afterwards,
        storage=storage.at,
        most_objects=storage.most_objects,
        most_bytes=storage.most_bytes,
        last_round_let_go=run.last_round_let_go,
        after_the_end=dict(zip(("objects", "bytes"), stored(), strict=True)),
    )
    return 0 if run.status == run.Status.FINISHED and not found.num_problems else 1


@dataclass
class Series:
    """What one process held, by how many rounds were done."""

    kind: str
    rounds: list[int] = field(default_factory=list)
    resident: list[int] = field(default_factory=list)
    private: list[int] = field(default_factory=list)

    def after_warm_up(self, num_rounds: int) -> "Series | None":
        """None of a process that has not lived through half of the rounds that are looked at."""
        begin = max(WARM_UP * num_rounds, self.rounds[0] + WARM_UP * (num_rounds - self.rounds[0]))
        first = next((i for i, number in enumerate(self.rounds) if number >= begin), None)
        if first is None or self.rounds[-1] - self.rounds[first] < (1 - WARM_UP) * num_rounds / 2:
            return None
        values = (self.rounds[first:], self.resident[first:], self.private[first:])
        return Series(self.kind, *values)


class Memory:
    """What web, worker, scheduler and pool processes hold, each process for itself."""

    def __init__(self, supervisor: Any) -> None:
        self._supervisor = supervisor
        self._series: dict[int, Series] = {}
        self._sampled_at = 0.0

    def sample(self, num_rounds: int) -> None:
        if time.monotonic() - self._sampled_at < SAMPLE_SECONDS:
            return
        self._sampled_at = time.monotonic()
        for pid, kind in self._processes():
            held = own_bytes(pid)
            if held is None:
                continue
            series = self._series.setdefault(pid, Series(kind))
            series.rounds.append(num_rounds)
            series.resident.append(held[0])
            series.private.append(held[1])

    def _processes(self) -> Iterable[tuple[int, str]]:
        children = self._supervisor.children
        web, worker = children["web"].pid, children["worker"].pid
        yield web, "web, main process"
        yield from ((pid, "web") for pid in descendants(web) - {web})
        yield worker, "worker, main process"
        yield from ((pid, "pool process") for pid in descendants(worker) - {worker})
        yield children["scheduler"].pid, "scheduler"

    def pool_processes(self) -> list[int]:
        """Those that live, the eldest first."""
        pids = [pid for pid, kind in self._processes() if kind == "pool process"]
        return [pid for pid in self._series if pid in pids]

    def afterwards(self, visitor: "Visitor", num_requests: int) -> dict[str, float]:
        """How web goes on to grow while the same pages, now as long as they get, are asked for."""
        web = descendants(self._supervisor.children["web"].pid)
        web -= {self._supervisor.children["web"].pid}
        requests, resident = [], []
        begin = visitor.num_answers
        while visitor.num_answers < begin + num_requests:
            time.sleep(SAMPLE_SECONDS)
            held = [own_bytes(pid) for pid in web]
            requests.append(visitor.num_answers)
            resident.append(sum(each[0] for each in held if each))
        return {
            "requests": requests[-1] - begin,
            "resident_bytes_per_100_requests": slope(requests, resident),
            "resident_bytes": resident[-1],
        }

    def write(self, path: Path) -> None:
        lines = ["pid,kind,round,resident,private"]
        for pid, series in self._series.items():
            values = zip(series.rounds, series.resident, series.private, strict=True)
            lines += [f"{pid},{series.kind.replace(',', '')},{a},{b},{c}" for a, b, c in values]
        path.write_text("\n".join([*lines, ""]))

    def growth(self, num_rounds: int) -> dict[str, dict[str, float]]:
        """By kind the slope of a line through what its processes held; the steepest of several."""
        found: dict[str, dict[str, float]] = {}
        for series in self._series.values():
            looked_at = series.after_warm_up(num_rounds)
            if looked_at is None:
                continue
            figures = {
                "resident_bytes_per_100_rounds": slope(looked_at.rounds, looked_at.resident),
                "private_bytes_per_100_rounds": slope(looked_at.rounds, looked_at.private),
                "resident_bytes": looked_at.resident[-1],
                "samples": len(looked_at.rounds),
            }
            standing = found.get(series.kind)
            if (
                not standing
                or figures["resident_bytes_per_100_rounds"]
                > (standing["resident_bytes_per_100_rounds"])
            ):
                found[series.kind] = figures
        return found


def slope(numbers: list[int], values: list[int]) -> float:
    """Of the line with the least squares, per 100."""
    return 100 * float(np.polyfit(numbers, values, 1)[0])


class Storage:
    """What rounds have left with the director and all hospitals, after each quarter of the rounds and at most."""

    def __init__(self, num_rounds: int) -> None:
        self.at: dict[str, dict[str, int]] = {}
        self.most_objects = self.most_bytes = 0
        self._quarters = [num_rounds * quarter // 4 for quarter in (1, 2, 3, 4)]
        self._sampled_at = 0.0

    def sample(self, num_rounds: int) -> None:
        is_due = time.monotonic() - self._sampled_at > SAMPLE_SECONDS
        if not is_due and num_rounds < self._quarters[0]:
            return
        self._sampled_at = time.monotonic()
        num_objects, num_bytes = stored()
        self.most_objects = max(self.most_objects, num_objects)
        self.most_bytes = max(self.most_bytes, num_bytes)
        if self._quarters and num_rounds >= self._quarters[0]:
            self.at[str(num_rounds)] = {"objects": num_objects, "bytes": num_bytes}
            while self._quarters and num_rounds >= self._quarters[0]:
                self._quarters.pop(0)


def stored() -> tuple[int, int]:
    """How many objects of rounds, and bytes: with folders the hospitals' lie beside the director's."""
    from envoys.storage import director_storage, list_objects

    sizes = [
        num_bytes
        for key, num_bytes in list_objects(director_storage())
        if key.startswith("updates/") or "/client_state/" in key
    ]
    return len(sizes), sum(sizes)


class Kills:
    """SIGKILLs spread over the rounds: of the youngest pool process, and at first of the broker.

    Celery's main process may end when it loses the broker, and is started again with its pool: so
    the broker is killed while all warm up, that processes live through what is measured.
    """

    def __init__(self, options: argparse.Namespace) -> None:
        rng = random.Random(options.seed)
        num_kills = options.rounds // 20 if options.kills is None else options.kills
        self._rounds = sorted(rng.randrange(1, options.rounds) for _ in range(num_kills))
        self._warm_up = WARM_UP * options.rounds
        self.num_by_target = {"pool process": 0, "broker": 0}

    def strike(self, num_rounds: int, supervisor: Any, memory: Memory) -> None:
        if not self._rounds or num_rounds < self._rounds[0]:
            return
        target, pids = "broker", [supervisor.children["broker"].pid]
        if num_rounds > self._warm_up or sum(self.num_by_target.values()) % 2:
            target, pids = "pool process", memory.pool_processes()[1:]
        if not pids:
            return  # the one that was killed is not replaced yet; the eldest is watched to the end
        self._rounds.pop(0)
        os.kill(pids[-1], signal.SIGKILL)
        self.num_by_target[target] += 1


class Visitor:
    """Asks for pages of the run and for its API in the background, until it is left."""

    def __init__(self, port: int, run: Any) -> None:
        from django.test import Client

        from envoys.models import User

        user = User.objects.create(username="visitor", role=User.Role.DATA_SCIENTIST)
        client = Client()
        client.force_login(user, backend="django.contrib.auth.backends.ModelBackend")
        self._cookie = "; ".join(f"{name}={each.value}" for name, each in client.cookies.items())
        self._urls = [
            f"http://localhost:{port}{path}"
            for path in (
                f"/runs/{run.pk}/",
                f"/runs/{run.pk}/live/",
                f"/api/v1/runs/{run.pk}",
                f"/api/v1/rounds?run={run.pk}",
                "/federation/",
                "/tasks/",
                "/readyz",
            )
        ]
        self.num_answers = 0
        self.troubles: list[str] = []
        self._ended = threading.Event()
        self._thread = threading.Thread(target=self._ask_on, daemon=True)
        handler = urllib.request.ProxyHandler({})
        self._open: Callable[..., Any] = urllib.request.build_opener(handler).open

    def __enter__(self) -> Self:
        self._thread.start()
        return self

    def __exit__(self, *error: object) -> None:
        self._ended.set()
        self._thread.join()

    def _ask_on(self) -> None:
        while not self._ended.wait(ASK_SECONDS):
            for url in self._urls:
                self._ask(url)

    def _ask(self, url: str) -> None:
        request = urllib.request.Request(url, headers={"Cookie": self._cookie})
        try:
            with self._open(request, timeout=30) as answer:
                answer.read()
                self.num_answers += 1
                if answer.url != url:
                    self.troubles.append(f"{url} leads to {answer.url}")
        except urllib.error.HTTPError as error:
            self.num_answers += 1
            if not url.endswith("/readyz"):  # 503 while the broker is away
                self.troubles.append(f"{url} answers {error.code}")
        except OSError as error:
            self.troubles.append(f"{url}: {error}")


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port: int = probe.getsockname()[1]
        return port


if __name__ == "__main__":
    sys.exit(main())
