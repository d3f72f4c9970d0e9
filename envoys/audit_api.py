"""The audit's calls: read only, for administrators."""

from typing import Any, cast

from django.http.response import HttpResponseBase
from drf_spectacular.utils import extend_schema
from rest_framework import serializers
from rest_framework.decorators import action
from rest_framework.pagination import CursorPagination
from rest_framework.renderers import BaseRenderer, JSONRenderer
from rest_framework.response import Response
from rest_framework.viewsets import GenericViewSet

from envoys.audit_search import find_events, kinds_of_rows
from envoys.audit_views import csv_response
from envoys.models import AuditEvent
from envoys.rest import Call, IdField, UserRequest


class AuditQuerySerializer(serializers.Serializer[Any]):
    user = IdField(required=False, help_text="the account's number")
    envoy = IdField(required=False, help_text="of the person who did it")
    action = serializers.CharField(
        required=False, max_length=60, help_text="how it begins, as `refused:`"
    )
    kind = serializers.CharField(required=False, max_length=40, help_text="of row, as `patient`")
    number = IdField(required=False, help_text="of the row; needs its kind")
    since = serializers.DateField(required=False, help_text="a day (UTC), included")
    until = serializers.DateField(required=False, help_text="a day (UTC), included")

    def validate_kind(self, kind: str) -> str:
        known = [name for name, _ in kinds_of_rows()]
        if kind not in known:
            raise serializers.ValidationError(f"There are these kinds: {', '.join(known)}.")
        return kind

    def validate(self, data: dict[str, Any]) -> dict[str, Any]:
        if "number" in data and "kind" not in data:
            raise serializers.ValidationError(
                {"kind": ["Say of which kind the row with this number is."]}
            )
        return data


class AuditEventSerializer(serializers.ModelSerializer[AuditEvent]):
    user = serializers.IntegerField(
        source="user_id",
        allow_null=True,
        read_only=True,
        help_text="the account's number; null where nobody was logged in",
    )
    seal = serializers.IntegerField(
        source="seal.number",
        default=None,
        allow_null=True,
        read_only=True,
        help_text="in which it was sealed; null before that",
    )
    target = serializers.CharField(
        read_only=True, help_text="kind and number of the row, as patient:3, or a list's route"
    )

    class Meta:
        model = AuditEvent
        fields = ["id", "happened_at", "user", "action", "target", "seal"]
        read_only_fields = ["id", "happened_at", "action"]


class EventPages(CursorPagination):
    """`?limit=` (100, at most 1000) and `?cursor=`, which `next` and `previous` give."""

    page_size = 100
    page_size_query_param = "limit"
    max_page_size = 1000
    ordering = ("-happened_at", "-pk")


class CsvRenderer(BaseRenderer):
    """Says that a call can answer in CSV; the answer itself is streamed by the view."""

    media_type = "text/csv"
    format = "csv"

    def render(
        self, data: Any, accepted_media_type: str | None = None, renderer_context: Any = None
    ) -> bytes:
        """An error, which is JSON as everywhere."""
        renderer_context["response"]["Content-Type"] = JSONRenderer.media_type
        return JSONRenderer().render(data)


class AuditEventViewSet(Call, GenericViewSet[AuditEvent]):
    """Who did or saw what, newest first."""

    queryset = AuditEvent.objects.select_related("seal")
    serializer_class = AuditEventSerializer
    pagination_class = EventPages

    @extend_schema(parameters=[AuditQuerySerializer])
    def list(self, request: UserRequest) -> Response:
        events = find_events(**_asked(request)).select_related("seal")
        page = self.paginate_queryset(events)
        return self.get_paginated_response(self.get_serializer(page, many=True).data)

    @extend_schema(parameters=[AuditQuerySerializer], responses={(200, "text/csv"): str})
    @action(detail=False, pagination_class=None, renderer_classes=[JSONRenderer, CsvRenderer])
    def export(self, request: UserRequest) -> HttpResponseBase:
        """All that is filtered, as CSV."""
        return csv_response(_asked(request))


def _asked(request: UserRequest) -> dict[str, Any]:
    """The arguments of `find_events`."""
    query = AuditQuerySerializer(data=request.query_params)
    query.is_valid(raise_exception=True)
    data = cast(dict[str, Any], query.validated_data)
    named = {"user": "user_id", "envoy": "envoy_id"}
    return {named.get(name, name): value for name, value in data.items()}
