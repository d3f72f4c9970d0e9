from django.urls import path

from inference.views import dashboard, envoys, erasure, inference_runs, patients

app_name = "inference"
urlpatterns = [
    path("hospital/", dashboard.hospital_dashboard, name="hospital-dashboard"),
    path("patients/", patients.patient_list, name="patient-list"),
    path("patients/<int:patient_id>/", patients.patient_detail, name="patient-detail"),
    path("patients/<int:patient_id>/risk/", patients.patient_risk, name="patient-risk"),
    path("patients/<int:patient_id>/data/", erasure.patient_data, name="patient-data"),
    path("patients/<int:patient_id>/erase/", erasure.patient_erase, name="patient-erase"),
    path("patients/erased/", erasure.patient_erasure_list, name="patient-erasure-list"),
    path(
        "patients/erased/<int:patient_erasure_id>/",
        erasure.patient_erasure_detail,
        name="patient-erasure-detail",
    ),
    path(
        "patients/erased/<int:patient_erasure_id>/live/",
        erasure.patient_erasure_live,
        name="patient-erasure-live",
    ),
    path(
        "patients/erased/<int:patient_erasure_id>/return/",
        erasure.patient_erasure_return,
        name="patient-erasure-return",
    ),
    path("hospital/data/", erasure.hospital_data, name="hospital-data"),
    path("inference/", inference_runs.inference_run_list, name="inference-run-list"),
    path("inference/live/", inference_runs.inference_run_live, name="inference-run-live"),
    path("inference/create/", inference_runs.inference_run_create, name="inference-run-create"),
    path("envoys/<int:envoy_id>/delete/", envoys.envoy_delete, name="envoy-delete"),
    path("envoys/deleted/", erasure.erasure_list, name="erasure-list"),
    path("envoys/deleted/<int:erasure_id>/", erasure.erasure_detail, name="erasure-detail"),
    path("envoys/deleted/<int:erasure_id>/live/", erasure.erasure_live, name="erasure-live"),
]
