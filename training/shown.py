"""Counts inside JSON, as who is not of that hospital may read them."""

from typing import Any

from federated.small_counts import HIDDEN, MIN_PATIENTS


def masked(value: Any, instead: str | None = None) -> Any:
    """The same value without its counts `num_…` under 10, at any depth; `instead` in their place.

    Not of a training plan, whose numbers count nobody.
    """
    if isinstance(value, list):
        return [masked(each, instead) for each in value]
    if not isinstance(value, dict):
        return value
    return {
        name: instead if _is_small_count(name, each) else masked(each, instead)
        for name, each in value.items()
    }


def masked_in_words(value: Any) -> Any:
    return masked(value, HIDDEN)


def _is_small_count(name: str, value: Any) -> bool:
    is_number = isinstance(value, int | float) and not isinstance(value, bool)
    return name.startswith("num_") and is_number and value < MIN_PATIENTS
