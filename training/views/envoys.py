from typing import Any

from django.contrib import messages
from django.http import HttpResponse
from django.shortcuts import get_object_or_404, redirect, render
from django.urls import reverse
from django.views.decorators.cache import never_cache
from django.views.decorators.http import require_POST

from diagnoses.models import CodeReport
from envoys.access import may_use
from envoys.lookup import visible_envoy
from envoys.models import Envoy
from envoys.pages import UserRequest, errors_shown, id_of, page_of
from envoys.storage import bucket_of
from training import services
from training.manual import manual_rounds
from training.models import (
    Distribution,
    ModelChoice,
    ModelVersion,
    Study,
    StudyMembership,
    TrainingRun,
)
from training.progress import with_counts
from training.summary import envoy_lines, labelled_patients

MOST_LISTED = 10  # of each kind on a hospital's page; the lists have them all


def envoy_list(request: UserRequest) -> HttpResponse:
    envoys = Envoy.objects.standing().visible_to(request.user)
    # Of all of them, whatever the page: which counts are hidden must not depend on it.
    labelled = labelled_patients(envoys)
    page = page_of(request, envoys)
    return render(
        request,
        "training/envoy_list.html",
        {
            "page": page,
            "lines": envoy_lines(list(page), labelled),
            "total": labelled.total_in_words,
            "may_create": may_use(request.user, "envoys:envoy-create", "POST"),
            "may_launch": may_use(request.user, "training:manual-round", "GET"),
        },
    )


@never_cache
def envoy_detail(request: UserRequest, envoy_id: int) -> HttpResponse:
    envoy = visible_envoy(request.user, envoy_id)
    labelled = labelled_patients(Envoy.objects.standing().visible_to(request.user))
    (line,) = envoy_lines([envoy], labelled)
    runs = TrainingRun.objects.filter(participants__envoy=envoy).select_related("study")
    packages = StudyMembership.objects.filter(envoy=envoy).with_answer()
    versions = ModelVersion.objects.filter(envoy=envoy).defer("manifest")
    deliveries = Distribution.objects.filter(envoy=envoy).select_related("version__study")
    return render(
        request,
        "training/envoy_detail.html",
        {
            "envoy": envoy,
            "line": line,
            "bucket": bucket_of(envoy),
            "packages": packages.select_related("study", "envoy").order_by("-packaged_at")[
                :MOST_LISTED
            ],
            "runs": with_counts(runs)[:MOST_LISTED],
            "versions": versions.select_related("study", "envoy")[:MOST_LISTED],
            "deliveries": deliveries.defer("version__manifest")[:MOST_LISTED],
            "choices": ModelChoice.objects.filter(envoy=envoy).select_related("run__study")[
                :MOST_LISTED
            ],
            "studies": Study.objects.all(),
            "may": may_do(request),
        },
    )


@never_cache
def envoy_codes(request: UserRequest, envoy_id: int) -> HttpResponse:
    envoy = visible_envoy(request.user, envoy_id)
    report = CodeReport.objects.filter(envoy=envoy).first()
    kinds = report.kinds_shown_to(request.user) if report else []
    context = {"envoy": envoy, "report": report, "kinds": kinds}
    return render(request, "training/envoy_codes.html", context)


def may_do(request: UserRequest) -> dict[str, bool]:
    """Which buttons of a hospital's page somebody sees."""
    routes = {
        "edit": "envoys:envoy-edit",
        "suspend": "envoys:envoy-suspend",
        "delete": "inference:envoy-delete",
        "package": "training:package-create",
        "launch": "training:envoy-launch",
        "retry": "envoys:task-retry",
    }
    may = {name: may_use(request.user, route, "POST") for name, route in routes.items()}
    may["read_packages"] = may_use(request.user, "training:package-detail", "GET")
    return may


@require_POST
def envoy_launch(request: UserRequest, envoy_id: int) -> HttpResponse:
    envoy = visible_envoy(request.user, envoy_id)
    study = posted_study(request)
    with errors_shown(request):
        services.launch_training(study, envoy, launched_by=request.user)
        messages.success(request, f"{envoy} is launched: its data is frozen, then it trains.")
    return redirect_to_round(study)


def posted_study(request: UserRequest) -> Study:
    return get_object_or_404(Study, pk=id_of(request.POST.get("study", "")))


def redirect_to_round(study: Study) -> HttpResponse:
    return redirect(f"{reverse('training:manual-round')}#study-{study.pk}")


@never_cache
def manual_round(request: UserRequest) -> HttpResponse:
    return render(request, "training/manual_round.html", manual_context())


@never_cache
def manual_round_live(request: UserRequest) -> HttpResponse:
    """The part of the page that asks for itself while somebody trains."""
    return render(request, "training/_manual_round_live.html", manual_context())


def manual_context() -> dict[str, Any]:
    rounds = manual_rounds()
    return {
        "rounds": [each for each in rounds if each.run or each.launchable],
        "is_changing": any(each.is_changing for each in rounds),
    }


@require_POST
def round_aggregate(request: UserRequest) -> HttpResponse:
    study = posted_study(request)
    asked = [id_of(pk) for pk in request.POST.getlist("envoys")]
    chosen = [pk for pk in asked if pk is not None]
    envoys = Envoy.objects.visible_to(request.user).filter(pk__in=chosen)
    with errors_shown(request):
        services.aggregate_envoys(study, envoys, aggregated_by=request.user)
        messages.success(
            request, "A worker makes one model of the updates chosen; it appears below."
        )
    return redirect_to_round(study)
