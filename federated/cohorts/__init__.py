"""A cohort folder: who was admitted, with which ICD codes, and what happened to them.

`check_envoy` reads everything once and refuses what is wrong; the other readers trust what it let
pass. Rows are streamed, and what must be remembered of each lies in a temporary file.
"""

from federated.cohorts.checking import CohortSummary, check_envoy, first_places
from federated.cohorts.layouts import EnvoyFiles, find_envoys
from federated.cohorts.reading import iter_diagnoses, iter_outcomes, read_admissions
from federated.cohorts.records import (
    DIAGNOSES_HEADER,
    OUTCOMES_HEADER,
    READMISSION_DAYS,
    VALUE_FIELDS,
    AdmissionRecord,
    CodedDiagnosis,
    admission_order,
    canonical_time,
    days_between,
    is_readmission,
    with_what_dates_tell,
)
from federated.cohorts.snapshots import iter_snapshot, write_records

__all__ = [
    "DIAGNOSES_HEADER",
    "OUTCOMES_HEADER",
    "READMISSION_DAYS",
    "VALUE_FIELDS",
    "AdmissionRecord",
    "CodedDiagnosis",
    "CohortSummary",
    "EnvoyFiles",
    "admission_order",
    "canonical_time",
    "check_envoy",
    "days_between",
    "find_envoys",
    "first_places",
    "is_readmission",
    "iter_diagnoses",
    "iter_outcomes",
    "iter_snapshot",
    "read_admissions",
    "with_what_dates_tell",
    "write_records",
]
