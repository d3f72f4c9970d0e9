"""Work that must not be lost: a row that a worker claims under a lease, and shows its progress.

Every kind of background work is a row. Whoever does it takes the row's lease with one conditional
UPDATE, renews it while working and ends it with another; a row whose lease ran out belongs to
nobody, and the sweeper enqueues it again. The lease only decides who may try: the row's last
conditional UPDATE decides whose result counts.
"""

import os
import socket
import time
import uuid
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from datetime import timedelta
from typing import Any, ClassVar, Self

from celery import Task
from django.conf import settings
from django.db import models, transaction
from django.db.models import F, Q, Value
from django.db.models.functions import Concat
from django.utils import timezone

from envoys import audit
from envoys.errors import LostObjectError, NotNowError, StorageError
from envoys.models import Envoy, User

MAX_ATTEMPTS = 10


def lease_holder() -> str:
    """Who holds a claim, for the page and the log: host, process and a nonce."""
    return f"{socket.gethostname()[:40]}:{os.getpid()}:{uuid.uuid4().hex[:8]}"


class WorkQuerySet(models.QuerySet[Any]):
    def unfinished(self) -> Self:
        return self.filter(status__in=[self.model.PENDING, self.model.WORKING])

    def claimable(self) -> Self:
        """Waiting, or in the hands of someone who has not been heard of for a lease."""
        return self.filter(
            Q(status=self.model.PENDING)
            | Q(status=self.model.WORKING, leased_until__lt=timezone.now())
        )

    def claim(self, ids: Iterable[int]) -> list[Any]:
        """Take the lease of those that are claimable; returns the rows won, in order of id."""
        holder = lease_holder()
        self.filter(pk__in=list(ids)).claimable().update(
            status=self.model.WORKING,
            attempt=F("attempt") + 1,
            holder=holder,
            leased_until=timezone.now() + timedelta(seconds=settings.LEASE_SECONDS),
        )
        return list(self.filter(holder=holder, status=self.model.WORKING).order_by("pk"))

    def failed(self) -> Self:
        return self.filter(status="FAILED")

    def renew(self, holder: str) -> int:
        return self.filter(holder=holder, status=self.model.WORKING).update(
            leased_until=timezone.now() + timedelta(seconds=settings.LEASE_SECONDS)
        )

    def finish(self, row: Any, **values: Any) -> bool:
        """End work on a row that has not ended; False if another worker's result counts."""
        updated = self.filter(pk=row.pk).unfinished().update(leased_until=None, **values)
        if updated:
            for name, value in values.items():
                setattr(row, name, value)
        return bool(updated)

    def finish_all(self, rows: Sequence[Any], **values: Any) -> set[int]:
        """As `finish` for many in two statements; returns the keys of those that had not ended.

        Call it in a transaction.
        """
        standing = self.filter(pk__in=[row.pk for row in rows]).unfinished()
        # In order of id, so that two who record the same rows wait for each other, not for ever.
        ids = set(standing.select_for_update().order_by("pk").values_list("pk", flat=True))
        self.filter(pk__in=ids).update(leased_until=None, **values)
        for row in rows:
            if row.pk in ids:
                for name, value in values.items():
                    setattr(row, name, value)
        return ids

    def hand_back(self, row: Any, **values: Any) -> bool:
        """As `finish`, for who gives up: only while the lease is still theirs."""
        mine = self.filter(holder=row.holder, status=self.model.WORKING)
        return mine.finish(row, **values)

    def fail_or_postpone(self, row: Any, error: Exception) -> bool:
        """Hand back what met a trouble, with the reason on its row; False if the lease was lost.

        Storage that is out of reach may come back: it is done again a lease from now, up to
        `MAX_ATTEMPTS` times. Anything else, and an object that is gone, fails at once.
        """
        may_pass = isinstance(error, StorageError | OSError)
        may_pass = may_pass and not isinstance(error, LostObjectError)
        if not may_pass or row.attempt >= MAX_ATTEMPTS:
            return self.hand_back(row, status="FAILED", reason=str(error))
        return self.hand_back(
            row,
            status=self.model.PENDING,
            reason=f"Attempt {row.attempt}: {error}",
            enqueued_at=timezone.now(),  # due again after a lease
        )

    def give_up(self) -> int:
        """Fail what has been begun too often without an end; returns how many rows.

        Whoever works on it dies of it, or is killed: for ever is no plan.
        """
        return (
            self.claimable()
            .filter(attempt__gte=MAX_ATTEMPTS)
            .update(
                status="FAILED",
                leased_until=None,
                reason=Concat(
                    Value(f"given up after {MAX_ATTEMPTS} attempts, the worker ended each time. "),
                    "reason",
                    output_field=models.TextField(),
                ),
            )
        )

    def due(self) -> Self:
        """What the sweeper enqueues: nobody's, and not enqueued a moment ago."""
        moment_ago = timezone.now() - timedelta(seconds=settings.LEASE_SECONDS)
        return self.claimable().filter(Q(enqueued_at__isnull=True) | Q(enqueued_at__lt=moment_ago))


class LeasedWork(models.Model):
    """The fields of work under a lease; a model with statuses of its own names them below."""

    class Status(models.TextChoices):
        PENDING = "PENDING", "Waiting"
        RUNNING = "RUNNING", "Running"
        COMPLETE = "COMPLETE", "Complete"
        FAILED = "FAILED", "Failed"

    PENDING: ClassVar[str] = "PENDING"
    WORKING: ClassVar[str] = "RUNNING"

    status = models.CharField(max_length=16, choices=Status.choices, default="PENDING")
    reason = models.TextField(blank=True)  # why it failed, in words
    attempt = models.PositiveIntegerField(default=0)
    holder = models.CharField(max_length=80, blank=True)
    leased_until = models.DateTimeField(null=True, blank=True)
    enqueued_at = models.DateTimeField(null=True, blank=True)
    num_done = models.PositiveIntegerField(default=0)
    num_total = models.PositiveIntegerField(default=0)

    objects: ClassVar = WorkQuerySet.as_manager()

    class Meta:
        abstract = True

    @property
    def is_active(self) -> bool:
        return self.status in (self.PENDING, self.WORKING)

    @property
    def percent(self) -> int:
        # Not the numbers: how many admissions a hospital has is not told in passing, and with
        # them a hidden count could be worked out.
        return min(100, 100 * self.num_done // max(self.num_total, 1))


class Progress:
    """Shows how far a row's work is, and renews its lease: a write a second at the most."""

    def __init__(self, row: LeasedWork) -> None:
        self._row = row
        self._shown_at = 0.0

    def show(self, num_done: int, num_total: int) -> None:
        now = time.monotonic()
        if now - self._shown_at < 1.0 and num_done < num_total:
            return
        self._shown_at = now
        rows = type(self._row).objects.filter(pk=self._row.pk, holder=self._row.holder)
        rows.unfinished().update(
            num_done=num_done,
            num_total=num_total,
            leased_until=timezone.now() + timedelta(seconds=settings.LEASE_SECONDS),
        )


@dataclass(frozen=True)
class WorkKind:
    model: type[LeasedWork]
    task: Task
    title: str  # what is being done, for the page
    about: str  # the field of what it is done for, as `select_related` takes it
    retry: Callable[..., object] | None  # where rows have rules of their own; else `retry` does it
    failed: Callable[[], WorkQuerySet]  # what has failed and can still be retried
    for_deleted: bool  # goes on after what it is done for has been deleted

    @property
    def name(self) -> str:
        return str(self.model._meta.model_name)

    def about_of(self, row: LeasedWork) -> str:
        """What a row's work is done for, as a hospital; never a patient."""
        return str(getattr(row, self.about.partition("__")[0]) or row)


_kinds: list[WorkKind] = []


def register(
    model: type[LeasedWork],
    task: Task,
    *,
    title: str = "",
    about: str = "envoy",
    retry: Callable[..., object] | None = None,
    failed: Callable[[], WorkQuerySet] | None = None,
    for_deleted: bool = False,
) -> None:
    """Let the sweeper look after a kind of work, whose task takes the id of a row.

    Called by the app that owns the rows.

    Args:
        title: what is being done; the model's name where not given.
        about: the foreign key to what it is done for, with what its `str` needs.
        retry: `retry(row, retried_by=…)`, for work that somebody else than the sweeper hands out.
        failed: what has failed and can still be retried; everything that has, where not given.
        for_deleted: it goes on after the hospital that it is done for has been deleted.
    """
    title = title or str(model._meta.verbose_name).capitalize()
    _kinds.append(
        WorkKind(model, task, title, about, retry, failed or model.objects.failed, for_deleted)
    )


def kinds() -> tuple[WorkKind, ...]:
    """Every kind of work there is, in the order in which the apps are installed."""
    return tuple(_kinds)


def kind_of(row: LeasedWork) -> WorkKind:
    return next(kind for kind in _kinds if kind.model is type(row))


def retry(row: LeasedWork, *, retried_by: User | None) -> LeasedWork:
    """Do again what has failed, counted from the first attempt.

    Raises:
        NotNowError: it has not failed, or what it was done for is gone.
    """
    kind = kind_of(row)
    if kind.retry:
        kind.retry(row, retried_by=retried_by)
        row.refresh_from_db()
        return row
    envoy = getattr(row, "envoy", None)
    if envoy and envoy.status == Envoy.Status.DELETED and not kind.for_deleted:
        raise NotNowError(f"{envoy} is deleted: there is nothing left to do it with")
    with transaction.atomic():
        failed = kind.model.objects.filter(pk=row.pk, status="FAILED")
        if not failed.update(
            status=kind.model.PENDING,
            reason="",
            attempt=0,
            num_done=0,
            leased_until=None,
            enqueued_at=timezone.now(),
        ):
            row.refresh_from_db()
            status = row.get_status_display().lower()
            raise NotNowError(f"only work that has failed can be retried: this is {status}")
        audit.record(retried_by, "retried work", row)
        kind.task.delay_on_commit(row.pk)
    row.refresh_from_db()
    return row


def enqueue_due() -> int:
    """Enqueue again whatever waits or was dropped, within reason; returns how many rows."""
    num_enqueued = 0
    for kind in _kinds:
        if kind.retry:
            continue  # somebody else hands it out
        kind.model.objects.give_up()
        ids = list(kind.model.objects.due().order_by("pk").values_list("pk", flat=True))
        if ids:
            kind.model.objects.filter(pk__in=ids).update(enqueued_at=timezone.now())
            for pk in ids:
                kind.task.delay(pk)
            num_enqueued += len(ids)
    return num_enqueued
