from typing import Any, cast

from django.contrib import messages
from django.http import Http404, HttpResponse
from django.shortcuts import get_object_or_404, redirect, render
from django.views.decorators.cache import never_cache
from django.views.decorators.http import require_http_methods, require_POST

from envoys import services, work, workers
from envoys.envoy_forms import EnvoyForm
from envoys.lookup import visible_envoy
from envoys.models import WorkerSign
from envoys.pages import UserRequest, back, errors_on, errors_shown, page_of
from envoys.work_list import EndedWork, active_work, failed_work


@require_http_methods(["GET", "POST"])
def envoy_create(request: UserRequest) -> HttpResponse:
    form = EnvoyForm(request.POST or None)
    if request.method == "POST" and form.is_valid():
        with errors_on(form):
            envoy = services.create_envoy(**form.cleaned_data, created_by=request.user)
        if form.is_valid():
            messages.success(
                request,
                f"{envoy} is invited. Next: an administrator gives its doctors accounts, and you"
                " make a training package for it to approve.",
            )
            return redirect("training:envoy-detail", envoy.pk)
    return render(request, "envoys/envoy_form.html", {"form": form})


@require_http_methods(["GET", "POST"])
def envoy_edit(request: UserRequest, envoy_id: int) -> HttpResponse:
    envoy = visible_envoy(request.user, envoy_id)
    form = EnvoyForm(request.POST or None, instance=envoy)
    if request.method == "POST" and form.is_valid():
        with errors_on(form):
            envoy = services.edit_envoy(envoy, **form.cleaned_data, edited_by=request.user)
        if form.is_valid():
            messages.success(request, f"The settings of {envoy} are saved.")
            return redirect("training:envoy-detail", envoy.pk)
    return render(request, "envoys/envoy_form.html", {"form": form, "envoy": envoy})


@require_POST
def envoy_suspend(request: UserRequest, envoy_id: int) -> HttpResponse:
    envoy = visible_envoy(request.user, envoy_id)
    with errors_shown(request):
        services.suspend_envoy(envoy, suspended_by=request.user)
        messages.success(
            request, f"{envoy} is suspended: it takes no part from the next launch on."
        )
    return back(request, "training:envoy-detail", envoy.pk)


@require_POST
def envoy_resume(request: UserRequest, envoy_id: int) -> HttpResponse:
    envoy = visible_envoy(request.user, envoy_id)
    with errors_shown(request):
        services.resume_envoy(envoy, resumed_by=request.user)
        messages.success(request, f"{envoy} takes part again.")
    return back(request, "training:envoy-detail", envoy.pk)


@never_cache
def task_list(request: UserRequest) -> HttpResponse:
    return render(request, "envoys/task_list.html", live_context(request))


@never_cache
def task_list_live(request: UserRequest) -> HttpResponse:
    """The part of the page that asks for itself while there is work to be done."""
    return render(request, "envoys/_task_list_live.html", live_context(request))


def live_context(request: UserRequest) -> dict[str, Any]:
    running, waiting = active_work()
    chosen = request.GET.get("kind", "")
    ended = EndedWork(kind for kind in work.kinds() if chosen in ("", kind.name))
    return {
        "broker": workers.read_broker(),
        "workers": WorkerSign.objects.all(),
        "running": running,
        "waiting": waiting,
        "failed": failed_work(),
        "is_changing": bool(running or waiting),
        "page": page_of(request, cast(Any, ended), size=15),
        "kinds": work.kinds(),
        "chosen": chosen,
    }


@require_POST
def task_retry(request: UserRequest, kind: str, row_id: int) -> HttpResponse:
    found = next((each for each in work.kinds() if each.name == kind), None)
    if found is None:
        raise Http404
    row = get_object_or_404(found.model, pk=row_id)
    with errors_shown(request):
        work.retry(row, retried_by=request.user)
        messages.success(request, f"{found.title} for {found.about_of(row)} is tried again.")
    return back(request, "envoys:task-list")
