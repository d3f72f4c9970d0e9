from django.urls import path

from inference.views import dashboard, envoys, inference_runs, patients

app_name = "inference"
urlpatterns = [
    path("hospital/", dashboard.hospital_dashboard, name="hospital-dashboard"),
    path("patients/", patients.patient_list, name="patient-list"),
    path("patients/<int:patient_id>/", patients.patient_detail, name="patient-detail"),
    path("patients/<int:patient_id>/risk/", patients.patient_risk, name="patient-risk"),
    path("inference/", inference_runs.inference_run_list, name="inference-run-list"),
    path("inference/live/", inference_runs.inference_run_live, name="inference-run-live"),
    path("inference/create/", inference_runs.inference_run_create, name="inference-run-create"),
    path("envoys/<int:envoy_id>/delete/", envoys.envoy_delete, name="envoy-delete"),
]
