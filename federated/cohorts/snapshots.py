"""Writing records as a cohort folder's two files, and reading them again as a stream."""

import csv
import io
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import BinaryIO, TextIO

from federated.cohorts.csv_files import Rows, parse_rows, place_of
from federated.cohorts.records import (
    DIAGNOSES_HEADER,
    ID_FIELDS,
    OUTCOMES_HEADER,
    VALUE_FIELDS,
    AdmissionRecord,
)
from federated.cohorts.values import parse_coded, parse_outcome
from federated.errors import CohortError

# What problems name: the objects have no path here.
DIAGNOSES = Path("snapshot/diagnoses.csv")
OUTCOMES = Path("snapshot/outcomes.csv")


def write_records(
    records: Iterable[AdmissionRecord], diagnoses_file: TextIO, outcomes_file: TextIO
) -> None:
    """Write a cohort folder's two files, so that reading gives the records back.

    Open the files with `newline=""` and UTF-8; one record is in memory at a time.
    """
    diagnoses = csv.writer(diagnoses_file, lineterminator="\n")
    outcomes = csv.writer(outcomes_file, lineterminator="\n")
    diagnoses.writerow(DIAGNOSES_HEADER)
    outcomes.writerow(OUTCOMES_HEADER)
    for record in records:
        outcomes.writerow([_text(getattr(record, name)) for name in (*ID_FIELDS, *VALUE_FIELDS)])
        for coded in record.diagnoses:
            diagnoses.writerow(
                [
                    record.subject_id,
                    record.hadm_id,
                    coded.seq_num,
                    coded.icd_code,
                    coded.icd_version,
                ]
            )


def _text(value: str | float | None) -> str:
    """A float as repr, which reads back as the same; a flag as 1 or 0; what is not known empty."""
    if value is None:
        return ""
    if isinstance(value, bool):
        return "1" if value else "0"
    return repr(value) if isinstance(value, float) else str(value)


def iter_snapshot(diagnoses_file: BinaryIO, outcomes_file: BinaryIO) -> Iterator[AdmissionRecord]:
    """The records of an export whose two files are sorted alike, one in memory at a time.

    Raises:
        CohortError: a diagnosis belongs to no admission at its place, or a row cannot be read.
        InvalidValueError: a value cannot be read.
    """
    with _as_text(diagnoses_file) as diagnoses_text, _as_text(outcomes_file) as outcomes_text:
        yield from _join(
            parse_rows(diagnoses_text, DIAGNOSES, DIAGNOSES_HEADER),
            parse_rows(outcomes_text, OUTCOMES, ID_FIELDS, OUTCOMES_HEADER[len(ID_FIELDS) :]),
        )


@contextmanager
def _as_text(file: BinaryIO) -> Iterator[TextIO]:
    text = io.TextIOWrapper(file, encoding="utf-8", newline="")
    try:
        yield text
    finally:
        text.detach()  # the file is the caller's to close


def _join(diagnoses: Rows, outcomes: Rows) -> Iterator[AdmissionRecord]:
    waiting = next(diagnoses, None)
    for _, values in outcomes:
        record = parse_outcome(values)
        coded = []
        while waiting is not None and waiting[1][1] == record.hadm_id:
            coded.append(parse_coded(*waiting[1][2:]))
            waiting = next(diagnoses, None)
        yield replace(record, diagnoses=tuple(coded)) if coded else record
    if waiting is not None:
        place = place_of(DIAGNOSES, waiting[0])
        raise CohortError([f"{place}: outcomes.csv is not sorted as it is"])
