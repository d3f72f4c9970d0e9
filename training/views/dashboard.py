from django.http import HttpResponse
from django.shortcuts import render
from django.views.decorators.cache import never_cache

from envoys.access import may_use
from envoys.pages import UserRequest
from training.summary import federation_summary


@never_cache
def federation_dashboard(request: UserRequest) -> HttpResponse:
    return render(
        request,
        "training/federation_dashboard.html",
        {
            "summary": federation_summary(request.user),
            "may": {
                "invite": may_use(request.user, "envoys:envoy-create", "POST"),
                "package": may_use(request.user, "training:package-create", "POST"),
                "start_run": may_use(request.user, "training:run-create", "POST"),
                "launch": may_use(request.user, "training:manual-round", "GET"),
                "read_packages": may_use(request.user, "training:package-detail", "GET"),
                "see_tasks": may_use(request.user, "envoys:task-list", "GET"),
                "score": may_use(request.user, "inference:inference-run-create", "POST"),
            },
        },
    )
