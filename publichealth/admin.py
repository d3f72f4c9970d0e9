"""What was made of readings. The readings themselves are not here: some are of a person."""

from django.contrib import admin

from envoys.admin_base import WORK_FIELDS, Rows, WorkRows, link, person
from publichealth.models import AlertThreshold, DriftCheck, RetrainingProposal, Serving


@admin.register(Serving)
class ServingAdmin(WorkRows):
    shown = (
        "version",
        "slope",
        "intercept",
        "threshold",
        "num_validation",
        "created_at",
        "completed_at",
        *WORK_FIELDS,
    )
    list_display = ("__str__", link("version"), "status", "threshold", "created_at", "reason")
    list_select_related = ("version__study",)
    list_filter = ("status", "created_at")
    search_fields = ("version__study__name", "reason")


@admin.register(AlertThreshold)
class AlertThresholdAdmin(Rows):
    shown = ("figure", "value", person("set_by"), "set_at")
    list_display = ("figure", "value", person("set_by"), "set_at")
    list_select_related = ("set_by",)


@admin.register(DriftCheck)
class DriftCheckAdmin(WorkRows):
    shown = (
        "envoy",
        "version",
        "num_readings",
        "is_alert",
        "figures",
        person("requested_by"),
        "created_at",
        "completed_at",
        *WORK_FIELDS,
    )
    list_display = (
        "__str__",
        link("envoy"),
        "status",
        "num_readings",
        "is_alert",
        "created_at",
        "reason",
    )
    list_select_related = ("envoy",)
    list_filter = ("status", "is_alert", "envoy", "created_at")
    search_fields = ("envoy__name", "reason")


@admin.register(RetrainingProposal)
class RetrainingProposalAdmin(Rows):
    shown = (
        "study",
        "drift_check",
        "reason",
        person("proposed_by"),
        "created_at",
        "answer",
        person("answered_by"),
        "answered_at",
    )
    list_display = ("__str__", link("study"), person("proposed_by"), "created_at", "answer")
    list_select_related = ("study", "proposed_by")
    list_filter = ("answer", "created_at")
    search_fields = ("study__name", "reason")
