"""Calls about a hospital's patients, their diagnoses, and the files that go in and out."""

from typing import Any

import django_filters
from django.db.models import Q, QuerySet
from django.shortcuts import get_object_or_404
from drf_spectacular.utils import OpenApiParameter, extend_schema, extend_schema_view
from rest_framework import status
from rest_framework.decorators import action
from rest_framework.mixins import ListModelMixin, RetrieveModelMixin
from rest_framework.parsers import JSONParser, MultiPartParser
from rest_framework.response import Response
from rest_framework.viewsets import GenericViewSet

from diagnoses import serializers, services
from diagnoses.models import Admission, Diagnosis, IcdCode, Import, Patient, Snapshot, Upload
from envoys import audit
from envoys.lookup import hospital_of
from envoys.rest import Call, IdFilter, UserRequest, VisibleRows, starts_work, valid

MAX_CODES_FOUND = 1000


class PatientFilter(django_filters.FilterSet):
    """By what means nothing outside the hospital: a name would stand in every log."""

    is_in_hospital = django_filters.BooleanFilter(
        method="filter_open", help_text="has an open admission"
    )
    hadm_id = django_filters.CharFilter(field_name="admissions__hadm_id", help_text="of a stay")

    class Meta:
        model = Patient
        fields = ["subject_id", "sex"]

    def filter_open(self, rows: QuerySet[Patient], name: str, value: bool) -> QuerySet[Patient]:
        is_open = {"pk__in": Admission.objects.complete().open().values("patient_id")}
        return rows.filter(**is_open) if value else rows.exclude(**is_open)


@extend_schema_view(list=extend_schema(summary="Patients of the hospital, newest first"))
class PatientViewSet(Call, ListModelMixin, VisibleRows, GenericViewSet[Patient]):
    queryset = Patient.objects.order_by("-created_at", "-pk")
    serializer_class = serializers.PatientSerializer
    filterset_class = PatientFilter

    def list(self, request: UserRequest, *args: Any, **kwargs: Any) -> Response:  # type: ignore[override]
        audit.record(request.user, "listed patients", hospital_of(request.user))
        return super().list(request, *args, **kwargs)

    def retrieve(self, request: UserRequest, pk: str) -> Response:
        """See a patient."""
        patient = self.get_object()
        audit.record(request.user, "saw patient", patient)
        return Response(self.get_serializer(patient).data)

    @starts_work
    @extend_schema(
        request=serializers.PatientFactsSerializer,
        responses={201: serializers.RegisteredSerializer},
    )
    def create(self, request: UserRequest) -> Response:
        """Register a patient: a random subject_id, and an open admission."""
        admission = services.register_patient(
            hospital_of(request.user),
            **valid(serializers.PatientFactsSerializer, request),
            registered_by=request.user,
        )
        answer = {
            **self.get_serializer(admission.patient).data,
            "admission": serializers.AdmissionSerializer(admission).data,
        }
        return Response(answer, status=status.HTTP_201_CREATED)

    @extend_schema(
        request=serializers.PatientSearchSerializer,
        responses=serializers.PatientSerializer(many=True),
    )
    @action(detail=False, methods=["post"], filterset_class=None)
    def search(self, request: UserRequest) -> Response:
        """Find patients, by name too: in the body it stands in no log."""
        wanted = valid(serializers.PatientSearchSerializer, request)
        patients = self.get_queryset()
        if name := wanted.pop("name", ""):
            patients = patients.named(name)
        found = PatientFilter(wanted, patients, request=request).qs
        audit.record(request.user, "listed patients", hospital_of(request.user))
        page = self.paginate_queryset(found)
        return self.get_paginated_response(self.get_serializer(page, many=True).data)

    @extend_schema(
        request=serializers.PatientChangeSerializer(partial=True),
        responses=serializers.PatientSerializer,
    )
    def partial_update(self, request: UserRequest, pk: str) -> Response:
        """Correct what is known of a patient; what is left out stays."""
        patient = self.get_object()
        facts = {name: getattr(patient, name) for name in ("name", "sex", "phone", "birth_year")}
        facts |= valid(serializers.PatientChangeSerializer, request, partial=True)
        services.edit_patient(patient, **facts, edited_by=request.user)
        return Response(self.get_serializer(patient).data)


class AdmissionFilter(django_filters.FilterSet):
    patient = IdFilter(field_name="patient_id", help_text="the patient's id")
    is_open = django_filters.BooleanFilter(method="filter_open")

    class Meta:
        model = Admission
        fields = ["hadm_id", "clinician_risk_level", "risk_tier"]

    def filter_open(self, rows: Any, name: str, value: bool) -> Any:
        return rows.open() if value else rows.exclude(pk__in=Admission.objects.open())


@extend_schema_view(list=extend_schema(summary="Admissions, newest first; by patient"))
class AdmissionViewSet(Call, ListModelMixin, VisibleRows, GenericViewSet[Admission]):
    queryset = Admission.objects.select_related("patient").order_by("-pk")
    serializer_class = serializers.AdmissionSerializer
    filterset_class = AdmissionFilter

    def list(self, request: UserRequest, *args: Any, **kwargs: Any) -> Response:  # type: ignore[override]
        audit.record(request.user, "saw admissions", hospital_of(request.user))
        return super().list(request, *args, **kwargs)

    def retrieve(self, request: UserRequest, pk: str) -> Response:
        """See an admission."""
        admission = self.get_object()
        audit.record(request.user, "saw admission", admission)
        return Response(self.get_serializer(admission).data)

    @starts_work
    @extend_schema(
        request=serializers.AdmitSerializer, responses={201: serializers.AdmissionSerializer}
    )
    def create(self, request: UserRequest) -> Response:
        """Admit a patient again."""
        data = valid(serializers.AdmitSerializer, request)
        patients = Patient.objects.visible_to(request.user).select_related("envoy")
        admission = services.admit_patient(
            get_object_or_404(patients, pk=data["patient"]),
            admitted_at=data["admitted_at"],
            hadm_id=data["hadm_id"],
            admitted_by=request.user,
        )
        return Response(self.get_serializer(admission).data, status=status.HTTP_201_CREATED)

    @extend_schema(
        request=serializers.RiskLevelSerializer, responses=serializers.AdmissionSerializer
    )
    def partial_update(self, request: UserRequest, pk: str) -> Response:
        """Give one's own risk level."""
        admission = self.get_object()
        data = valid(serializers.RiskLevelSerializer, request)
        services.set_risk_level(admission, data["clinician_risk_level"], set_by=request.user)
        return Response(self.get_serializer(admission).data)

    @starts_work
    @extend_schema(
        request=serializers.DischargeSerializer, responses=serializers.AdmissionSerializer
    )
    @action(detail=True, methods=["post"])
    def discharge(self, request: UserRequest, pk: str) -> Response:
        """End an admission, with its outcome."""
        data = valid(serializers.DischargeSerializer, request)
        admission = services.discharge_patient(
            self.get_object(), **data, discharged_by=request.user
        )
        return Response(self.get_serializer(admission).data)

    @starts_work
    @extend_schema(request=None, responses=serializers.AdmissionSerializer)
    @action(detail=True, methods=["post"])
    def reopen(self, request: UserRequest, pk: str) -> Response:
        """Take a discharge back."""
        admission = services.reopen_admission(self.get_object(), reopened_by=request.user)
        return Response(self.get_serializer(admission).data)


class DiagnosisFilter(django_filters.FilterSet):
    admission = IdFilter(field_name="admission_id", help_text="the admission's id")
    is_struck_out = django_filters.BooleanFilter(
        field_name="struck_out_at", lookup_expr="isnull", exclude=True
    )

    class Meta:
        model = Diagnosis
        fields: list[str] = []


@extend_schema_view(
    list=extend_schema(summary="Diagnoses in their order, struck out ones too; by admission")
)
class DiagnosisViewSet(Call, ListModelMixin, VisibleRows, GenericViewSet[Diagnosis]):
    queryset = Diagnosis.objects.select_related(
        "admission", "recorded_by", "struck_out_by"
    ).order_by("admission_id", "seq_num", "pk")
    serializer_class = serializers.DiagnosisSerializer
    filterset_class = DiagnosisFilter

    def visible(self, rows: Any, user: Any) -> Any:
        # By joins: a subquery of a hundred thousand admissions would be made for every page.
        is_complete = Q(admission__source_import__isnull=True) | Q(
            admission__source_import__status=Import.Status.COMPLETE
        )
        return rows.filter(is_complete, admission__envoy_id=hospital_of(user))

    def list(self, request: UserRequest, *args: Any, **kwargs: Any) -> Response:  # type: ignore[override]
        audit.record(request.user, "saw diagnoses", hospital_of(request.user))
        return super().list(request, *args, **kwargs)

    def retrieve(self, request: UserRequest, pk: str) -> Response:
        """See a diagnosis."""
        diagnosis = self.get_object()
        audit.record(request.user, "saw diagnosis", diagnosis)
        return Response(self.get_serializer(diagnosis).data)

    @starts_work
    @extend_schema(
        request=serializers.DiagnosisCreateSerializer,
        responses={201: serializers.DiagnosisSerializer},
    )
    def create(self, request: UserRequest) -> Response:
        """Record a diagnosis of an admission."""
        data = valid(serializers.DiagnosisCreateSerializer, request)
        admissions = Admission.objects.visible_to(request.user)
        admission = get_object_or_404(admissions, pk=data.pop("admission"))
        diagnosis = services.record_diagnosis(admission, **data, recorded_by=request.user)
        return Response(self.get_serializer(diagnosis).data, status=status.HTTP_201_CREATED)

    @starts_work
    @extend_schema(request=None, responses=serializers.DiagnosisSerializer)
    @action(detail=True, methods=["post"], url_path="strike-out", url_name="strike-out")
    def strike_out(self, request: UserRequest, pk: str) -> Response:
        """Let a wrong diagnosis no longer count."""
        diagnosis = services.strike_out_diagnosis(self.get_object(), struck_out_by=request.user)
        return Response(self.get_serializer(diagnosis).data)

    @starts_work
    @extend_schema(request=None, responses=serializers.DiagnosisSerializer)
    @action(detail=True, methods=["post"])
    def restore(self, request: UserRequest, pk: str) -> Response:
        """Let a diagnosis that was struck out count again."""
        diagnosis = services.restore_diagnosis(self.get_object(), restored_by=request.user)
        return Response(self.get_serializer(diagnosis).data)


class IcdCodeFilter(django_filters.FilterSet):
    version = IdFilter(help_text="9 or 10")

    class Meta:
        model = IcdCode
        fields = ["code", "category"]


@extend_schema_view(
    list=extend_schema(
        summary="The public code list; with `search` the nearest codes first",
        parameters=[
            OpenApiParameter("search", str, description="the beginning of a code, or words")
        ],
    ),
    retrieve=extend_schema(summary="See a code"),
)
class IcdCodeViewSet(Call, ListModelMixin, RetrieveModelMixin, GenericViewSet[IcdCode]):
    queryset = IcdCode.objects.order_by("-version", "code")
    serializer_class = serializers.IcdCodeSerializer
    filterset_class = IcdCodeFilter

    def list(self, request: UserRequest, *args: Any, **kwargs: Any) -> Response:  # type: ignore[override]
        text = request.query_params.get("search", "").strip()[:200]
        if not text:
            return super().list(request, *args, **kwargs)
        version = {"9": 9, "10": 10}.get(request.query_params.get("version", ""))
        codes = services.search_icd_codes(text, version=version, limit=MAX_CODES_FOUND)
        page = self.paginate_queryset(codes)
        return self.get_paginated_response(self.get_serializer(page, many=True).data)


@extend_schema_view(list=extend_schema(summary="Uploaded files, newest first"))
class ImportViewSet(Call, ListModelMixin, VisibleRows, GenericViewSet[Upload]):
    queryset = Upload.objects.select_related("envoy", "source_import")
    serializer_class = serializers.ImportSerializer
    is_long = True  # reads the files through, and writes to the hospital's storage
    parser_classes = (JSONParser, MultiPartParser)

    @extend_schema(responses=serializers.ImportDetailSerializer)
    def retrieve(self, request: UserRequest, pk: str) -> Response:
        """Watch an upload, with its problems and how its files begin."""
        upload = self.get_object()
        audit.record(request.user, "saw upload", upload)
        return Response(serializers.ImportDetailSerializer(upload).data)

    @starts_work
    @extend_schema(
        request={"multipart/form-data": serializers.UploadSerializer},
        responses={202: serializers.ImportSerializer},
    )
    def create(self, request: UserRequest) -> Response:
        """Upload files: they are checked, and nothing is imported before it is confirmed."""
        data = valid(serializers.UploadSerializer, request)
        outcomes = data.get("outcomes")
        upload = services.upload_files(
            hospital_of(request.user),
            diagnoses=data["diagnoses"].file,
            outcomes=outcomes.file if outcomes else None,
            uploaded_by=request.user,
        )
        return Response(self.get_serializer(upload).data, status=status.HTTP_202_ACCEPTED)

    @starts_work
    @extend_schema(request=None, responses={202: serializers.ImportSerializer})
    @action(detail=True, methods=["post"])
    def confirm(self, request: UserRequest, pk: str) -> Response:
        """Import what was checked without a problem."""
        upload = services.confirm_upload(self.get_object(), confirmed_by=request.user)
        return Response(self.get_serializer(upload).data, status=status.HTTP_202_ACCEPTED)

    @starts_work
    @extend_schema(request=None, responses={202: serializers.ImportSerializer})
    @action(detail=True, methods=["post"])
    def discard(self, request: UserRequest, pk: str) -> Response:
        """Remove the uploaded files, without importing them."""
        upload = services.discard_upload(self.get_object(), discarded_by=request.user)
        return Response(self.get_serializer(upload).data, status=status.HTTP_202_ACCEPTED)


@extend_schema_view(
    list=extend_schema(summary="Exports to the hospital's storage, newest first"),
    retrieve=extend_schema(summary="Watch an export"),
)
class ExportViewSet(
    Call, ListModelMixin, RetrieveModelMixin, VisibleRows, GenericViewSet[Snapshot]
):
    queryset = Snapshot.objects.all()
    serializer_class = serializers.ExportSerializer

    @starts_work
    @extend_schema(request=None, responses={202: serializers.ExportSerializer})
    def create(self, request: UserRequest) -> Response:
        """Have the hospital's rows exported to its storage."""
        snapshot = services.ask_for_export(hospital_of(request.user), requested_by=request.user)
        return Response(self.get_serializer(snapshot).data, status=status.HTTP_202_ACCEPTED)
