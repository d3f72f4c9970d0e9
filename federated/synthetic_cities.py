"""Nine cities whose air is no city's: what a monitor there, and somebody who passes it, reports.

Each city keeps a level of its own around which its readings vary from one to the next, with a
slight swing over the day. All cities together are distributed as the synthetic air monitors and
wearables are, from which a model learns: what has drifted has been moved on purpose.
"""

import math
from collections.abc import Mapping
from dataclasses import dataclass
from functools import cache

import numpy as np

from federated.synthetic_readings import NODES, Floats, Measured, reference

# Of an input's variance over all cities, that between cities; and the day's swing, in standard
# deviations. Small, so that an hour's readings are not taken for drift.
BETWEEN_CITIES = 0.5
DAYS_SWING = 0.1


@dataclass(frozen=True)
class City:
    """A city and rough yearly means, which say only how it stands to the others.

    Set by hand after published yearly means of PM2.5 and the cities' climate: the Punjab's plain is
    the most polluted, the coast is humid and windy, Quetta lies high and dry.

    Attributes:
        pm25: µg/m³. temperature: °C. humidity: %. wind_speed: m/s.
    """

    name: str
    pm25: float
    temperature: float
    humidity: float
    wind_speed: float


CITIES = (
    City("Karachi", 55, 26, 68, 4.5),
    City("Lahore", 100, 24, 57, 2.0),
    City("Islamabad", 45, 21, 55, 2.1),
    City("Quetta", 40, 16, 40, 2.8),
    City("Peshawar", 70, 23, 50, 1.8),
    City("Multan", 80, 26, 47, 2.3),
    City("Faisalabad", 90, 24, 52, 2.0),
    City("Rawalpindi", 50, 21, 56, 2.2),
    City("Hyderabad", 58, 27, 55, 4.2),
)

# By input: the yearly mean that it follows, if any, and at which hour it is highest: polluted air
# gathers in the still nights, ozone forms in the sun.
_AIR: dict[str, tuple[str, int]] = {
    "pm25": ("pm25", 22),
    "pm10": ("pm25", 22),
    "no2": ("pm25", 22),
    "aqi": ("pm25", 22),
    "o3": ("", 15),
    "temperature": ("temperature", 15),
    "humidity": ("humidity", 4),
    "wind_speed": ("wind_speed", 15),
}
_KINDS = ("environment", "wearables")
CITY_INPUTS = tuple(name for kind in _KINDS for name in NODES[kind].inputs)


def draw_city(
    city: City,
    *,
    hour: float,
    rng: np.random.Generator,
    shift: Mapping[str, float] | None = None,
) -> dict[str, float]:
    """One reading, of each of CITY_INPUTS.

    Args:
        hour: of the day, in local time.
        shift: by input, by how many of its standard deviations it is moved, to show drift; of a
            flag, the share of those who have it.
    """
    values = {}
    for kind in _KINDS:
        for name, measured in NODES[kind].inputs.items():
            usual = _sorted_reference(kind, name)
            rank = _rank(city, name, hour, rng) if name in _AIR else rng.random()
            value = float(usual[int(rank * len(usual))])
            if shift and name in shift:
                value = _moved(value, shift[name], usual, measured, rng)
            values[name] = value
    return values


def _rank(city: City, name: str, hour: float, rng: np.random.Generator) -> float:
    """Where in an input's distribution over all cities a reading lies, from 0 to below 1."""
    level, peak = _AIR[name]
    place = math.sqrt(BETWEEN_CITIES) * _levels(level)[city.name] if level else 0.0
    swing = DAYS_SWING * math.cos(2 * math.pi * (hour - peak) / 24)
    rest = 1 - (BETWEEN_CITIES if level else 0) - DAYS_SWING**2 / 2
    z = place + swing + math.sqrt(rest) * rng.normal()
    return min((1 + math.erf(z / math.sqrt(2))) / 2, 1 - 1e-9)


@cache
def _levels(name: str) -> dict[str, float]:
    """A yearly mean of each city, in standard deviations over the cities."""
    means = np.array([getattr(city, name) for city in CITIES])
    levels = (means - means.mean()) / means.std()
    return {city.name: float(level) for city, level in zip(CITIES, levels, strict=True)}


@cache
def _sorted_reference(kind: str, name: str) -> Floats:
    return np.sort(reference(kind)[name])


def _moved(
    value: float, shift: float, usual: Floats, measured: Measured, rng: np.random.Generator
) -> float:
    distance = shift * float(usual.std())
    if not measured.is_flag:
        return float(measured.as_shown(np.array(value + distance)))
    # Who has it not gets it, or the other way round, just often enough to move the share.
    share = float(usual.mean())
    odds = distance / (1 - share) if value == 0 else -distance / share
    return 1 - value if rng.random() < odds else value
