"""Calls about drift, and about proposals to train again."""

from typing import Any

from django.http import Http404
from django.shortcuts import get_object_or_404
from django.urls import reverse
from django_filters import rest_framework as filters
from drf_spectacular.utils import extend_schema
from rest_framework import status
from rest_framework.decorators import action
from rest_framework.mixins import ListModelMixin, RetrieveModelMixin
from rest_framework.response import Response
from rest_framework.viewsets import GenericViewSet

from envoys.models import Envoy
from envoys.rest import Call, IdFilter, UserRequest, VisibleRows, starts_work, valid
from publichealth import drift_serializers as serializers
from publichealth.models import DriftCheck, RetrainingProposal
from publichealth.services import drift, retraining
from training.errors import NotReadyError


class DriftCheckFilter(filters.FilterSet):
    envoy = IdFilter(field_name="envoy_id")
    status = filters.ChoiceFilter(choices=DriftCheck.Status.choices)
    is_alert = filters.BooleanFilter()


class DriftCheckViewSet(
    Call, ListModelMixin, RetrieveModelMixin, VisibleRows, GenericViewSet[DriftCheck]
):
    """Nodes' newest readings, held against what the model was trained on."""

    queryset = DriftCheck.objects.select_related("envoy")
    serializer_class = serializers.DriftCheckSerializer
    filterset_class = DriftCheckFilter

    @starts_work
    @extend_schema(
        request=serializers.DriftCheckCreateSerializer,
        responses={202: serializers.DriftChecksSerializer},
    )
    def create(self, request: UserRequest) -> Response:
        """Have nodes checked now, each by a task; `url` is to watch."""
        data = valid(serializers.DriftCheckCreateSerializer, request)
        envoys = drift.nodes().visible_to(request.user)
        if "envoys" in data:
            asked = set(data["envoys"])
            known = Envoy.objects.standing().visible_to(request.user).filter(pk__in=asked)
            if known.count() != len(asked):
                raise Http404
            envoys = envoys.filter(pk__in=asked)
            if not envoys.exists():
                raise NotReadyError("None of these is a node of readings that is active")
        requested = drift.request_checks(envoys, requested_by=request.user)
        first = requested.checks[0]
        answer = {
            "url": reverse("api:drift-check-detail", args=[first.pk])
            if len(requested.checks) == 1
            else reverse("api:drift-check-list"),
            "drift_checks": requested.checks,
            "problems": requested.problems,
        }
        serializer = serializers.DriftChecksSerializer(answer)
        return Response(serializer.data, status=status.HTTP_202_ACCEPTED)


class RetrainingProposalFilter(filters.FilterSet):
    study = IdFilter(field_name="study_id")
    answer = filters.ChoiceFilter(choices=RetrainingProposal.Answer.choices)


class RetrainingProposalViewSet(
    Call, ListModelMixin, RetrieveModelMixin, GenericViewSet[RetrainingProposal]
):
    """What somebody who has seen drift asks of who runs the federation, and the answer."""

    queryset = RetrainingProposal.objects.select_related("study", "proposed_by")
    serializer_class = serializers.RetrainingProposalSerializer
    filterset_class = RetrainingProposalFilter

    @starts_work
    @extend_schema(
        request=serializers.ProposeRetrainingSerializer,
        responses={201: serializers.RetrainingProposalSerializer},
    )
    def create(self, request: UserRequest) -> Response:
        """Propose to train a study again, because of a check."""
        data = valid(serializers.ProposeRetrainingSerializer, request)
        checks = DriftCheck.objects.visible_to(request.user).select_related("version__study")
        proposal = retraining.propose_retraining(
            get_object_or_404(checks, pk=data["drift_check"]),
            reason=data["reason"],
            proposed_by=request.user,
        )
        return self._answer(proposal, status.HTTP_201_CREATED)

    @starts_work
    @extend_schema(request=None, responses=serializers.RetrainingProposalSerializer)
    @action(detail=True, methods=["post"])
    def accept(self, request: UserRequest, pk: str) -> Response:
        """Say that a training will follow; package and start it as any other."""
        proposal = self.get_object()
        retraining.accept_proposal(proposal, accepted_by=request.user)
        return self._answer(proposal)

    @starts_work
    @extend_schema(request=None, responses=serializers.RetrainingProposalSerializer)
    @action(detail=True, methods=["post"])
    def decline(self, request: UserRequest, pk: str) -> Response:
        """Say that none will follow; it can be proposed again."""
        proposal = self.get_object()
        retraining.decline_proposal(proposal, declined_by=request.user)
        return self._answer(proposal)

    @starts_work
    @extend_schema(request=None, responses=serializers.RetrainingProposalSerializer)
    @action(detail=True, methods=["post"])
    def withdraw(self, request: UserRequest, pk: str) -> Response:
        """Take one's own proposal back while it waits for an answer."""
        proposal = self.get_object()
        retraining.withdraw_proposal(proposal, withdrawn_by=request.user)
        return self._answer(proposal)

    def _answer(self, row: Any, code: int = status.HTTP_200_OK) -> Response:
        return Response(self.get_serializer(row).data, status=code)
