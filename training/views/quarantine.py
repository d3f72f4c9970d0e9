from django.contrib import messages
from django.http import HttpResponse
from django.shortcuts import get_object_or_404, redirect, render
from django.views.decorators.http import require_POST

from envoys.pages import UserRequest, errors_shown, page_of
from training import services
from training.models import ReceivedUpdate, UpdateQuerySet


def visible_updates(request: UserRequest) -> UpdateQuerySet:
    updates: UpdateQuerySet = ReceivedUpdate.objects.visible_to(request.user).select_related(
        "assignment__training_round__run__study", "assignment__envoy", "decided_by"
    )
    return updates


def quarantine_list(request: UserRequest) -> HttpResponse:
    """What waits for a decision, all of it, and below what has been decided."""
    updates = visible_updates(request)
    return render(
        request,
        "training/quarantine_list.html",
        {
            "waiting": updates.in_quarantine(),
            "page": page_of(request, updates.decided().order_by("-decided_at", "-pk")),
        },
    )


@require_POST
def update_release(request: UserRequest, update_id: int) -> HttpResponse:
    update = get_object_or_404(visible_updates(request), pk=update_id)
    with errors_shown(request):
        update = services.release_update(update, decided_by=request.user)
        counts = update.verdict == ReceivedUpdate.Verdict.ACCEPTED
        messages.success(
            request,
            f"Released. {update.assignment.envoy} is not screened again in this run, and its"
            f" update counts."
            if counts
            else f"Released. The round is over, so that nothing changes in it;"
            f" {update.assignment.envoy} is not screened again in this run.",
        )
    return redirect("training:quarantine-list")


@require_POST
def update_reject(request: UserRequest, update_id: int) -> HttpResponse:
    update = get_object_or_404(visible_updates(request), pk=update_id)
    with errors_shown(request):
        services.reject_update(update, decided_by=request.user)
        messages.success(
            request,
            f"Rejected. Nothing that {update.assignment.envoy} sends in this run counts.",
        )
    return redirect("training:quarantine-list")
