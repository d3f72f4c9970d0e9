from typing import Any

from django.contrib.auth.decorators import login_required
from django.core.paginator import Paginator
from django.http import HttpRequest, HttpResponse, JsonResponse
from django.shortcuts import get_object_or_404, render
from django.views.decorators.cache import never_cache

from envoys.models import User
from training.models import TrainingRun
from training.progress import progress_of, with_counts

RUNS_PER_PAGE = 25


class UserRequest(HttpRequest):
    """A request behind @login_required."""

    user: User


def visible_run(request: UserRequest, run_id: int) -> TrainingRun:
    runs = TrainingRun.objects.visible_to(request.user).select_related("study", "started_by")
    return get_object_or_404(runs, pk=run_id)


@login_required
def run_list(request: UserRequest) -> HttpResponse:
    runs = with_counts(TrainingRun.objects.visible_to(request.user))
    page = Paginator(runs.select_related("study"), RUNS_PER_PAGE).get_page(request.GET.get("page"))
    return render(request, "training/run_list.html", {"page": page})


@login_required
@never_cache
def run_detail(request: UserRequest, run_id: int) -> HttpResponse:
    run = visible_run(request, run_id)
    return render(request, "training/run_detail.html", live_context(request, run))


def live_context(request: UserRequest, run: TrainingRun) -> dict[str, Any]:
    return {
        "run": run,
        "progress": progress_of(run, request.user),
        "is_changing": run.is_active or run.is_being_reported,
    }


@login_required
@never_cache
def run_live(request: UserRequest, run_id: int) -> HttpResponse:
    """The part of the page that an active run asks for again and again."""
    run = visible_run(request, run_id)
    return render(request, "training/_run_live.html", live_context(request, run))


@login_required
@never_cache
def run_curves(request: UserRequest, run_id: int) -> JsonResponse:
    run = visible_run(request, run_id)
    return JsonResponse(progress_of(run, request.user).curves.as_json())
