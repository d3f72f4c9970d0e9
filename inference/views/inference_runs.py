from typing import Any

from django.contrib import messages
from django.forms import BaseForm
from django.http import HttpResponse
from django.shortcuts import redirect, render
from django.views.decorators.cache import never_cache
from django.views.decorators.http import require_POST

from envoys.access import may_use
from envoys.models import Envoy
from envoys.pages import UserRequest, errors_shown, page_of
from federated.targets import DIAGNOSES
from inference import services
from inference.inference_forms import InferencesForm, OwnInferenceForm
from inference.models import InferenceRun
from inference.tiers import tier_counts
from training.models import Study


@never_cache
def inference_run_list(request: UserRequest) -> HttpResponse:
    return list_page(request, form_of(request))


def list_page(request: UserRequest, form: BaseForm) -> HttpResponse:
    return render(
        request,
        "inference/inference_run_list.html",
        {
            **live_context(request),
            "form": form,
            "has_study": Study.objects.filter(dataset=DIAGNOSES).exists(),
            "has_hospitals": Envoy.objects.standing()
            .visible_to(request.user)
            .with_dataset(DIAGNOSES)
            .exists(),
            "may_retry": may_use(request.user, "envoys:task-retry", "POST"),
        },
    )


def form_of(request: UserRequest, data: Any = None) -> BaseForm:
    return OwnInferenceForm(data) if request.user.is_doctor else InferencesForm(data)


@never_cache
def inference_run_live(request: UserRequest) -> HttpResponse:
    """The part of the page that asks for itself while hospitals are being scored."""
    return render(
        request,
        "inference/_inference_runs_live.html",
        {
            **live_context(request),
            "may_retry": may_use(request.user, "envoys:task-retry", "POST"),
        },
    )


def live_context(request: UserRequest) -> dict[str, Any]:
    runs = InferenceRun.objects.visible_to(request.user)
    page = page_of(request, runs.select_related("envoy", "model_version__study", "requested_by"))
    return {
        "page": page,
        "rows": [(run, tier_counts(run), run.percent) for run in page],
        "is_changing": any(run.is_active for run in page),
    }


@require_POST
def inference_run_create(request: UserRequest) -> HttpResponse:
    form = form_of(request, request.POST)
    if not form.is_valid():
        return list_page(request, form)
    if request.user.is_doctor:
        envoys = Envoy.objects.standing().visible_to(request.user)
        model = form.cleaned_data["model"]
    else:
        envoys, model = form.cleaned_data["envoys"], "global"
    with errors_shown(request):
        requested = services.request_inferences(envoys, model=model, requested_by=request.user)
        names = ", ".join(run.envoy.name for run in requested.inference_runs)
        messages.success(request, f"Scoring has begun: {names}.")
        for problem in requested.problems:
            messages.error(request, f"Not scored: {problem}")
    return redirect("inference:inference-run-list")
