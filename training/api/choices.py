"""Calls about which model a hospital uses."""

from typing import Any

from django_filters import rest_framework as filters
from drf_spectacular.utils import extend_schema
from rest_framework.decorators import action
from rest_framework.mixins import ListModelMixin, RetrieveModelMixin
from rest_framework.response import Response
from rest_framework.viewsets import GenericViewSet

from envoys.rest import Call, IdFilter, UserRequest, VisibleRows, starts_work, valid
from training import serializers, services
from training.models import ModelChoice


class ChoiceFilter(filters.FilterSet):
    study = IdFilter(field_name="run__study_id")
    run = IdFilter(field_name="run_id")
    envoy = IdFilter(field_name="envoy_id")


class ModelChoiceViewSet(
    Call, ListModelMixin, RetrieveModelMixin, VisibleRows, GenericViewSet[ModelChoice]
):
    """Which model of a run suits a hospital, by its validation patients or by one of its doctors."""

    queryset = ModelChoice.objects.select_related("envoy", "overruled_by")
    serializer_class = serializers.ModelChoiceSerializer
    filterset_class = ChoiceFilter

    @extend_schema(
        request=serializers.OverruleSerializer, responses=serializers.ModelChoiceSerializer
    )
    @starts_work
    @action(detail=True, methods=["post"])
    def overrule(self, request: UserRequest, pk: str) -> Response:
        """Have the hospital use another model of the run, with the reason."""
        choice = self.get_object()
        data = valid(serializers.OverruleSerializer, request)
        services.overrule_choice(choice, **data, overruled_by=request.user)
        return self._answer(choice)

    @extend_schema(request=None, responses=serializers.ModelChoiceSerializer)
    @starts_work
    @action(detail=True, methods=["post"], url_path="take-back", url_name="take-back")
    def take_back(self, request: UserRequest, pk: str) -> Response:
        """Have the hospital use again what its validation patients chose."""
        choice = self.get_object()
        services.take_back_overruling(choice, taken_back_by=request.user)
        return self._answer(choice)

    def _answer(self, choice: Any) -> Response:
        return Response(self.get_serializer(self.get_queryset().get(pk=choice.pk)).data)
