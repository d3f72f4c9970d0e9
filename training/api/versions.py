"""Calls about model versions and their delivery."""

from typing import Any

from django.urls import reverse
from django_filters import rest_framework as filters
from drf_spectacular.utils import extend_schema
from rest_framework import status
from rest_framework.mixins import ListModelMixin, RetrieveModelMixin
from rest_framework.response import Response
from rest_framework.viewsets import GenericViewSet

from envoys.models import Envoy
from envoys.rest import Call, IdFilter, UserRequest, VisibleRows, starts_work, valid
from training import serializers, services
from training.models import Distribution, ModelVersion


class VersionFilter(filters.FilterSet):
    study = IdFilter(field_name="study_id")
    envoy = IdFilter(field_name="envoy_id", label="this envoy's own")
    is_global = filters.BooleanFilter(field_name="envoy", lookup_expr="isnull")
    run = IdFilter(field_name="run_id")
    kind = filters.ChoiceFilter(choices=ModelVersion.Kind.choices)
    number = IdFilter()
    state = filters.ChoiceFilter(choices=ModelVersion.State.choices)


class ModelVersionViewSet(
    Call, ListModelMixin, RetrieveModelMixin, VisibleRows, GenericViewSet[ModelVersion]
):
    """The federation's versions, and hospitals' own of those that one may see."""

    queryset = ModelVersion.objects.select_related("training_round", "approved_by")
    serializer_class = serializers.ModelVersionSerializer
    filterset_class = VersionFilter

    def get_serializer_class(self) -> Any:
        if self.action == "retrieve":
            return serializers.ModelVersionDetailSerializer
        return self.serializer_class


class DistributionFilter(filters.FilterSet):
    study = IdFilter(field_name="version__study_id")
    model_version = IdFilter(field_name="version_id")
    envoy = IdFilter(field_name="envoy_id")
    status = filters.ChoiceFilter(choices=Distribution.Status.choices)


class DistributionViewSet(
    Call, ListModelMixin, RetrieveModelMixin, VisibleRows, GenericViewSet[Distribution]
):
    """What arrived where."""

    queryset = Distribution.objects.select_related("envoy")
    serializer_class = serializers.DistributionSerializer
    filterset_class = DistributionFilter
    is_long = True  # reads and writes in storage

    def visible(self, rows: Any, user: Any) -> Any:
        return rows.filter(envoy__in=Envoy.objects.visible_to(user))

    @starts_work
    @extend_schema(
        request=serializers.DistributeSerializer,
        responses={202: serializers.DistributedSerializer},
    )
    def create(self, request: UserRequest) -> Response:
        """Release a global version, and send it to hospitals; `url` is to watch."""
        data = valid(serializers.DistributeSerializer, request)
        version = data["model_version"]
        distributions = services.distribute_version(
            version, distributed_by=request.user, envoys=data.get("envoys")
        )
        answer = {
            "url": f"{reverse('api:distribution-list')}?model_version={version.pk}",
            "distributions": distributions,
        }
        serializer = serializers.DistributedSerializer(answer)
        return Response(serializer.data, status=status.HTTP_202_ACCEPTED)
