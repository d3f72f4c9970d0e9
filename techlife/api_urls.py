"""Every call of `/api/v1/`, by the name under which the access list knows it."""

from django.urls import include, path
from rest_framework.routers import SimpleRouter

from diagnoses import api as diagnoses
from envoys import api as envoys
from envoys import audit_api
from inference import api as inference
from publichealth import api as publichealth
from training import api as training

router = SimpleRouter(trailing_slash=False)
router.register("envoys", inference.EnvoyViewSet, basename="envoy")
router.register("patients", inference.PatientViewSet, basename="patient")
router.register("patient-erasures", inference.PatientErasureViewSet, basename="patient-erasure")
router.register("erasures", inference.ErasureViewSet, basename="erasure")
router.register("admissions", diagnoses.AdmissionViewSet, basename="admission")
router.register("diagnoses", diagnoses.DiagnosisViewSet, basename="diagnosis")
router.register("icd-codes", diagnoses.IcdCodeViewSet, basename="icd-code")
router.register("imports", diagnoses.ImportViewSet, basename="import")
router.register("exports", diagnoses.ExportViewSet, basename="export")
router.register("studies", training.StudyViewSet, basename="study")
router.register("packages", training.PackageViewSet, basename="package")
router.register("approvals", training.ApprovalViewSet, basename="approval")
router.register("runs", training.RunViewSet, basename="run")
router.register("rounds", training.RoundViewSet, basename="round")
router.register("assignments", training.AssignmentViewSet, basename="assignment")
router.register("updates", training.UpdateViewSet, basename="update")
router.register("model-versions", training.ModelVersionViewSet, basename="model-version")
router.register("model-choices", training.ModelChoiceViewSet, basename="model-choice")
router.register("distributions", training.DistributionViewSet, basename="distribution")
router.register("predictions", inference.PredictionViewSet, basename="prediction")
router.register("inference-runs", inference.InferenceRunViewSet, basename="inference-run")
router.register("readings", publichealth.ReadingViewSet, basename="reading")
router.register("drift-checks", publichealth.DriftCheckViewSet, basename="drift-check")
router.register(
    "retraining-proposals",
    publichealth.RetrainingProposalViewSet,
    basename="retraining-proposal",
)
router.register("alert-thresholds", publichealth.AlertThresholdViewSet, basename="alert-threshold")
router.register("tasks", envoys.TaskViewSet, basename="task")
router.register("access-tokens", envoys.AccessTokenViewSet, basename="access-token")
router.register("workers", envoys.WorkerViewSet, basename="worker")
router.register("audit-events", audit_api.AuditEventViewSet, basename="audit-event")

urlpatterns = [
    path("token", envoys.TokenView.as_view(), name="token"),
    path("token/refresh", envoys.TokenRefreshView.as_view(), name="token-refresh"),
    path("token/revoke", envoys.TokenRevokeView.as_view(), name="token-revoke"),
    path("account", envoys.AccountRegisterView.as_view(), name="account-register"),
    path("account/password", envoys.PasswordChangeView.as_view(), name="password-change"),
    path("account/end-logins", envoys.LoginsEndView.as_view(), name="logins-end"),
    path("me", envoys.MeView.as_view(), name="me"),
    path("hospital", inference.HospitalSummaryView.as_view(), name="hospital-summary"),
    path("hospital/data", inference.HospitalDataView.as_view(), name="hospital-data"),
    path("node", publichealth.NodeSummaryView.as_view(), name="node-summary"),
    path("federation", training.FederationSummaryView.as_view(), name="federation-summary"),
    path("health-risk", publichealth.HealthRiskView.as_view(), name="health-risk"),
    path("health-risk/batch", publichealth.HealthRiskBatchView.as_view(), name="health-risk-batch"),
    path("public-health", publichealth.PublicHealthView.as_view(), name="public-health"),
    path("", include(router.urls)),
]
