"""Readings as they come in: checked, stored, scored with the released model, and let go again."""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta

from django.conf import settings
from django.db import transaction
from django.utils import timezone

from diagnoses.services.batches import batched
from envoys import audit
from envoys.errors import NotNowError
from envoys.models import Envoy, User
from federated.cohorts.values import parse_id
from federated.errors import FederatedError, InvalidValueError
from federated.plain_text import is_formula
from federated.readings import INPUT_NAMES, input_named
from federated.targets import READINGS, RISK_TIERS
from publichealth.models import Reading
from publichealth.services import serving
from training.models import ModelVersion

REMOVED_AT_ONCE = 2_000  # one transaction: short enough for others to get their turn
RECORDED_AT_ONCE = 2_000  # likewise
CLOCKS_DIFFER = timedelta(minutes=5)  # a device's and ours, at the most
EARLIEST = datetime(1900, 1, 1, tzinfo=UTC)  # before it a date is a mistake
MAX_CITY_LENGTH = 60
OUTCOMES = (0, 1)
TIERS = tuple(range(len(RISK_TIERS)))


@dataclass(frozen=True)
class NewReading:
    """What was measured once; see `federated.readings.INPUTS` for units and ranges.

    Attributes:
        values: by input; what was not measured is left out, and one at least is there.
        outcome: 1 for high risk, 0 for low; None where it is not known.
        tier: 0, 1, 2 for Low, Medium, High; None where it is not known.
    """

    subject_id: str
    measured_at: datetime
    values: Mapping[str, float] = field(default_factory=dict)
    city: str = ""
    outcome: int | None = None
    tier: int | None = None


@dataclass(frozen=True)
class ReadingProblem:
    """What is wrong with one field of a reading.

    Attributes:
        row: the reading's place among those given, from 0.
        field: as a column is called; `values` where it is none in particular.
    """

    row: int
    field: str
    text: str


class InvalidReadingsError(FederatedError):
    """Readings that cannot be: a problem for each wrong field; nothing of them was recorded."""

    def __init__(self, problems: Sequence[ReadingProblem]) -> None:
        super().__init__("\n".join(f"row {each.row + 1}: {each.text}" for each in problems))
        self.problems = list(problems)


@dataclass(frozen=True)
class Recorded:
    """How many readings were new, and how many were there already."""

    num_new: int
    num_known: int


def record_readings(
    envoy: Envoy, new: Sequence[NewReading], *, recorded_by: User | None = None
) -> Recorded:
    """Store a node's readings, and score those without an outcome if a model is released.

    All are checked before the first is stored. One of a subject and moment that the node has
    already is left as it is, so that the same readings may be sent twice.

    Args:
        recorded_by: who sent them, for the audit; None for the installation itself.
    Raises:
        InvalidReadingsError: with the problems of all of them.
        NotNowError: the envoy is deleted, or is a hospital: studies look for patients there.
    """
    problems = problems_of(new)
    if problems:
        raise InvalidReadingsError(problems)
    num_new = 0
    for batch in batched(new, RECORDED_AT_ONCE):
        with transaction.atomic():
            # One such batch at a time into a node, and none once it is being deleted.
            standing = Envoy.objects.standing().select_for_update().filter(pk=envoy.pk).first()
            if standing is None:
                raise NotNowError(f"{envoy} has been deleted: it takes no more readings")
            if Envoy.Kind(standing.kind).dataset != READINGS:
                raise NotNowError(
                    f"{envoy} is a hospital: readings belong to a node of wearables, of air and"
                    " weather, or of clinic readings"
                )
            num_new += _insert(envoy, batch)
    if recorded_by is not None:
        audit.record(recorded_by, "recorded readings", envoy)
    return Recorded(num_new=num_new, num_known=len(new) - num_new)


def problems_of(new: Sequence[NewReading]) -> list[ReadingProblem]:
    """What is wrong with readings, field by field; none, and they can be recorded."""
    latest = timezone.now() + CLOCKS_DIFFER
    return [
        ReadingProblem(row, name, text)
        for row, reading in enumerate(new)
        for name, text in _problems(reading, latest)
    ]


def _problems(reading: NewReading, latest: datetime) -> Iterator[tuple[str, str]]:
    try:
        parse_id(reading.subject_id, "subject_id")
    except InvalidValueError as error:
        yield "subject_id", str(error)
    if len(reading.city) > MAX_CITY_LENGTH or not reading.city.isprintable():
        yield "city", f"city has at most {MAX_CITY_LENGTH} characters, and can be printed"
    elif is_formula(reading.city):
        yield "city", "city begins like a formula, with =, +, - or @"
    if reading.measured_at.tzinfo is None:
        yield "measured_at", "measured_at has no time zone"
    elif reading.measured_at > latest:
        yield "measured_at", f"measured_at {reading.measured_at:%Y-%m-%d %H:%M} is in the future"
    elif reading.measured_at < EARLIEST:
        yield "measured_at", f"measured_at lies before {EARLIEST.year}"
    if not reading.values:
        yield "values", f"no input is there: it takes one at least of {', '.join(INPUT_NAMES)}"
    for name, value in reading.values.items():
        if name not in INPUT_NAMES:
            yield name, f"no input is called {name}: there are {', '.join(INPUT_NAMES)}"
            continue
        try:
            input_named(name).check(value)
        except InvalidValueError as error:
            yield name, str(error)
    if reading.outcome not in (None, *OUTCOMES):
        yield "outcome", f"outcome is 0 (low risk) or 1 (high risk), not {reading.outcome}"
    if reading.tier not in (None, *TIERS):
        yield "tier", f"tier is 0, 1 or 2 (Low, Medium, High), not {reading.tier}"


def _insert(envoy: Envoy, batch: Sequence[NewReading]) -> int:
    """Insert those that are not there; returns how many."""
    known = set(
        Reading.objects.filter(
            envoy=envoy,
            subject_id__in={reading.subject_id for reading in batch},
            measured_at__range=(
                min(reading.measured_at for reading in batch),
                max(reading.measured_at for reading in batch),
            ),
        ).values_list("subject_id", "measured_at")
    )
    fresh: dict[tuple[str, datetime], NewReading] = {}
    for reading in batch:
        key = (reading.subject_id, reading.measured_at)
        if key not in known:
            fresh.setdefault(key, reading)
    readings = list(fresh.values())
    scores, version = _scores(readings)
    Reading.objects.bulk_create(
        Reading(
            envoy=envoy,
            subject_id=reading.subject_id,
            city=reading.city,
            measured_at=reading.measured_at,
            **reading.values,
            outcome=reading.outcome,
            tier=reading.tier,
            risk_score=score,
            scored_with=version if score is not None else None,
        )
        for reading, score in zip(readings, scores, strict=True)
    )
    return len(readings)


def _scores(
    readings: Sequence[NewReading],
) -> tuple[list[float | None], ModelVersion | None]:
    """The risk of each that has no outcome, by the released model, and the model."""
    scores: list[float | None] = [None] * len(readings)
    rows = [i for i, each in enumerate(readings) if each.outcome is None and each.tier is None]
    model = serving.served_model() if rows else None
    if model is None:
        return scores, None
    risks = model.risks([readings[row].values for row in rows])
    for row, risk in zip(rows, risks, strict=True):
        scores[row] = risk
    return scores, model.version


def remove_old_readings() -> int:
    """Remove what no study trains on and no page shows any more; returns how many."""
    before = timezone.now() - timedelta(days=settings.READING_DAYS)
    old = Reading.objects.filter(outcome=None, tier=None, received_at__lt=before)
    ids = list(old.order_by("pk").values_list("pk", flat=True)[:REMOVED_AT_ONCE])
    return Reading.objects.filter(pk__in=ids).delete()[0] if ids else 0
