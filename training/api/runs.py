"""Calls about runs: started, watched, stopped, and trained by hand one hospital at a time."""

from typing import Any

from django.db.models import Count, OuterRef, Prefetch, Q, Subquery
from django.db.models.functions import Coalesce
from django_filters import rest_framework as filters
from drf_spectacular.utils import extend_schema
from rest_framework import status
from rest_framework.decorators import action
from rest_framework.mixins import ListModelMixin, RetrieveModelMixin
from rest_framework.response import Response
from rest_framework.viewsets import GenericViewSet

from envoys.models import Envoy
from envoys.rest import Call, IdFilter, UserRequest, VisibleRows, starts_work, valid
from training import serializers, services
from training.api.packages import study_of
from training.benefit import benefit_of
from training.errors import NotReadyError
from training.models import (
    ReceivedUpdate,
    RoundAssignment,
    RunParticipant,
    TrainingRound,
    TrainingRun,
)
from training.progress import with_counts
from training.summary import federation_summary

COUNTED = RoundAssignment.objects.filter(updates__verdict=ReceivedUpdate.Verdict.ACCEPTED)
EXPECTED = RunParticipant.objects.expected()
ROUNDS_WITH_COUNTS = TrainingRound.objects.annotate(
    num_due=Count("assignments"),
    num_in=Count("assignments", filter=Q(assignments__status=RoundAssignment.Status.SUBMITTED)),
    num_expected=Coalesce(
        Subquery(
            EXPECTED.filter(run=OuterRef("run"))
            .order_by()
            .values("run")
            .annotate(count=Count("pk"))
            .values("count")
        ),
        0,
    ),
).prefetch_related(
    Prefetch(
        "assignments",
        queryset=COUNTED.only("envoy_id", "training_round_id").order_by(),
        to_attr="counted_assignments",
    ),
    Prefetch(
        "run__participants",
        queryset=EXPECTED.select_related("envoy"),
        to_attr="expected_participants",
    ),
)


class RunFilter(filters.FilterSet):
    study = IdFilter(field_name="study_id")
    envoy = IdFilter(field_name="participants__envoy_id", label="in which this envoy takes part")
    status = filters.ChoiceFilter(choices=TrainingRun.Status.choices)
    mode = filters.ChoiceFilter(choices=TrainingRun.Mode.choices)


class RunViewSet(
    Call, ListModelMixin, RetrieveModelMixin, VisibleRows, GenericViewSet[TrainingRun]
):
    """Trainings of a study; a doctor sees those that their hospital takes part in."""

    queryset = with_counts(TrainingRun.objects.all()).select_related("started_by")
    serializer_class = serializers.RunSerializer
    filterset_class = RunFilter

    def get_serializer_class(self) -> Any:
        return (
            serializers.RunDetailSerializer if self.action == "retrieve" else self.serializer_class
        )

    def visible(self, rows: Any, user: Any) -> Any:
        rows = rows.visible_to(user)
        if self.action == "retrieve":
            rounds = ROUNDS_WITH_COUNTS.order_by("number")
            rows = rows.prefetch_related(Prefetch("rounds", queryset=rounds))
        return rows

    @starts_work
    @extend_schema(
        request=serializers.RunCreateSerializer, responses={202: serializers.RunSerializer}
    )
    def create(self, request: UserRequest) -> Response:
        """Start a run with the hospitals that have approved its plan; `url` is to watch."""
        data = valid(serializers.RunCreateSerializer, request)
        study = study_of(data)
        run = services.start_run(
            study,
            services.packaged_plan(study, data.get("plan_sha256")),
            started_by=request.user,
            seed=data["seed"],
            envoys=data.get("envoys"),
            quorum=data["quorum"],
            deadline_seconds=data["deadline_seconds"],
            mandatory=data["mandatory"],
            on_miss=data["on_miss"],
        )
        return self._answer(run, status.HTTP_202_ACCEPTED)

    @starts_work
    @extend_schema(request=None, responses=serializers.RunSerializer)
    @action(detail=True, methods=["post"])
    def stop(self, request: UserRequest, pk: str) -> Response:
        """Stop a run; what was recorded is kept, what still comes is late."""
        run = self.get_object()
        if not services.stop_run(run, stopped_by=request.user):
            run.refresh_from_db()
            raise NotReadyError(f"{run} has ended already: {run.get_status_display().lower()}")
        return self._answer(run)

    @extend_schema(responses=serializers.BenefitSerializer)
    @action(detail=True, methods=["get"])
    def benefit(self, request: UserRequest, pk: str) -> Response:
        """What the run brings to each hospital: five models on the same held-out patients."""
        run = self.get_object()
        benefit = benefit_of(run, request.user)
        if benefit is None:
            raise NotReadyError(f"{run} has no report: it is made after the run has finished")
        return Response(serializers.BenefitSerializer(benefit).data)

    def _answer(self, run: TrainingRun, code: int = status.HTTP_200_OK) -> Response:
        return Response(self.get_serializer(self.get_queryset().get(pk=run.pk)).data, status=code)


class RoundFilter(filters.FilterSet):
    run = IdFilter(field_name="run_id")
    study = IdFilter(field_name="run__study_id")
    status = filters.ChoiceFilter(choices=TrainingRound.Status.choices)


class RoundViewSet(
    Call, ListModelMixin, RetrieveModelMixin, VisibleRows, GenericViewSet[TrainingRound]
):
    """Exchanges director → envoys → director."""

    queryset = ROUNDS_WITH_COUNTS.order_by("-run", "number")
    serializer_class = serializers.RoundSerializer
    filterset_class = RoundFilter

    def visible(self, rows: Any, user: Any) -> Any:
        return rows.filter(run__in=TrainingRun.objects.visible_to(user))

    @starts_work
    @extend_schema(
        request=serializers.AggregateSerializer, responses={202: serializers.AggregatedSerializer}
    )
    @action(detail=False, methods=["post"])
    def aggregate(self, request: UserRequest) -> Response:
        """Close the open manual round with these hospitals' updates, and make a model of them."""
        data = valid(serializers.AggregateSerializer, request)
        study = study_of(data)
        training_round = services.aggregate_envoys(
            study, data["envoys"], aggregated_by=request.user
        )
        answer = {"round": training_round.pk, "model_version": services.number_to_come(study)}
        serializer = serializers.AggregatedSerializer(answer)
        return Response(serializer.data, status=status.HTTP_202_ACCEPTED)


class AssignmentFilter(filters.FilterSet):
    run = IdFilter(field_name="training_round__run_id")
    study = IdFilter(field_name="training_round__run__study_id")
    envoy = IdFilter(field_name="envoy_id")
    status = filters.ChoiceFilter(choices=RoundAssignment.Status.choices)


class AssignmentViewSet(
    Call, ListModelMixin, RetrieveModelMixin, VisibleRows, GenericViewSet[RoundAssignment]
):
    """What one hospital owes one round."""

    queryset = RoundAssignment.objects.select_related("training_round__run", "envoy").order_by(
        "-pk"
    )
    serializer_class = serializers.AssignmentSerializer
    filterset_class = AssignmentFilter

    def visible(self, rows: Any, user: Any) -> Any:
        return rows.filter(envoy__in=Envoy.objects.visible_to(user))

    @starts_work
    @extend_schema(request=None, responses={202: serializers.AssignmentSerializer})
    @action(detail=True, methods=["post"])
    def retry(self, request: UserRequest, pk: str) -> Response:
        """Ask a hospital again that failed, missed the round or was left out of it."""
        assignment = services.retry_assignment(self.get_object(), retried_by=request.user)
        return Response(self.get_serializer(assignment).data, status=status.HTTP_202_ACCEPTED)

    @starts_work
    @extend_schema(request=None, responses={202: serializers.AssignmentSerializer})
    @action(detail=True, methods=["post"])
    def drop(self, request: UserRequest, pk: str) -> Response:
        """Let a round that waits for the missing go on without this hospital."""
        assignment = services.drop_assignment(self.get_object(), dropped_by=request.user)
        return Response(self.get_serializer(assignment).data, status=status.HTTP_202_ACCEPTED)


class FederationSummaryView(Call):
    @extend_schema(responses=serializers.FederationSummarySerializer)
    def get(self, request: UserRequest) -> Response:
        """The federation at a glance; to a doctor of hospitals only their own."""
        summary = federation_summary(request.user)
        context = {"request": request}
        return Response(serializers.FederationSummarySerializer(summary, context=context).data)
