"""Models, and where they were delivered."""

from django.contrib import admin
from django.db.models import QuerySet
from django.http import HttpRequest

from envoys.admin_base import (
    WORK_FIELDS,
    Rows,
    WorkRows,
    link,
    person,
    person_of,
    plain_json,
    rows_of,
    short,
)
from training import services
from training.models import (
    Distribution,
    ModelChoice,
    ModelVersion,
)
from training.shown import masked_in_words


@admin.register(ModelVersion)
class ModelVersionAdmin(Rows):
    shown = (
        "study",
        "envoy",
        "kind",
        "number",
        "state",
        person("approved_by"),
        "approved_at",
        "run",
        "training_round",
        "created_at",
        rows_of(Distribution, "version"),
        "storage_key",
        "params_sha256",
        "object_sha256",
        plain_json("metrics", masked_in_words),
        plain_json("manifest", masked_in_words),
    )
    list_display = (
        "__str__",
        link("study"),
        link("envoy"),
        "number",
        "state",
        link("run"),
        short("params_sha256"),
        "created_at",
    )
    list_select_related = ("study", "envoy", "run__study")
    list_filter = ("kind", "state", "study", "envoy")
    search_fields = ("study__name", "envoy__name", "params_sha256", "object_sha256")
    actions = ("distribute",)

    @admin.action(description="Release and distribute to every hospital")
    def distribute(self, request: HttpRequest, versions: "QuerySet[ModelVersion]") -> None:
        if versions.count() != 1:
            self.refuse(request, "Choose one version: a study has one that is released")
            return
        self.do_each(
            request,
            versions,
            lambda version: services.distribute_version(version, distributed_by=person_of(request)),
            "released, and on its way to the hospitals",
        )


@admin.register(ModelChoice)
class ModelChoiceAdmin(Rows):
    shown = (
        "run",
        "envoy",
        "kind",
        "reason",
        "made_at",
        "overruled_to",
        "overrule_reason",
        person("overruled_by"),
        "overruled_at",
        plain_json("figures", masked_in_words),
    )
    list_display = ("__str__", link("run"), link("envoy"), "kind", "overruled_to", "made_at")
    list_select_related = ("run__study", "envoy")
    list_filter = ("kind", "overruled_to", "envoy")
    search_fields = ("envoy__name", "reason", "overrule_reason")


@admin.register(Distribution)
class DistributionAdmin(WorkRows):
    shown = ("version", "envoy", "seen_sha256", "created_at", "delivered_at", *WORK_FIELDS)
    list_display = ("__str__", link("version"), link("envoy"), "status", "delivered_at", "reason")
    list_select_related = ("version__study", "version__envoy", "envoy")
    list_filter = ("status", "envoy", "created_at")
    search_fields = ("envoy__name", "version__study__name", "reason", "seen_sha256")
