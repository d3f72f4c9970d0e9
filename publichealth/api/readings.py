"""Calls about a node's readings."""

from typing import Any

from django_filters import rest_framework as filters
from drf_spectacular.utils import extend_schema, extend_schema_view
from rest_framework import exceptions, status
from rest_framework.decorators import action
from rest_framework.mixins import ListModelMixin
from rest_framework.response import Response
from rest_framework.viewsets import GenericViewSet

from envoys import audit
from envoys.lookup import hospital_of
from envoys.rest import Call, IdFilter, UserRequest, VisibleRows, starts_work, valid
from publichealth import reading_serializers as serializers
from publichealth.models import Reading
from publichealth.services.readings import InvalidReadingsError, record_readings
from publichealth.services.subjects import erase_subject


class ReadingFilter(filters.FilterSet):
    measured_from = filters.IsoDateTimeFilter(field_name="measured_at", lookup_expr="gte")
    measured_before = filters.IsoDateTimeFilter(field_name="measured_at", lookup_expr="lt")

    city = filters.CharFilter()
    subject_id = filters.CharFilter(help_text="everything stored of one subject")
    outcome = IdFilter()
    tier = IdFilter()


@extend_schema_view(list=extend_schema(summary="Readings of one's own node, newest first"))
class ReadingViewSet(Call, ListModelMixin, VisibleRows, GenericViewSet[Reading]):
    queryset = Reading.objects.all()
    serializer_class = serializers.ReadingSerializer
    filterset_class = ReadingFilter

    def list(self, request: UserRequest, *args: Any, **kwargs: Any) -> Response:  # type: ignore[override]
        audit.record(request.user, "listed readings", hospital_of(request.user))
        return super().list(request, *args, **kwargs)

    @starts_work
    @extend_schema(
        request=serializers.ReadingBatchSerializer,
        responses={201: serializers.RecordedSerializer},
    )
    def create(self, request: UserRequest) -> Response:
        """Record up to 1,000 readings: all of them, or none; what is there already stays."""
        rows = valid(serializers.ReadingBatchSerializer, request)["readings"]
        try:
            recorded = record_readings(
                hospital_of(request.user),
                [serializers.to_new_reading(row) for row in rows],
                recorded_by=request.user,
            )
        except InvalidReadingsError as error:
            problems: dict[str, dict[str, list[str]]] = {}
            for each in error.problems:
                problems.setdefault(str(each.row), {}).setdefault(each.field, []).append(each.text)
            raise exceptions.ValidationError({"readings": problems}) from error
        answer = serializers.RecordedSerializer(recorded).data
        return Response(answer, status=status.HTTP_201_CREATED)

    # Long: every export of the node is read through.
    @starts_work
    @extend_schema(
        request=serializers.SubjectSerializer, responses=serializers.SubjectErasedSerializer
    )
    @action(detail=False, methods=["post"], is_long=True)
    def erase(self, request: UserRequest) -> Response:
        """Erase one subject's readings, and the exports with them; this cannot be undone.

        Refused while a run trains on such an export. What devices send afterwards is recorded."""
        data = valid(serializers.SubjectSerializer, request)
        erased = erase_subject(
            hospital_of(request.user), data["subject_id"], erased_by=request.user
        )
        return Response(serializers.SubjectErasedSerializer(erased).data)
