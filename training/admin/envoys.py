"""Envoys with what can be done with them, studies, and what hospitals answered."""

from typing import Any

from django import forms
from django.contrib import admin
from django.contrib.admin.helpers import ActionForm
from django.db.models import QuerySet
from django.http import HttpRequest, HttpResponse
from django.shortcuts import redirect

from diagnoses.models import Import, Snapshot, Upload
from envoys.admin_base import (
    Rows,
    link,
    person,
    person_of,
    plain_json,
    rows_of,
)
from envoys.models import Envoy
from envoys.services import edit_envoy
from training import services
from training.models import (
    Distribution,
    ModelVersion,
    RoundAssignment,
    Study,
    StudyMembership,
    TrainingRun,
)


class StudyActionForm(ActionForm):
    study = forms.ModelChoiceField(
        Study.objects.all(), required=False, empty_label="the main study", label="of"
    )


@admin.register(Envoy)
class EnvoyAdmin(Rows):
    """Inviting and deleting have pages of their own, which say what that means."""

    editable = ("name", "bucket", "prefix", "region", "queue")
    shown = (
        *editable,
        "status",
        "slug",
        "serial_id",
        "placement",
        "last_seen_at",
        "created_at",
        rows_of(StudyMembership, "envoy", "packages and approvals"),
        rows_of(Import, "envoy"),
        rows_of(Upload, "envoy"),
        rows_of(Snapshot, "envoy"),
        rows_of(RoundAssignment, "envoy"),
        rows_of(ModelVersion, "envoy", "models of its own"),
        rows_of(Distribution, "envoy"),
    )
    list_display = ("name", "status", "placement", "region", "queue", "last_seen_at")
    list_filter = ("status", "placement", "region")
    search_fields = ("name", "slug", "serial_id", "bucket", "prefix")
    action_form = StudyActionForm
    actions = ("package", "launch", "aggregate")

    def has_change_permission(self, request: HttpRequest, obj: Envoy | None = None) -> bool:
        is_deleted = obj is not None and obj.status == Envoy.Status.DELETED
        return super().has_change_permission(request, obj) and not is_deleted

    def has_add_permission(self, request: HttpRequest, obj: Any = None) -> bool:
        return self.has_view_permission(request)

    def has_delete_permission(self, request: HttpRequest, obj: Envoy | None = None) -> bool:
        return obj is not None and self.has_change_permission(request, obj)

    def add_view(self, request: HttpRequest, *args: Any, **kwargs: Any) -> HttpResponse:
        return redirect("envoys:envoy-create")

    def delete_view(self, request: HttpRequest, object_id: str, *args: Any) -> HttpResponse:
        return redirect("inference:envoy-delete", object_id)

    def save_model(self, request: HttpRequest, obj: Envoy, form: Any, change: bool) -> None:
        settings = {name: form.cleaned_data[name] for name in self.editable}
        edit_envoy(Envoy.objects.get(pk=obj.pk), edited_by=person_of(request), **settings)

    @admin.action(description="Package the training")
    def package(self, request: HttpRequest, envoys: "QuerySet[Envoy]") -> None:
        with self.refusals_shown(request):
            study = _study(request)
            packaged = services.package_envoys(
                study, envoys, services.plan_for(study), packaged_by=person_of(request)
            )
            for problem in packaged.problems:
                self.refuse(request, problem)
            for membership in packaged.memberships:
                self.tell(request, f"{membership}: waits for a doctor there to approve it")

    @admin.action(description="Launch the training")
    def launch(self, request: HttpRequest, envoys: "QuerySet[Envoy]") -> None:
        study, user = _study(request), person_of(request)
        self.do_each(
            request,
            envoys,
            lambda envoy: services.launch_training(study, envoy, launched_by=user),
            "launched; aggregate once it has submitted",
        )

    @admin.action(description="Aggregate what was trained")
    def aggregate(self, request: HttpRequest, envoys: "QuerySet[Envoy]") -> None:
        with self.refusals_shown(request):
            training_round = services.aggregate_envoys(
                _study(request), envoys, aggregated_by=person_of(request)
            )
            self.tell(request, f"{training_round}: a new version is on its way")


def _study(request: HttpRequest) -> Study:
    chosen = request.POST.get("study")
    return Study.objects.get(pk=chosen) if chosen else services.study_for("risk_tier")


class StudyForm(forms.ModelForm):
    """The thresholds protect the hospitals: nobody sets them lower than they are by default."""

    def clean(self) -> dict[str, Any]:
        cleaned: dict[str, Any] = super().clean() or self.cleaned_data
        for name in ("min_examples", "min_contributors"):
            lowest = getattr(Study(), name)
            if name in cleaned and cleaned[name] < lowest:
                self.add_error(name, f"At least {lowest}: fewer could give somebody away.")
        return cleaned


@admin.register(Study)
class StudyAdmin(Rows):
    form = StudyForm
    editable = ("title", "min_examples", "min_contributors")
    shown = (
        *editable,
        "name",
        "dataset",
        "target",
        "target_definition",
        "network",
        "schema_sha256",
        "created_at",
        rows_of(StudyMembership, "study", "packages and approvals"),
        rows_of(TrainingRun, "study", "runs"),
        rows_of(ModelVersion, "study"),
    )
    list_display = ("title", "name", "target", "network", "min_examples", "min_contributors")
    list_filter = ("target", "network")
    search_fields = ("name", "title", "target_definition")


@admin.register(StudyMembership)
class StudyMembershipAdmin(Rows):
    shown = (
        "study",
        "envoy",
        "packaged_at",
        person("approved_by"),
        "approved_at",
        "revoked_at",
        person("refused_by"),
        "refused_at",
        "refusal_reason",
        "plan_sha256",
        "package_sha256",
        plain_json("plan"),
    )
    list_display = (
        "__str__",
        link("study"),
        link("envoy"),
        "packaged_at",
        "approved_at",
        "refused_at",
        "revoked_at",
    )
    list_select_related = ("study", "envoy")
    list_filter = ("study", "packaged_at", "approved_at")
    search_fields = ("envoy__name", "study__name", "plan_sha256")
    search_help_text = "A hospital, a study or the first characters of a plan's hash"
    ordering = ("-packaged_at", "-pk")
