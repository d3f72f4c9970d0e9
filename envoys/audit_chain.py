"""Sealing the audit: a hash chain over its events, whose heads lie in storage as well.

A batch of events becomes a seal. Its head is the sha256 of the head before it and of every event
of the batch in the order of their numbers, so that the newest head vouches for all that was ever
sealed. Whoever changes the database alone cannot change the heads in storage with it.
"""

import hashlib
import json
import logging
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from itertools import islice
from typing import Any

from django.core.files.storage import Storage
from django.db import IntegrityError, transaction
from django.db.models import Exists, OuterRef, QuerySet
from django.utils import timezone

from envoys.errors import LostObjectError, StorageError
from envoys.models import AuditEvent, AuditSeal
from envoys.storage import director_storage, object_exists, place, read_object, write_object

MAX_EVENTS = 1_000  # of a seal: one transaction, and what `verify` holds in memory
MAX_SEALS = 200  # made or stored in one go; the next goes on
FIRST_HEAD = "0" * 64  # before the first seal
EVENT_FIELDS = ("pk", "user_id", "action", "target", "happened_at")
MAX_PROBLEMS = 100  # told in words; the others are counted
SHOWN_AT_MOST = 5  # events named in one sentence
LATE = timedelta(days=1)  # a head should lie in storage within minutes

logger = logging.getLogger(__name__)


def _line(event: tuple[Any, ...]) -> bytes:
    """An event as it is hashed: JSON, the same on every database."""
    *values, happened_at = event
    moment: datetime = happened_at
    text = moment.astimezone(UTC).strftime("%Y-%m-%dT%H:%M:%S.%fZ")
    return json.dumps([*values, text], ensure_ascii=True, separators=(",", ":")).encode()


class _Batch:
    """What follows from a batch of events: the head, and a short digest of each."""

    def __init__(self, previous: str, events: Iterable[tuple[Any, ...]]) -> None:
        chain = hashlib.sha256(previous.encode())
        self.digests: dict[int, str] = {}
        for event in events:
            line = _line(event)
            chain.update(b"\n" + line)
            self.digests[event[0]] = hashlib.sha256(line).hexdigest()[:16]
        self.head = chain.hexdigest()


def seal_events() -> int:
    """Seal whatever is not sealed, oldest first, and put the heads into storage.

    An event with a lower number than a sealed one, whose transaction was slower, is sealed with
    the next. Whether a head could be stored is told in the log, and tried again by the next call.

    Returns:
        How many events were sealed.
    """
    num_sealed = 0
    for _ in range(MAX_SEALS):
        seal = _seal_batch()
        if seal is None:
            break
        num_sealed += seal.num_events
        if seal.num_events < MAX_EVENTS:
            break
    store_heads()
    return num_sealed


def _seal_batch() -> AuditSeal | None:
    """One seal more; None if nothing waits for one, or another process is at it.

    The seal's number is unique: of two processes that follow the same seal, the second fails.
    """
    try:
        with transaction.atomic():
            last = AuditSeal.objects.order_by("-number").first()
            waiting = AuditEvent.objects.filter(seal=None).order_by("pk")
            events = list(waiting.values_list(*EVENT_FIELDS)[:MAX_EVENTS])
            if not events:
                return None
            batch = _Batch(last.head if last else FIRST_HEAD, events)
            seal = AuditSeal.objects.create(
                number=last.number + 1 if last else 1, num_events=len(events), head=batch.head
            )
            unsealed = AuditEvent.objects.filter(pk__in=batch.digests, seal=None)
            if unsealed.update(seal=seal) != len(events):
                raise IntegrityError("another process has sealed some of these events")
            return seal
    except IntegrityError as error:
        logger.info("left the audit to another process: %s", error)
        return None


def _key(number: int) -> str:
    return f"audit/{number:09d}.json"


@dataclass(frozen=True)
class StoredHead:
    """A seal as it lies in storage, out of the database's reach."""

    number: int
    previous: str
    head: str
    sealed_at: str
    digests: dict[int, str]  # of each event, by its number: to say which one was changed
    stored_at: str = ""  # until then whoever changed the database could change the seal too

    def to_json(self) -> bytes:
        values = {
            "number": self.number,
            "previous": self.previous,
            "head": self.head,
            "num_events": len(self.digests),
            "sealed_at": self.sealed_at,
            "stored_at": self.stored_at,
            "events": {str(pk): digest for pk, digest in self.digests.items()},
        }
        return json.dumps(values, separators=(",", ":")).encode()

    @classmethod
    def from_json(cls, content: bytes) -> "StoredHead":
        try:
            values = json.loads(content)
            head = cls(
                number=values["number"],
                previous=values["previous"],
                head=values["head"],
                sealed_at=values["sealed_at"],
                digests={int(pk): digest for pk, digest in values["events"].items()},
                stored_at=values.get("stored_at", ""),
            )
            _ = head.is_late  # its times can be read
            return head
        except (ValueError, KeyError, TypeError, AttributeError) as error:
            raise LostObjectError(f"it is not the head of a seal: {error!r}") from error

    @property
    def is_late(self) -> bool:
        """Whether it was out of storage for so long that it may have been made anew meanwhile."""
        if not self.stored_at:
            return False
        sealed_at, stored_at = map(datetime.fromisoformat, (self.sealed_at, self.stored_at))
        return stored_at - sealed_at > LATE


def _read_head(storage: Storage, number: int) -> StoredHead | None:
    """The head of a seal as it was stored; None if there is none.

    Raises:
        LostObjectError: something else lies in its place.
        StorageError: the storage cannot be reached.
    """
    try:
        content = read_object(storage, _key(number), sha256=None)
    except LostObjectError:
        return None
    return StoredHead.from_json(content)


def store_heads() -> int:
    """Put the heads that are not in storage there, oldest first; returns how many.

    A head that lies there already is never replaced: one that differs was stored before the
    database was changed. Nor is one put before a later one: it lay there, and was removed.
    """
    waiting = AuditSeal.objects.filter(stored_at=None).order_by("number")
    first = waiting.first()
    if first is None:
        return 0
    storage, num_stored, number = director_storage(), 0, first.number
    try:
        last = _last_stored(storage, first.number)
        before, after = waiting.filter(number__lt=last), waiting.filter(number__gte=last)
        # What is refused for good does not stand in the way of the others.
        for seal in (*before[:MAX_SEALS], *after[:MAX_SEALS]):
            number = seal.number
            if _store_head(storage, seal, is_before_another=number < last):
                AuditSeal.objects.filter(pk=seal.pk).update(stored_at=timezone.now())
                num_stored += 1
    except StorageError as error:
        logger.error("the audit's seal %s waits to be stored: %s", number, error)
    return num_stored


def _last_stored(storage: Storage, first_number: int) -> int:
    """The newest seal whose head lies in storage, from this one on; 0 if none does."""
    seals = AuditSeal.objects.filter(number__gte=first_number).order_by("-number")
    numbers = seals.values_list("number", flat=True).iterator()
    return next((each for each in numbers if object_exists(storage, _key(each))), 0)


def _store_head(storage: Storage, seal: AuditSeal, *, is_before_another: bool) -> bool:
    try:
        stored = _read_head(storage, seal.number)
        is_another = stored is not None and stored.head != seal.head
    except LostObjectError:
        stored, is_another = None, True
    if is_another:
        logger.error(
            "the audit's seal %s is not the one that lies in storage: run manage.py verify_audit",
            seal.number,
        )
        return False
    if stored is None and is_before_another:
        logger.error(
            "the audit's seal %s is missing in storage, where a later one lies: it was removed"
            " there, and is not put back. Run manage.py verify_audit",
            seal.number,
        )
        return False
    if stored is None:
        before = AuditSeal.objects.filter(number=seal.number - 1).first()
        head = StoredHead(
            number=seal.number,
            previous=before.head if before else FIRST_HEAD,
            head=seal.head,
            sealed_at=seal.sealed_at.isoformat(),
            digests=_Batch(FIRST_HEAD, _events_of(seal)).digests,
            stored_at=timezone.now().isoformat(),
        )
        write_object(storage, _key(seal.number), head.to_json())
    return True


def _events_of(seal: AuditSeal) -> "QuerySet[AuditEvent, tuple[Any, ...]]":
    events = AuditEvent.objects.filter(seal=seal).order_by("pk")
    return events.values_list(*EVENT_FIELDS)


@dataclass
class Findings:
    """What looking through the sealed audit came to."""

    problems: list[str] = field(default_factory=list)  # in words, the first of them
    num_problems: int = 0
    num_seals: int = 0
    num_events: int = 0
    num_not_stored: int = 0  # seals whose head is not in storage yet
    num_late: int = 0  # whose head was put there more than a day after the seal was made
    num_unsealed: int = 0

    def add(self, problem: str) -> None:
        self.num_problems += 1
        if len(self.problems) < MAX_PROBLEMS:
            self.problems.append(problem)


def num_seals() -> int:
    return AuditSeal.objects.count()


def verify_seals(*, reads_every_head: bool = True) -> Iterator[Findings]:
    """Compute the chain anew from the events, and hold it against the seals and the stored heads.

    Goes from seal to seal, and yields after each what was found so far, at last the whole. One
    seal's events are in memory at a time.

    Args:
        reads_every_head: else only the newest head in storage is read. It vouches for all before
            it, but does not say where something was changed.
    Raises:
        StorageError: the storage cannot be reached, which says nothing about the audit.
    """
    storage, found = director_storage(), Findings()
    newest = AuditSeal.objects.order_by("-number").first()
    last_number = newest.number if newest else 0
    first_to_read = 1 if reads_every_head else _newest_stored(storage, last_number)
    previous, expected_number, waiting = FIRST_HEAD, 1, list[int]()
    seals = AuditSeal.objects.filter(number__lte=last_number).order_by("number")
    for seal in seals.iterator():
        stored = None
        if seal.number >= first_to_read:
            stored = _stored_head(storage, seal, found)
            if stored is None and seal.stored_at is None:
                waiting.append(seal.number)
            elif stored is not None and waiting:
                found.add(_skipped(waiting, storage))
                waiting.clear()
        if seal.number != expected_number:
            found.add(_gap(expected_number, seal.number - 1))
            previous = stored.previous if stored else ""
        _verify_seal(found, seal, previous, stored)
        previous, expected_number = stored.head if stored else seal.head, seal.number + 1
        yield found
    for problem in (*_after_the_last(storage, last_number), *_of_no_seal()):
        found.add(problem)
    found.num_unsealed = AuditEvent.objects.filter(seal=None).count()
    yield found


def _newest_stored(storage: Storage, last_number: int) -> int:
    """The newest seal whose head lies in storage: heads are stored in order."""
    number = last_number
    while number > 1 and not object_exists(storage, _key(number)):
        number -= 1
    return number


def _stored_head(storage: Storage, seal: AuditSeal, found: Findings) -> StoredHead | None:
    try:
        stored = _read_head(storage, seal.number)
    except LostObjectError as error:
        found.add(f"Seal {seal.number}: its head in {place(storage)} was rewritten: {error}.")
        return None
    if stored is None and seal.stored_at is None:
        found.num_not_stored += 1
        if timezone.now() - seal.sealed_at > LATE:
            found.add(
                f"Seal {seal.number}: made at {seal.sealed_at:%Y-%m-%d %H:%M}, its head is not in"
                f" {place(storage)} yet: it was never stored, or it was removed there."
            )
    elif stored is None:
        found.add(f"Seal {seal.number}: its head was put into {place(storage)} and is gone.")
    elif stored.is_late:
        found.num_late += 1
    return stored


def _skipped(numbers: list[int], storage: Storage) -> str:
    """Heads are stored in order: what is missing before a later one lay there once."""
    one = len(numbers) == 1
    which = (
        f"Seal {numbers[0]}: its head is"
        if one
        else f"Seals {numbers[0]} to {numbers[-1]}: their heads are"
    )
    return f"{which} missing in {place(storage)}, where a later one lies: removed there."


def _gap(first: int, last: int) -> str:
    which = f"Seal {first} was" if first == last else f"Seals {first} to {last} were"
    return f"{which} removed from the database."


def _verify_seal(
    found: Findings, seal: AuditSeal, previous: str, stored: StoredHead | None
) -> None:
    """Args: previous: the head before it; empty where that seal is gone and nothing names it."""
    events = _events_of(seal).iterator()
    batch = _Batch(previous, islice(events, 10 * MAX_EVENTS))  # more than it can ever have had
    num_events = len(batch.digests)
    found.num_seals += 1
    found.num_events += num_events
    problems = list(_differences(stored, batch)) if stored else []
    if num_events != seal.num_events and not problems:
        difference = _added_or_removed(num_events - seal.num_events)
        problems.append(f"it says {seal.num_events} events and has {num_events}: {difference}")
    if stored is not None and stored.head != seal.head:
        problems.append("it was rewritten: its head is not the one in storage")
    elif stored is not None and stored.sealed_at != seal.sealed_at.isoformat():
        problems.append("the time of the seal was changed")
    if previous and batch.head != seal.head and not problems:
        problems.append("its events or its head were changed: they do not give its head")
    for problem in problems:
        found.add(f"Seal {seal.number}: {problem}.")


def _differences(stored: StoredHead, batch: _Batch) -> Iterator[str]:
    """Which events are not as they were when the head was stored."""
    then, now = stored.digests, batch.digests
    for pks, what in (
        ([pk for pk in then if pk in now and now[pk] != then[pk]], "changed, or exchanged"),
        ([pk for pk in then if pk not in now], "removed"),
        ([pk for pk in now if pk not in then], "added"),
    ):
        if pks:
            shown = ", ".join(str(pk) for pk in sorted(pks)[:SHOWN_AT_MOST])
            more = f" and {len(pks) - SHOWN_AT_MOST} more" if len(pks) > SHOWN_AT_MOST else ""
            word = "event" if len(pks) == 1 else "events"
            yield f"{word} {shown}{more} {'was' if len(pks) == 1 else 'were'} {what}"


def _added_or_removed(difference: int) -> str:
    word = "event was" if abs(difference) == 1 else "events were"
    return f"{abs(difference)} {word} {'added' if difference > 0 else 'removed'}"


def _after_the_last(storage: Storage, last_number: int) -> Iterator[str]:
    """Heads in storage of seals that the database no longer has."""
    number = last_number + 1
    # A seal that was made since the last one was looked up is no news.
    while object_exists(storage, _key(number)):
        if not AuditSeal.objects.filter(number=number).exists():
            yield (
                f"Seal {number} was cut off, with its events: its head lies in {place(storage)},"
                " the database has no such seal."
            )
        number += 1


def _of_no_seal() -> Iterator[str]:
    its_seal = AuditSeal.objects.filter(pk=OuterRef("seal"))
    num_events = AuditEvent.objects.filter(~Exists(its_seal), seal__isnull=False).count()
    if num_events:
        yield f"{num_events} events name a seal that is not there: it was removed."
