"""Calls about the cities' risk and air, and about alert thresholds."""

from typing import Any

from drf_spectacular.utils import OpenApiParameter, extend_schema
from rest_framework.decorators import action
from rest_framework.response import Response
from rest_framework.viewsets import ViewSet

from envoys.rest import Call, UserRequest, starts_work, valid
from publichealth import surveillance_serializers as serializers
from publichealth.lookup import figure_named
from publichealth.services.health_training import newest_training
from publichealth.services.surveillance import Window, surveillance
from publichealth.services.thresholds import current_thresholds, reset_threshold, set_threshold

FIGURE = OpenApiParameter("id", str, OpenApiParameter.PATH, enum=serializers.FIGURES)


class PublicHealthView(Call):
    @extend_schema(
        parameters=[serializers.WindowSerializer], responses=serializers.PublicHealthSerializer
    )
    def get(self, request: UserRequest) -> Response:
        """Risk and air in the cities: now, hour by hour, and what is alarming."""
        query = serializers.WindowSerializer(data=request.query_params)
        query.is_valid(raise_exception=True)
        figures = surveillance(Window(query.validated_data["window"]))
        training = newest_training(request.user)
        answer = {name: getattr(figures, name) for name in figures.__dataclass_fields__}
        serializer = serializers.PublicHealthSerializer(
            {**answer, "training": training}, context={"training": training}
        )
        return Response(serializer.data)


class AlertThresholdViewSet(Call, ViewSet):
    """From which value on a city's figure is an alert: mean risk, AQI and PM2.5."""

    @extend_schema(responses=serializers.ThresholdSerializer(many=True))
    def list(self, request: UserRequest) -> Response:
        """All three, whether set or by default; not in pages."""
        return Response(serializers.ThresholdSerializer(current_thresholds(), many=True).data)

    @extend_schema(
        parameters=[FIGURE],
        request=serializers.ThresholdChangeSerializer,
        responses=serializers.ThresholdSerializer,
    )
    def partial_update(self, request: UserRequest, pk: str) -> Response:
        """Set it."""
        data: dict[str, Any] = valid(serializers.ThresholdChangeSerializer, request)
        new = set_threshold(figure_named(pk), value=data["value"], set_by=request.user)
        return Response(serializers.ThresholdSerializer(new).data)

    @starts_work
    @extend_schema(parameters=[FIGURE], request=None, responses=serializers.ThresholdSerializer)
    @action(detail=True, methods=["post"])
    def reset(self, request: UserRequest, pk: str) -> Response:
        """Back to the default."""
        new = reset_threshold(figure_named(pk), reset_by=request.user)
        return Response(serializers.ThresholdSerializer(new).data)
