"""The published paths: a contract with existing clients, answered exactly as named."""

from django.urls import path

from diagnoses import published as diagnoses
from envoys import published as envoys
from inference import published as inference
from publichealth import published as publichealth
from training import published as training

urlpatterns = [
    path("predict", publichealth.predict, name="predict"),
    path("predict/batch", publichealth.predict_batch, name="predict-batch"),
    path("api/login", envoys.LoginView.as_view(), name="login"),
    path("api/register", envoys.RegisterView.as_view(), name="register"),
    path("list_envoys", envoys.EnvoyListView.as_view(), name="envoy-list"),
    path("create_envoy", envoys.EnvoyCreateView.as_view(), name="envoy-create"),
    path("envoy/<str:envoy>/launch_training", training.LaunchView.as_view(), name="envoy-launch"),
    path("aggregate", training.AggregateView.as_view(), name="aggregate"),
    path("distribute-global-model", training.DistributeView.as_view(), name="distribute"),
    path(
        "envoy/<str:envoy>/add-diagnoses",
        diagnoses.AddDiagnosesView.as_view(),
        name="diagnosis-create",
    ),
    path(
        "envoy/<str:envoy>/export_diagnoses", diagnoses.ExportView.as_view(), name="export-create"
    ),
    path(
        "envoy/<str:envoy>/inference/global",
        inference.GlobalInferenceView.as_view(),
        name="inference-global",
    ),
    path(
        "envoy/<str:envoy>/inference/envoy-model",
        inference.OwnInferenceView.as_view(),
        name="inference-envoy-model",
    ),
    path("api/patients/register", diagnoses.RegisterPatientView.as_view(), name="patient-register"),
    path("api/patients", diagnoses.PatientListView.as_view(), name="patient-list"),
]
