from django.contrib import messages
from django.db.models import Count, OuterRef, Subquery
from django.http import HttpResponse
from django.shortcuts import get_object_or_404, redirect, render

from envoys.access import may_use
from envoys.pages import UserRequest, errors_on, page_of
from federated.architectures import architecture_named
from federated.targets import target_named
from training import services
from training.forms import StudyForm
from training.models import ModelVersion, Study, StudyMembership, TrainingRun
from training.plan_words import inputs_in_words
from training.progress import with_counts

NEWEST = 5  # of a study's runs and versions; the lists have the others


def study_list(request: UserRequest) -> HttpResponse:
    active = ModelVersion.objects.of_federation().active().filter(study=OuterRef("pk"))
    studies = Study.objects.annotate(
        num_runs=Count("runs"), active_number=Subquery(active.values("number")[:1])
    ).order_by("name")
    return render(
        request,
        "training/study_list.html",
        {
            "page": page_of(request, studies),
            "may_create": may_use(request.user, "training:study-create", "POST"),
        },
    )


def study_create(request: UserRequest) -> HttpResponse:
    form = StudyForm(request.POST or None)
    if form.is_valid():
        with errors_on(form):
            study = services.create_study(
                form.cleaned_data["target"],
                network=form.cleaned_data["network"],
                created_by=request.user,
            )
            messages.success(request, f"{study} has been made. Next: package a training of it.")
            return redirect("training:study-detail", study.pk)
    return render(request, "training/study_create.html", {"form": form})


def study_detail(request: UserRequest, study_id: int) -> HttpResponse:
    study = get_object_or_404(Study, pk=study_id)
    user = request.user
    runs = TrainingRun.objects.visible_to(user).filter(study=study)
    memberships = StudyMembership.objects.visible_to(user).filter(study=study).with_answer()
    shows_packages = may_use(user, "training:package-list", "GET")
    return render(
        request,
        "training/study_detail.html",
        {
            "study": study,
            "target": target_named(study.target),
            "network": architecture_named(study.network),
            "inputs": inputs_in_words(study.target),
            "versions": study.versions.of_federation().defer("manifest")[:NEWEST],
            "runs": with_counts(runs).select_related("study")[:NEWEST],
            "shows_packages": shows_packages,
            "page": page_of(
                request,
                memberships.select_related("envoy", "study").order_by(
                    "envoy__name", "-packaged_at"
                ),
            )
            if shows_packages
            else None,
            "may_package": may_use(user, "training:package-create", "POST"),
            "may_start": may_use(user, "training:run-create", "POST"),
        },
    )
