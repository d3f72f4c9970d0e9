"""What is done with a hospital's diagnoses; pages, API, tasks and commands call these."""

from diagnoses.services.bulk import DiagnosisRow, add_diagnoses
from diagnoses.services.erased import ErasedSubjects, let_return, subject_sha256
from diagnoses.services.exports import (
    ask_for_export,
    export_diagnoses,
    export_now,
    may_hold,
    remove_export,
    request_export,
    snapshot_sha256,
)
from diagnoses.services.icd_codes import load_icd_codes, search_icd_codes
from diagnoses.services.imports import clear_abandoned_imports, import_cohort
from diagnoses.services.leftovers import (
    are_exports_being_written,
    is_top_another,
    remove_leftovers,
)
from diagnoses.services.patients import (
    admit_patient,
    discharge_patient,
    edit_patient,
    record_diagnosis,
    register_patient,
    reopen_admission,
    restore_diagnosis,
    set_risk_level,
    strike_out_diagnosis,
)
from diagnoses.services.records import admission_records
from diagnoses.services.uploads import (
    confirm_upload,
    discard_upload,
    preview,
    process_upload,
    remove_files_of_erased,
    upload_files,
)

__all__ = [
    "DiagnosisRow",
    "ErasedSubjects",
    "add_diagnoses",
    "admission_records",
    "admit_patient",
    "are_exports_being_written",
    "ask_for_export",
    "clear_abandoned_imports",
    "confirm_upload",
    "discard_upload",
    "discharge_patient",
    "edit_patient",
    "export_diagnoses",
    "export_now",
    "import_cohort",
    "is_top_another",
    "let_return",
    "load_icd_codes",
    "may_hold",
    "preview",
    "process_upload",
    "record_diagnosis",
    "register_patient",
    "remove_export",
    "remove_files_of_erased",
    "remove_leftovers",
    "reopen_admission",
    "request_export",
    "restore_diagnosis",
    "search_icd_codes",
    "set_risk_level",
    "snapshot_sha256",
    "strike_out_diagnosis",
    "subject_sha256",
    "upload_files",
]
