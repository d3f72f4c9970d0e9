"""Synthetic nodes as envoys: their labelled readings, and nine cities whose monitors report."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta

from django.utils import timezone

from envoys.models import Envoy
from envoys.services import create_envoy
from federated.errors import FederatedError
from federated.seeds import rng_for
from federated.synthetic_cities import CITIES, draw_city
from federated.synthetic_readings import Generated
from publichealth.models import Reading
from publichealth.services.readings import NewReading, Recorded, record_readings

SPREAD_OVER = timedelta(days=30)
MONITORED = timedelta(hours=24)
EVERY = timedelta(minutes=5)  # ten an hour at least: of fewer the page shows no risk
CITIES_OFFSET = timedelta(hours=5)  # Pakistan's time


class OtherReadingsError(FederatedError):
    """The node holds synthetic readings of another recipe."""


@dataclass(frozen=True)
class SyntheticNode:
    name: str
    kind: Envoy.Kind


NODES = {
    "wearables": SyntheticNode("Wearables", Envoy.Kind.WEARABLES),
    "environment": SyntheticNode("City air", Envoy.Kind.ENVIRONMENT),
    "clinic": SyntheticNode("Clinics", Envoy.Kind.CLINIC),
}
CITY_MONITORS = SyntheticNode("City monitors", Envoy.Kind.ENVIRONMENT)


class OtherKindError(FederatedError):
    """An envoy of the name that is wanted, whose rows are something else."""


def open_node(name: str, kind: str) -> Envoy:
    """The envoy of this name, invited if it is new.

    Raises:
        OtherKindError: there is one of another kind.
        InvalidEnvoyError: the name cannot be had.
    """
    envoy = Envoy.objects.standing().filter(name=name).first()
    if envoy is None:
        # What is left in storage of an installation that was emptied was this node's own.
        return create_envoy(name=name, kind=kind, created_by=None, may_hold_objects=True)
    if envoy.kind != kind:
        raise OtherKindError(
            f"{envoy} is here already, as {envoy.get_kind_display()!r}: it cannot take readings"
            f" of the kind {Envoy.Kind(kind).label!r}"
        )
    return envoy


def record_generated(envoy: Envoy, generated: Generated, *, seed: int) -> Recorded:
    """Store a synthetic node's labelled readings, measured in the month that ended yesterday.

    Those that are there already stay as and when they are.

    Raises:
        OtherReadingsError: the node holds other readings of the same subjects.
    """
    records = generated.records
    standing = {
        row.subject_id: row.to_record()
        for row in Reading.objects.filter(envoy=envoy).exclude(outcome=None)
    }
    for record in records:
        if standing.get(record.subject_id, record) != record:
            raise OtherReadingsError(
                f"{envoy} holds synthetic readings of another seed, noise, gaps or number of rows:"
                " delete the envoy first, or start with an empty database (`make demo-health`: --fresh)"
            )
    today = timezone.now().replace(hour=0, minute=0, second=0, microsecond=0)
    seconds = rng_for("moments", seed, envoy.slug).integers(
        1, int(SPREAD_OVER.total_seconds()), len(records)
    )
    fresh = [
        NewReading(
            record.subject_id,
            today - timedelta(seconds=int(before)),
            record.values,
            outcome=record.outcome,
        )
        for record, before in zip(records, seconds, strict=True)
        if record.subject_id not in standing
    ]
    recorded = record_readings(envoy, fresh)
    return Recorded(recorded.num_new, len(records) - recorded.num_new)


def last_day_of_cities(*, seed: int) -> list[NewReading]:
    """What the nine cities' monitors have reported within 24 hours, each every five minutes."""
    now = timezone.now()
    last = now - timedelta(minutes=now.minute % 5, seconds=now.second, microseconds=now.microsecond)
    moments = [last - number * EVERY for number in range(MONITORED // EVERY)]
    return [reading for moment in reversed(moments) for reading in city_readings(moment, seed=seed)]


def city_readings(
    moment: datetime, *, seed: int, shift: Mapping[str, float] | None = None
) -> Sequence[NewReading]:
    """One reading of each city's monitor; the same of the same moment and seed.

    What only a person has, such as a heart rate, is that of a made-up passer-by.

    Args:
        shift: as `federated.synthetic_cities.draw_city` takes it.
    """
    local = moment + CITIES_OFFSET
    hour = local.hour + local.minute / 60
    return [
        NewReading(
            f"monitor-{city.name.lower()}",
            moment,
            draw_city(
                city,
                hour=hour,
                rng=rng_for("city", seed, city.name, moment.isoformat()),
                shift=shift,
            ),
            city=city.name,
        )
        for city in CITIES
    ]
