"""Background work of every kind, as the tasks page and its call list it."""

from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from functools import cached_property
from itertools import chain
from typing import Any

from django.db.models import QuerySet
from django.utils import timezone

from envoys.models import Envoy
from envoys.work import LeasedWork, WorkKind, kinds

MOST_LISTED = 25  # of each kind that waits, runs or has failed
MOST_ENDED = (
    1000  # of each kind; who looks for older work looks at the hospital's or the run's page
)
FAILURES_STAND = timedelta(days=30)
LONG_AGO = datetime(1970, 1, 1, tzinfo=UTC)


@dataclass(frozen=True)
class Work:
    """A row of work, in words that name no patient."""

    kind: WorkKind
    row: LeasedWork

    @property
    def about(self) -> str:
        return self.kind.about_of(self.row)

    @property
    def status(self) -> str:
        return str(self.row.get_status_display())

    @property
    def is_silent(self) -> bool:
        """Begun by a worker that has not been heard of since: the sweeper hands it out again."""
        until = self.row.leased_until
        return self.row.status == self.kind.model.WORKING and bool(until and until < timezone.now())

    @property
    def percent(self) -> int:
        return self.row.percent

    @property
    def color(self) -> str:
        if self.row.status == self.kind.model.WORKING:
            return "orange" if self.is_silent else "blue"
        colors = {
            self.kind.model.PENDING: "secondary",
            "FAILED": "red",
            "MISSED": "orange",
            "DROPPED": "orange",
        }
        return colors.get(self.row.status, "green")

    @property
    def at(self) -> datetime:
        return self.row.enqueued_at or LONG_AGO


def active_work() -> tuple[list[Work], list[Work]]:
    """What runs, and what waits for a worker, the oldest first."""
    found: list[Work] = []
    for kind in kinds():
        found += _of(kind, kind.model.objects.unfinished().order_by("pk")[:MOST_LISTED])
    in_time = _by_time(found)
    running = [each for each in in_time if each.row.status == each.kind.model.WORKING]
    return running, [each for each in in_time if each not in running]


def failed_work() -> list[Work]:
    """What has failed lately and can be retried, the newest first."""
    since = timezone.now() - FAILURES_STAND
    found: list[Work] = []
    for kind in kinds():
        rows = kind.failed().filter(enqueued_at__gt=since).order_by("-pk")
        if kind.about == "envoy" and not kind.for_deleted:
            rows = rows.exclude(envoy__status=Envoy.Status.DELETED)
        found += _of(kind, rows[:MOST_LISTED])
    return _by_time(found)[::-1]


class EndedWork:
    """What has ended, the newest first: as a list that a `Paginator` takes.

    Each kind is a table of its own: of every one as many are read as the page could hold.
    """

    def __init__(self, chosen: Iterable[WorkKind]) -> None:
        self._rows = [(kind, _ended(kind)) for kind in chosen]

    @cached_property
    def _counts(self) -> list[int]:
        return [rows[:MOST_ENDED].count() for _, rows in self._rows]

    def count(self) -> int:
        return sum(self._counts)

    def __len__(self) -> int:
        return self.count()

    def __getitem__(self, part: slice) -> list[Work]:
        newest = chain.from_iterable(
            _of(kind, rows[: part.stop])
            for (kind, rows), count in zip(self._rows, self._counts, strict=True)
            if count
        )
        return _by_time(newest)[::-1][part]


def _ended(kind: WorkKind) -> "QuerySet[Any]":
    active = [kind.model.PENDING, kind.model.WORKING]
    return kind.model.objects.exclude(status__in=active).order_by("-pk")


def _of(kind: WorkKind, rows: "QuerySet[Any]") -> Iterator[Work]:
    return (Work(kind, row) for row in rows.select_related(kind.about))


def _by_time(work: Iterable[Work]) -> list[Work]:
    return sorted(work, key=lambda each: (each.at, each.row.pk))
