"""Calls about envoys, and about predictions."""

from typing import Any, cast

from django.http import Http404, StreamingHttpResponse
from django.shortcuts import get_object_or_404
from django.urls import reverse
from django_filters import rest_framework as filters
from drf_spectacular.types import OpenApiTypes
from drf_spectacular.utils import extend_schema
from rest_framework import status
from rest_framework.decorators import action
from rest_framework.mixins import ListModelMixin, RetrieveModelMixin
from rest_framework.response import Response
from rest_framework.viewsets import GenericViewSet

from diagnoses.api import PatientViewSet as PatientRowsViewSet
from diagnoses.models import Admission, CodeReport, PatientErasure
from diagnoses.serializers import CodeReportSerializer
from diagnoses.services import let_return
from envoys import audit
from envoys import services as envoy_services
from envoys.lookup import hospital_of
from envoys.models import Envoy
from envoys.rest import Call, IdFilter, Pages, UserRequest, VisibleRows, starts_work, valid
from envoys.serializers import (
    EnvoyChangeSerializer,
    EnvoyCreateSerializer,
    EnvoyDeletionSerializer,
    EnvoySerializer,
)
from federated.targets import DIAGNOSES
from inference import serializers, services
from inference.hospital import hospital_summary
from inference.hospital_data import archive_response
from inference.models import Erasure, InferenceRun, Prediction
from inference.patient_data import patient_data
from training import services as training_services
from training.api.packages import study_of
from training.errors import NotReadyError
from training.serializers import AssignmentSerializer, OfStudySerializer


class EnvoyFilter(filters.FilterSet):
    name = filters.CharFilter()
    status = filters.ChoiceFilter(choices=Envoy.Status.choices)
    kind = filters.ChoiceFilter(choices=Envoy.Kind.choices)
    placement = filters.ChoiceFilter(choices=Envoy.Placement.choices)


class EnvoyViewSet(Call, ListModelMixin, RetrieveModelMixin, VisibleRows, GenericViewSet[Envoy]):
    """Hospitals' registered participants; a doctor sees their own."""

    queryset = Envoy.objects.standing()
    serializer_class = EnvoySerializer
    filterset_class = EnvoyFilter

    @starts_work
    @extend_schema(request=EnvoyCreateSerializer, responses={201: EnvoySerializer})
    def create(self, request: UserRequest) -> Response:
        """Invite an envoy."""
        data = valid(EnvoyCreateSerializer, request)
        envoy = envoy_services.create_envoy(created_by=request.user, **data)
        return Response(self.get_serializer(envoy).data, status=status.HTTP_201_CREATED)

    @extend_schema(request=EnvoyChangeSerializer(partial=True), responses=EnvoySerializer)
    def partial_update(self, request: UserRequest, pk: str) -> Response:
        """Change what is given; where its objects lie only while there are none."""
        envoy = self.get_object()
        data = valid(EnvoyChangeSerializer, request, partial=True)
        envoy = envoy_services.edit_envoy(envoy, edited_by=request.user, **data)
        return Response(self.get_serializer(envoy).data)

    @extend_schema(request=EnvoyDeletionSerializer, responses={202: serializers.ErasureSerializer})
    def destroy(self, request: UserRequest, pk: str) -> Response:
        """Delete an envoy and all it holds; this cannot be undone, so the name confirms it."""
        envoy = self.get_object()
        data = valid(EnvoyDeletionSerializer, request)
        erasure = services.delete_envoy(envoy, confirmed_name=data["name"], deleted_by=request.user)
        serializer = serializers.ErasureSerializer(erasure)
        return Response(serializer.data, status=status.HTTP_202_ACCEPTED)

    @starts_work
    @extend_schema(request=None, responses=EnvoySerializer)
    @action(detail=True, methods=["post"])
    def suspend(self, request: UserRequest, pk: str) -> Response:
        """From the next launch on it takes no part."""
        envoy = envoy_services.suspend_envoy(self.get_object(), suspended_by=request.user)
        return Response(self.get_serializer(envoy).data)

    @starts_work
    @extend_schema(request=None, responses=EnvoySerializer)
    @action(detail=True, methods=["post"])
    def resume(self, request: UserRequest, pk: str) -> Response:
        """Let a suspended envoy take part again."""
        envoy = envoy_services.resume_envoy(self.get_object(), resumed_by=request.user)
        return Response(self.get_serializer(envoy).data)

    @extend_schema(responses=CodeReportSerializer)
    @action(detail=True, methods=["get"])
    def codes(self, request: UserRequest, pk: str) -> Response:
        """Which of its codes are unknown, retired or suspicious, as of its newest export."""
        report = CodeReport.objects.filter(envoy=self.get_object()).first()
        answer: dict[str, Any] = {"made_at": None, "num_codes": None, "kinds": []}
        if report is not None:
            kinds = report.kinds_shown_to(request.user)
            answer = {"made_at": report.made_at, "num_codes": report.num_codes, "kinds": kinds}
        return Response(CodeReportSerializer(answer).data)

    @starts_work
    @extend_schema(request=OfStudySerializer, responses={202: AssignmentSerializer})
    @action(detail=True, methods=["post"])
    def launch(self, request: UserRequest, pk: str) -> Response:
        """Train this envoy by hand; its round stays open until somebody asks to aggregate."""
        envoy = self.get_object()
        assignment = training_services.launch_training(
            study_of(valid(OfStudySerializer, request)), envoy, launched_by=request.user
        )
        return Response(AssignmentSerializer(assignment).data, status=status.HTTP_202_ACCEPTED)


class RiskPages(Pages):
    """As elsewhere; asked for one admission, `missing` says which model could not be used, why."""

    missing: list[str] = []

    def get_paginated_response(self, data: Any) -> Response:
        response = super().get_paginated_response(data)
        response.data["missing"] = self.missing
        return response

    def get_paginated_response_schema(self, schema: dict[str, Any]) -> dict[str, Any]:
        described = super().get_paginated_response_schema(schema)
        texts = {"type": "array", "items": {"type": "string"}}
        described["properties"]["missing"] = texts
        described["required"].append("missing")
        return described


class PredictionFilter(filters.FilterSet):
    admission = IdFilter(
        field_name="admission_id", label="of this admission, computed now by both models"
    )
    model_version = IdFilter(field_name="model_version_id")
    predicted_class = IdFilter()


class PredictionViewSet(
    Call, ListModelMixin, RetrieveModelMixin, VisibleRows, GenericViewSet[Prediction]
):
    """The risk of admissions of one's own hospital, with what drives it."""

    queryset = Prediction.objects.select_related("admission__patient", "model_version").order_by(
        "-pk"
    )
    serializer_class = serializers.PredictionSerializer
    filterset_class = PredictionFilter
    pagination_class = RiskPages

    def visible(self, rows: Any, user: Any) -> Any:
        return rows.filter(envoy=user.envoy_id)

    def list(self, request: UserRequest) -> Response:  # type: ignore[override]
        query = serializers.PredictionQuerySerializer(data=request.query_params)
        query.is_valid(raise_exception=True)
        if "admission" not in query.validated_data:
            audit.record(request.user, "saw risks", hospital_of(request.user))
            return super().list(request)
        admission = get_object_or_404(
            Admission.objects.visible_to(request.user).select_related("patient", "envoy"),
            pk=query.validated_data["admission"],
        )
        risk = services.patient_risk(admission, requested_by=request.user)
        found = [each.prediction.pk for each in (risk.by_global, risk.by_own) if each.prediction]
        missing = [each.missing for each in (risk.by_global, risk.by_own) if each.missing]
        if not found:
            raise NotReadyError("; ".join(dict.fromkeys(missing)))
        self.queryset = self.queryset.filter(pk__in=found)
        cast(RiskPages, self.paginator).missing = missing
        return super().list(request)

    def retrieve(self, request: UserRequest, pk: str) -> Response:  # type: ignore[override]
        prediction = self.get_object()
        audit.record(request.user, "saw risk", prediction.admission)
        return Response(self.get_serializer(prediction).data)


class InferenceRunFilter(filters.FilterSet):
    study = IdFilter(field_name="model_version__study_id")
    model_version = IdFilter(field_name="model_version_id")
    envoy = IdFilter(field_name="envoy_id")
    status = filters.ChoiceFilter(choices=InferenceRun.Status.choices)


class InferenceRunViewSet(
    Call, ListModelMixin, RetrieveModelMixin, VisibleRows, GenericViewSet[InferenceRun]
):
    """Whole hospitals scored, one task each; small counts are hidden."""

    queryset = InferenceRun.objects.select_related("envoy", "model_version")
    serializer_class = serializers.InferenceRunSerializer
    filterset_class = InferenceRunFilter

    @starts_work
    @extend_schema(
        request=serializers.InferenceCreateSerializer,
        responses={202: serializers.InferencesSerializer},
    )
    def create(self, request: UserRequest) -> Response:
        """Have hospitals scored, each by a task; `url` is to watch."""
        data = valid(serializers.InferenceCreateSerializer, request)
        envoys = Envoy.objects.standing().visible_to(request.user)
        if "envoys" in data:
            asked = set(data["envoys"])
            envoys = envoys.filter(pk__in=asked)
            if envoys.count() != len(asked):
                raise Http404
        elif not request.user.is_doctor:
            envoys = envoys.active().with_dataset(DIAGNOSES)
        requested = services.request_inferences(
            envoys, model=data["model"], requested_by=request.user
        )
        first = min(run.pk for run in requested.inference_runs)
        answer = {
            "url": reverse("api:inference-run-detail", args=[first])
            if len(requested.inference_runs) == 1
            else reverse("api:inference-run-list"),
            "inference_runs": requested.inference_runs,
            "problems": requested.problems,
        }
        serializer = serializers.InferencesSerializer(answer)
        return Response(serializer.data, status=status.HTTP_202_ACCEPTED)


class PatientViewSet(PatientRowsViewSet):
    """A hospital's patients; what is stored of one can be handed over, and erased."""

    @extend_schema(
        request=serializers.PatientEraseSerializer,
        responses={202: serializers.PatientErasureSerializer},
    )
    def destroy(self, request: UserRequest, pk: str) -> Response:
        """Erase a patient; this cannot be undone, so the subject_id confirms it."""
        patient = self.get_object()
        data = valid(serializers.PatientEraseSerializer, request)
        erasure = services.erase_patient(
            patient, confirmed_subject_id=data["subject_id"], erased_by=request.user
        )
        serializer = serializers.PatientErasureSerializer(erasure)
        return Response(serializer.data, status=status.HTTP_202_ACCEPTED)

    @extend_schema(responses=serializers.PatientDataSerializer)
    @action(detail=True, methods=["get"])
    def data(self, request: UserRequest, pk: str) -> Response:
        """Everything stored of a patient."""
        patient = self.get_object()
        audit.record(request.user, "exported patient", patient)
        return Response(patient_data(patient))


class PatientErasureViewSet(
    Call, ListModelMixin, RetrieveModelMixin, VisibleRows, GenericViewSet[PatientErasure]
):
    """Patients that were erased from one's own hospital, by number: what went, what remains."""

    queryset = PatientErasure.objects.all()
    serializer_class = serializers.PatientErasureSerializer

    def list(self, request: UserRequest) -> Response:  # type: ignore[override]
        audit.record(request.user, "saw erasures", hospital_of(request.user))
        return super().list(request)

    def retrieve(self, request: UserRequest, pk: str) -> Response:  # type: ignore[override]
        erasure = self.get_object()
        audit.record(request.user, "saw erasure", erasure)
        return Response(self.get_serializer(erasure).data)

    @starts_work
    @extend_schema(request=None, responses=serializers.PatientErasureSerializer)
    @action(detail=True, methods=["post"], url_path="return", url_name="return")
    def let_return(self, request: UserRequest, pk: str) -> Response:
        """Forget by which subject_id the patient was known, so that imports may bring them again."""
        erasure = let_return(self.get_object(), allowed_by=request.user)
        return Response(self.get_serializer(erasure).data)


class ErasureViewSet(Call, ListModelMixin, RetrieveModelMixin, GenericViewSet[Erasure]):
    """Deleted hospitals: what went, and what remains and why."""

    queryset = Erasure.objects.all()
    serializer_class = serializers.ErasureSerializer


class HospitalDataView(Call):
    @extend_schema(responses={(200, "application/zip"): OpenApiTypes.BINARY})
    def get(self, request: UserRequest) -> StreamingHttpResponse:
        """Everything stored of one's own hospital, names too, as a ZIP archive of CSV files."""
        envoy = hospital_of(request.user)
        audit.record(request.user, "exported hospital", envoy)
        return archive_response(envoy)


class HospitalSummaryView(Call):
    @extend_schema(responses=serializers.HospitalSummarySerializer)
    def get(self, request: UserRequest) -> Response:
        """One's own hospital at a glance."""
        summary = hospital_summary(hospital_of(request.user))
        return Response(serializers.HospitalSummarySerializer(summary).data)
