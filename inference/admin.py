"""Hospitals scored, as counts, and hospitals erased. Predictions are the hospital's own."""

from django.contrib import admin

from envoys.admin_base import WORK_FIELDS, WorkRows, link, person, progress
from inference.models import Erasure, InferenceRun


@admin.register(InferenceRun)
class InferenceRunAdmin(WorkRows):
    shown = (
        "envoy",
        "model_version",
        "counts_in_words",
        person("requested_by"),
        "created_at",
        "completed_at",
        *WORK_FIELDS,
    )
    list_display = (
        "__str__",
        link("envoy"),
        link("model_version"),
        "status",
        "counts_in_words",
        "created_at",
        "reason",
    )
    list_select_related = ("envoy", "model_version__study", "model_version__envoy")
    list_filter = ("status", "envoy", "created_at")
    search_fields = ("envoy__name", "model_version__study__name", "reason")


@admin.register(Erasure)
class ErasureAdmin(WorkRows):
    shown = ("envoy", person("requested_by"), "created_at", "completed_at", *WORK_FIELDS)
    list_display = (
        "__str__",
        link("envoy"),
        "status",
        progress,
        "created_at",
        "completed_at",
        "reason",
    )
    list_select_related = ("envoy",)
    list_filter = ("status", "created_at")
    search_fields = ("envoy__name", "reason")
