"""The published paths about patients and diagnoses: a contract with existing clients."""

from typing import Any

from django.db.models import OuterRef, Subquery
from drf_spectacular.utils import OpenApiParameter, extend_schema
from rest_framework import exceptions
from rest_framework.response import Response

from diagnoses import serializers, services
from diagnoses.models import Admission, Patient
from diagnoses.services import DiagnosisRow
from envoys import audit
from envoys.lookup import hospital_of, visible_envoy
from envoys.rest import Call, Pages, UserRequest, starts_work, valid
from federated.cohorts.values import parse_sex
from federated.errors import CohortError


class RegisterPatientView(Call):
    @starts_work
    @extend_schema(
        request=serializers.PublishedRegisterSerializer,
        responses=serializers.PublishedRegisteredSerializer,
    )
    def post(self, request: UserRequest) -> Response:
        """Register a patient, and open the admission that add-diagnoses names."""
        data = valid(serializers.PublishedRegisterSerializer, request)
        admission = services.register_patient(
            hospital_of(request.user),
            name=data["name"],
            sex=parse_sex(data["gender"] or "", "gender"),
            phone=data["phone"] or "",
            registered_by=request.user,
        )
        return Response(
            {
                "message": "The patient is registered, and admitted.",
                "subject_id": admission.patient.subject_id,
                "hadm_id": admission.hadm_id,
            }
        )


class PatientListView(Call):
    @extend_schema(
        parameters=[
            OpenApiParameter("limit", int, description="100; at most 1000"),
            OpenApiParameter("offset", int),
            OpenApiParameter(
                "X-Total-Count", int, OpenApiParameter.HEADER, response=[200], description="of all"
            ),
            OpenApiParameter(
                "Link",
                str,
                OpenApiParameter.HEADER,
                response=[200],
                description="the next and the previous page",
            ),
        ],
        responses=serializers.PublishedPatientSerializer(many=True),
    )
    def get(self, request: UserRequest) -> Response:
        """Patients of the hospital, each with the hadm_id that was entered last."""
        last = Admission.objects.complete().filter(patient=OuterRef("pk")).order_by("-pk")
        patients = Patient.objects.visible_to(request.user).order_by("pk")
        audit.record(request.user, "listed patients", hospital_of(request.user))
        pages = Pages()
        page: Any = pages.paginate_queryset(
            patients.annotate(hadm_id=Subquery(last.values("hadm_id")[:1])), request
        )
        return Response(
            serializers.PublishedPatientSerializer(page, many=True).data, headers=_headers(pages)
        )


class AddDiagnosesView(Call):
    @starts_work
    @extend_schema(
        request=serializers.PublishedDiagnosisSerializer(many=True),
        responses=serializers.PublishedAddedSerializer,
    )
    def post(self, request: UserRequest, envoy: str) -> Response:
        """Record many diagnoses: all of them, or none."""
        hospital = visible_envoy(request.user, envoy)
        rows: Any = valid(
            serializers.PublishedDiagnosisSerializer,
            request,
            many=True,
            allow_empty=False,
            max_length=serializers.MAX_ROWS,
        )
        try:
            subject_ids = services.add_diagnoses(
                hospital, [DiagnosisRow(**row) for row in rows], recorded_by=request.user
            )
        except CohortError as error:
            raise exceptions.ValidationError({"rows": error.problems}) from error
        message = f"{len(rows)} diagnos{'is' if len(rows) == 1 else 'es'} recorded."
        return Response({"message": message, "subject_ids": subject_ids})


class ExportView(Call):
    is_long = True

    @starts_work
    @extend_schema(request=None, responses=serializers.PublishedExportSerializer)
    def post(self, request: UserRequest, envoy: str) -> Response:
        """Export a hospital's rows to its storage, and answer once they are there.

        The answer holds the file's sha256, so the work is done within the call, whatever the
        hospital's size: about a second for each 5,000 admissions. Whoever cannot wait for
        that asks `POST /api/v1/exports`, which answers at once with what to watch.
        """
        hospital = visible_envoy(request.user, envoy)
        snapshot = services.export_now(hospital, requested_by=request.user)
        audit.record(request.user, "requested export", snapshot)
        return Response(
            {
                "message": f"{snapshot.num_diagnoses} diagnoses of {hospital} are exported.",
                "csv_s3_key": f"{hospital.storage_prefix}/diagnoses.csv",
                "sha256": snapshot.diagnoses_sha256,
            }
        )


def _headers(pages: Pages) -> dict[str, str]:
    links = {"next": pages.get_next_link(), "prev": pages.get_previous_link()}
    there = ", ".join(f'<{url}>; rel="{word}"' for word, url in links.items() if url)
    return {"X-Total-Count": str(pages.count)} | ({"Link": there} if there else {})
