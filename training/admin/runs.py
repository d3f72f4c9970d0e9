"""Runs, rounds, and what each hospital owed and sent."""

from django.contrib import admin
from django.http import HttpRequest

from envoys.admin_base import (
    WORK_FIELDS,
    Rows,
    WorkRows,
    figure,
    link,
    person,
    person_of,
    plain_json,
    progress,
    rows_of,
    short,
)
from training import services
from training.models import (
    ModelVersion,
    ReceivedUpdate,
    RoundAssignment,
    RunParticipant,
    RunReport,
    TrainingRound,
    TrainingRun,
)
from training.shown import masked_in_words


@admin.register(TrainingRun)
class TrainingRunAdmin(Rows):
    shown = (
        "study",
        "mode",
        "status",
        "reason",
        "strategy",
        "num_rounds",
        "seed",
        "quorum",
        "deadline_seconds",
        "on_miss",
        "checked_at",
        plain_json("check_problems"),
        person("started_by"),
        "started_at",
        "training_at",
        "finished_at",
        rows_of(TrainingRound, "run", "rounds"),
        rows_of(RunParticipant, "run", "participants"),
        rows_of(ModelVersion, "run"),
        "plan_sha256",
        "params_sha256",
        "final_sha256",
        plain_json("plan"),
        plain_json("scaling"),
    )
    list_display = (
        "__str__",
        link("study"),
        "mode",
        "status",
        "strategy",
        "num_rounds",
        "started_at",
        "finished_at",
    )
    list_select_related = ("study",)
    list_filter = ("status", "mode", "strategy", "study", "started_at")
    search_fields = ("study__name", "study__title", "reason", "plan_sha256", "final_sha256")


@admin.register(RunParticipant)
class RunParticipantAdmin(Rows):
    shown = (
        "run",
        "envoy",
        "snapshot",
        figure("num_labelled_patients"),
        "is_mandatory",
        "sits_out_because",
    )
    list_display = (
        "__str__",
        link("run"),
        link("envoy"),
        figure("num_labelled_patients"),
        "sits_out_because",
    )
    list_select_related = ("run__study", "envoy")
    list_filter = ("run__status", "envoy")
    search_fields = ("envoy__name", "sits_out_because")
    ordering = ("-run", "envoy__slug")


@admin.register(TrainingRound)
class TrainingRoundAdmin(Rows):
    shown = (
        "run",
        "number",
        "status",
        "reason",
        "opened_at",
        "deadline_at",
        "closed_at",
        "aggregated_at",
        rows_of(RoundAssignment, "training_round"),
        "base_sha256",
        "state_sha256",
        "result_sha256",
    )
    list_display = ("__str__", link("run"), "status", "opened_at", "closed_at", "aggregated_at")
    list_select_related = ("run__study",)
    list_filter = ("status", "run__study", "opened_at")
    search_fields = ("=run__id", "reason", "base_sha256", "result_sha256")
    search_help_text = "A run's number, a reason or a hash"
    ordering = ("-run", "-number")


@admin.register(RoundAssignment)
class RoundAssignmentAdmin(WorkRows):
    shown = (
        "training_round",
        "envoy",
        "snapshot",
        "submitted_at",
        *WORK_FIELDS,
        rows_of(ReceivedUpdate, "assignment"),
    )
    list_display = (
        "__str__",
        link("training_round", "round"),
        link("envoy"),
        "status",
        "attempt",
        "submitted_at",
        "reason",
    )
    list_select_related = ("training_round", "envoy")
    list_filter = ("status", "envoy", "training_round__run__study")
    search_fields = ("envoy__name", "reason", "=training_round__run__id")
    search_help_text = "A hospital, a reason or a run's number"
    ordering = ("-training_round", "envoy__slug")

    def retry_row(self, request: HttpRequest, row: RoundAssignment) -> object:  # type: ignore[override]
        return services.retry_assignment(row, retried_by=person_of(request))


@admin.register(ReceivedUpdate)
class ReceivedUpdateAdmin(Rows):
    shown = (
        "assignment",
        "received_at",
        "verdict",
        "reason",
        figure("num_examples"),
        "sha256",
        "client_state_sha256",
        plain_json("metrics", masked_in_words),
        plain_json("screening"),
        "decided_by",
        "decided_at",
    )
    list_display = (
        short("sha256"),
        link("assignment"),
        "verdict",
        figure("num_examples"),
        "received_at",
        "reason",
    )
    list_select_related = ("assignment",)
    list_filter = ("verdict", "assignment__envoy", "received_at")
    search_fields = ("sha256", "assignment__envoy__name", "reason")
    ordering = ("-received_at", "-pk")


@admin.register(RunReport)
class RunReportAdmin(WorkRows):
    shown = ("run", "created_at", *WORK_FIELDS)
    list_display = ("__str__", link("run"), "status", progress, "reason")
    list_select_related = ("run__study",)
    list_filter = ("status", "created_at")
    search_fields = ("=run__id", "run__study__name", "reason")
    ordering = ("-created_at", "-pk")
