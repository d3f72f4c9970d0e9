"""Readings from files: any CSV with columns of our names, and three public data sets."""

import hashlib
import math
from collections import defaultdict
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime
from functools import partial
from pathlib import Path
from typing import TypeAlias, TypeVar

from envoys.models import Envoy
from federated.cohorts.csv_files import place_of, read_header, read_rows
from federated.cohorts.values import parse_count, parse_flag
from federated.errors import CohortError, InvalidValueError
from federated.readings import INPUT_NAMES, ReadingInput, input_named
from publichealth.services.readings import (
    TIERS,
    NewReading,
    Recorded,
    problems_of,
    record_readings,
)
from publichealth.services.synthetic_nodes import open_node

CSV_COLUMNS = ("subject_id", "city", "measured_at", "outcome", "tier", *INPUT_NAMES)
MISSING = frozenset({"", "na", "nan", "n/a", "null", "none"})
PROBLEMS_TOLD = 20
RECORDED_AT_ONCE = 2_000
NOON = 12  # of a day whose hour is not known

Value = TypeVar("Value")
Refuse: TypeAlias = Callable[[str], None]
# Place in the file, site (empty where the file is of one), reading.
FoundReadings: TypeAlias = Iterator[tuple[str, str, NewReading]]


@dataclass(frozen=True)
class FileFormat:
    """A kind of file.

    Attributes:
        read: yields the readings of a file or folder; says what is wrong with a row to its second
            argument, and goes on with the next.
        envoy, kind: where the readings go unless it is said; None where it must be said.
    """

    read: Callable[[Path, Refuse], FoundReadings]
    envoy: str | None = None
    kind: str | None = None


@dataclass
class Imported:
    """What an import has done: by name of the envoy; and how many rows it left out as bad."""

    recorded: dict[str, Recorded] = field(default_factory=dict)
    num_bad: int = 0
    problems: list[str] = field(default_factory=list)  # the first few


def import_readings(
    path: Path,
    file_format: FileFormat,
    *,
    envoy: str,
    kind: str,
    skip_bad: bool = False,
    on_progress: Callable[[int, int], None] = lambda num_done, num_total: None,
) -> Imported:
    """Read a file twice: to check all of it, then to record it. Envoys that are new are invited.

    The same file again adds nothing, and an import that was stopped may be started again.

    Args:
        envoy: the envoy's name; of a file of several sites the beginning of theirs.
        kind: what an envoy must be, or becomes.
        skip_bad: leave bad rows out and count them, instead of refusing the file.
        on_progress: is told the readings recorded so far, and those that there are.
    Raises:
        CohortError: problems by file, line and column, with range and unit; nothing was imported.
        OtherKindError, InvalidEnvoyError, NotNowError: there is no such node, nor can there be.
    """
    imported, sites, num_total = _check(path, file_format)
    if imported.num_bad and not skip_bad:
        raise CohortError(imported.problems, num_problems=imported.num_bad)
    if not num_total:
        raise CohortError([*imported.problems, f"{path.name}: holds no reading"])
    envoys = {site: open_node(f"{envoy} {site}".strip(), kind) for site in sorted(sites)}
    batches: dict[str, list[NewReading]] = defaultdict(list)
    num_done = 0
    for _, site, reading in _good(path, file_format):
        batches[site].append(reading)
        if len(batches[site]) == RECORDED_AT_ONCE:
            num_done += _record(imported, envoys[site], batches.pop(site))
            on_progress(num_done, num_total)
    for site, rest in batches.items():
        num_done += _record(imported, envoys[site], rest)
        on_progress(num_done, num_total)
    return imported


def _check(path: Path, file_format: FileFormat) -> tuple[Imported, set[str], int]:
    """What is wrong, the sites that readings are of, and how many can be recorded."""
    imported, sites, num_good = Imported(), set(), 0

    def refuse(problem: str) -> None:
        imported.num_bad += 1
        if len(imported.problems) < PROBLEMS_TOLD:
            imported.problems.append(problem)

    for place, site, reading in file_format.read(path, refuse):
        problems = problems_of([reading])
        if problems:
            refuse(_one_line(place, [problem.text for problem in problems]))
        else:
            num_good += 1
            sites.add(site)
    return imported, sites, num_good


def _one_line(place: str, problems: Sequence[str]) -> str:
    """All that is wrong with a row, since rows are counted."""
    return f"{place}: {'; '.join(problems)}"


def _good(path: Path, file_format: FileFormat) -> FoundReadings:
    for found in file_format.read(path, lambda problem: None):
        if not problems_of([found[2]]):
            yield found


def _record(imported: Imported, envoy: Envoy, new: list[NewReading]) -> int:
    recorded = record_readings(envoy, new)
    before = imported.recorded.get(envoy.name, Recorded(0, 0))
    imported.recorded[envoy.name] = Recorded(
        before.num_new + recorded.num_new, before.num_known + recorded.num_known
    )
    return len(new)


# Any CSV


def unknown_columns(path: Path) -> list[str]:
    """The columns of a CSV file that mean nothing here."""
    return [name for name in read_header(path) if name not in CSV_COLUMNS]


def read_csv(path: Path, refuse: Refuse) -> FoundReadings:
    """Columns by our names, in any order; where there is no subject_id the city stands for it.

    Raises CohortError for what is wrong with the whole file.
    """
    header = read_header(path)
    if "measured_at" in header and not set(INPUT_NAMES) & set(header):
        raise CohortError([f"{path.name}: no column is an input: {', '.join(INPUT_NAMES)}"])
    optional = [name for name in CSV_COLUMNS if name != "measured_at"]
    for line, (moment, *texts) in read_rows(path, ["measured_at"], optional, refuse=refuse):
        place, row = place_of(path, line), dict(zip(optional, texts, strict=True))
        problems: list[str] = []
        values = {}
        for name in INPUT_NAMES:
            value = _kept(problems, partial(_parse_value, row[name], input_named(name)))
            if value is not None:
                values[name] = value
        measured_at = _kept(problems, partial(_parse_moment, moment))
        outcome = _kept(problems, partial(_parse_outcome, row["outcome"]))
        tier = _kept(problems, partial(parse_count, row["tier"], "tier", max(TIERS)))
        if problems or measured_at is None:
            refuse(_one_line(place, problems))
            continue
        subject_id = row["subject_id"] or row["city"]
        yield place, "", NewReading(subject_id, measured_at, values, row["city"], outcome, tier)


def _kept(problems: list[str], parse: Callable[[], Value]) -> Value | None:
    """What a field says; what is wrong with it is kept, and the next field looked at."""
    try:
        return parse()
    except InvalidValueError as error:
        problems.extend(error.problems)
        return None


def _parse_value(text: str, wanted: ReadingInput) -> float | None:
    if text.lower() in MISSING:
        return None
    if wanted.is_flag:
        try:
            return float(bool(parse_flag(_FLAG_WORDS.get(text.lower(), text), wanted.name)))
        except InvalidValueError:
            raise InvalidValueError(
                f"{wanted.name} is 0 (no) or 1 (yes), not {text[:40]!r}"
            ) from None
    try:
        value = float(text) if text.isascii() and "_" not in text else math.nan
    except ValueError:
        value = math.nan
    if math.isnan(value):
        unit = f" {wanted.unit}" if wanted.unit else ""
        raise InvalidValueError(
            f"{wanted.name} {text[:40]!r} is no number between {wanted.low:g} and"
            f" {wanted.high:g}{unit}"
        )
    return wanted.check(value)


_FLAG_WORDS = {"yes": "1", "no": "0", "y": "1", "n": "0"}


def _parse_moment(text: str) -> datetime:
    """Of a moment without a time zone: UTC."""
    try:
        moment = datetime.fromisoformat(text)
    except ValueError:
        raise InvalidValueError(
            f"measured_at {text[:40]!r} is no date and time (YYYY-MM-DD HH:MM:SS)"
        ) from None
    return moment if moment.tzinfo else moment.replace(tzinfo=UTC)


def _parse_outcome(text: str) -> int | None:
    flag = parse_flag(text, "outcome")
    return None if flag is None else int(flag)


# Public data sets


NHANES_COLUMNS = (
    *("id", "surveyyr", "envoy", "risk_tier", "pulse", "sleephrsnight", "age", "bmi"),
    *("smokenow", "smoke100", "diabetes", "physactive"),
)
# The middle of a survey of two years.
NHANES_MOMENTS = {
    "2009_10": datetime(2010, 1, 1, tzinfo=UTC),
    "2011_12": datetime(2012, 1, 1, tzinfo=UTC),
}
YES_NO = {"Yes": 1.0, "No": 0.0}


def read_nhanes(path: Path, refuse: Refuse) -> FoundReadings:
    """NHANES 2009–2012 adults: a site for each block of survey strata, tier from self-rated health.

    Who has never smoked 100 cigarettes was not asked whether they smoke now: they do not.
    """
    file = _file_of(path, "nhanes_adults.csv.gz")
    for line, fields in read_rows(file, NHANES_COLUMNS, refuse=refuse):
        row, place = dict(zip(NHANES_COLUMNS, fields, strict=True)), place_of(file, line)
        try:
            moment = NHANES_MOMENTS[row["surveyyr"]]
            tier = int(row["risk_tier"]) if row["risk_tier"] else None
            numbers = {
                "heart_rate": _number(row["pulse"]),
                "sleep_hours": _number(row["sleephrsnight"]),
                "age": _number(row["age"]),
                "bmi": _number(row["bmi"]),
            }
        except (KeyError, ValueError):
            refuse(f"{place}: is no row of NHANES 2009 to 2012: a number or its year is none")
            continue
        never_smoked = 0.0 if row["smoke100"] == "No" else None
        answers = {
            "smoker": YES_NO.get(row["smokenow"], never_smoked),
            "chronic": YES_NO.get(row["diabetes"]),
            "active": YES_NO.get(row["physactive"]),
        }
        values = _present({**numbers, **answers})
        site = row["envoy"].replace("_", " ")
        yield place, site, NewReading(row["id"], moment, values, tier=tier)


def read_fitbit(path: Path, refuse: Refuse) -> FoundReadings:
    """Fitbit tracker data of 2016: steps and sleep by person and day, without an outcome.

    People are named by a hash of their number. A day without a single step is one on which the
    tracker lay in a drawer: its steps were not measured. Sleep written down twice counts once.
    """
    days: dict[tuple[str, datetime], dict[str, float]] = {}
    places: dict[tuple[str, datetime], str] = {}
    for name, column, day_column, input_name, divisor in (
        ("dailyActivity_merged.csv.gz", "totalsteps", "activitydate", "steps", 1),
        ("sleepDay_merged.csv.gz", "totalminutesasleep", "sleepday", "sleep_hours", 60),
    ):
        file = _file_of(path, name)
        for line, (person, day, text) in read_rows(file, ("id", day_column, column), refuse=refuse):
            place = place_of(file, line)
            try:
                moment = datetime.strptime(day.split(" ")[0], "%m/%d/%Y").replace(
                    hour=NOON, tzinfo=UTC
                )
                value = float(text) / divisor
            except ValueError:
                refuse(f"{place}: {column} is no number, or {day_column} no date")
                continue
            if input_name == "steps" and value == 0:
                continue
            key = (_hashed(f"fitbit 2016 {person}"), moment)
            places.setdefault(key, place)
            days.setdefault(key, {})[input_name] = round(value, 2)
    for (subject_id, moment), values in sorted(days.items()):
        yield places[subject_id, moment], "", NewReading(subject_id, moment, values)


def read_epa(path: Path, refuse: Refuse) -> FoundReadings:
    """The EPA's yearly air quality index by county, 2023: the median, at the middle of the year."""
    file = _file_of(path, "annual_aqi_by_county_2023.csv.gz")
    moment = datetime(2023, 7, 1, tzinfo=UTC)
    columns = ("state", "county", "median aqi")
    for line, (state, county, aqi) in read_rows(file, columns, refuse=refuse):
        place, name = place_of(file, line), f"{county}, {state}"
        try:
            values = _present({"aqi": _number(aqi)})
        except ValueError:
            refuse(f"{place}: median aqi is no number")
            continue
        yield place, "", NewReading(name, moment, values, city=name)


FORMATS: Mapping[str, FileFormat] = {
    "csv": FileFormat(read_csv),
    "nhanes": FileFormat(read_nhanes, "NHANES", Envoy.Kind.CLINIC),
    "fitbit": FileFormat(read_fitbit, "Fitbit", Envoy.Kind.WEARABLES),
    "epa": FileFormat(read_epa, "EPA counties", Envoy.Kind.ENVIRONMENT),
}


def _file_of(path: Path, name: str) -> Path:
    """The file in a data set's folder, unpacked or not; or the file that was named itself."""
    if not path.is_dir():
        return path
    unpacked = path / name.removesuffix(".gz")
    return unpacked if unpacked.exists() else path / name


def _number(text: str) -> float | None:
    """Raises ValueError."""
    return float(text) if text else None


def _present(values: Mapping[str, float | None]) -> dict[str, float]:
    return {name: value for name, value in values.items() if value is not None}


def _hashed(text: str) -> str:
    return hashlib.sha256(text.encode()).hexdigest()[:16]
