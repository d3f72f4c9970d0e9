from typing import Any

from django.contrib import messages
from django.db.models import Count, Max, Q
from django.http import HttpResponse, JsonResponse
from django.shortcuts import get_object_or_404, redirect, render
from django.views.decorators.cache import never_cache
from django.views.decorators.http import require_POST

from envoys.access import may_use
from envoys.models import Envoy
from envoys.pages import UserRequest, back, errors_on, errors_shown, id_of, page_of
from training import services
from training.benefit import benefit_of
from training.forms import RunForm
from training.models import RoundAssignment, RunParticipant, StudyMembership, TrainingRun
from training.plan_words import plan_in_words
from training.progress import progress_of, with_counts

MOST_PLANS = 50


def visible_run(request: UserRequest, run_id: int) -> TrainingRun:
    runs = TrainingRun.objects.visible_to(request.user).select_related("study", "started_by")
    return get_object_or_404(runs, pk=run_id)


def run_list(request: UserRequest) -> HttpResponse:
    runs = with_counts(TrainingRun.objects.visible_to(request.user))
    page = page_of(request, runs.select_related("study"))
    may_start = may_use(request.user, "training:run-create", "POST")
    return render(request, "training/run_list.html", {"page": page, "may_start": may_start})


@never_cache
def run_detail(request: UserRequest, run_id: int) -> HttpResponse:
    run = visible_run(request, run_id)
    return render(request, "training/run_detail.html", live_context(request, run))


def live_context(request: UserRequest, run: TrainingRun) -> dict[str, Any]:
    may_retry = run.is_active and may_use(request.user, "training:assignment-retry", "POST")
    may_drop = run.is_active and may_use(request.user, "training:assignment-drop", "POST")
    progress = progress_of(run, request.user)
    run.num_partial_rounds = progress.num_partial_rounds
    run.waits_for_person = progress.waits_for_person
    return {
        "run": run,
        "words": run.study.words,
        "progress": progress,
        "is_changing": run.is_active or run.is_being_reported,
        "may_stop": may_use(request.user, "training:run-stop", "POST"),
        "may_decide": may_use(request.user, "training:quarantine-list", "GET"),
        "retryable": services.retryable_assignments(run).select_related("envoy", "training_round")
        if may_retry
        else [],
        "droppable": droppable_now(run) if may_drop else [],
        "version": run.versions.of_federation().defer("manifest").first(),
        "may_distribute": may_use(request.user, "training:model-version-distribute", "POST"),
    }


def droppable_now(run: TrainingRun) -> list[RoundAssignment]:
    """Whom the page offers to go on without: of a round that waits for them."""
    droppable = services.droppable_assignments(run).select_related("envoy", "training_round")
    return [each for each in droppable if each.training_round.reason]


@never_cache
def run_live(request: UserRequest, run_id: int) -> HttpResponse:
    """The part of the page that an active run asks for again and again."""
    run = visible_run(request, run_id)
    context = live_context(request, run)
    response = render(request, "training/_run_live.html", context)
    if request.htmx and not context["is_changing"]:
        response["HX-Refresh"] = "true"  # once: what else the page offers was for an active run
    return response


@never_cache
def run_curves(request: UserRequest, run_id: int) -> JsonResponse:
    run = visible_run(request, run_id)
    return JsonResponse(progress_of(run, request.user).curves.as_json())


def run_benefit(request: UserRequest, run_id: int) -> HttpResponse:
    """What the run brings to each hospital, on a page to print."""
    run = visible_run(request, run_id)
    benefit = benefit_of(run, request.user)
    context = {
        "run": run,
        "words": run.study.words,
        "benefit": benefit,
        "charts": benefit.charts() if benefit else None,
    }
    return render(request, "training/run_benefit.html", context)


def run_create(request: UserRequest) -> HttpResponse:
    """First which of the plans that hospitals were asked to approve; then who can take part."""
    asked = request.POST if request.method == "POST" else request.GET
    study, plan_sha256 = asked.get("study", ""), asked.get("plan", "")
    packages = StudyMembership.objects.filter(study=id_of(study), plan_sha256=plan_sha256)
    package = packages.select_related("study").first()
    if package is None:
        return render(request, "training/run_choose.html", {"plans": packaged_plans(study)})
    form = RunForm(request.POST or None, study=package.study)
    words = plan_in_words(package.plan)
    if words is None:
        form = RunForm(study=package.study)
    elif form.is_valid():
        with errors_on(form):
            run = services.start_run(
                package.study,
                words.plan,
                started_by=request.user,
                seed=form.cleaned_data["seed"],
                envoys=form.cleaned_data["envoys"],
                quorum=form.cleaned_data["quorum"],
                deadline_seconds=60 * form.cleaned_data["deadline_minutes"],
                mandatory=form.cleaned_data["mandatory"],
                on_miss=form.cleaned_data["on_miss"],
            )
            messages.success(
                request, f"Started. Each {package.study.words.place}'s data is being frozen."
            )
            return redirect("training:run-detail", run.pk)
    participants = (
        services.participants_for(package.study, words.plan, package.study.envoys) if words else []
    )
    return render(
        request,
        "training/run_create.html",
        {
            "form": form,
            "package": package,
            "words": words,
            "participants": participants,
            "num_ready": sum(not each.sits_out_because for each in participants),
            "chosen": chosen_envoys(form, participants),
            "mandatory": {id_of(str(pk)) for pk in form["mandatory"].value() or []},
            "running": package.study.runs.active().first(),
        },
    )


def chosen_envoys(form: RunForm, participants: list[RunParticipant]) -> set[int]:
    if form.is_bound:
        asked = (id_of(str(pk)) for pk in form["envoys"].value() or [])
        return {pk for pk in asked if pk is not None}
    return {participant.envoy_id for participant in participants}


def packaged_plans(study: str) -> list[dict[str, Any]]:
    """The newest plans that hospitals were asked to approve, with how many did."""
    rows = StudyMembership.objects.exclude(envoy__status=Envoy.Status.DELETED)
    if (study_id := id_of(study)) is not None:
        rows = rows.filter(study=study_id)
    standing = Q(approved_at__isnull=False, revoked_at__isnull=True, refused_at__isnull=True)
    plans = list(
        rows.values("study_id", "study__title", "plan_sha256")
        .annotate(
            newest=Max("packaged_at"),
            package=Max("pk"),
            num_asked=Count("pk"),
            num_approved=Count("pk", filter=standing),
        )
        .order_by("-newest")[:MOST_PLANS]
    )
    packages = StudyMembership.objects.in_bulk([plan["package"] for plan in plans])
    return [{**plan, "words": plan_in_words(packages[plan["package"]].plan)} for plan in plans]


@require_POST
def run_stop(request: UserRequest, run_id: int) -> HttpResponse:
    run = visible_run(request, run_id)
    if services.stop_run(run, stopped_by=request.user):
        messages.success(
            request, f"Stopped. What the {run.study.words.places} have sent so far is kept."
        )
    else:
        messages.info(request, "This run had ended already; nothing was changed.")
    return redirect("training:run-detail", run.pk)


@require_POST
def assignment_retry(request: UserRequest, assignment_id: int) -> HttpResponse:
    assignments = RoundAssignment.objects.filter(
        training_round__run__in=TrainingRun.objects.visible_to(request.user)
    ).select_related("training_round__run__study", "envoy")
    assignment = get_object_or_404(assignments, pk=assignment_id)
    with errors_shown(request):
        services.retry_assignment(assignment, retried_by=request.user)
        messages.success(request, f"{assignment.envoy} has been asked again.")
    return back(request, "training:run-detail", assignment.training_round.run_id)


@require_POST
def assignment_drop(request: UserRequest, assignment_id: int) -> HttpResponse:
    assignments = RoundAssignment.objects.filter(
        training_round__run__in=TrainingRun.objects.visible_to(request.user)
    ).select_related("training_round__run__study", "envoy")
    assignment = get_object_or_404(assignments, pk=assignment_id)
    with errors_shown(request):
        services.drop_assignment(assignment, dropped_by=request.user)
        messages.success(
            request,
            f"The round goes on without {assignment.envoy} as soon as nobody else is missing."
            " Until then it can be asked again.",
        )
    return back(request, "training:run-detail", assignment.training_round.run_id)
