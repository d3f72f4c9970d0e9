"""What one field of a row says; whatever cannot be read raises InvalidValueError."""

import math
import re
from collections.abc import Callable, Sequence
from datetime import datetime
from functools import lru_cache, partial
from typing import Any

from federated.cohorts.records import (
    OUTCOMES_HEADER,
    AdmissionRecord,
    CodedDiagnosis,
    canonical_time,
)
from federated.errors import InvalidCodeError, InvalidRowError, InvalidValueError
from federated.icd import normalize_code
from federated.plain_text import is_formula

MAX_ID_LENGTH = 64
MAX_SEQ_NUM = 65_535
MAX_COUNT = 1_000_000
MAX_AGE = 130.0
MAX_LOS_DAYS = 36_525.0
MAX_RISK_LEVEL = 2

_AGE_BAND = re.compile(r"\[(\d{1,3})-(\d{1,3})\)")
_FLAGS = {"": None, "0": False, "1": True, "0.0": False, "1.0": True, "false": False, "true": True}
_SEXES = {"f": "F", "female": "F", "m": "M", "male": "M"}
_SEXES |= dict.fromkeys(("", "u", "unknown", "unknown/invalid", "other", "o"), "")
_ICD_VERSIONS = {"9": 9, "10": 10, "9.0": 9, "10.0": 10}


def _refuse(column: str, text: str, wanted: str) -> InvalidValueError:
    return InvalidValueError(f"{column} {text[:40]!r} is no {wanted}")


def problems_of(*parsers: Callable[[], object]) -> list[str]:
    """What is wrong by each of these."""
    problems: list[str] = []
    for parse in parsers:
        try:
            parse()
        except InvalidValueError as error:
            problems += error.problems
    return problems


def parse_id(text: str, column: str) -> str:
    """An identifier, as given. A refusal never shows it: it is a patient's."""
    if not text:
        raise InvalidValueError(f"{column} is empty")
    if len(text) > MAX_ID_LENGTH:
        raise InvalidValueError(f"{column} has {len(text)} characters, {MAX_ID_LENGTH} is the most")
    if not text.isprintable():
        raise InvalidValueError(f"{column} has a character that cannot be printed")
    if is_formula(text):  # an export is opened with a spreadsheet, which would calculate it
        raise InvalidValueError(f"{column} begins like a formula, with =, +, - or @")
    return text


@lru_cache(maxsize=4096)
def parse_count(text: str, column: str, largest: int = MAX_COUNT) -> int | None:
    """A whole number from 0; "3.0" counts as 3, as spreadsheets and pandas write it."""
    if not text:
        return None
    digits = re.sub(r"\.0*$", "", text)
    if not (digits.isascii() and digits.isdigit() and len(digits) < 10) or int(digits) > largest:
        raise _refuse(column, text, f"whole number from 0 to {largest}")
    return int(digits)


@lru_cache(maxsize=2048)
def parse_measure(text: str, column: str, largest: float) -> float | None:
    """A number from 0."""
    if not text:
        return None
    try:
        value = float(text)
    except ValueError:
        value = math.nan
    if not 0 <= value <= largest or not text.isascii() or "_" in text:
        raise _refuse(column, text, f"number from 0 to {largest:g}")
    return value


def parse_age(text: str, column: str) -> float | None:
    """Years; of a band such as `[50-60)` the middle."""
    band = _AGE_BAND.fullmatch(text)
    if band is None:
        return parse_measure(text, column, MAX_AGE)
    low, high = int(band[1]), int(band[2])
    if not low < high <= MAX_AGE:
        raise _refuse(column, text, "age")
    return (low + high) / 2


def parse_flag(text: str, column: str) -> bool | None:
    """Yes, no or not known."""
    try:
        return _FLAGS[text.lower()]
    except KeyError:
        raise _refuse(column, text, "flag (0, 1 or empty)") from None


def parse_sex(text: str, column: str) -> str:
    """F, M or empty."""
    try:
        return _SEXES[text.lower()]
    except KeyError:
        raise _refuse(column, text, "gender (F, Female, M, Male or empty)") from None


def parse_time(text: str, column: str) -> str:
    """A moment as `canonical_time` writes it, or empty."""
    if not text:
        return ""
    try:
        return canonical_time(datetime.fromisoformat(text))
    except (ValueError, OverflowError):
        raise _refuse(column, text, "date and time (YYYY-MM-DD HH:MM:SS)") from None


# In the order of OUTCOMES_HEADER.
_PARSERS: tuple[Callable[[str, str], Any], ...] = (
    parse_id,
    parse_id,
    parse_age,
    parse_sex,
    parse_time,
    parse_time,
    partial(parse_measure, largest=MAX_LOS_DAYS),
    *(parse_flag,) * 4,
    *(partial(parse_count, largest=MAX_RISK_LEVEL),) * 2,
    *(parse_count,) * 4,
)
_OUTCOME_FIELDS = tuple(zip(_PARSERS, OUTCOMES_HEADER, strict=True))
# Those behind the identifiers may be empty, and most are: with what they are then.
_VALUE_FIELDS = tuple((parse, column, parse("", column)) for parse, column in _OUTCOME_FIELDS[2:])


def parse_outcome(values: Sequence[str]) -> AdmissionRecord:
    """A row of the columns OUTCOMES_HEADER. Raises InvalidRowError naming every wrong field."""
    subject_id, hadm_id, *texts = values
    try:
        return AdmissionRecord(
            parse_id(subject_id, "subject_id"),
            parse_id(hadm_id, "hadm_id"),
            *[
                parse(text, column) if text else empty
                for (parse, column, empty), text in zip(_VALUE_FIELDS, texts, strict=True)
            ],
        )
    except InvalidValueError:
        raise _wrong_outcome(values) from None


def _wrong_outcome(values: Sequence[str]) -> InvalidRowError:
    parsers = [
        partial(parse, text, column)
        for (parse, column), text in zip(_OUTCOME_FIELDS, values, strict=True)
    ]
    subject_id, hadm_id = (
        "" if problems_of(parse) else text for parse, text in zip(parsers[:2], values, strict=False)
    )
    return InvalidRowError(*problems_of(*parsers), subject_id=subject_id, hadm_id=hadm_id)


@lru_cache(maxsize=2**14)  # a few megabytes; most rows of a hospital are among them
def parse_coded(seq_num: str, icd_code: str, icd_version: str) -> CodedDiagnosis:
    """What a row of diagnoses says besides whose it is; a refusal names every wrong field."""
    try:
        number, (code, version, _warning) = (
            parse_seq_num(seq_num),
            parse_code(icd_code, icd_version),
        )
    except InvalidValueError:
        parsers = partial(parse_seq_num, seq_num), partial(parse_code, icd_code, icd_version)
        raise InvalidValueError(*problems_of(*parsers)) from None
    return CodedDiagnosis(number, code, version)


def parse_seq_num(text: str) -> int:
    """The place of a diagnosis in its stay."""
    number = parse_count(text, "seq_num", MAX_SEQ_NUM)
    if number is None:
        raise InvalidValueError("seq_num is empty")
    return number


@lru_cache(maxsize=8192)
def parse_code(icd_code: str, icd_version: str) -> tuple[str, int, str | None]:
    """A normalised code, its version, and a warning in words if the code had to be repaired."""
    version = _ICD_VERSIONS.get(icd_version)
    if version is None:
        raise _wrong_version(icd_code, icd_version)
    if not icd_code:
        raise InvalidValueError("icd_code is empty")
    try:
        code, warning = normalize_code(icd_code, version)
    except InvalidCodeError as error:
        raise InvalidValueError(f"icd_code {error}") from error
    return code, version, warning


def _wrong_version(icd_code: str, icd_version: str) -> InvalidValueError:
    """With what is wrong with the code whichever version it is of."""
    problems = [*_refuse("icd_version", icd_version, "version of ICD (9 or 10)").problems]
    of_each = [problems_of(partial(parse_code, icd_code, version)) for version in ("9", "10")]
    if not icd_code:
        problems += of_each[0]
    elif all(of_each):
        problems.append(f"icd_code {icd_code[:40]!r} is no ICD code of either version")
    return InvalidValueError(*problems)
