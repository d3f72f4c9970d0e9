"""Calls about updates, and what a person decides about those in quarantine."""

from typing import Any

from django_filters import rest_framework as filters
from drf_spectacular.utils import extend_schema
from rest_framework.decorators import action
from rest_framework.mixins import ListModelMixin, RetrieveModelMixin
from rest_framework.response import Response
from rest_framework.viewsets import GenericViewSet

from envoys.rest import Call, IdFilter, UserRequest, VisibleRows, starts_work
from training import serializers, services
from training.models import ReceivedUpdate


class UpdateFilter(filters.FilterSet):
    run = IdFilter(field_name="assignment__training_round__run_id")
    envoy = IdFilter(field_name="assignment__envoy_id")
    verdict = filters.ChoiceFilter(choices=ReceivedUpdate.Verdict.choices)


class UpdateViewSet(
    Call, ListModelMixin, RetrieveModelMixin, VisibleRows, GenericViewSet[ReceivedUpdate]
):
    """What hospitals have sent in rounds, newest first, and whether it counts."""

    queryset = ReceivedUpdate.objects.select_related(
        "assignment__training_round", "assignment__envoy", "decided_by"
    ).order_by("-received_at", "-pk")
    serializer_class = serializers.UpdateSerializer
    filterset_class = UpdateFilter

    @starts_work
    @extend_schema(request=None, responses=serializers.UpdateSerializer)
    @action(detail=True, methods=["post"])
    def release(self, request: UserRequest, pk: str) -> Response:
        """Say that an update in quarantine is honest; it counts if its round still waits."""
        update = services.release_update(self.get_object(), decided_by=request.user)
        return self._answer(update)

    @starts_work
    @extend_schema(request=None, responses=serializers.UpdateSerializer)
    @action(detail=True, methods=["post"])
    def reject(self, request: UserRequest, pk: str) -> Response:
        """Say that an update in quarantine must not count, nor what its hospital sends later."""
        update = services.reject_update(self.get_object(), decided_by=request.user)
        return self._answer(update)

    def _answer(self, update: Any) -> Response:
        return Response(self.get_serializer(self.get_queryset().get(pk=update.pk)).data)
