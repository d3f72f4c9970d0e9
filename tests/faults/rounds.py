"""Runs of twenty rounds, undisturbed and under faults, and what became of each."""

import json
import math
import time
import urllib.error
import urllib.request
from collections import deque
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, TypeVar

from tests.faults.plan import Fault
from tests.faults.stack import HOST, POLL_SECONDS, Stack

PATIENCE_SECONDS = 120.0  # without a word of progress a run is lost
GRACE_SECONDS = 60.0  # for what follows a run's end, as its report
WEB_SECONDS = 30.0
SCALE = 0.1  # of the hospitals' patients
T = TypeVar("T")


class NoProgressError(RuntimeError):
    """A run, or the site, that stands still."""


@dataclass(frozen=True)
class Ended:
    """A run that is over: what each round made, of whom, and how long it took."""

    pk: int
    seconds: float
    status: str
    reason: str
    final_sha256: str
    rounds: tuple[tuple[int, str, str, tuple[str, ...]], ...]  # number, status, sha256, counted


@dataclass
class Site:
    """The installation as somebody sees it who starts a run and looks how it goes on."""

    stack: Stack
    _token: str = ""

    def call(self, path: str, body: Any = None) -> Any:
        """Ask until the site answers, as people do. Raises NoProgressError."""
        deadline = time.monotonic() + WEB_SECONDS
        while True:
            try:
                if not self._token:
                    account = {"username": "pass", "password": "pass"}
                    self._token = self._ask("/api/login", account)["token"]
                return self._ask(path, body)
            except (OSError, urllib.error.HTTPError, ValueError) as error:
                status = getattr(error, "code", None)
                if status == 401:
                    self._token = ""
                if time.monotonic() > deadline:
                    raise NoProgressError(f"{path} is not answered: {error}") from error
            self.stack.check()
            time.sleep(POLL_SECONDS)

    def is_ready(self) -> bool:
        try:
            return bool(self._ask("/readyz")["ready"])
        except (OSError, ValueError):
            return False

    def _ask(self, path: str, body: Any = None) -> Any:
        headers = {"Host": HOST, "X-Forwarded-Proto": "https", "Content-Type": "application/json"}
        if self._token:
            headers["Authorization"] = f"Bearer {self._token}"
        data = None if body is None else json.dumps(body).encode()
        url = f"http://127.0.0.1:{self.stack.web_port}{path}"
        with urllib.request.urlopen(
            urllib.request.Request(url, data, headers), timeout=10
        ) as answer:
            return json.load(answer)


def prepare(folder: Path, *, num_envoys: int, num_rounds: int, seed: int) -> None:
    """Hospitals with rows, and a plan that all of them have approved."""
    from federated.synthetic import HOSPITALS, write_synthetic_cohort
    from techlife import demonstration
    from training import services

    for number in range(-(-num_envoys // len(HOSPITALS))):
        write_synthetic_cohort(folder / f"part-{number}", seed=seed + number, scale=SCALE)
        for each in sorted((folder / f"part-{number}" / "envoys").iterdir()):
            name = f"{each.name}-{number}" if number else each.name
            (folder / "all" / "envoys").mkdir(parents=True, exist_ok=True)
            if len(list((folder / "all" / "envoys").iterdir())) < num_envoys:
                each.rename(folder / "all" / "envoys" / name)
    envoys = demonstration.import_hospitals(folder / "all", lambda line: None)
    doctors = demonstration.make_accounts(envoys)
    study = services.study_for("risk_tier")
    plan = services.plan_for(study, num_rounds=num_rounds)
    demonstration.approve_for_all(study, plan, envoys, doctors)


def run_to_its_end(site: Site, faults: deque[Fault], *, seed: int) -> Ended:
    """Start a run, strike meanwhile, and wait until it is over. Raises NoProgressError."""
    stack = site.stack
    run = site.call("/api/v1/runs", {"seed": seed})
    pk = run["id"]
    started = time.monotonic()
    struck_at = moved_at = started
    resumed_at = math.inf  # when something first went on after the last fault
    last: list[Any] = []
    while run["status"] in ("PREPARING", "TRAINING"):
        stack.check()
        now = time.monotonic()
        if faults:
            since = resumed_at if faults[0].waits else struck_at
            if now - since > faults[0].gap_seconds and stack.strike(faults[0]):
                faults.popleft()
                struck_at, resumed_at = now, math.inf
        run = site.call(f"/api/v1/runs/{pk}")
        state = ask_database(lambda: _progress(pk))
        if state != last:
            last, moved_at = state, time.monotonic()
            resumed_at = min(resumed_at, moved_at)
        if now - moved_at > PATIENCE_SECONDS:
            raise NoProgressError(f"run {pk} stands still: {state}")
        time.sleep(POLL_SECONDS)
    seconds = time.monotonic() - started
    return ask_database(lambda: _ended(pk, seconds))


def _progress(run_id: int) -> list[Any]:
    """Snapshots, rounds and assignments by status, which every step of a run changes."""
    from django.db.models import Count

    from diagnoses.models import Snapshot
    from training.models import RoundAssignment, RunParticipant, TrainingRound

    return [
        list(rows.values_list("status").order_by("status").annotate(Count("pk")))
        for rows in (
            Snapshot.objects.filter(
                pk__in=RunParticipant.objects.filter(run=run_id).values("snapshot")
            ),
            TrainingRound.objects.filter(run=run_id),
            RoundAssignment.objects.filter(training_round__run=run_id),
        )
    ]


def _ended(run_id: int, seconds: float) -> Ended:
    from training.models import ReceivedUpdate, TrainingRun

    run = TrainingRun.objects.get(pk=run_id)
    rounds = []
    for each in run.rounds.order_by("number"):
        counted = ReceivedUpdate.objects.filter(
            assignment__training_round=each, verdict=ReceivedUpdate.Verdict.ACCEPTED
        ).values_list("assignment__envoy__slug", flat=True)
        rounds.append((each.number, each.status, each.result_sha256, tuple(sorted(counted))))
    return Ended(run_id, seconds, run.status, run.reason, run.final_sha256, tuple(rounds))


def ask_database(what: Callable[[], T]) -> T:
    """Once more for as long as the server is coming back."""
    from django.db import Error, connection

    deadline = time.monotonic() + WEB_SECONDS
    while True:
        try:
            return what()
        except Error:
            connection.close()
            if time.monotonic() > deadline:
                raise
            time.sleep(POLL_SECONDS)


@dataclass
class Verdict:
    """What runs under faults have lost against one without."""

    reference: Ended
    rounds_lost: int = 0
    stuck_rows: int = 0
    identical: bool = True
    seconds: list[float] = field(default_factory=list)
    problems: list[str] = field(default_factory=list)

    def judge(self, run: Ended) -> None:
        self.seconds.append(run.seconds)
        if run.status != "FINISHED" or run.reason:
            self.problems.append(f"run {run.pk}: {run.status.lower()}. {run.reason}")
        expected = {each[0]: each for each in self.reference.rounds}
        found = {each[0]: each for each in run.rounds}
        for number, (_, status, _, counted) in expected.items():
            here = found.get(number)
            if here is None or (here[1], here[3]) != (status, counted):
                self.rounds_lost += 1
                self.problems.append(f"run {run.pk}, round {number}: {here}, not {counted}")
        if run.rounds != self.reference.rounds or run.final_sha256 != self.reference.final_sha256:
            self.identical = False

    def judge_rows(self) -> None:
        """What is still open, or was given up, when nothing is under way any more."""
        from envoys.work import kinds
        from training.services.checking import Findings, check_rows, num_open_rows

        found = Findings()
        check_rows(found)
        self.stuck_rows = num_open_rows() + found.num_problems
        self.problems += found.problems
        for kind in kinds():
            for row in kind.model.objects.filter(status="FAILED"):
                self.stuck_rows += 1
                self.problems.append(f"{kind.title} {row.pk} has failed: {row.reason}")

    def judge_lineage(self) -> None:
        """Every counted update has its object, every version its lineage."""
        from training.models import TrainingRun
        from training.services.checking import Findings, check_runs

        found = Findings()
        for _ in check_runs(found, sorted(TrainingRun.objects.values_list("pk", flat=True))):
            pass
        self.rounds_lost += found.num_problems
        self.problems += found.problems


def wait_for_rest(site: Site) -> None:
    """Until what follows a run is done, or the grace is over, and the site is ready again."""
    from training.services.checking import num_open_rows

    deadline = time.monotonic() + GRACE_SECONDS
    while time.monotonic() < deadline:
        site.stack.check()
        if ask_database(num_open_rows) == 0 and site.is_ready():
            return
        time.sleep(0.1)
