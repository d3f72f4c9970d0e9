"""What is done with a hospital's diagnoses; pages, API, tasks and commands call these."""

from diagnoses.services.exports import (
    export_diagnoses,
    export_now,
    request_export,
    snapshot_sha256,
)
from diagnoses.services.icd_codes import load_icd_codes
from diagnoses.services.imports import clear_abandoned_imports, import_cohort
from diagnoses.services.records import admission_records

__all__ = [
    "admission_records",
    "clear_abandoned_imports",
    "export_diagnoses",
    "export_now",
    "import_cohort",
    "load_icd_codes",
    "request_export",
    "snapshot_sha256",
]
