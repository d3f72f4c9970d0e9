"""No test writes outside its own folder, and none needs a worker or a broker."""

import os
import shutil
from collections import deque
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from celery.app.task import Task
from django.conf import settings
from django.core.cache import cache
from django.db import connection

from envoys.models import Envoy
from federated.errors import FederatedError
from federated.synthetic import write_synthetic_cohort
from inference.services import load_model
from publichealth.rate_limit import forget_counts
from publichealth.services.serving import _served_in, load_served
from training import services
from training.arrays import _open
from training.objects import load_base_params


@pytest.fixture(autouse=True)
def folders(settings: Any, tmp_path: Path) -> None:
    """Objects and arrays below the test's own folder, and nothing remembered of another test's."""
    settings.DATA_DIR = tmp_path
    settings.OBJECT_FOLDER = tmp_path / "objects"
    settings.DIRECTOR_S3_BUCKET_NAME = ""
    settings.ENVOY_S3_BUCKET_NAME = ""
    for cached in (load_model, _open, load_base_params, load_served, _served_in):
        cached.cache_clear()
    cache.clear()
    forget_counts()


class WorkQueue:
    """Stands for broker, worker and beat: keeps each message until the test has it worked off."""

    def __init__(self) -> None:
        self.messages: deque[tuple[Task, tuple[Any, ...]]] = deque()
        self.queues: list[str | None] = []  # one a message: the queue it named
        self.refusals: list[FederatedError] = []  # what a worker would log

    def add(
        self,
        task: Task,
        args: Any = None,
        kwargs: Any = None,
        *,
        queue: str | None = None,
        expires: float | None = None,
    ) -> None:
        assert not kwargs
        self.messages.append((task, tuple(args or ())))
        self.queues.append(queue)

    def commit(self) -> None:
        """Do what waits for the commit that the test's own transaction never makes."""
        while connection.run_on_commit:
            connection.run_on_commit.pop(0)[1]()

    def names(self) -> list[str]:
        """What has been enqueued and not been worked off, without `training.tasks.`."""
        self.commit()
        return [task.name.rpartition(".")[2] for task, _ in self.messages]

    def lose(self) -> list[str]:
        """A broker that lost its memory."""
        lost = self.names()
        self.messages.clear()
        return lost

    def work(self, *, copies: int = 1, until: Callable[[], bool] = lambda: False) -> None:
        """Work off every message, and those that come of it, as a worker does.

        Args:
            copies: how often each message is delivered.
            until: stops before the next message once this holds.
        """
        while self.names() and not until():
            task, args = self.messages.popleft()
            for _ in range(copies):
                try:
                    task(*args)
                except FederatedError as error:
                    self.refusals.append(error)

    def sweep(self) -> list[str]:
        """One round of the sweeper; returns what it has enqueued."""
        services.advance_runs()
        return self.names()

    def work_and_sweep(self, *, copies: int = 1, until: Callable[[], bool] = lambda: False) -> None:
        self.work(copies=copies, until=until)
        while not until() and self.sweep():
            self.work(copies=copies, until=until)


@pytest.fixture
def queue(db: None, monkeypatch: pytest.MonkeyPatch) -> WorkQueue:
    from federated.local_training import use_one_thread  # torch: not for every test

    use_one_thread()
    monkeypatch.setattr(os, "fsync", lambda descriptor: None)  # what is lost with the power may be
    # A message for every step, so that each can be looked at.
    monkeypatch.setattr(settings, "GO_ON_SECONDS", 0)
    queue = WorkQueue()
    monkeypatch.setattr(Task, "apply_async", lambda self, *args, **kw: queue.add(self, *args, **kw))
    return queue


@pytest.fixture(scope="session")
def cohort(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Four small hospitals; the last has too few patients to take part."""
    folder = tmp_path_factory.mktemp("cohort")
    names = write_synthetic_cohort(folder, seed=7, scale=0.03)
    shutil.rmtree(folder / "envoys" / names[1])  # a fifth would add seconds and no case
    return folder


@pytest.fixture
def hospitals(db: None, cohort: Path) -> list[Envoy]:
    """The cohort's hospitals with their rows; the last one has too few patients to take part."""
    from tests.federation import import_hospitals

    return import_hospitals(cohort)
