"""The admissions and diagnoses of an envoy, from whichever layout its files have."""

from collections import defaultdict
from collections.abc import Iterator
from dataclasses import replace
from datetime import UTC, datetime
from itertools import groupby
from operator import attrgetter

from federated.cohorts.csv_files import Refuse, read_rows
from federated.cohorts.disk_dict import DiskDict
from federated.cohorts.layouts import EnvoyFiles, envoys_of_admissions
from federated.cohorts.mimic import PlacedRecord, given_rows, mimic_rows
from federated.cohorts.records import (
    DIAGNOSES_HEADER,
    AdmissionRecord,
    CodedDiagnosis,
    admission_order,
    with_what_dates_tell,
)
from federated.cohorts.values import parse_coded
from federated.errors import CohortError, InvalidValueError


def iter_outcomes(
    files: EnvoyFiles, *, num_admissions: int | None = None
) -> Iterator[AdmissionRecord]:
    """Every admission once, without its diagnoses, in the order of the files.

    Sex is the patient's: the first one recorded, in the order of admissions. An admission that
    only the diagnoses know comes last, with nothing else known.

    Args:
        num_admissions: how many there are, as `check_envoy` has counted: the diagnoses are read
            only until so many are found.
    """
    with DiskDict[str]() as sexes, DiskDict[str]() as seen:
        _note_first_sexes(files, sexes)
        num_seen = 0
        for record in _given_outcomes(files):
            seen[record.hadm_id] = record.subject_id
            num_seen += 1
            sex = _sex_of(record.subject_id, sexes)
            yield record if record.sex == sex else replace(record, sex=sex)
        if files.is_split:
            return  # what derived_outcomes does not know belongs to no envoy
        if num_seen == num_admissions:
            return
        for _, (subject_id, hadm_id) in read_rows(files.diagnoses, DIAGNOSES_HEADER[:2]):
            if hadm_id not in seen:
                seen[hadm_id] = subject_id
                yield AdmissionRecord(subject_id, hadm_id, sex=_sex_of(subject_id, sexes))
                num_seen += 1
                if num_seen == num_admissions:
                    return


def iter_diagnoses(files: EnvoyFiles) -> Iterator[tuple[str, str, CodedDiagnosis]]:
    """Every diagnosis with its subject_id and hadm_id, in the order of the file."""
    envoys = envoys_of_admissions(files)
    for _, (subject_id, hadm_id, *coded) in read_rows(files.diagnoses, DIAGNOSES_HEADER):
        if envoys is None or envoys.get(hadm_id) == files.name:
            yield subject_id, hadm_id, parse_coded(*coded)


def read_admissions(files: EnvoyFiles) -> list[AdmissionRecord]:
    """Every admission with its diagnoses, sorted by patient and `admission_order`, in memory.

    What dates tell is filled in, as an export of the same rows would on the same day.
    """
    diagnoses = defaultdict(list)
    for _, hadm_id, diagnosis in iter_diagnoses(files):
        diagnoses[hadm_id].append(diagnosis)
    records = [
        replace(
            record, diagnoses=tuple(sorted(diagnoses[record.hadm_id], key=attrgetter("seq_num")))
        )
        for record in iter_outcomes(files)
    ]
    records.sort(key=lambda record: (record.subject_id, admission_order(record)))
    now = datetime.now(UTC)
    return [
        record
        for _, of_patient in groupby(records, key=attrgetter("subject_id"))
        for record in with_what_dates_tell(list(of_patient), now=now)
    ]


def outcome_rows(
    files: EnvoyFiles, hashes: dict[str, str] | None = None, refuse: Refuse | None = None
) -> Iterator[PlacedRecord]:
    """Place and record of each admission that the files of outcomes know, or what is wrong.

    Args:
        hashes: receives the sha256 of each file that has been read to its end.
        refuse: is told of a row of outcomes with too few or many fields.
    """
    if files.patients is not None and files.admissions is not None:
        yield from mimic_rows(files, files.patients, files.admissions, hashes)
    elif files.outcomes is not None:
        yield from given_rows(files.outcomes, hashes, refuse)


def _given_outcomes(files: EnvoyFiles) -> Iterator[AdmissionRecord]:
    for place, record in outcome_rows(files):
        if isinstance(record, InvalidValueError):
            raise CohortError([f"{place}: {problem}" for problem in record.problems])
        yield record


def _note_first_sexes(files: EnvoyFiles, sexes: DiskDict[str]) -> None:
    """Note each patient's first admission with a sex: `admission_order` and the sex, one text."""
    for record in _given_outcomes(files):
        if record.sex:
            noted = f"{admission_order(record)} {record.sex}"
            if noted < sexes.setdefault(record.subject_id, noted):
                sexes[record.subject_id] = noted


def _sex_of(subject_id: str, sexes: DiskDict[str]) -> str:
    return (sexes.get(subject_id) or "")[-1:]
