"""What hospitals sent and exported, as counts. Patients, admissions and diagnoses are not here, nor
what a file's checks quote from its rows: those are the hospital's own."""

from typing import Any

from django.contrib import admin
from django.db.models import QuerySet

from diagnoses.models import CodeReport, IcdCode, Import, Snapshot, Upload
from envoys.admin_base import WORK_FIELDS, Rows, WorkRows, figure, link, person, progress, short
from envoys.models import Envoy, User


class OfHospital(Rows):
    """The pages of these rows are the hospital's own; here they are counts of every hospital."""

    def visible(self, rows: "QuerySet[Any]", user: User) -> "QuerySet[Any]":
        return rows.filter(envoy__in=Envoy.objects.visible_to(user))


@admin.register(IcdCode)
class IcdCodeAdmin(Rows):
    shown = ("code", "version", "title", "category", "chapter", "is_leaf")
    list_display = ("code", "version", "title", "category", "is_leaf")
    list_filter = ("version", "is_leaf", "chapter")
    search_fields = ("^code", "title")
    ordering = ("version", "code")


@admin.register(Import)
class ImportAdmin(OfHospital):
    shown = (
        "envoy",
        "status",
        "source_sha256",
        progress,
        figure("num_admissions"),
        figure("num_diagnoses"),
        person("started_by"),
        "started_at",
        "heartbeat_at",
        "completed_at",
    )
    list_display = (
        "__str__",
        link("envoy"),
        "status",
        figure("num_admissions"),
        figure("num_diagnoses"),
        "started_at",
        "completed_at",
    )
    list_select_related = ("envoy",)
    list_filter = ("status", "envoy", "started_at")
    search_fields = ("envoy__name", "source_sha256")


@admin.register(Snapshot)
class SnapshotAdmin(OfHospital, WorkRows):
    shown = (
        "envoy",
        "dataset",
        figure("num_admissions"),
        figure("num_diagnoses"),
        figure("num_readings"),
        person("requested_by"),
        "created_at",
        "completed_at",
        "sha256",
        "diagnoses_sha256",
        "outcomes_sha256",
        *WORK_FIELDS,
    )
    list_display = (
        "__str__",
        link("envoy"),
        "status",
        figure("num_admissions"),
        figure("num_diagnoses"),
        short("sha256"),
        "created_at",
        "reason",
    )
    list_select_related = ("envoy",)
    list_filter = ("status", "envoy", "created_at")
    search_fields = ("envoy__name", "sha256", "reason")


@admin.register(CodeReport)
class CodeReportAdmin(OfHospital):
    shown = ("envoy", "num_codes", "made_at")
    list_display = ("__str__", link("envoy"), "num_codes", "made_at")
    list_select_related = ("envoy",)
    search_fields = ("envoy__name",)


@admin.register(Upload)
class UploadAdmin(OfHospital, WorkRows):
    shown = (
        "envoy",
        "stage",
        "num_problems",
        figure("num_admissions"),
        figure("num_diagnoses"),
        "source_import",
        person("uploaded_by"),
        "created_at",
        "confirmed_at",
        "completed_at",
        *WORK_FIELDS,
    )
    list_display = (
        "__str__",
        link("envoy"),
        "stage",
        "status",
        "num_problems",
        "created_at",
        "completed_at",
        "reason",
    )
    list_select_related = ("envoy",)
    list_filter = ("stage", "status", "envoy", "created_at")
    search_fields = ("envoy__name", "reason")
