"""What the served model is asked and answers: the same on the published path, the API and the page."""

import json
import reprlib
from collections.abc import Mapping, Sequence
from typing import Any

from envoys.errors import StorageError
from federated.errors import FederatedError, InvalidValueError, UnusedInputsError
from federated.readings import INPUTS, input_named
from publichealth.advice import advice_for
from publichealth.services.serving import ServedModel, served_model

MAX_BATCH = 1000
_INPUTS = {each.name: each for each in INPUTS}
_KNOWN = ", ".join(_INPUTS)


class InvalidAskedError(FederatedError):
    """A question that cannot be answered: what is wrong with which field."""

    def __init__(self, errors: dict[str, list[str]], detail: str = "") -> None:
        super().__init__(detail or next(iter(errors.values()))[0])  # it names its field
        self.errors = errors


class NotServedError(FederatedError):
    """There is no model to answer with."""


def model_to_answer_with() -> ServedModel:
    """Raises NotServedError, which says why."""
    try:
        served = served_model()
    except (StorageError, FederatedError) as error:
        raise NotServedError("The released model cannot be read: ask again later.") from error
    if served is None:
        raise NotServedError("No model of health risk has been released yet: ask again later.")
    return served


def read_json(body: bytes) -> Any:
    """Raises InvalidAskedError."""
    try:
        return _decode(body.decode())
    except (ValueError, RecursionError) as error:
        raise InvalidAskedError({}, "The body is no JSON.") from error


def _refuse_constant(name: str) -> float:
    raise ValueError(name)  # NaN and Infinity are no JSON


# Made once: `json.loads` makes another for every call whose options are not its own.
_decode = json.JSONDecoder(parse_constant=_refuse_constant).decode


def check_reading(fields: Any) -> dict[str, float]:
    """What was measured, by input; null is what was not.

    Raises:
        InvalidAskedError: an unknown field, a value of another type or out of its range, or
            nothing at all.
    """
    if not isinstance(fields, dict):
        raise InvalidAskedError({}, "A reading is a JSON object of inputs and their values.")
    values, errors = {}, {}
    for name, value in fields.items():
        if value is None and name in _INPUTS:
            continue
        try:
            values[name] = _check_value(name, value)
        except InvalidValueError as error:
            errors[str(name)[:80]] = list(error.problems)
    if errors:
        raise InvalidAskedError(errors)
    if not values:
        raise InvalidAskedError({}, f"Give at least one of {_KNOWN}.")
    return values


def _check_value(name: str, value: Any) -> float:
    each = _INPUTS.get(name)
    if each is None:
        raise InvalidValueError(f"no input is called {reprlib.repr(name)}; there are {_KNOWN}")
    kind = type(value)
    if kind is bool and each.is_flag:
        return float(value)
    if kind is not float and kind is not int:
        raise InvalidValueError(f"{name} is a number, not {_JSON_TYPES.get(kind, 'this')}")
    try:
        return each.check(float(value))
    except OverflowError:  # a whole number of 400 digits
        raise InvalidValueError(
            f"{name} lies between {each.low:g} and {each.high:g} {each.unit}".rstrip()
        ) from None


_JSON_TYPES = {str: "text", bool: "true or false", list: "a list", dict: "an object"}


def check_batch(body: Any) -> list[dict[str, float]]:
    """The readings of `{"readings": […]}`. Raises InvalidAskedError, with all that is wrong."""
    readings = body.get("readings") if isinstance(body, dict) else None
    if not isinstance(readings, list) or len(body) != 1:
        raise InvalidAskedError({}, 'The body is {"readings": [a reading, …]}.')
    if not 0 < len(readings) <= MAX_BATCH:
        raise InvalidAskedError(
            {"readings": [f"From 1 to {MAX_BATCH} readings at once, not {len(readings)}."]}
        )
    checked, errors = [], {}
    for number, reading in enumerate(readings):
        try:
            checked.append(check_reading(reading))
        except InvalidAskedError as error:
            named = error.errors or {"": [str(error)]}
            errors.update(
                {f"readings.{number}.{name}".rstrip("."): texts for name, texts in named.items()}
            )
    if errors:
        raise InvalidAskedError(errors)
    return checked


def answer(served: ServedModel, values: Mapping[str, float]) -> dict[str, Any]:
    """The risk of one reading, what drives it, and what to do.

    Raises InvalidAskedError: the model was trained with none of its inputs.
    """
    try:
        assessed = served.assess(values)
    except UnusedInputsError as error:
        raise InvalidAskedError({}, f"{error} Give one of {', '.join(served.inputs)}.") from error
    is_high = served.is_high(assessed.risk)
    raising = [driver.input for driver in assessed.drivers if driver.change > 0]
    return {
        "risk_score": assessed.risk,
        "high_risk": is_high,
        "threshold": served.threshold,
        "drivers": [
            {
                "input": driver.input,
                "title": input_named(driver.input).title,
                "change": driver.change,
            }
            for driver in assessed.drivers
        ],
        "ignored": assessed.ignored,
        "model_version": served.name,
        "advice": advice_for(values, is_high=is_high, drivers=raising),
    }


def answer_all(
    served: ServedModel, readings: Sequence[Mapping[str, float]]
) -> list[dict[str, Any]]:
    """The answers in the order of the readings. Raises InvalidAskedError, with all that is wrong."""
    found, errors = [], {}
    for number, values in enumerate(readings):
        try:
            found.append(answer(served, values))
        except InvalidAskedError as error:
            errors[f"readings.{number}"] = [str(error)]
    if errors:
        raise InvalidAskedError(errors)
    return found
