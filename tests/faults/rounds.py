"""Runs, undisturbed and under faults, one after the other."""

import json
import math
import shutil
import time
import urllib.error
import urllib.request
from collections import deque
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeVar

from tests.faults.plan import Fault
from tests.faults.stack import HOST, POLL_SECONDS, Stack
from tests.faults.storage import remove_folders
from tests.faults.verdict import Ended, look_at
from tests.s3_server import s3_client

PATIENCE_SECONDS = 120.0  # without a word of progress a run is lost
GRACE_SECONDS = 60.0  # for what follows a run's end, as its report
WEB_SECONDS = 30.0
SCALE = 0.1  # of the hospitals' patients
T = TypeVar("T")


class NoProgressError(RuntimeError):
    """A run, or the site, that stands still."""


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


def prepare(
    folder: Path, *, num_envoys: int, num_rounds: int, strategy: str, seed: int
) -> tuple[str, ...]:
    """Hospitals with rows, and a plan that all of them have approved; returns their slugs."""
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
    plan = services.plan_for(study, num_rounds=num_rounds, strategy=strategy)
    demonstration.approve_for_all(study, plan, envoys, doctors)
    return tuple(sorted(envoy.slug for envoy in envoys))


def run_to_its_end(site: Site, faults: deque[Fault], *, seed: int) -> Ended:
    """Start a run, strike meanwhile, wait until it is over and all is at rest, and look at it.

    Then what it has stored by its content is removed: the next run has the same seed, and would
    find there what it has recorded and not stored. What struck nobody goes back to `faults`.

    Raises NoProgressError.
    """
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
    wait_for_rest(site, faults)
    ended = ask_database(lambda: look_at(pk, seconds))
    _forget_content(stack)
    return ended


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


def wait_for_rest(site: Site, faults: deque[Fault]) -> None:
    """Until what follows a run is done, storage is in order and the site ready.

    Raises NoProgressError.
    """
    from training.services.checking import num_open_rows

    _wait_until(site, "rows are still open", lambda: ask_database(num_open_rows) == 0)
    if unmet := site.stack.end_storage_fault():
        faults.appendleft(unmet)
    _wait_until(site, "the site is not ready", site.is_ready)


def _wait_until(site: Site, otherwise: str, is_so: Callable[[], bool]) -> None:
    deadline = time.monotonic() + GRACE_SECONDS
    while not is_so():
        site.stack.check()
        if time.monotonic() > deadline:
            raise NoProgressError(f"{GRACE_SECONDS:.0f} s after a run {otherwise}")
        time.sleep(0.1)


def _forget_content(stack: Stack) -> None:
    """Remove what is stored under the hash of its content, and what workers have built of it."""
    from django.conf import settings

    from training.objects import params_key
    from training.services.updates import client_state_key

    named = {params_key(""), client_state_key(""), "snapshots/"}
    folders = {key.partition("/")[0] for key in named}
    remove_folders(s3_client(stack.s3), folders)
    arrays = Path(settings.DATA_DIR, "arrays")
    if arrays.exists():  # of a run that has failed before
        shutil.rmtree(arrays)
