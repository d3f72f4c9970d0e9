"""Events of the audit by who, what, which row and when, newest first; fast with millions of them."""

import re
from collections.abc import Iterator
from dataclasses import dataclass
from datetime import UTC, date, datetime, time, timedelta
from typing import Any

from django.apps import apps
from django.db.models import Q, QuerySet
from django.utils import timezone

from envoys.access import ACTIONS
from envoys.csv_cells import csv_lines
from envoys.models import AuditEvent, AuditSeal, User

MAX_COUNTED = 10_000
LATE_AFTER = timedelta(minutes=15)
EXPORT_HEADER = ("number", "happened_at", "user", "username", "role", "action", "row", "seal")
# What came of a request, where it was less than done: see docs/audit.md.
OUTCOMES = ("refused", "opened", "asked", "repeated")


def find_events(
    *,
    user_id: int | None = None,
    action: str = "",
    kind: str = "",
    number: int | None = None,
    envoy_id: int | None = None,
    since: date | None = None,
    until: date | None = None,
) -> "QuerySet[AuditEvent]":
    """Newest first.

    Args:
        action: how it begins, as `refused:`.
        kind: of row, as `patient`; with `number` one row.
        envoy_id: the hospital of the person.
        since, until: days (UTC), both included.
    """
    events = AuditEvent.objects.order_by("-happened_at", "-pk")
    if user_id is not None:
        events = events.filter(user=user_id)
    if envoy_id is not None:
        # As numbers: a join would have every event looked up.
        people = User.objects.filter(envoy=envoy_id).order_by("pk").values_list("pk", flat=True)
        events = events.filter(user__in=list(people))
    if action:
        events = events.filter(action__startswith=action)
    if kind and number is not None:
        events = events.filter(target=f"{kind}:{number}")
    elif kind:
        events = events.filter(target__startswith=f"{kind}:")
    if since is not None:
        events = events.filter(happened_at__gte=_midnight(since))
    if until is not None and until < date.max:
        events = events.filter(happened_at__lt=_midnight(until + timedelta(days=1)))
    return events


def _midnight(day: date) -> datetime:
    return datetime.combine(day, time(), tzinfo=UTC)


@dataclass(frozen=True)
class EventPage:
    """Some events, and the numbers of those from which the pages before and after begin."""

    events: list[AuditEvent]
    newer: int | None
    older: int | None


def page_of_events(
    events: "QuerySet[AuditEvent]", *, size: int, before: int | None, after: int | None
) -> EventPage:
    """The newest, or those next to an event: no page counts or skips the ones before it."""
    events = events.select_related("user__envoy")
    number = before if before is not None else after
    edge = None if number is None else AuditEvent.objects.filter(pk=number).first()
    if edge is None or before is not None:
        rows = list((events.filter(_before(edge)) if edge else events)[: size + 1])
        has_older, has_newer = len(rows) > size, edge is not None
        rows = rows[:size]
    else:
        newer = events.filter(_after(edge)).order_by("happened_at", "pk")
        rows = list(newer[: size + 1])
        has_older, has_newer = True, len(rows) > size
        rows = rows[:size][::-1]
    return EventPage(
        events=rows,
        newer=rows[0].pk if rows and has_newer else None,
        older=rows[-1].pk if rows and has_older else None,
    )


def _before(edge: AuditEvent) -> Q:
    # The first part says nothing new: it is what an index can be searched by.
    same = Q(happened_at=edge.happened_at, pk__lt=edge.pk)
    return Q(happened_at__lte=edge.happened_at) & (Q(happened_at__lt=edge.happened_at) | same)


def _after(edge: AuditEvent) -> Q:
    same = Q(happened_at=edge.happened_at, pk__gt=edge.pk)
    return Q(happened_at__gte=edge.happened_at) & (Q(happened_at__gt=edge.happened_at) | same)


def lines_of(events: "QuerySet[AuditEvent]") -> Iterator[str]:
    """CSV, line by line: any number of events in flat memory."""
    rows = events.values_list(
        "pk",
        "happened_at",
        "user",
        "user__username",
        "user__role",
        "action",
        "target",
        "seal__number",
    )
    return csv_lines(EXPORT_HEADER, (_cells(row) for row in rows.iterator()))


def _cells(row: tuple[Any, ...]) -> tuple[Any, ...]:
    pk, happened_at, *others = row
    return pk, happened_at.isoformat(), *("" if value is None else value for value in others)


@dataclass(frozen=True)
class SealState:
    """How far the sealing is."""

    newest: AuditSeal | None
    num_unsealed: int  # counted up to MAX_COUNTED
    num_not_stored: int
    is_refused: bool  # a head is not in storage after a while: out of reach, or another lies there
    is_late: bool

    @property
    def num_unsealed_shown(self) -> str:
        is_more = self.num_unsealed >= MAX_COUNTED
        return f"{self.num_unsealed:,}{' or more' if is_more else ''}"


def seal_state() -> SealState:
    unsealed = AuditEvent.objects.filter(seal=None).order_by("pk")
    oldest = unsealed.first()
    waiting = AuditSeal.objects.filter(stored_at=None)
    return SealState(
        newest=AuditSeal.objects.order_by("-number").first(),
        num_unsealed=unsealed[:MAX_COUNTED].count(),
        num_not_stored=waiting.count(),
        # Heads are stored in order: one that stays behind was refused, or waits for storage.
        is_refused=waiting.filter(sealed_at__lt=timezone.now() - LATE_AFTER).exists(),
        is_late=oldest is not None and oldest.happened_at < timezone.now() - LATE_AFTER,
    )


def kinds_of_rows() -> list[tuple[str, str]]:
    """What an event can be about: kind, and what it is called."""
    is_ours = re.compile(r"(envoys|diagnoses|training|inference|publichealth)\.")
    found = [
        (model._meta.model_name or "", str(model._meta.verbose_name))
        for model in apps.get_models()
        if is_ours.match(model.__module__)
    ]
    return sorted(found, key=lambda each: each[1])


def known_actions() -> list[str]:
    """To choose from: what the access list calls what is done, and what may come of it."""
    return [*(f"{each}:" for each in OUTCOMES), *sorted({each.name for each in ACTIONS})]
