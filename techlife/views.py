from django.conf import settings
from django.http import HttpRequest, HttpResponse, JsonResponse
from django.shortcuts import redirect, render
from django.views import defaults

from envoys.access import Capability, may
from envoys.models import User
from envoys.pages import UserRequest


def home(request: UserRequest) -> HttpResponse:
    """To the page that shows a person at a glance what is theirs."""
    if may(request.user, Capability.PATIENTS):
        return redirect("inference:hospital-dashboard")
    if may(request.user, Capability.READINGS):
        return redirect("publichealth:node-dashboard")
    if request.user.is_doctor:
        return render(request, "no_hospital.html")
    if request.user.role == User.Role.PUBLIC_HEALTH:
        return redirect("publichealth:dashboard")
    return redirect("training:federation-dashboard")


def healthz(request: HttpRequest) -> HttpResponse:
    """Whether this process serves; asks nothing of database or broker.

    While a demonstration prepares what it shows, pages are served already, and this answers 503.
    """
    if settings.EMBEDDED and settings.PREPARING_FLAG.exists():
        return HttpResponse("preparing\n", status=503, content_type="text/plain")
    return HttpResponse("ok\n", content_type="text/plain")


def page_not_found(request: HttpRequest, exception: Exception) -> HttpResponse:
    if request.path.startswith("/api/"):
        return _call_failed(404, "not_found", "There is no such call: /docs lists them.")
    return defaults.page_not_found(request, exception)


def server_error(request: HttpRequest) -> HttpResponse:
    """Without the request's context: the page must come also where the database does not answer."""
    if request.path.startswith("/api/"):
        return _call_failed(
            500, "error", "Something went wrong here, and was logged. Try again in a moment."
        )
    return defaults.server_error(request)


def _call_failed(status: int, word: str, detail: str) -> HttpResponse:
    """As `envoys.rest.answer_error` answers, for what never came to a call."""
    return JsonResponse({"type": word, "detail": detail, "errors": {}}, status=status)
