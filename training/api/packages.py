"""Calls about studies, and what hospitals are asked to approve."""

from typing import Any

from django.shortcuts import get_object_or_404
from django_filters import rest_framework as filters
from drf_spectacular.utils import extend_schema
from rest_framework import status
from rest_framework.decorators import action
from rest_framework.mixins import ListModelMixin, RetrieveModelMixin
from rest_framework.response import Response
from rest_framework.viewsets import GenericViewSet

from envoys.errors import StorageError
from envoys.rest import Call, IdFilter, UserRequest, VisibleRows, starts_work, valid
from training import serializers, services
from training.models import Study, StudyMembership


def study_of(data: dict[str, Any]) -> Study:
    """The study that a call names, or else the main one."""
    study: Study = data.get("study") or services.study_for("risk_tier")
    return study


class StudyViewSet(Call, ListModelMixin, RetrieveModelMixin, GenericViewSet[Study]):
    """What is predicted, from which inputs, by which network."""

    queryset = Study.objects.all()
    serializer_class = serializers.StudySerializer
    filterset_fields = ("name", "target", "network")

    @starts_work
    @extend_schema(
        request=serializers.StudyCreateSerializer, responses={201: serializers.StudySerializer}
    )
    def create(self, request: UserRequest) -> Response:
        """Make a study of a target and a network."""
        data = valid(serializers.StudyCreateSerializer, request)
        study = services.create_study(
            data["target"], network=data["network"], created_by=request.user
        )
        return Response(self.get_serializer(study).data, status=status.HTTP_201_CREATED)


class MembershipFilter(filters.FilterSet):
    study = IdFilter(field_name="study_id")
    envoy = IdFilter(field_name="envoy_id")
    answer = filters.ChoiceFilter(choices=StudyMembership.Answer.choices)
    plan_sha256 = filters.CharFilter()


class PackageViewSet(
    Call, ListModelMixin, RetrieveModelMixin, VisibleRows, GenericViewSet[StudyMembership]
):
    """Training packages: a plan, put before one hospital."""

    queryset = (
        StudyMembership.objects.with_answer()
        .select_related("envoy")
        .order_by("-packaged_at", "-pk")
    )
    serializer_class = serializers.PackageSerializer
    filterset_class = MembershipFilter
    is_long = True  # writes to every hospital's storage

    @starts_work
    @extend_schema(
        request=serializers.PackageCreateSerializer,
        responses={201: serializers.PackagedSerializer},
    )
    def create(self, request: UserRequest) -> Response:
        """Put a plan before hospitals; the same plan again renews the package."""
        data = valid(serializers.PackageCreateSerializer, request)
        study = study_of(data)
        plan = services.plan_for(
            study,
            num_rounds=data["num_rounds"],
            strategy=data["strategy"],
            strategy_parameters=data["strategy_parameters"],
            local_training=data.get("local_training"),
        )
        envoys = data.get("envoys", study.envoys)
        packaged = services.package_envoys(study, envoys, plan, packaged_by=request.user)
        if not packaged.memberships:
            raise StorageError("; ".join(packaged.problems))
        rows = self.get_queryset().filter(pk__in=[row.pk for row in packaged.memberships])
        answer = {"packages": rows, "problems": packaged.problems}
        serializer = serializers.PackagedSerializer(answer, context=self.get_serializer_context())
        return Response(serializer.data, status=status.HTTP_201_CREATED)


class ApprovalViewSet(
    Call, ListModelMixin, RetrieveModelMixin, VisibleRows, GenericViewSet[StudyMembership]
):
    """Hospitals' answers to packages. An answer has the number of its package."""

    queryset = (
        StudyMembership.objects.with_answer()
        .select_related("approved_by", "refused_by")
        .order_by("-packaged_at", "-pk")
    )
    serializer_class = serializers.ApprovalSerializer
    filterset_class = MembershipFilter

    @starts_work
    @extend_schema(
        request=serializers.ApproveSerializer, responses={201: serializers.ApprovalSerializer}
    )
    def create(self, request: UserRequest) -> Response:
        """Approve a package whose plan one has read."""
        data = valid(serializers.ApproveSerializer, request)
        package = get_object_or_404(self.get_queryset(), pk=data["package"])
        services.approve_package(package, approved_by=request.user, plan_hash=data["plan_sha256"])
        return self._answer(package.pk, status.HTTP_201_CREATED)

    @extend_schema(request=serializers.RefuseSerializer, responses=serializers.ApprovalSerializer)
    @starts_work
    @action(detail=True, methods=["post"])
    def refuse(self, request: UserRequest, pk: str) -> Response:
        """Refuse a package, with the reason."""
        package = self.get_object()
        data = valid(serializers.RefuseSerializer, request)
        services.refuse_package(package, refused_by=request.user, reason=data["reason"])
        return self._answer(package.pk)

    @extend_schema(request=None, responses=serializers.ApprovalSerializer)
    @starts_work
    @action(detail=True, methods=["post"])
    def revoke(self, request: UserRequest, pk: str) -> Response:
        """Withdraw an approval, from the next launch on."""
        package = self.get_object()
        services.revoke_approval(package, revoked_by=request.user)
        return self._answer(package.pk)

    def _answer(self, pk: int, code: int = status.HTTP_200_OK) -> Response:
        return Response(self.get_serializer(self.get_queryset().get(pk=pk)).data, status=code)
