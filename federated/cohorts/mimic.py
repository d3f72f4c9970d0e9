"""The tables of MIMIC-IV: a stay's outcome follows from its own and the patient's next admission.

The tables of patients and admissions are in memory as a whole: the next admission may stand
anywhere, and so may what `derived_outcomes` says.
"""

from collections import defaultdict
from collections.abc import Generator, Iterable, Iterator, Sequence
from dataclasses import dataclass, replace
from datetime import date, timedelta
from itertools import pairwise
from pathlib import Path
from typing import TypeAlias, TypeVar

from federated.cohorts.csv_files import Refuse, place_of, read_rows
from federated.cohorts.layouts import EnvoyFiles, envoys_of_admissions
from federated.cohorts.records import (
    OUTCOMES_HEADER,
    READMISSION_DAYS,
    VALUE_FIELDS,
    AdmissionRecord,
    days_between,
    is_readmission,
)
from federated.cohorts.values import (
    parse_age,
    parse_count,
    parse_flag,
    parse_id,
    parse_outcome,
    parse_sex,
    parse_time,
)
from federated.errors import InvalidValueError

# As the published tiers of the MIMIC-IV demo count it: no location recorded is not home.
HOME = frozenset({"HOME", "HOME HEALTH CARE"})
LAST_YEAR = 9999

Hashes: TypeAlias = dict[str, str] | None
# A row's place, and its admission or what is wrong with it.
PlacedRecord: TypeAlias = tuple[str, AdmissionRecord | InvalidValueError]
Table = TypeVar("Table")
# Yields what is wrong with a file's rows, and returns the others.
Reading: TypeAlias = Generator[tuple[str, InvalidValueError], None, Table]


@dataclass(frozen=True, slots=True)
class _Patient:
    sex: str
    anchor_age: float | None
    anchor_year: int | None
    died_on: str  # YYYY-MM-DD or empty


@dataclass(frozen=True, slots=True)
class _Stay:
    subject_id: str
    hadm_id: str
    admitted_at: str
    discharged_at: str
    discharged_home: bool | None
    died_in_hospital: bool | None


def given_rows(
    path: Path, hashes: Hashes = None, refuse: Refuse | None = None
) -> Iterator[PlacedRecord]:
    """Place and record of each row of a file of outcomes, or what is wrong with it."""
    for line, values in read_rows(path, OUTCOMES_HEADER[:2], OUTCOMES_HEADER[2:], hashes, refuse):
        try:
            yield place_of(path, line), parse_outcome(values)
        except InvalidValueError as error:
            yield place_of(path, line), error


def mimic_rows(
    files: EnvoyFiles, patients_file: Path, admissions_file: Path, hashes: Hashes = None
) -> Iterator[PlacedRecord]:
    """As `given_rows`: what the hospital's tables say, under what derived_outcomes gives."""
    patients = yield from _read_patients(patients_file, hashes)
    given = yield from _read_given(files.outcomes, hashes)
    stays = yield from _read_stays(admissions_file, hashes)
    envoys = envoys_of_admissions(files)
    next_admissions = _next_admissions([stay for _, stay in stays])
    for place, stay in stays:
        if envoys is not None and envoys.get(stay.hadm_id) != files.name:
            continue
        derived = _derive(
            stay, patients.get(stay.subject_id), next_admissions.get(stay.hadm_id, "")
        )
        if stay.hadm_id not in given:
            yield place, derived
            continue
        given_place, record = given.pop(stay.hadm_id)
        if record.subject_id != stay.subject_id:
            yield given_place, InvalidValueError("its hadm_id belongs to two subject_ids")
        yield place, _overlay(derived, record)
    for hadm_id, (place, record) in given.items():
        if envoys is None or envoys.get(hadm_id) == files.name:
            yield place, record


def _read_patients(path: Path, hashes: Hashes) -> Reading[dict[str, _Patient]]:
    patients = {}
    required, optional = ("subject_id", "gender"), ("anchor_age", "anchor_year", "dod")
    for line, (subject_id, *values) in read_rows(path, required, optional, hashes):
        try:
            patients[parse_id(subject_id, "subject_id")] = _patient(values)
        except InvalidValueError as error:
            yield place_of(path, line), error
    return patients


def _patient(values: Sequence[str]) -> _Patient:
    gender, anchor_age, anchor_year, dod = values
    return _Patient(
        sex=parse_sex(gender, "gender"),
        anchor_age=parse_age(anchor_age, "anchor_age"),
        anchor_year=parse_count(anchor_year, "anchor_year", LAST_YEAR),
        died_on=parse_time(dod, "dod")[:10],
    )


def _read_given(
    path: Path | None, hashes: Hashes
) -> Reading[dict[str, tuple[str, AdmissionRecord]]]:
    given: dict[str, tuple[str, AdmissionRecord]] = {}
    if path is None:
        return given
    for place, record in given_rows(path, hashes):
        if isinstance(record, InvalidValueError):
            yield place, record
        elif record.hadm_id in given:
            yield place, InvalidValueError("its hadm_id is there twice")
        else:
            given[record.hadm_id] = place, record
    return given


def _read_stays(path: Path, hashes: Hashes) -> Reading[list[tuple[str, _Stay]]]:
    stays = []
    required = ("subject_id", "hadm_id", "admittime", "dischtime")
    optional = ("discharge_location", "hospital_expire_flag")
    for line, values in read_rows(path, required, optional, hashes):
        try:
            stays.append((place_of(path, line), _stay(values)))
        except InvalidValueError as error:
            yield place_of(path, line), error
    return stays


def _stay(values: Sequence[str]) -> _Stay:
    subject_id, hadm_id, admitted_at, discharged_at, location, died = values
    return _Stay(
        subject_id=parse_id(subject_id, "subject_id"),
        hadm_id=parse_id(hadm_id, "hadm_id"),
        admitted_at=parse_time(admitted_at, "admittime"),
        discharged_at=parse_time(discharged_at, "dischtime"),
        discharged_home=location.upper() in HOME if discharged_at else None,
        died_in_hospital=parse_flag(died, "hospital_expire_flag"),
    )


def _next_admissions(stays: Iterable[_Stay]) -> dict[str, str]:
    """When each admission's patient was admitted next, by hadm_id."""
    by_patient = defaultdict(list)
    for stay in stays:
        if stay.admitted_at:
            by_patient[stay.subject_id].append((stay.admitted_at, stay.hadm_id))
    following = {}
    for times in by_patient.values():
        for (_, hadm_id), (next_time, _) in pairwise(sorted(times)):
            following[hadm_id] = next_time
    return following


def _derive(stay: _Stay, patient: _Patient | None, next_admitted_at: str) -> AdmissionRecord:
    was_discharged_alive = bool(stay.discharged_at) and not stay.died_in_hospital
    return AdmissionRecord(
        subject_id=stay.subject_id,
        hadm_id=stay.hadm_id,
        age=_age(stay, patient),
        sex=patient.sex if patient else "",
        admitted_at=stay.admitted_at,
        discharged_at=stay.discharged_at,
        los_days=days_between(stay.admitted_at, stay.discharged_at),
        discharged_home=stay.discharged_home,
        died_in_hospital=stay.died_in_hospital,
        died_30d_after_discharge=(
            _died_soon_after(stay, patient) if patient and was_discharged_alive else None
        ),
        readmit_30d=(
            is_readmission(stay.discharged_at, next_admitted_at) if was_discharged_alive else None
        ),
    )


def _age(stay: _Stay, patient: _Patient | None) -> float | None:
    if not (patient and patient.anchor_year and stay.admitted_at) or patient.anchor_age is None:
        return None
    return patient.anchor_age + int(stay.admitted_at[:4]) - patient.anchor_year


def _died_soon_after(stay: _Stay, patient: _Patient) -> bool:
    if not patient.died_on:
        return False
    discharged_on = date.fromisoformat(stay.discharged_at[:10])
    survived = date.fromisoformat(patient.died_on) - discharged_on
    return survived <= timedelta(days=READMISSION_DAYS)


def _overlay(derived: AdmissionRecord, given: AdmissionRecord) -> AdmissionRecord:
    known = {name: getattr(given, name) for name in VALUE_FIELDS}
    return replace(
        derived, **{name: value for name, value in known.items() if value not in (None, "")}
    )
