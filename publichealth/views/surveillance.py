"""The public-health page: risk and air in the cities, live."""

from typing import Any

from django.contrib import messages
from django.http import HttpRequest, HttpResponse
from django.shortcuts import redirect, render
from django.views.decorators.cache import never_cache
from django.views.decorators.http import require_POST

from envoys.access import Capability, may, may_use
from envoys.pages import UserRequest, errors_on
from publichealth.lookup import figure_named
from publichealth.services import drift
from publichealth.services.health_training import newest_training
from publichealth.services.serving import released_threshold
from publichealth.services.surveillance import Window, surveillance
from publichealth.services.thresholds import (
    current_thresholds,
    reset_threshold,
    set_threshold,
)
from publichealth.threshold_forms import ThresholdForm

MAPS = ("risk", "aqi")


@never_cache
def dashboard(request: UserRequest) -> HttpResponse:
    return _page(request)


def _page(request: UserRequest, wrong: ThresholdForm | None = None) -> HttpResponse:
    context = live_context(request)
    training = newest_training(request.user)
    forms = [ThresholdForm(threshold) for threshold in context["figures"].thresholds]
    if wrong is not None:
        forms = [
            wrong if each.threshold.figure == wrong.threshold.figure else each for each in forms
        ]
    return render(
        request,
        "publichealth/dashboard.html",
        {
            **context,
            "windows": list(Window),
            "released_threshold": released_threshold(),
            "training": training,
            "training_charts": training.charts() if training else None,
            "drift": drift.summary(request.user),
            "forms": forms,
            "may_set": may(request.user, Capability.THRESHOLDS),
            "may_start": may_use(request.user, "training:run-create", "POST"),
        },
    )


@never_cache
def dashboard_live(request: UserRequest) -> HttpResponse:
    """The parts of the page that are asked for again and again."""
    context = live_context(request)
    if "empty" in request.GET and context["figures"].cities:
        return HttpResponse(headers={"HX-Refresh": "true"})  # the page has no such parts yet
    return render(request, "publichealth/_dashboard_live.html", context)


def live_context(request: HttpRequest) -> dict[str, Any]:
    asked = request.GET.get("window", "")
    windows = {window.value: window for window in Window}
    figures = surveillance(windows.get(asked, Window.QUARTER))
    map_of = request.GET.get("map", "")
    if map_of not in MAPS or not figures.is_scored:
        map_of = "risk" if figures.is_scored else "aqi"
    return {"figures": figures, "charts": figures.charts(), "map_of": map_of}


@require_POST
def threshold_set(request: UserRequest, figure: str) -> HttpResponse:
    asked = figure_named(figure)
    current = next(each for each in current_thresholds() if each.figure == asked)
    form = ThresholdForm(current, request.POST)
    if form.is_valid():
        with errors_on(form):
            new = set_threshold(asked, value=form.cleaned_data["value"], set_by=request.user)
            messages.success(request, f"{new.title}: alerts from {new.shown} on.")
            return redirect("publichealth:dashboard")
    return _page(request, wrong=form)


@require_POST
def threshold_reset(request: UserRequest, figure: str) -> HttpResponse:
    new = reset_threshold(figure_named(figure), reset_by=request.user)
    messages.success(request, f"{new.title}: alerts from {new.shown} on again, the default.")
    return redirect("publichealth:dashboard")
