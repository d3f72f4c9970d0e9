from typing import Any

from django.contrib import messages
from django.db.models import F
from django.http import HttpResponse
from django.shortcuts import get_object_or_404, redirect, render
from django.views.decorators.cache import never_cache
from django.views.decorators.http import require_POST

from envoys.access import may_use
from envoys.pages import UserRequest, errors_shown, id_of, page_of
from training import services
from training.forms import EnvoysForm
from training.models import ModelVersion, Study
from training.version_words import deliveries_of, version_in_words

State = ModelVersion.State


def model_version_list(request: UserRequest) -> HttpResponse:
    """The federation's versions, or those that stay in the hospitals."""
    versions = ModelVersion.objects.visible_to(request.user).select_related("study", "envoy")
    is_own = request.GET.get("of") == "hospitals"
    versions = versions.filter(envoy__isnull=not is_own).defer("manifest")
    state, study = request.GET.get("state", ""), request.GET.get("study", "")
    if state in State.values and not is_own:
        versions = versions.filter(state=state)
    if (study_id := id_of(study)) is not None:
        versions = versions.filter(study=study_id)
    versions = versions.annotate(
        pooled_auroc=F("run__report__pooled_test__global__auroc"),
        own_auroc=F("metrics__validation_auroc"),
    )
    return render(
        request,
        "training/model_version_list.html",
        {
            "page": page_of(request, versions),
            "is_own": is_own,
            "states": State.choices,
            "state": state,
            "study": study,
            "studies": Study.objects.all(),
        },
    )


def visible_version(request: UserRequest, version_id: int) -> ModelVersion:
    versions = ModelVersion.objects.visible_to(request.user)
    rows = versions.select_related("study", "envoy", "run", "training_round", "approved_by")
    return get_object_or_404(rows, pk=version_id)


@never_cache
def model_version_detail(request: UserRequest, version_id: int) -> HttpResponse:
    version = visible_version(request, version_id)
    may_distribute = version.envoy_id is None and may_use(
        request.user, "training:model-version-distribute", "POST"
    )
    return render(
        request,
        "training/model_version_detail.html",
        {
            **live_context(request, version),
            "words": version_in_words(version, request.user),
            "may_distribute": may_distribute,
            "form": EnvoysForm(study=version.study) if may_distribute else None,
        },
    )


def live_context(request: UserRequest, version: ModelVersion) -> dict[str, Any]:
    return {
        "version": version,
        "deliveries": deliveries_of(version, request.user),
        "may_retry": may_use(request.user, "envoys:task-retry", "POST"),
    }


@never_cache
def model_version_live(request: UserRequest, version_id: int) -> HttpResponse:
    """The part of the page that is asked for again while the version is on its way."""
    context = live_context(request, visible_version(request, version_id))
    return render(request, "training/_deliveries.html", context)


@require_POST
def model_version_distribute(request: UserRequest, version_id: int) -> HttpResponse:
    version = visible_version(request, version_id)
    words, form = version.study.words, EnvoysForm(request.POST, study=version.study)
    if not form.is_valid():
        messages.error(request, f"Nothing was sent: choose at least one active {words.place}.")
        return redirect("training:model-version-detail", version.pk)
    with errors_shown(request):
        deliveries = services.distribute_version(
            version, distributed_by=request.user, envoys=list(form.cleaned_data["envoys"])
        )
        plural = words.place if len(deliveries) == 1 else words.places
        messages.success(
            request, f"Released, and on its way to {len(deliveries)} {plural}. It is in use now."
        )
    return redirect("training:model-version-detail", version.pk)
