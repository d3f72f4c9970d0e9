"""A cohort folder: who was admitted, with which ICD codes, and what happened to them.

Three layouts are read, each file gzipped or not:

    DIR/envoys/<name>/diagnoses_icd.csv or diagnoses.csv, and optionally outcomes.csv
    DIR/diagnoses_icd.csv or diagnoses.csv, and optionally outcomes.csv     one envoy: an export
    DIR/hosp/diagnoses_icd.csv, patients.csv, admissions.csv                MIMIC-IV; a column `envoy`
                                                        of DIR/derived_outcomes.csv splits it

`check_envoy` reads everything once and refuses what is wrong; the other readers trust what it let
pass. Rows are streamed: what is kept of each is a few numbers.
"""

import csv
import gzip
import hashlib
import io
import math
import re
import zlib
from collections import defaultdict
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field, fields, replace
from datetime import UTC, date, datetime, timedelta
from functools import lru_cache
from itertools import pairwise
from operator import itemgetter
from pathlib import Path
from typing import Any, BinaryIO, TextIO

import numpy as np

from federated.errors import CohortError, InvalidCodeError, InvalidValueError
from federated.icd import CodeStatus, code_status, normalize_code

MAX_PROBLEMS = 20
MAX_ID_LENGTH = 64
MAX_SEQ_NUM = 65_535
MAX_COUNT = 1_000_000
MAX_AGE = 130.0
MAX_LOS_DAYS = 36_525.0
READMISSION_DAYS = 30
PROGRESS_ROWS = 5_000
# A file with as many ICD-9 codes of digits has some below 100: infections, tuberculosis, sepsis.
MIN_ROWS_FOR_LOST_ZEROS = 100

GZIP_MAGIC = b"\x1f\x8b"
# As the published tiers of the MIMIC-IV demo count it: no location recorded is not home.
HOME = frozenset({"HOME", "HOME HEALTH CARE"})

DIAGNOSES_HEADER = ("subject_id", "hadm_id", "seq_num", "icd_code", "icd_version")
OUTCOMES_HEADER = (
    "subject_id",
    "hadm_id",
    "age",
    "gender",
    "admitted_at",
    "discharged_at",
    "los_days",
    "discharged_home",
    "died_in_hospital",
    "died_30d_after_discharge",
    "readmit_30d",
    "risk_tier",
    "clinician_risk_level",
    "number_diagnoses",
    "number_inpatient",
    "number_emergency",
    "number_outpatient",
)

UNKNOWN_CODE = "retired or unknown ICD code"
UNKNOWN_CATEGORY = "ICD code of an unknown category"
NON_LEAF_CODE = "category or other ICD code that is not a leaf"
REPAIRED_ZEROS = "leading zeros of an ICD-9 code restored"
LOST_ZEROS = "no ICD-9 code has a leading zero: they have probably been lost"
SEX_DISAGREEMENT = "patient whose sex differs between admissions"
NO_OUTCOMES_FILE = "no outcomes file"
NO_OUTCOME = "admission without an outcome"
NO_DIAGNOSES = "outcome without diagnoses"
NO_ENVOY = "diagnosis of an admission that belongs to no envoy"

Warnings = list[dict[str, Any]]
Rows = Iterator[tuple[int, tuple[str, ...]]]  # line and values


@dataclass(frozen=True, slots=True)
class CodedDiagnosis:
    seq_num: int  # 1 is the primary one
    icd_code: str  # without the dot
    icd_version: int  # 9 or 10


@dataclass(frozen=True, slots=True)
class AdmissionRecord:
    """A stay. None, and for a text the empty one, is not known, never zero or no."""

    subject_id: str
    hadm_id: str
    age: float | None = None  # years; the middle of a band
    sex: str = ""  # F, M or empty
    admitted_at: str = ""  # UTC, YYYY-MM-DDTHH:MM:SS
    discharged_at: str = ""
    los_days: float | None = None
    discharged_home: bool | None = None
    died_in_hospital: bool | None = None
    died_30d_after_discharge: bool | None = None
    readmit_30d: bool | None = None
    risk_tier: int | None = None  # 0, 1, 2 = Low, Medium, High
    clinician_risk_level: int | None = None
    number_diagnoses: int | None = None
    number_inpatient: int | None = None
    number_emergency: int | None = None
    number_outpatient: int | None = None
    diagnoses: tuple[CodedDiagnosis, ...] = ()


@dataclass(frozen=True, slots=True)
class EnvoyFiles:
    """Where an envoy's rows stand; with `patients` and `admissions` in the layout of MIMIC-IV."""

    name: str
    diagnoses: Path
    outcomes: Path | None = None
    patients: Path | None = None
    admissions: Path | None = None
    is_split: bool = False  # the files hold other envoys' rows too: `outcomes` says whose


@dataclass(frozen=True, slots=True)
class CohortSummary:
    num_rows: int
    num_admissions: int
    num_diagnoses: int
    source_sha256: str
    warnings: Warnings = field(default_factory=list)


# --- Finding the files -------------------------------------------------------------------------


def find_envoys(data_dir: Path) -> list[EnvoyFiles]:
    """The envoys of a cohort folder, sorted by name.

    Raises:
        CohortError: there is none, or it is not plain which file to read.
    """
    if (data_dir / "envoys").is_dir():
        folders = sorted(
            path
            for path in (data_dir / "envoys").iterdir()
            if path.is_dir() and not path.name.startswith(".")
        )
        if folders:
            return [_envoy_folder(folder) for folder in folders]
    if (data_dir / "hosp").is_dir():
        return _mimic_envoys(data_dir)
    if _file(data_dir, "diagnoses_icd", "diagnoses"):
        return [_envoy_folder(data_dir)]
    raise CohortError(
        [
            f"{data_dir}: no cohort: neither envoys/<name>/diagnoses_icd.csv nor hosp/diagnoses_icd.csv"
        ]
    )


def _file(folder: Path, *names: str) -> Path | None:
    found = [
        path
        for name in names
        for end in (".csv", ".csv.gz")
        if (path := folder / (name + end)).is_file()
    ]
    if len(found) > 1:
        listed = " and ".join(path.name for path in found)
        raise CohortError([f"{folder.name}: {listed}: remove all but one"])
    return found[0] if found else None


def _required_file(folder: Path, *names: str) -> Path:
    path = _file(folder, *names)
    if path is None:
        raise CohortError([f"{folder.name}: {' or '.join(names)}.csv or .csv.gz is missing"])
    return path


def _envoy_folder(folder: Path) -> EnvoyFiles:
    diagnoses = _required_file(folder, "diagnoses_icd", "diagnoses")
    return EnvoyFiles(folder.resolve().name, diagnoses, _file(folder, "outcomes"))


def _mimic_envoys(data_dir: Path) -> list[EnvoyFiles]:
    hosp = data_dir / "hosp"
    whole = EnvoyFiles(
        name=data_dir.resolve().name,
        diagnoses=_required_file(hosp, "diagnoses_icd"),
        outcomes=_file(data_dir, "derived_outcomes"),
        patients=_required_file(hosp, "patients"),
        admissions=_required_file(hosp, "admissions"),
    )
    if whole.outcomes is None:
        return [whole]
    names = {values[0] for _, values in _rows(whole.outcomes, (), optional=("envoy",))} - {""}
    if not names:
        return [whole]
    return [replace(whole, name=name, is_split=True) for name in sorted(names)]


# --- Reading a CSV file ------------------------------------------------------------------------


class _HashingReader(io.RawIOBase):
    """Passes a stream on and hashes what goes through."""

    def __init__(self, stream: BinaryIO) -> None:
        self.stream = stream
        self.digest = hashlib.sha256()

    def readable(self) -> bool:
        return True

    def readinto(self, buffer: Any) -> int:
        chunk = self.stream.read(len(buffer))
        self.digest.update(chunk)
        buffer[: len(chunk)] = chunk
        return len(chunk)


def _label(path: Path) -> str:
    return f"{path.parent.name}/{path.name}"


@contextmanager
def _open_plain(path: Path) -> Iterator[BinaryIO]:
    """The file's content, unpacked if it is gzip, whatever its name says."""
    try:
        with path.open("rb") as file:
            is_gzip = file.read(2) == GZIP_MAGIC
            file.seek(0)
            if is_gzip:
                with gzip.open(file) as unpacked:
                    yield unpacked  # type: ignore[misc]
            else:
                yield file
    except (EOFError, zlib.error, gzip.BadGzipFile) as error:
        raise CohortError([f"{_label(path)}: truncated or damaged gzip ({error})"]) from error
    except OSError as error:
        raise CohortError([f"{_label(path)}: cannot be read: {error.strerror}"]) from error


def _rows(
    path: Path,
    required: Sequence[str],
    optional: Sequence[str] = (),
    hashes: dict[str, str] | None = None,
) -> Rows:
    """Line and values of each row: of the required columns, then of the optional ones.

    An absent optional column is empty. When the file has been read to its end, the sha256 of its
    content is put into `hashes` under the file's name.
    """
    with _open_plain(path) as plain:
        hashing = _HashingReader(plain)
        buffered = io.BufferedReader(hashing, buffer_size=2**16)
        with io.TextIOWrapper(buffered, encoding="utf-8-sig", newline="") as text:
            yield from _csv_rows(text, path, required, optional)
            if hashes is not None:
                hashes[path.name.removesuffix(".gz")] = hashing.digest.hexdigest()


def _csv_rows(
    text: Iterable[str], path: Path, required: Sequence[str], optional: Sequence[str]
) -> Rows:
    reader = csv.reader(text, strict=True)
    try:
        header = [name.strip().lower() for name in next(reader, [])]
        _check_header(header, path, required, optional)
        # Each row gets one empty value behind its last: that of an absent column.
        positions = [
            header.index(name) if name in header else -1 for name in (*required, *optional)
        ]
        pick = itemgetter(*positions, -1)
        for row in reader:
            if len(row) != len(header):
                if not row:
                    continue  # an empty line
                raise CohortError(
                    [
                        f"{_label(path)} line {reader.line_num}: {len(row)} fields, "
                        f"the header has {len(header)}"
                    ]
                )
            row.append("")
            yield reader.line_num, tuple(map(str.strip, pick(row)[:-1]))
    except csv.Error as error:
        raise CohortError([f"{_label(path)} line {reader.line_num}: {error}"]) from error
    except UnicodeDecodeError as error:
        line = _first_line_not_utf8(path)
        raise CohortError([f"{_label(path)} line {line}: is not UTF-8 ({error.reason})"]) from error


def _check_header(
    header: Sequence[str], path: Path, required: Sequence[str], optional: Sequence[str]
) -> None:
    missing = [name for name in required if name not in header]
    if missing:
        plural = "s" if len(missing) > 1 else ""
        raise CohortError([f"{_label(path)}: missing column{plural} {', '.join(missing)}"])
    for name in (*required, *optional):
        if header.count(name) > 1:
            raise CohortError([f"{_label(path)} line 1: the column {name} is there twice"])


def _first_line_not_utf8(path: Path) -> int:
    with _open_plain(path) as plain:
        for number, line in enumerate(plain, start=1):
            try:
                line.decode()
            except UnicodeDecodeError:
                return number
    return 1


# --- Reading a value ---------------------------------------------------------------------------


def _refuse(column: str, text: str, wanted: str) -> InvalidValueError:
    return InvalidValueError(f"{column} {text[:40]!r} is no {wanted}")


def parse_id(text: str, column: str) -> str:
    """An identifier, as given. A refusal never shows it: it is a patient's."""
    if not text:
        raise InvalidValueError(f"{column} is empty")
    if len(text) > MAX_ID_LENGTH:
        raise InvalidValueError(f"{column} has {len(text)} characters, {MAX_ID_LENGTH} is the most")
    if not text.isprintable():
        raise InvalidValueError(f"{column} has a character that cannot be printed")
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
    if not text:
        return None
    try:
        value = float(text)
    except ValueError:
        value = math.nan
    if not 0 <= value <= largest or not text.isascii() or "_" in text:
        raise _refuse(column, text, f"number from 0 to {largest:g}")
    return value


_AGE_BAND = re.compile(r"\[(\d{1,3})-(\d{1,3})\)")


@lru_cache(maxsize=4096)
def parse_age(text: str, column: str) -> float | None:
    """Years; of a band such as `[50-60)` the middle."""
    band = _AGE_BAND.fullmatch(text)
    if band is None:
        return parse_measure(text, column, MAX_AGE)
    low, high = int(band[1]), int(band[2])
    if not low < high <= MAX_AGE:
        raise _refuse(column, text, "age")
    return (low + high) / 2


_FLAGS = {"": None, "0": False, "1": True, "0.0": False, "1.0": True, "false": False, "true": True}


def parse_flag(text: str, column: str) -> bool | None:
    try:
        return _FLAGS[text.lower()]
    except KeyError:
        raise _refuse(column, text, "flag (0, 1 or empty)") from None


_SEXES = {"f": "F", "female": "F", "m": "M", "male": "M"}
_SEXES |= dict.fromkeys(("", "u", "unknown", "unknown/invalid", "other", "o"), "")


def parse_sex(text: str, column: str) -> str:
    try:
        return _SEXES[text.lower()]
    except KeyError:
        raise _refuse(column, text, "gender (F, Female, M, Male or empty)") from None


def parse_risk_level(text: str, column: str) -> int | None:
    return parse_count(text, column, 2)


def canonical_time(moment: datetime) -> str:
    """A moment as records hold it: UTC without a zone, whole seconds; a naive one is UTC."""
    if moment.tzinfo is not None:
        moment = moment.astimezone(UTC)
    return moment.replace(tzinfo=None, microsecond=0).isoformat()


def parse_time(text: str, column: str) -> str:
    if not text:
        return ""
    try:
        return canonical_time(datetime.fromisoformat(text))
    except (ValueError, OverflowError):
        raise _refuse(column, text, "date and time (YYYY-MM-DD HH:MM:SS)") from None


def _optional_count(text: str, column: str) -> int | None:
    return parse_count(text, column)


def _los_days(text: str, column: str) -> float | None:
    return parse_measure(text, column, MAX_LOS_DAYS)


# In the order of OUTCOMES_HEADER, which is that of the fields of AdmissionRecord.
_PARSERS: tuple[Callable[[str, str], Any], ...] = (
    parse_id,
    parse_id,
    parse_age,
    parse_sex,
    parse_time,
    parse_time,
    _los_days,
    *(parse_flag,) * 4,
    *(parse_risk_level,) * 2,
    *(_optional_count,) * 4,
)
_OUTCOME_FIELDS = tuple(zip(_PARSERS, OUTCOMES_HEADER, strict=True))


def parse_outcome(values: Sequence[str]) -> AdmissionRecord:
    """A row of the columns OUTCOMES_HEADER. Raises InvalidValueError."""
    return AdmissionRecord(
        *(
            parse(text, column)
            for (parse, column), text in zip(_OUTCOME_FIELDS, values, strict=True)
        )
    )


@lru_cache(maxsize=2048)
def _parse_coded(seq_num: str, icd_code: str, icd_version: str) -> CodedDiagnosis:
    number = parse_count(seq_num, "seq_num", MAX_SEQ_NUM)
    if number is None:
        raise InvalidValueError("seq_num is empty")
    code, version, _warning = _parse_code(icd_code, icd_version)
    return CodedDiagnosis(number, code, version)


def _parse_code(icd_code: str, icd_version: str) -> tuple[str, int, str | None]:
    version = {"9": 9, "10": 10, "9.0": 9, "10.0": 10}.get(icd_version)
    if version is None:
        raise _refuse("icd_version", icd_version, "version of ICD (9 or 10)")
    if not icd_code:
        raise InvalidValueError("icd_code is empty")
    try:
        code, warning = normalize_code(icd_code, version)
    except InvalidCodeError as error:
        raise InvalidValueError(f"icd_code {error}") from error
    return code, version, warning


# --- The rows of an envoy ----------------------------------------------------------------------


def admission_order(record: AdmissionRecord) -> tuple[bool, str, int, str]:
    """The order of one patient's admissions: by date; those without one last, by `hadm_id`."""
    return order_key(record.admitted_at, record.hadm_id)


def order_key(admitted_at: str, hadm_id: str) -> tuple[bool, str, int, str]:
    return (not admitted_at, admitted_at, len(hadm_id), hadm_id)


def iter_outcomes(files: EnvoyFiles) -> Iterator[AdmissionRecord]:
    """Every admission once, without its diagnoses, in the order of the files.

    Sex is the patient's: the first one recorded, in the order of admissions. An admission that
    only the diagnoses know comes last, with nothing else known.
    """
    sexes = _patient_sexes(files)
    seen = set()
    for _, record in _iter_checked(_outcome_rows(files)):
        seen.add(record.hadm_id)
        sex = sexes.get(record.subject_id, "")
        yield record if record.sex == sex else replace(record, sex=sex)
    if files.is_split:
        return
    for subject_id, hadm_id, _ in iter_diagnoses(files):
        if hadm_id not in seen:
            seen.add(hadm_id)
            yield AdmissionRecord(subject_id, hadm_id, sex=sexes.get(subject_id, ""))


def iter_diagnoses(files: EnvoyFiles) -> Iterator[tuple[str, str, CodedDiagnosis]]:
    """Every diagnosis with its subject_id and hadm_id, in the order of the file."""
    ours = _split_admissions(files)
    for _, (subject_id, hadm_id, *coded) in _rows(files.diagnoses, DIAGNOSES_HEADER):
        if ours is None or hadm_id in ours:
            yield subject_id, hadm_id, _parse_coded(*coded)


def read_admissions(files: EnvoyFiles) -> list[AdmissionRecord]:
    """Every admission with its diagnoses, sorted by patient and `admission_order`, in memory."""
    diagnoses = defaultdict(list)
    for _, hadm_id, diagnosis in iter_diagnoses(files):
        diagnoses[hadm_id].append(diagnosis)
    records = [
        replace(
            record,
            diagnoses=tuple(sorted(diagnoses[record.hadm_id], key=lambda row: row.seq_num)),
        )
        for record in iter_outcomes(files)
    ]
    return sorted(records, key=lambda record: (record.subject_id, *admission_order(record)))


def first_places(files: EnvoyFiles, hadm_ids: set[str]) -> list[str]:
    """File and line at which each of these admissions first stands; at most MAX_PROBLEMS."""
    wanted = set(hadm_ids)
    places = []
    for path in (files.admissions, files.outcomes, files.diagnoses):
        if path is None:
            continue
        for line, (hadm_id,) in _rows(path, ("hadm_id",)):
            if hadm_id in wanted:
                wanted.remove(hadm_id)
                places.append(f"{_label(path)} line {line}")
                if len(places) == MAX_PROBLEMS:
                    return places
    return places


def _iter_checked(rows: Iterable[tuple[str, Any]]) -> Iterator[tuple[str, AdmissionRecord]]:
    for place, record in rows:
        if isinstance(record, InvalidValueError):
            raise CohortError([f"{place}: {record}"])
        yield place, record


def _outcome_rows(
    files: EnvoyFiles, hashes: dict[str, str] | None = None
) -> Iterator[tuple[str, AdmissionRecord | InvalidValueError]]:
    """Place and record of each admission that the files of outcomes know, or what is wrong."""
    if files.admissions is not None:
        yield from _mimic_rows(files, hashes)
    elif files.outcomes is not None:
        yield from _given_rows(files.outcomes, hashes)


def _given_rows(
    path: Path, hashes: dict[str, str] | None = None
) -> Iterator[tuple[str, AdmissionRecord | InvalidValueError]]:
    for line, values in _rows(path, OUTCOMES_HEADER[:2], OUTCOMES_HEADER[2:], hashes):
        place = f"{_label(path)} line {line}"
        try:
            yield place, parse_outcome(values)
        except InvalidValueError as error:
            yield place, error


def _split_admissions(files: EnvoyFiles) -> frozenset[str] | None:
    """The admissions of this envoy in files that it shares; None where it has its own."""
    if not files.is_split or files.outcomes is None:
        return None
    return frozenset(
        hadm_id
        for _, (hadm_id, envoy) in _rows(files.outcomes, ("hadm_id", "envoy"))
        if envoy == files.name
    )


def _patient_sexes(files: EnvoyFiles) -> dict[str, str]:
    """The first recorded sex of each patient, in the order of admissions."""
    first: dict[str, tuple[tuple[bool, str, int, str], str]] = {}
    if files.admissions is not None:
        rows: Iterable[tuple[str, str, str, str]] = (
            (record.subject_id, record.hadm_id, record.admitted_at, record.sex)
            for _, record in _iter_checked(_mimic_rows(files))
        )
    elif files.outcomes is not None:
        columns = ("gender", "admitted_at")
        rows = (
            (subject_id, hadm_id, parse_time(time, "admitted_at"), parse_sex(sex, "gender"))
            for _, (subject_id, hadm_id, sex, time) in _rows(
                files.outcomes, OUTCOMES_HEADER[:2], columns
            )
        )
    else:
        return {}
    for subject_id, hadm_id, admitted_at, sex in rows:
        key = order_key(admitted_at, hadm_id)
        if sex and (subject_id not in first or key < first[subject_id][0]):
            first[subject_id] = (key, sex)
    return {subject_id: sex for subject_id, (_, sex) in first.items()}


# --- MIMIC-IV ----------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class _MimicPatient:
    sex: str
    anchor_age: float | None
    anchor_year: int | None
    died_on: str  # YYYY-MM-DD or empty


@dataclass(frozen=True, slots=True)
class _MimicStay:
    subject_id: str
    hadm_id: str
    admitted_at: str
    discharged_at: str
    discharged_home: bool | None
    died_in_hospital: bool | None


def _mimic_rows(
    files: EnvoyFiles, hashes: dict[str, str] | None = None
) -> Iterator[tuple[str, AdmissionRecord | InvalidValueError]]:
    """As `_outcome_rows`: what the hospital's tables say, under what derived_outcomes gives."""
    assert files.patients is not None
    assert files.admissions is not None
    patients: dict[str, _MimicPatient] = {}
    for line, values in _rows(
        files.patients, ("subject_id", "gender"), ("anchor_age", "anchor_year", "dod"), hashes
    ):
        try:
            patients[parse_id(values[0], "subject_id")] = _mimic_patient(values[1:])
        except InvalidValueError as error:
            yield f"{_label(files.patients)} line {line}", error
    given: dict[str, AdmissionRecord] = {}
    places: dict[str, str] = {}
    if files.outcomes is not None:
        for place, record in _given_rows(files.outcomes, hashes):
            if isinstance(record, InvalidValueError):
                yield place, record
            elif record.hadm_id in given:
                yield place, InvalidValueError("its hadm_id is there twice")
            else:
                given[record.hadm_id] = record
                places[record.hadm_id] = place
    stays: list[tuple[str, _MimicStay]] = []
    for line, values in _rows(
        files.admissions,
        ("subject_id", "hadm_id", "admittime", "dischtime"),
        ("discharge_location", "hospital_expire_flag"),
        hashes,
    ):
        place = f"{_label(files.admissions)} line {line}"
        try:
            stays.append((place, _mimic_stay(values)))
        except InvalidValueError as error:
            yield place, error
    ours = _split_admissions(files)
    next_admissions = _next_admissions([stay for _, stay in stays])
    for place, stay in stays:
        if ours is not None and stay.hadm_id not in ours:
            continue
        derived = _derive(
            stay, patients.get(stay.subject_id), next_admissions.get(stay.hadm_id, "")
        )
        known = given.pop(stay.hadm_id, None)
        if known is not None and known.subject_id != stay.subject_id:
            yield places[stay.hadm_id], InvalidValueError("its hadm_id belongs to two subject_ids")
        yield place, derived if known is None else _overlay(derived, known)
    for hadm_id, record in given.items():
        if ours is None or hadm_id in ours:
            yield places[hadm_id], record


def _mimic_patient(values: Sequence[str]) -> _MimicPatient:
    gender, anchor_age, anchor_year, dod = values
    return _MimicPatient(
        sex=parse_sex(gender, "gender"),
        anchor_age=parse_age(anchor_age, "anchor_age"),
        anchor_year=parse_count(anchor_year, "anchor_year", 9999),
        died_on=parse_time(dod, "dod")[:10],
    )


def _mimic_stay(values: Sequence[str]) -> _MimicStay:
    subject_id, hadm_id, admitted_at, discharged_at, location, died = values
    return _MimicStay(
        subject_id=parse_id(subject_id, "subject_id"),
        hadm_id=parse_id(hadm_id, "hadm_id"),
        admitted_at=parse_time(admitted_at, "admittime"),
        discharged_at=parse_time(discharged_at, "dischtime"),
        discharged_home=location.upper() in HOME if discharged_at else None,
        died_in_hospital=parse_flag(died, "hospital_expire_flag"),
    )


def _next_admissions(stays: Iterable[_MimicStay]) -> dict[str, str]:
    """When each admission's patient was admitted next, by hadm_id."""
    by_patient = defaultdict(list)
    for stay in stays:
        if stay.admitted_at:
            by_patient[stay.subject_id].append((stay.admitted_at, stay.hadm_id))
    following = {}
    for times in by_patient.values():
        times.sort()
        for (_, hadm_id), (next_time, _) in pairwise(times):
            following[hadm_id] = next_time
    return following


def _derive(
    stay: _MimicStay, patient: _MimicPatient | None, next_admitted_at: str
) -> AdmissionRecord:
    age = None
    if patient and patient.anchor_age is not None and patient.anchor_year and stay.admitted_at:
        age = patient.anchor_age + int(stay.admitted_at[:4]) - patient.anchor_year
    readmitted = None
    died_after = None
    if stay.discharged_at and not stay.died_in_hospital:
        readmitted = is_readmission(stay.discharged_at, next_admitted_at)
        if patient:
            discharged_on = date.fromisoformat(stay.discharged_at[:10])
            died_after = bool(patient.died_on) and (
                date.fromisoformat(patient.died_on) - discharged_on
            ) <= timedelta(days=READMISSION_DAYS)
    return AdmissionRecord(
        subject_id=stay.subject_id,
        hadm_id=stay.hadm_id,
        age=age,
        sex=patient.sex if patient else "",
        admitted_at=stay.admitted_at,
        discharged_at=stay.discharged_at,
        los_days=days_between(stay.admitted_at, stay.discharged_at),
        discharged_home=stay.discharged_home,
        died_in_hospital=stay.died_in_hospital,
        died_30d_after_discharge=died_after,
        readmit_30d=readmitted,
    )


def is_readmission(discharged_at: str, next_admitted_at: str) -> bool:
    """Whether a patient discharged then was next admitted within 30 days after; "" is never."""
    if not next_admitted_at:
        return False
    gap = datetime.fromisoformat(next_admitted_at) - datetime.fromisoformat(discharged_at)
    return timedelta(0) <= gap <= timedelta(days=READMISSION_DAYS)


def days_between(admitted_at: str, discharged_at: str) -> float | None:
    """The length of a stay; None if a time is missing, or they stand in the wrong order."""
    if not admitted_at or not discharged_at or discharged_at < admitted_at:
        return None
    stay = datetime.fromisoformat(discharged_at) - datetime.fromisoformat(admitted_at)
    return round(stay / timedelta(days=1), 3)


_VALUE_FIELDS = tuple(
    item.name
    for item in fields(AdmissionRecord)
    if item.name not in ("subject_id", "hadm_id", "diagnoses")
)


def _overlay(derived: AdmissionRecord, given: AdmissionRecord) -> AdmissionRecord:
    changes = {
        name: value
        for name in _VALUE_FIELDS
        if (value := getattr(given, name)) is not None and value != ""
    }
    return replace(derived, **changes)


# --- Checking ----------------------------------------------------------------------------------


class _Problems:
    def __init__(self) -> None:
        self.found: list[str] = []

    def add(self, problem: str) -> None:
        self.found.append(problem)
        if len(self.found) >= MAX_PROBLEMS:
            raise CohortError(self.found)


class _WarningCounts:
    """Counts of what is taken all the same, each with its first place."""

    def __init__(self) -> None:
        self.counts: dict[str, int] = {}
        self.examples: dict[str, str] = {}

    def add(self, kind: str, example: str, count: int = 1) -> None:
        self.counts[kind] = self.counts.get(kind, 0) + count
        self.examples.setdefault(kind, example)

    def as_list(self) -> Warnings:
        return [
            {"kind": kind, "count": count, "example": self.examples[kind]}
            for kind, count in self.counts.items()
        ]


class _Admissions:
    """Which admission belongs to which patient: numbers in place of identifiers."""

    def __init__(self) -> None:
        self.numbers: dict[str, int] = {}
        self.subjects: list[int] = []
        self._subject_numbers: dict[str, int] = {}

    def number(self, subject_id: str, hadm_id: str) -> int:
        """Raises InvalidValueError if the admission has been another patient's."""
        subject = self._subject_numbers.setdefault(subject_id, len(self._subject_numbers))
        number = self.numbers.setdefault(hadm_id, len(self.subjects))
        if number == len(self.subjects):
            self.subjects.append(subject)
        elif self.subjects[number] != subject:
            raise InvalidValueError("its hadm_id belongs to two subject_ids")
        return number


def check_envoy(
    files: EnvoyFiles, on_progress: Callable[[int], None] | None = None
) -> CohortSummary:
    """Read all of an envoy's rows and refuse what is wrong with them.

    Args:
        on_progress: called now and then with the number of rows read so far.
    Raises:
        CohortError: with up to 20 problems, each naming file, line and the value at fault, but
            never a patient's or an admission's identifier.
    """
    check = _Check(files, on_progress)
    try:
        return check.run()
    except CohortError as error:
        known = check.problems.found
        raise CohortError(known + [line for line in error.problems if line not in known]) from error


class _Check:
    """One reading of an envoy's files: outcomes first, then diagnoses."""

    def __init__(self, files: EnvoyFiles, on_progress: Callable[[int], None] | None) -> None:
        self.files = files
        self.on_progress = on_progress
        self.num_rows = 0
        self.problems = _Problems()
        self.warnings = _WarningCounts()
        self.admissions = _Admissions()
        self.hashes: dict[str, str] = {}

    def run(self) -> CohortSummary:
        self.check_outcomes()
        num_outcomes = len(self.admissions.subjects)
        num_diagnoses = self.check_diagnoses()
        if not self.admissions.subjects and not self.problems.found:
            self.problems.add(f"{self.files.name}: an empty hospital: its files hold no rows")
        if self.problems.found:
            raise CohortError(self.problems.found)
        self.warn_of_missing_outcomes(num_outcomes)
        return CohortSummary(
            num_rows=self.num_rows,
            num_admissions=len(self.admissions.subjects),
            num_diagnoses=num_diagnoses,
            source_sha256=self.source_sha256(),
            warnings=self.warnings.as_list(),
        )

    def count_row(self) -> None:
        self.num_rows += 1
        if self.on_progress and self.num_rows % PROGRESS_ROWS == 0:
            self.on_progress(self.num_rows)

    def check_outcomes(self) -> None:
        sexes: dict[int, str] = {}
        disagreeing = set()
        for place, record in _outcome_rows(self.files, self.hashes):
            self.count_row()
            if isinstance(record, InvalidValueError):
                self.problems.add(f"{place}: {record}")
                continue
            if record.hadm_id in self.admissions.numbers:
                self.problems.add(f"{place}: its hadm_id is there twice")
                continue
            number = self.admissions.number(record.subject_id, record.hadm_id)
            subject = self.admissions.subjects[number]
            if record.sex and sexes.setdefault(subject, record.sex) != record.sex:
                if subject not in disagreeing:
                    self.warnings.add(SEX_DISAGREEMENT, place)
                disagreeing.add(subject)

    def check_diagnoses(self) -> int:
        path = self.files.diagnoses
        ours = _split_admissions(self.files)
        owned = self.every_split_admission()
        codes = _CodeCounts(path)
        places = _DiagnosisPlaces(path)
        has_diagnoses: set[int] = set()
        for line, values in _rows(path, DIAGNOSES_HEADER, hashes=self.hashes):
            self.count_row()
            subject_id, hadm_id, seq_num, icd_code, icd_version = values
            if ours is not None and hadm_id not in ours:
                if hadm_id not in owned:
                    self.warnings.add(NO_ENVOY, f"{_label(path)} line {line}")
                continue
            try:
                parse_id(subject_id, "subject_id")
                parse_id(hadm_id, "hadm_id")
                number = self.admissions.number(subject_id, hadm_id)
                seq = parse_count(seq_num, "seq_num", MAX_SEQ_NUM)
                if seq is None:
                    raise InvalidValueError("seq_num is empty")
                codes.add(icd_code, icd_version, line)
            except InvalidValueError as error:
                self.problems.add(f"{_label(path)} line {line}: {error}")
                continue
            places.add(number, seq, line)
            has_diagnoses.add(number)
        for problem in places.duplicates():
            self.problems.add(problem)
        codes.warn(self.warnings)
        num_without = len(self.admissions.subjects) - len(has_diagnoses)
        if num_without:
            self.warnings.add(NO_DIAGNOSES, "", num_without)
        return places.num_rows

    def every_split_admission(self) -> frozenset[str]:
        if not self.files.is_split or self.files.outcomes is None:
            return frozenset()
        rows = _rows(self.files.outcomes, ("hadm_id", "envoy"))
        return frozenset(hadm_id for _, (hadm_id, envoy) in rows if envoy)

    def warn_of_missing_outcomes(self, num_outcomes: int) -> None:
        num_without = len(self.admissions.subjects) - num_outcomes
        if self.files.outcomes is None and self.files.admissions is None:
            self.warnings.add(NO_OUTCOMES_FILE, "", num_without)
        elif num_without:
            self.warnings.add(NO_OUTCOME, "", num_without)

    def source_sha256(self) -> str:
        """Of the files' unpacked contents; of files that envoys share, one hash an envoy."""
        lines = [f"{name} {sha256}" for name, sha256 in sorted(self.hashes.items())]
        if self.files.is_split:
            lines.append(f"envoy {self.files.name}")
        return hashlib.sha256("\n".join(lines).encode()).hexdigest()


class _CodeCounts:
    """How often each code stands in a file: there are few, so each is looked at once."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self.counts: dict[tuple[str, str], int] = {}
        self.first_lines: dict[tuple[str, str], int] = {}

    def add(self, icd_code: str, icd_version: str, line: int) -> None:
        key = (icd_code, icd_version)
        if key in self.counts:
            self.counts[key] += 1
            return
        _parse_code(icd_code, icd_version)
        self.counts[key] = 1
        self.first_lines[key] = line

    def warn(self, warnings: _WarningCounts) -> None:
        kinds = {
            CodeStatus.NON_LEAF: NON_LEAF_CODE,
            CodeStatus.RETIRED_OR_UNKNOWN: UNKNOWN_CODE,
            CodeStatus.UNKNOWN_CATEGORY: UNKNOWN_CATEGORY,
        }
        num_numeric = num_zeros = 0
        for key, count in self.counts.items():
            code, version, repair = _parse_code(*key)
            example = f"{key[0]} (ICD-{version}), {_label(self.path)} line {self.first_lines[key]}"
            if repair:
                warnings.add(REPAIRED_ZEROS, f"{key[0]} read as {code}, {example}", count)
            status = code_status(code, version)
            if status in kinds:
                warnings.add(kinds[status], example, count)
            if version == 9 and code.isdigit():
                num_numeric += count
                num_zeros += count if key[0].startswith("0") else 0
        if num_numeric >= MIN_ROWS_FOR_LOST_ZEROS and not num_zeros:
            warnings.add(LOST_ZEROS, _label(self.path), num_numeric)


class _DiagnosisPlaces:
    """Admission, seq_num and line of every row, sixteen bytes each, to find duplicates."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self.num_rows = 0
        self._keys = np.zeros(1024, dtype=np.int64)
        self._lines = np.zeros(1024, dtype=np.int64)

    def add(self, admission: int, seq_num: int, line: int) -> None:
        if self.num_rows == len(self._keys):
            self._keys = np.concatenate([self._keys, np.zeros_like(self._keys)])
            self._lines = np.concatenate([self._lines, np.zeros_like(self._lines)])
        self._keys[self.num_rows] = admission * (MAX_SEQ_NUM + 1) + seq_num
        self._lines[self.num_rows] = line
        self.num_rows += 1

    def duplicates(self) -> list[str]:
        """The first problems: two lines with one admission and seq_num."""
        keys, lines = self._keys[: self.num_rows], self._lines[: self.num_rows]
        order = np.argsort(keys, kind="stable")
        same = np.flatnonzero(np.diff(keys[order]) == 0)[:MAX_PROBLEMS]
        return [
            f"{_label(self.path)} line {lines[order[at + 1]]}: seq_num "
            f"{keys[order[at]] % (MAX_SEQ_NUM + 1)} of its hadm_id stands in line "
            f"{lines[order[at]]} already"
            for at in same
        ]


# --- Writing, and reading what was written -----------------------------------------------------


class RecordWriter:
    """Writes records to the two files of a cohort folder, so that reading gives them back."""

    def __init__(self, diagnoses_file: TextIO, outcomes_file: TextIO) -> None:
        self._diagnoses = csv.writer(diagnoses_file, lineterminator="\n")
        self._outcomes = csv.writer(outcomes_file, lineterminator="\n")
        self._diagnoses.writerow(DIAGNOSES_HEADER)
        self._outcomes.writerow(OUTCOMES_HEADER)

    def write(self, record: AdmissionRecord) -> None:
        self._outcomes.writerow(outcome_row(record))
        self._diagnoses.writerows(
            (
                record.subject_id,
                record.hadm_id,
                diagnosis.seq_num,
                diagnosis.icd_code,
                diagnosis.icd_version,
            )
            for diagnosis in record.diagnoses
        )


def outcome_row(record: AdmissionRecord) -> list[str]:
    """The texts under OUTCOMES_HEADER: floats as repr, flags 1 or 0, what is not known empty."""
    names = ("subject_id", "hadm_id", *_VALUE_FIELDS)
    return [_text(getattr(record, name)) for name in names]


def _text(value: str | float | None) -> str:
    if value is None:
        return ""
    if isinstance(value, bool):
        return "1" if value else "0"
    return repr(value) if isinstance(value, float) else str(value)


def write_records(
    records: Iterable[AdmissionRecord], diagnoses_file: TextIO, outcomes_file: TextIO
) -> None:
    """Write a cohort folder's two files; open them with `newline=""` and UTF-8."""
    writer = RecordWriter(diagnoses_file, outcomes_file)
    for record in records:
        writer.write(record)


def iter_snapshot(diagnoses_file: BinaryIO, outcomes_file: BinaryIO) -> Iterator[AdmissionRecord]:
    """The records of an export whose two files are sorted alike, one in memory at a time.

    Raises:
        CohortError: a diagnosis belongs to no admission at its place, or a value cannot be read.
    """
    with _as_text(diagnoses_file) as diagnoses_text, _as_text(outcomes_file) as outcomes_text:
        yield from _join_snapshot(
            _csv_rows(diagnoses_text, Path("snapshot/diagnoses.csv"), DIAGNOSES_HEADER, ()),
            _csv_rows(
                outcomes_text,
                Path("snapshot/outcomes.csv"),
                OUTCOMES_HEADER[:2],
                OUTCOMES_HEADER[2:],
            ),
        )


@contextmanager
def _as_text(file: BinaryIO) -> Iterator[TextIO]:
    text = io.TextIOWrapper(file, encoding="utf-8", newline="")
    try:
        yield text
    finally:
        text.detach()  # the file is the caller's to close


def _join_snapshot(diagnoses: Rows, outcomes: Rows) -> Iterator[AdmissionRecord]:
    waiting = next(diagnoses, None)
    for _, values in outcomes:
        record = parse_outcome(values)
        coded = []
        while waiting is not None and waiting[1][1] == record.hadm_id:
            coded.append(_parse_coded(*waiting[1][2:]))
            waiting = next(diagnoses, None)
        yield replace(record, diagnoses=tuple(coded)) if coded else record
    if waiting is not None:
        raise CohortError(
            [f"snapshot/diagnoses.csv line {waiting[0]}: outcomes.csv is not sorted as it is"]
        )
