"""Whether nodes' readings are still like those trained on, and asking for another training."""

from django.conf import settings
from django.contrib import messages
from django.http import HttpResponse
from django.shortcuts import get_object_or_404, redirect, render
from django.urls import reverse
from django.views.decorators.cache import never_cache
from django.views.decorators.http import require_POST

from envoys.access import Capability, may
from envoys.pages import UserRequest, errors_on, errors_shown, page_of
from envoys.work import kind_of
from envoys.work_list import Work
from publichealth.drift_forms import ProposalForm
from publichealth.drift_words import input_rows
from publichealth.models import DriftCheck, RetrainingProposal
from publichealth.services import drift, retraining

MOST_PROPOSALS = 25


@never_cache
def drift_page(request: UserRequest) -> HttpResponse:
    return _page(request)


def _page(request: UserRequest, form: ProposalForm | None = None) -> HttpResponse:
    nodes = drift.summary(request.user)
    alerts = DriftCheck.objects.visible_to(request.user).filter(is_alert=True)
    proposals = RetrainingProposal.objects.select_related(
        "study", "drift_check__envoy", "proposed_by", "answered_by"
    )
    context = {
        **_live(nodes),
        "least_new": drift.LEAST_NEW,
        "drift_hours": settings.DRIFT_HOURS,
        "alerts": page_of(request, alerts.select_related("envoy", "version__study"), size=10),
        "proposals": proposals[:MOST_PROPOSALS],
        "has_checks": any(node.check for node in nodes),
        "form": form or ProposalForm(user=request.user, nodes=nodes),
        "may_answer": may(request.user, Capability.FEDERATION),
    }
    return render(request, "publichealth/drift.html", context)


def _live(nodes: list[drift.NodeDrift]) -> dict[str, object]:
    return {
        "nodes": [
            {
                "envoy": node.envoy,
                "check": node.check,
                "not_yet": node.not_yet,
                "next_at": node.next_at,
                "rows": input_rows(node.check) if node.check else [],
                "newest": Work(kind_of(node.newest), node.newest) if node.newest else None,
            }
            for node in nodes
        ],
        "is_changing": any(node.newest and node.newest.is_active for node in nodes),
    }


@never_cache
def drift_live(request: UserRequest) -> HttpResponse:
    """The part of the page that asks for itself while a check is being made.

    When that has ended the whole page is asked for: its other parts tell of the check too.
    """
    context = _live(drift.summary(request.user))
    if request.htmx and not context["is_changing"]:
        return HttpResponse(headers={"HX-Refresh": "true"})
    return render(request, "publichealth/_drift_live.html", context)


def drift_check_detail(request: UserRequest, check_id: int) -> HttpResponse:
    checks = DriftCheck.objects.visible_to(request.user)
    check = get_object_or_404(
        checks.select_related("envoy", "version__study", "requested_by"), pk=check_id
    )
    context = {"check": check, "rows": input_rows(check), "work": Work(kind_of(check), check)}
    return render(request, "publichealth/drift_check_detail.html", context)


@require_POST
def drift_check_create(request: UserRequest) -> HttpResponse:
    with errors_shown(request):
        nodes = drift.nodes().visible_to(request.user)
        requested = drift.request_checks(nodes, requested_by=request.user)
        num_checks = len(requested.checks)
        messages.success(
            request, f"{num_checks} {'node is' if num_checks == 1 else 'nodes are'} being checked."
        )
        for problem in requested.problems:
            messages.warning(request, problem)
    return redirect("publichealth:drift")


@require_POST
def proposal_create(request: UserRequest) -> HttpResponse:
    nodes = drift.summary(request.user)
    form = ProposalForm(request.POST, user=request.user, nodes=nodes)
    if form.is_valid():
        with errors_on(form):
            retraining.propose_retraining(
                form.cleaned_data["drift_check"],
                reason=form.cleaned_data["reason"],
                proposed_by=request.user,
            )
        if form.is_valid():
            messages.success(
                request,
                "Proposed. Who runs the federation answers; until then you can withdraw it.",
            )
            return redirect(f"{reverse('publichealth:drift')}#proposals")
    return _page(request, form)


@require_POST
def proposal_accept(request: UserRequest, proposal_id: int) -> HttpResponse:
    proposal = _proposal(proposal_id)
    with errors_shown(request):
        retraining.accept_proposal(proposal, accepted_by=request.user)
        messages.success(request, "Accepted. Put the plan of the training before the nodes here.")
        return redirect(f"{reverse('training:package-create')}?study={proposal.study_id}")
    return redirect("publichealth:drift")


@require_POST
def proposal_decline(request: UserRequest, proposal_id: int) -> HttpResponse:
    with errors_shown(request):
        retraining.decline_proposal(_proposal(proposal_id), declined_by=request.user)
        messages.success(request, "Declined. It can be proposed again.")
    return redirect("publichealth:drift")


@require_POST
def proposal_withdraw(request: UserRequest, proposal_id: int) -> HttpResponse:
    with errors_shown(request):
        retraining.withdraw_proposal(_proposal(proposal_id), withdrawn_by=request.user)
        messages.success(request, "Withdrawn.")
    return redirect("publichealth:drift")


def _proposal(proposal_id: int) -> RetrainingProposal:
    proposals = RetrainingProposal.objects.select_related("study", "proposed_by")
    return get_object_or_404(proposals, pk=proposal_id)
