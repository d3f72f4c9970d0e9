"""From which value on a city's figure is an alert."""

from dataclasses import dataclass
from datetime import datetime

from django.db import transaction

from envoys import audit
from envoys.models import User
from federated.errors import InvalidValueError
from federated.readings import input_named
from publichealth.models import AlertThreshold

Figure = AlertThreshold.Figure


@dataclass(frozen=True)
class Default:
    """Applies until somebody sets another; `digits` is how figures beside it are shown."""

    value: float
    source: str
    unit: str
    low: float
    high: float
    digits: int
    is_share: bool = False  # stored and told to programs from 0 to 1, to people in percent

    @property
    def shown(self) -> str:
        return self.in_words(self.value)

    @property
    def shown_unit(self) -> str:
        return "%" if self.is_share else self.unit

    def to_shown(self, value: float) -> float:
        return round(100 * value, 6) if self.is_share else value

    def from_shown(self, number: float) -> float:
        return number / 100 if self.is_share else number

    def in_words(self, value: float) -> str:
        """With its unit."""
        return f"{self.to_shown(value):g} {self.shown_unit}".strip()

    def mean_in_words(self, mean: float) -> str:
        """As `in_words`, in as many digits as figures beside it have."""
        return f"{self.to_shown(mean):.{self.digits}f} {self.shown_unit}".strip()


def _of_input(name: str, value: float, source: str, digits: int) -> Default:
    known = input_named(name)
    unit = "" if name == "aqi" else known.unit
    return Default(value, source, unit, known.low, known.high, digits)


DEFAULTS = {
    Figure.RISK: Default(
        0.7, "A choice of this product, not a standard", "", 0.0, 1.0, 0, is_share=True
    ),
    Figure.AQI: _of_input(
        "aqi", 150.0, "US EPA: the end of “unhealthy for sensitive groups” (40 CFR 58, app. G)", 0
    ),
    Figure.PM25: _of_input(
        "pm25", 55.4, "US EPA: the end of the same band, mean of 24 h (40 CFR 58, app. G)", 1
    ),
}


@dataclass(frozen=True)
class Threshold:
    """What applies to a figure now; without a row, the default."""

    figure: AlertThreshold.Figure
    value: float
    set_by: User | None = None
    set_at: datetime | None = None

    @property
    def name(self) -> str:
        """In URLs."""
        return str(self.figure.value).lower()

    @property
    def shown(self) -> str:
        return self.default.in_words(self.value)

    @property
    def title(self) -> str:
        return str(self.figure.label)

    @property
    def default(self) -> Default:
        return DEFAULTS[self.figure]

    @property
    def is_default(self) -> bool:
        return self.set_at is None


def current_thresholds() -> list[Threshold]:
    """One for each figure, in the order of `Figure`."""
    rows = {row.figure: row for row in AlertThreshold.objects.select_related("set_by")}
    return [
        Threshold(figure, rows[figure].value, rows[figure].set_by, rows[figure].set_at)
        if figure in rows
        else Threshold(figure, default.value)
        for figure, default in DEFAULTS.items()
    ]


def set_threshold(figure: AlertThreshold.Figure, *, value: float, set_by: User) -> Threshold:
    """Alert from this value on.

    Raises:
        InvalidValueError: no city's figure can be that.
    """
    default = DEFAULTS[figure]
    if not default.low <= value <= default.high:  # nor is NaN
        raise InvalidValueError(
            f"{figure.label} lies between {default.low:g} and {default.high:g} {default.unit}".strip()
            + f", not {value:g}"
        )
    with transaction.atomic():
        row, _ = AlertThreshold.objects.update_or_create(
            figure=figure, defaults={"value": value, "set_by": set_by}
        )
        audit.record(set_by, f"set threshold to {value:g}", row)
    return Threshold(figure, row.value, row.set_by, row.set_at)


def reset_threshold(figure: AlertThreshold.Figure, *, reset_by: User) -> Threshold:
    """Back to the default; nothing happens where it applies already."""
    with transaction.atomic():
        for row in AlertThreshold.objects.filter(figure=figure):
            audit.record(reset_by, "set threshold back to default", row)
            row.delete()
    return Threshold(figure, DEFAULTS[figure].value)
