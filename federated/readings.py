"""A reading of a wearable, an air monitor or a clinic as a model's input.

Nodes measure different things. One schema holds the union of their inputs, with a sign for each
that was not measured; scaling merges what each node knows (`federated.scaling`). What a number
means depends on what it comes with: a fast heart says more beside a cough than beside a step
count. So an input has a second weight for each group of inputs that is absent altogether, which
lets one linear model be right at every kind of node.
"""

import hashlib
import json
import math
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field
from functools import cache

from federated.datasets import ClientDataset, ExampleRow, dataset_of
from federated.errors import InvalidValueError
from federated.features import EncodedExample, FeatureSchema
from federated.targets import HIGH, LOW, MEDIUM, target_named


@dataclass(frozen=True)
class ReadingInput:
    """What can be measured.

    Attributes:
        low, high: what is plausible, both included; anything else is a fault of the device or the
            file.
        scale: rough mean and standard deviation over adults, or over cities' air: where no round
            0 has pooled the nodes' own, as in a first manual launch. A scale, not a statement.
        is_flag: 0 or 1 only.
    """

    name: str
    title: str
    unit: str
    low: float
    high: float
    scale: tuple[float, float]
    is_flag: bool = False

    def check(self, value: float) -> float:
        """The value. Raises InvalidValueError, which names the input, its range and its unit."""
        if self.is_flag and value not in (0, 1):
            raise InvalidValueError(f"{self.name} is 0 (no) or 1 (yes), not {value:g}")
        if not self.low <= value <= self.high:  # nor is NaN
            raise InvalidValueError(
                f"{self.name} lies between {self.low:g} and {self.high:g} {self.unit},"
                f" not {value:g}".replace("  ", " ")
            )
        return value


# Ranges: what instruments report of living adults and of air that has been measured; wide, since
# their purpose is to catch a wrong unit or column, not an unusual person.
INPUTS = (
    ReadingInput("heart_rate", "Heart rate", "bpm", 20, 250, (75, 12)),
    ReadingInput("spo2", "Oxygen saturation", "%", 50, 100, (97, 2)),
    ReadingInput("steps", "Steps a day", "steps", 0, 100_000, (7500, 5000)),
    ReadingInput("sleep_hours", "Sleep", "h", 0, 24, (7, 1.5)),
    ReadingInput("age", "Age", "years", 0, 120, (45, 18)),
    ReadingInput("bmi", "Body mass index", "kg/m²", 10, 100, (27, 6)),
    ReadingInput("active", "Physically active", "", 0, 1, (0.5, 0.5), is_flag=True),
    ReadingInput("smoker", "Smoker", "", 0, 1, (0.2, 0.4), is_flag=True),
    ReadingInput("chronic", "Chronic illness", "", 0, 1, (0.2, 0.4), is_flag=True),
    ReadingInput("aqi", "Air quality index", "AQI", 0, 1000, (70, 40)),
    ReadingInput("pm25", "PM2.5", "µg/m³", 0, 1000, (35, 25)),
    ReadingInput("pm10", "PM10", "µg/m³", 0, 2000, (70, 40)),
    ReadingInput("no2", "Nitrogen dioxide", "µg/m³", 0, 1000, (30, 15)),
    ReadingInput("o3", "Ozone", "µg/m³", 0, 1000, (60, 25)),
    ReadingInput("temperature", "Temperature", "°C", -60, 60, (22, 9)),
    ReadingInput("humidity", "Humidity", "%", 0, 100, (55, 20)),
    ReadingInput("wind_speed", "Wind speed", "m/s", 0, 100, (3, 2)),
    ReadingInput("cough", "Cough", "", 0, 1, (0.2, 0.4), is_flag=True),
    ReadingInput("breathless", "Shortness of breath", "", 0, 1, (0.15, 0.35), is_flag=True),
)
INPUT_NAMES = tuple(each.name for each in INPUTS)
_BY_NAME = {each.name: each for each in INPUTS}

# What a node measures together, or not at all. Age and body mass index belong to none: any kind of
# node may know them.
GROUPS = {
    "vital signs": ("heart_rate", "spo2", "steps"),
    "daily life": ("sleep_hours", "active", "smoker", "chronic", "aqi"),
    "outdoor air": ("pm25", "pm10", "no2", "o3", "temperature", "humidity", "wind_speed"),
    "symptoms": ("cough", "breathless"),
}
# (input, group): the input's number where nothing of the group was measured.
CROSSED = tuple(
    (name, group)
    for group, members in GROUPS.items()
    for name in INPUT_NAMES
    if name not in members
)
NUMERIC_INPUTS = (*INPUT_NAMES, *(f"{name} without {group}" for name, group in CROSSED))
REFERENCE_SCALING = dict(
    zip(
        NUMERIC_INPUTS,
        (_BY_NAME[name].scale for name in (*INPUT_NAMES, *(name for name, _ in CROSSED))),
        strict=True,
    )
)


def input_named(name: str) -> ReadingInput:
    """Raises KeyError."""
    return _BY_NAME[name]


@dataclass(frozen=True)
class ReadingRecord:
    """One reading, as a snapshot holds it.

    Attributes:
        subject_id: who or what was measured, without meaning; all readings of one are on the same
            side of the split.
        values: by input; what was not measured is left out.
        outcome: 1 for high risk, 0 for low; None where it is not known.
        tier: 0, 1, 2 for Low, Medium, High; None where it is not known.
    """

    subject_id: str
    values: Mapping[str, float] = field(default_factory=dict)
    outcome: int | None = None
    tier: int | None = None


@cache
def reading_schema(target_name: str) -> FeatureSchema:
    """The inputs of every target of readings."""
    table = [[each.name, each.unit] for each in INPUTS]
    return FeatureSchema(
        target=target_name,
        numeric_inputs=NUMERIC_INPUTS,
        sparse_inputs=tuple(f"{name} unknown" for name in INPUT_NAMES),
        vocabulary_sha256=hashlib.sha256(json.dumps(table).encode()).hexdigest(),
    )


def encode_reading(values: Mapping[str, float]) -> EncodedExample:
    """A reading as a model's input; what was not measured is NaN, and said to be unknown."""
    absent = {
        group for group, members in GROUPS.items() if not any(name in values for name in members)
    }
    unknown = [i for i, name in enumerate(INPUT_NAMES) if name not in values]
    numeric = [values.get(name, math.nan) for name in INPUT_NAMES]
    numeric += [
        values.get(name, math.nan) if group in absent else math.nan for name, group in CROSSED
    ]
    return EncodedExample(unknown, numeric)


# A sign that anybody can read off: name, and whether a value is one.
WARNING_SIGNS: dict[str, Callable[[float], bool]] = {
    "heart_rate": lambda value: value > 100,  # tachycardia at rest
    "spo2": lambda value: value < 94,
    "sleep_hours": lambda value: value < 6,
    "smoker": lambda value: value == 1,
    "chronic": lambda value: value == 1,
    "aqi": lambda value: value > 100,  # EPA: unhealthy for sensitive groups
    "pm25": lambda value: value > 35.4,  # the same band's lower bound, 24 hours
    "pm10": lambda value: value > 154,
    "no2": lambda value: value > 188,  # EPA's hourly standard, 100 ppb
    "cough": lambda value: value == 1,
    "breathless": lambda value: value == 1,
}


def warning_band(values: Mapping[str, float]) -> int:
    """The rule of thumb: Low without a warning sign, Medium with one, High with more."""
    num_signs = sum(
        name in values and is_sign(values[name]) for name, is_sign in WARNING_SIGNS.items()
    )
    return (LOW, MEDIUM, HIGH)[min(num_signs, 2)]


def build_readings(records: Iterable[ReadingRecord], schema: FeatureSchema) -> ClientDataset:
    """Encode readings in the order given; those of one subject stand together."""
    target = target_named(schema.target)
    return dataset_of(
        (
            ExampleRow(
                record.subject_id,
                encode_reading(record.values),
                target.label_of(record),
                warning_band(record.values),
            )
            for record in records
        ),
        schema,
    )
