"""What the readings of a city's monitors over some time add up to, counted by the database.

Readings are of two sorts. The subject of a node of air and weather is a monitor: a place. That of
any other node is a person, and ten readings may be one person's, so none of them counts here:
neither risk nor air, number or time of theirs is told by city. Of a monitor the air is told from
its first reading, and a risk from ten on. The synthetic monitors of the cities report a made-up
passer-by with each reading, under the monitor as the subject: nobody is told of there either.
"""

from collections import defaultdict
from collections.abc import Iterable
from dataclasses import asdict, dataclass, field
from datetime import datetime
from typing import Any, Self

from django.db.models import Count, F, FloatField, Max, Q, Sum, Value
from django.db.models.functions import Coalesce

from federated.small_counts import MIN_PATIENTS
from publichealth.air import AQI_STEPS, PM25_STEPS
from publichealth.models import Reading

# A risk from this share of the threshold on is medium, below it low.
MEDIUM_FROM = 0.5
NUMBERS = (
    "num_readings",
    "num_scored",
    "risk_sum",
    "num_medium",
    "num_high",
    "num_aqi",
    "aqi_sum",
    "num_pm25",
    "pm25_sum",
)
COUNTS = ("aqi_counts", "pm25_counts")
TIMES = ("newest_at", "air_at")
# The threshold of the version that gave the score; one that is gone has none to ask for.
THRESHOLD = Coalesce(F("scored_with__serving__threshold"), Value(0.5), output_field=FloatField())


@dataclass
class Tally:
    """Tallies add up: a city's hours to its day, the cities to the country.

    Attributes:
        num_scored: of the readings, those that a released model has given a risk.
        num_medium, num_high: of those scored, by the threshold of the version that scored them.
        aqi_counts, pm25_counts: readings per step of `AQI_STEPS` and `PM25_STEPS`.
        newest_at, air_at: when the newest reading, and the newest with an AQI, was measured.
    """

    num_readings: int = 0
    num_scored: int = 0
    risk_sum: float = 0.0
    num_medium: int = 0
    num_high: int = 0
    num_aqi: int = 0
    aqi_sum: float = 0.0
    num_pm25: int = 0
    pm25_sum: float = 0.0
    aqi_counts: list[int] = field(default_factory=lambda: [0] * len(AQI_STEPS))
    pm25_counts: list[int] = field(default_factory=lambda: [0] * len(PM25_STEPS))
    newest_at: datetime | None = None
    air_at: datetime | None = None

    @property
    def mean_risk(self) -> float | None:
        """Of a few readings there is no mean to show."""
        return self.risk_sum / self.num_scored if self.num_scored >= MIN_PATIENTS else None

    @property
    def mean_aqi(self) -> float | None:
        return self.aqi_sum / self.num_aqi if self.num_aqi else None

    @property
    def mean_pm25(self) -> float | None:
        return self.pm25_sum / self.num_pm25 if self.num_pm25 else None

    def to_json(self) -> dict[str, Any]:
        found = asdict(self)
        for name in TIMES:
            found[name] = found[name].isoformat() if found[name] else None
        return found

    @classmethod
    def from_json(cls, stored: dict[str, Any]) -> Self:
        times = {
            name: datetime.fromisoformat(stored[name]) if stored[name] else None for name in TIMES
        }
        return cls(**{**stored, **times})


def added(tallies: Iterable[Tally]) -> Tally:
    several = list(tallies)
    if not several:
        return Tally()
    total: dict[str, Any] = {name: sum(getattr(t, name) for t in several) for name in NUMBERS}
    for name in COUNTS:
        counts = zip(*(getattr(t, name) for t in several), strict=True)
        total[name] = [sum(each) for each in counts]
    for name in TIMES:
        times = [getattr(t, name) for t in several]
        total[name] = max((at for at in times if at), default=None)
    return Tally(**total)


def added_by_city(spans: Iterable[dict[str, Tally]]) -> dict[str, Tally]:
    by_city: dict[str, list[Tally]] = defaultdict(list)
    for span in spans:
        for city, tally in span.items():
            by_city[city].append(tally)
    return {city: added(tallies) for city, tallies in by_city.items()}


def tallies_between(start: datetime, end: datetime) -> dict[str, Tally]:
    """By city, what monitors measured from `start` up to, not including, `end`; one query."""
    rows = (
        Reading.objects.of_monitors()
        .filter(measured_at__gte=start, measured_at__lt=end)
        .exclude(city="")
        .order_by()
        .values("city")
        .annotate(**_AGGREGATES)
    )
    return {row["city"]: _tally(row) for row in rows}


def _counts(name: str, steps: tuple[float, ...]) -> dict[str, Count]:
    """How many readings lie in each step, the last of which is open above."""
    counts = {}
    for number, low in enumerate(steps):
        within = Q(**{f"{name}__gte": low})
        if number + 1 < len(steps):
            within &= Q(**{f"{name}__lt": steps[number + 1]})
        counts[f"{name}_{number}"] = Count("pk", filter=within)
    return counts


_AGGREGATES: dict[str, Any] = {
    "num_readings": Count("pk"),
    "num_scored": Count("risk_score"),
    "risk_sum": Sum("risk_score", default=0.0),
    "num_medium": Count(
        "pk",
        filter=Q(risk_score__gte=THRESHOLD * MEDIUM_FROM, risk_score__lt=THRESHOLD),
    ),
    "num_high": Count("pk", filter=Q(risk_score__gte=THRESHOLD)),
    "num_aqi": Count("aqi"),
    "aqi_sum": Sum("aqi", default=0.0),
    "num_pm25": Count("pm25"),
    "pm25_sum": Sum("pm25", default=0.0),
    "newest_at": Max("measured_at"),
    "air_at": Max("measured_at", filter=Q(aqi__isnull=False)),
    **_counts("aqi", AQI_STEPS),
    **_counts("pm25", PM25_STEPS),
}


def _tally(row: Any) -> Tally:
    return Tally(
        **{name: row[name] for name in (*NUMBERS, *TIMES)},
        aqi_counts=[row[f"aqi_{number}"] for number in range(len(AQI_STEPS))],
        pm25_counts=[row[f"pm25_{number}"] for number in range(len(PM25_STEPS))],
    )
