"""What can be chosen about a plan: frozen, checked in words, and with what a form needs."""

import math
import reprlib
from dataclasses import Field, dataclass, field, fields
from typing import Any

from federated.errors import InvalidPlanError


@dataclass(frozen=True)
class Parameters:
    """Base of a set of values to choose.

    A field is a `real`, a `whole` or a `flag`. Its metadata holds what it means and its range:
    `meaning`, `low`, `high` and `includes_low`.

    Raises:
        InvalidPlanError: a value of another type, or out of range: which, what it may be, and what
            was given.
    """

    def __post_init__(self) -> None:
        for one in fields(self):
            # As declared, so that 1 and 1.0 are one plan with one hash.
            object.__setattr__(self, one.name, _checked(one, getattr(self, one.name)))


@dataclass(frozen=True)
class StrategyParameters(Parameters):
    """A strategy without parameters; and the base of those that have some."""

    @property
    def min_updates(self) -> int:
        """With fewer updates than this, a round cannot be aggregated."""
        return 1


def real(
    default: float,
    *,
    low: float,
    high: float,
    meaning: str,
    includes_low: bool = False,
    range_in_words: str = "",
) -> Any:
    """A field for a number below `high` and above `low`, which itself may be allowed.

    Args:
        range_in_words: where the plan narrows the range by its other values.
    """
    return field(
        default=default,
        metadata={
            "meaning": meaning,
            "low": low,
            "high": high,
            "includes_low": includes_low,
            "range_in_words": range_in_words,
        },
    )


def whole(default: int | None, *, low: int, high: float = math.inf, meaning: str) -> Any:
    """A field for a whole number from `low` and below `high`, or None where it is declared so."""
    return field(
        default=default,
        metadata={"meaning": meaning, "low": low, "high": high, "includes_low": True},
    )


def flag(default: bool, *, meaning: str) -> Any:
    return field(default=default, metadata={"meaning": meaning})


def read_value(one: Field[Any], text: str) -> Any:
    """A parameter's value as a person writes it on a command line.

    Raises:
        InvalidPlanError: it is of another type; whether it is in range is checked later.
    """
    word = text.strip().lower()
    if one.type is bool:
        if word not in ("true", "false"):
            raise InvalidPlanError(f"{one.name} is true or false, not {reprlib.repr(text)}")
        return word == "true"
    if word == "none" and one.type == int | None:
        return None
    try:
        return float(word) if one.type is float else int(word)
    except ValueError:
        kind = "a number" if one.type is float else "a whole number"
        raise InvalidPlanError(f"{one.name} is {kind}, not {reprlib.repr(text)}") from None


def _checked(one: Field[Any], value: Any) -> Any:
    if one.type is bool:
        if not isinstance(value, bool):
            raise InvalidPlanError(f"{one.name} is true or false, not {reprlib.repr(value)}")
        return value
    if value is None and one.type == int | None:
        return None
    is_real = one.type is float
    if isinstance(value, bool) or not isinstance(value, (int, float) if is_real else int):
        kind = "a number" if is_real else "a whole number"
        raise InvalidPlanError(f"{one.name} is {kind}, not {reprlib.repr(value)}")
    low, high = one.metadata["low"], one.metadata["high"]
    is_above = value >= low if one.metadata["includes_low"] else value > low
    if not (is_above and value < high):
        raise InvalidPlanError(f"{one.name} {_range_in_words(one)}, not {reprlib.repr(value)}")
    return float(value) if is_real else value


def _range_in_words(one: Field[Any]) -> str:
    low, high = one.metadata["low"], one.metadata["high"]
    if words := one.metadata.get("range_in_words"):
        return f"{words}"
    if high == math.inf:
        return f"starts at {low}"
    if one.type is not float:
        return f"lies between {low} and {high - 1}"
    return f"lies in {'[' if one.metadata['includes_low'] else '('}{low:g}, {high:g})"
