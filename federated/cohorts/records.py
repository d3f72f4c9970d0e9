"""An admission as the algorithm reads it, and what follows from its times."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, fields, replace
from datetime import UTC, datetime, timedelta
from itertools import zip_longest

READMISSION_DAYS = 30


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


ID_FIELDS = ("subject_id", "hadm_id")
VALUE_FIELDS = tuple(
    field.name for field in fields(AdmissionRecord) if field.name not in (*ID_FIELDS, "diagnoses")
)

# The columns of a cohort folder's two files; an outcome's are those of a record, in its order.
DIAGNOSES_HEADER = ("subject_id", "hadm_id", "seq_num", "icd_code", "icd_version")
OUTCOMES_HEADER = tuple("gender" if name == "sex" else name for name in (*ID_FIELDS, *VALUE_FIELDS))


def admission_order(record: AdmissionRecord) -> str:
    """Sorts one patient's admissions: by date; those without one last, by `hadm_id`."""
    return f"{record.admitted_at or 'undated'} {len(record.hadm_id):04} {record.hadm_id}"


def canonical_time(moment: datetime) -> str:
    """A moment as records hold it: UTC without a zone, whole seconds; a naive one is UTC."""
    if moment.tzinfo is not None:
        moment = moment.astimezone(UTC)
    return moment.replace(tzinfo=None, microsecond=0).isoformat()


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


def with_what_dates_tell(
    records: Sequence[AdmissionRecord], *, now: datetime
) -> Iterator[AdmissionRecord]:
    """One patient's admissions in order; stay and readmission follow from dates where not given.

    Readmission is known once 30 days have passed since the discharge, or as soon as it happened;
    who died in hospital has none.
    """
    settled = canonical_time(now - timedelta(days=READMISSION_DAYS))
    for record, following in zip_longest(records, records[1:]):
        if record.los_days is None:
            record = replace(
                record, los_days=days_between(record.admitted_at, record.discharged_at)
            )
        if record.readmit_30d is None and record.discharged_at and not record.died_in_hospital:
            next_admitted_at = following.admitted_at if following else ""
            readmitted = is_readmission(record.discharged_at, next_admitted_at)
            if readmitted or record.discharged_at <= settled:
                record = replace(record, readmit_30d=readmitted)
        yield record
