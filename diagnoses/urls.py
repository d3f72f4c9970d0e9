from django.urls import path

from diagnoses.views import files, patients

app_name = "diagnoses"
urlpatterns = [
    path("patients/register/", patients.patient_register, name="patient-register"),
    path("patients/<int:patient_id>/edit/", patients.patient_edit, name="patient-edit"),
    path("patients/<int:patient_id>/admit/", patients.admission_create, name="admission-create"),
    path(
        "admissions/<int:admission_id>/discharge/",
        patients.admission_discharge,
        name="admission-discharge",
    ),
    path(
        "admissions/<int:admission_id>/reopen/", patients.admission_reopen, name="admission-reopen"
    ),
    path(
        "admissions/<int:admission_id>/risk-level/",
        patients.admission_risk_level,
        name="admission-risk-level",
    ),
    path(
        "admissions/<int:admission_id>/diagnoses/",
        patients.diagnosis_create,
        name="diagnosis-create",
    ),
    path(
        "diagnoses/<int:diagnosis_id>/strike-out/",
        patients.diagnosis_strike_out,
        name="diagnosis-strike-out",
    ),
    path(
        "diagnoses/<int:diagnosis_id>/restore/",
        patients.diagnosis_restore,
        name="diagnosis-restore",
    ),
    path("icd-codes/", patients.icd_code_search, name="icd-code-search"),
    path("codes/", files.code_report, name="code-report"),
    path("exports/", files.export_list, name="export-list"),
    path("exports/live/", files.export_live, name="export-live"),
    path("exports/create/", files.export_create, name="export-create"),
    path("imports/", files.import_list, name="import-list"),
    path("imports/new/", files.import_create, name="import-create"),
    path("imports/<int:upload_id>/", files.import_detail, name="import-detail"),
    path("imports/<int:upload_id>/live/", files.import_live, name="import-live"),
    path("imports/<int:upload_id>/confirm/", files.import_confirm, name="import-confirm"),
    path("imports/<int:upload_id>/discard/", files.import_discard, name="import-discard"),
]
