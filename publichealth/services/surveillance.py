"""Risk and air in the cities: now, hour by hour, and what is alarming.

Everything is counted from readings of monitors, which are places; why people's are left out says
`publichealth.tallies`. The last minutes are counted when they are asked for. A day of readings is
too many for that, so past hours are counted by a beat and kept (`HourlyFigures`); an hour that is
not kept yet is counted when it is asked for.
"""

from collections.abc import Iterable
from dataclasses import dataclass
from datetime import datetime, timedelta
from enum import Enum
from itertools import pairwise
from typing import Any

import numpy as np
from django.utils import timezone
from django.utils.html import format_html_join
from django.utils.safestring import SafeString

from federated.small_counts import HIDDEN, MIN_PATIENTS, shown
from federated.suppression import suppress
from federated.targets import READINGS
from publichealth.air import AQI_BANDS, PM25_STEPS, AqiBand, aqi_band
from publichealth.models import AlertThreshold, HourlyFigures, Reading
from publichealth.services.thresholds import Threshold, current_thresholds
from publichealth.tallies import Tally, added, added_by_city, tallies_between
from training.models import ModelVersion, VersionQuerySet
from training.progress import in_words

NUM_HOURS = 24  # the one under way and those before it
HOUR = timedelta(hours=1)
STALE_AFTER = timedelta(seconds=60)
RISK_STEPS = (0.0, 0.2, 0.4, 0.6, 0.8)  # the lower ends of the heat map's colours


class Window(Enum):
    """How far back the figures of now look."""

    QUARTER = "15min"
    HOUR = "1h"
    DAY = "24h"

    @property
    def title(self) -> str:
        return {"15min": "15 minutes", "1h": "1 hour", "24h": "24 hours"}[self.value]


@dataclass(frozen=True)
class CityFigures:
    """A city's monitors in the window; None is not known, or of too few readings to be told.

    Attributes:
        share_high: of the scored readings, from 0 to 1; `share_in_words` gives a bound where it is
            hidden.
        latest_aqi: of the newest reading of the last 24 hours that has one.
        newest_at, age_seconds: of the newest reading of the last 24 hours.
    """

    name: str
    num_readings: int | None
    mean_risk: float | None
    share_high: float | None
    share_in_words: str
    mean_aqi: float | None
    mean_pm25: float | None
    latest_aqi: float | None
    newest_at: datetime | None
    age_seconds: int | None

    @property
    def readings(self) -> str:
        return HIDDEN if self.num_readings is None else shown(self.num_readings)

    @property
    def age(self) -> str:
        if self.age_seconds is None:
            return "–"
        return f"{in_words(timedelta(seconds=self.age_seconds))} ago"

    @property
    def risk_percent(self) -> float | None:
        return None if self.mean_risk is None else 100 * self.mean_risk

    @property
    def band(self) -> AqiBand | None:
        return None if self.latest_aqi is None else aqi_band(self.latest_aqi)


@dataclass(frozen=True)
class Alert:
    """A figure of a city at or above its threshold."""

    city: str
    threshold: Threshold
    value: float

    @property
    def shown(self) -> str:
        return self.threshold.default.mean_in_words(self.value)


@dataclass(frozen=True)
class HeatCell:
    """A city in an hour; level 0 is not known, or not told, and the others rise with the value."""

    value: float | None
    level: int


@dataclass(frozen=True)
class HeatRow:
    city: str
    risk: list[HeatCell]
    aqi: list[HeatCell]

    @property
    def risk_html(self) -> SafeString:
        return _cells_html("heat-risk", self.risk, digits=0, scale=100)

    @property
    def aqi_html(self) -> SafeString:
        return _cells_html("aqi", self.aqi, digits=0)


@dataclass(frozen=True)
class TrendPoint:
    """All cities together in an hour, and the city where it was worst."""

    starts_at: datetime
    mean_risk: float | None
    highest_risk: tuple[str, float] | None
    mean_aqi: float | None
    highest_aqi: tuple[str, float] | None

    @property
    def risk_percent(self) -> float | None:
        return None if self.mean_risk is None else 100 * self.mean_risk

    @property
    def highest_risk_percent(self) -> float | None:
        return None if self.highest_risk is None else 100 * self.highest_risk[1]


@dataclass(frozen=True)
class Bin:
    """A class of a distribution and how many readings of the window lie in it."""

    name: str
    range: str
    num_readings: int
    share: float

    @property
    def percent(self) -> float:
        return 100 * self.share


@dataclass(frozen=True)
class Tier:
    """How many scored readings of the window have a risk of this height; None is hidden."""

    name: str
    num_readings: int | None
    percent: float | None

    @property
    def level(self) -> str:
        return self.name.partition(" ")[0].lower()


@dataclass(frozen=True)
class Breakdown:
    """Scored readings of the window by risk: all three tiers, or high against the others."""

    tiers: list[Tier]
    total: int | None


@dataclass(frozen=True)
class Surveillance:
    """The page's figures.

    Attributes:
        since: the window's begin; of the 24 hours the begin of the first.
        is_scored: whether a released model has scored anything in the last 24 hours.
        is_released: whether there is such a model.
        has_any: whether there is any reading of a city's monitor, however old.
    """

    window: Window
    taken_at: datetime
    since: datetime
    has_any: bool
    is_scored: bool
    is_released: bool
    cities: list[CityFigures]
    thresholds: list[Threshold]
    alerts: list[Alert]
    hours: list[datetime]
    heat_map: list[HeatRow]
    trend: list[TrendPoint]
    aqi_bands: list[Bin]
    pm25_histogram: list[Bin]
    breakdown: Breakdown

    def charts(self) -> dict[str, Any]:
        """What the page draws: the same figures as in its tables."""

        def worst(pair: tuple[str, float] | None) -> float | None:
            return pair[1] if pair else None

        def in_percent(risk: float | None) -> float | None:
            return None if risk is None else 100 * risk

        return {
            "hours": [f"{hour:%H:%M}" for hour in self.hours],
            "mean_risk": [in_percent(point.mean_risk) for point in self.trend],
            "highest_risk": [in_percent(worst(point.highest_risk)) for point in self.trend],
            "mean_aqi": [point.mean_aqi for point in self.trend],
            "highest_aqi": [worst(point.highest_aqi) for point in self.trend],
            "aqi": [[each.name, each.percent] for each in self.aqi_bands],
            "pm25": [[each.range, each.percent] for each in self.pm25_histogram],
        }


def surveillance(window: Window, *, now: datetime | None = None) -> Surveillance:
    """Everything about the cities at a moment, in a number of queries that does not grow."""
    now = now or timezone.now()
    hours = _hours_until(now)
    by_hour = _tallies_by_hour(hours, now)
    day = added_by_city(by_hour)
    lengths = {Window.QUARTER: timedelta(minutes=15), Window.HOUR: HOUR}
    since = now - lengths[window] if window in lengths else hours[0]
    # `now` itself belongs to the window: what comes in this very moment is shown.
    recent = tallies_between(since, _after(now)) if window in lengths else day
    names = sorted(day.keys() | recent.keys())
    total = added(recent.values())
    cities = _cities(names, recent, day, now)
    is_scored = any(tally.num_scored for tally in day.values())
    thresholds = current_thresholds()
    return Surveillance(
        window=window,
        taken_at=now,
        since=since,
        has_any=bool(names) or Reading.objects.of_monitors().exclude(city="").exists(),
        is_scored=is_scored,
        is_released=is_scored or _released_versions().exists(),
        cities=cities,
        thresholds=thresholds,
        alerts=_alerts(cities, thresholds),
        hours=hours,
        heat_map=[_heat_row(name, by_hour) for name in names],
        trend=[_trend_point(*pair) for pair in zip(hours, by_hour, strict=True)],
        aqi_bands=_bins([(b.name, b.range) for b in AQI_BANDS], total.aqi_counts),
        pm25_histogram=_bins([("", text) for text in _ranges(PM25_STEPS)], total.pm25_counts),
        breakdown=_breakdown(total),
    )


def count_hours_again(*, now: datetime | None = None) -> int:
    """Keep the figures of past hours; returns how many hours were counted.

    Those that are not kept yet are counted at once, and of the others the one that was counted
    longest ago, if that is a minute ago.
    """
    now = now or timezone.now()
    past = _hours_until(now)[:-1]
    kept = dict(HourlyFigures.objects.values_list("starts_at", "counted_at"))
    monitored = Reading.objects.of_monitors().filter(measured_at__gte=past[0])
    if not kept and not monitored.exists():
        return 0
    if min(kept, default=past[0]) < past[0]:
        HourlyFigures.objects.filter(starts_at__lt=past[0]).delete()
    due = [hour for hour in past if hour not in kept]
    counted_long_ago = [hour for hour in past if hour in kept and kept[hour] <= now - STALE_AFTER]
    due += sorted(counted_long_ago, key=kept.__getitem__)[:1]
    rows = [
        HourlyFigures(
            starts_at=hour,
            cities={name: t.to_json() for name, t in tallies_between(hour, hour + HOUR).items()},
            counted_at=now,
        )
        for hour in due
    ]
    HourlyFigures.objects.bulk_create(
        rows,
        update_conflicts=True,
        unique_fields=["starts_at"],
        update_fields=["cities", "counted_at"],
    )
    return len(rows)


def _after(now: datetime) -> datetime:
    return now + timedelta(microseconds=1)


def _hours_until(now: datetime) -> list[datetime]:
    current = now.replace(minute=0, second=0, microsecond=0)
    return [current - HOUR * back for back in reversed(range(NUM_HOURS))]


def _tallies_by_hour(hours: list[datetime], now: datetime) -> list[dict[str, Tally]]:
    """By hour and city; the last hour is the one under way."""
    *past, current = hours
    kept = {
        starts_at: {name: Tally.from_json(stored) for name, stored in cities.items()}
        for starts_at, cities in HourlyFigures.objects.filter(starts_at__in=past).values_list(
            "starts_at", "cities"
        )
    }
    for hour in past:
        if hour not in kept:  # right after the full hour, or where no beat runs
            kept[hour] = tallies_between(hour, hour + HOUR)
    return [*(kept[hour] for hour in past), tallies_between(current, _after(now))]


def _released_versions() -> VersionQuerySet:
    versions = ModelVersion.objects.of_federation().active()
    return versions.filter(study__dataset=READINGS)


def _cities(
    names: list[str], recent: dict[str, Tally], day: dict[str, Tally], now: datetime
) -> list[CityFigures]:
    tallies = {name: recent.get(name, Tally()) for name in names}
    latest = _latest_aqi(day)
    shares = _shares_high(tallies)
    newest = {
        name: max(
            (each.newest_at for each in (tally, day.get(name, Tally())) if each.newest_at),
            default=None,
        )
        for name, tally in tallies.items()
    }
    return [
        CityFigures(
            name=name,
            num_readings=tally.num_readings if tally.num_readings >= MIN_PATIENTS else None,
            mean_risk=tally.mean_risk,
            share_high=shares.get(name),
            share_in_words=_share_in_words(tally, shares.get(name)),
            mean_aqi=tally.mean_aqi,
            mean_pm25=tally.mean_pm25,
            latest_aqi=latest.get(name),
            newest_at=newest[name],
            age_seconds=int((now - at).total_seconds()) if (at := newest[name]) else None,
        )
        for name, tally in tallies.items()
    ]


def _shares_high(tallies: dict[str, Tally]) -> dict[str, float | None]:
    """By city with a scored reading; None where it would tell of a few people."""
    scored = {name: tally for name, tally in tallies.items() if tally.num_scored}
    counts = [[t.num_high, t.num_scored - t.num_high] for t in scored.values()]
    if not counts:
        return {}
    table = suppress(np.array(counts, np.int64))
    return {
        name: None if high is None or total is None else high / total
        for name, (high, _), total in zip(scored, table.cells, table.row_totals, strict=True)
    }


def _share_in_words(tally: Tally, share: float | None) -> str:
    """A hidden share is told as far as "under 10" readings tells it."""
    if share is not None:
        return f"{share:.0%}".replace("%", " %")
    if tally.num_scored < MIN_PATIENTS:
        return "–"
    bound = min(1.0, MIN_PATIENTS / tally.num_scored)
    if tally.num_high < MIN_PATIENTS:
        return f"under {bound:.0%}".replace("%", " %")
    if tally.num_scored - tally.num_high < MIN_PATIENTS:
        return f"over {1 - bound:.0%}".replace("%", " %")
    return "–"  # it would tell another city's


def _latest_aqi(day: dict[str, Tally]) -> dict[str, float]:
    newest = {name: tally.air_at for name, tally in day.items() if tally.air_at}
    rows = Reading.objects.of_monitors().filter(
        measured_at__in=set(newest.values()), aqi__isnull=False
    )
    return {
        city: aqi
        for city, measured_at, aqi in rows.order_by("pk").values_list("city", "measured_at", "aqi")
        if aqi is not None and newest.get(city) == measured_at
    }


def _alerts(cities: list[CityFigures], thresholds: list[Threshold]) -> list[Alert]:
    figure = AlertThreshold.Figure
    found = []
    for city in cities:
        for threshold in thresholds:
            value = {
                figure.RISK: city.mean_risk,
                figure.AQI: city.mean_aqi,
                figure.PM25: city.mean_pm25,
            }[threshold.figure]
            # Rounded: the mean of ten times 55.4 comes out a trillionth lower.
            if value is not None and round(value, 6) >= threshold.value:
                found.append(Alert(city.name, threshold, value))
    return found


def _heat_row(name: str, by_hour: list[dict[str, Tally]]) -> HeatRow:
    tallies = [cities.get(name, Tally()) for cities in by_hour]
    risks = [tally.mean_risk for tally in tallies]
    indices = [tally.mean_aqi for tally in tallies]
    return HeatRow(
        city=name,
        risk=[HeatCell(risk, _risk_level(risk)) for risk in risks],
        aqi=[HeatCell(aqi, 0 if aqi is None else aqi_band(aqi).level) for aqi in indices],
    )


def _cells_html(name: str, cells: list[HeatCell], *, digits: int, scale: int = 1) -> SafeString:
    """A row of table cells: of hundreds a poll, and a template is slow."""
    return format_html_join(
        "",
        '<td class="{}-{}">{}</td>',
        (
            (name, c.level, "·" if c.value is None else f"{scale * c.value:.{digits}f}")
            for c in cells
        ),
    )


def _risk_level(risk: float | None) -> int:
    return 0 if risk is None else sum(risk >= low for low in RISK_STEPS)


def _trend_point(starts_at: datetime, cities: dict[str, Tally]) -> TrendPoint:
    total = added(cities.values())
    return TrendPoint(
        starts_at=starts_at,
        mean_risk=total.mean_risk,
        highest_risk=_highest((name, tally.mean_risk) for name, tally in cities.items()),
        mean_aqi=total.mean_aqi,
        highest_aqi=_highest((name, tally.mean_aqi) for name, tally in cities.items()),
    )


def _highest(pairs: Iterable[tuple[str, float | None]]) -> tuple[str, float] | None:
    known = [(name, value) for name, value in pairs if value is not None]
    return max(known, key=lambda pair: (pair[1], pair[0]), default=None)


def _ranges(steps: tuple[float, ...]) -> list[str]:
    inner = [f"{low:g}–{high:g}" for low, high in pairwise(steps)]
    return [*inner, f"{steps[-1]:g}+"]


def _bins(names: list[tuple[str, str]], counts: list[int]) -> list[Bin]:
    total = sum(counts)
    return [
        Bin(name, text, count, count / total if total else 0.0)
        for (name, text), count in zip(names, counts, strict=True)
    ]


def _breakdown(total: Tally) -> Breakdown:
    low = total.num_scored - total.num_medium - total.num_high
    three = _tiers({"Low": low, "Medium": total.num_medium, "High": total.num_high})
    if _is_whole(three):
        return three
    # Where one of three is small a second has to be hidden beside it: better to tell of two.
    two = _tiers({"Low or medium": low + total.num_medium, "High": total.num_high})
    return two if _is_whole(two) else three


def _tiers(counts: dict[str, int]) -> Breakdown:
    table = suppress(np.array(list(counts.values()), np.int64))
    return Breakdown(
        [
            Tier(name, count, 100 * count / table.total if count and table.total else None)
            for name, count in zip(counts, table.cells, strict=True)
        ],
        table.total,
    )


def _is_whole(breakdown: Breakdown) -> bool:
    return all(tier.num_readings is not None for tier in breakdown.tiers)
