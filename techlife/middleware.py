"""Around every request: its id, its line in the log, its place in the metrics; and the probes."""

import logging
import time
from collections.abc import Callable

from django.http import HttpRequest, HttpResponse

from techlife import metrics, request_ids
from techlife.readiness import readyz
from techlife.views import healthz

GetResponse = Callable[[HttpRequest], HttpResponse]
logger = logging.getLogger("techlife.requests")
# Asked by the second, or by anybody: counted in the metrics, without a line each.
QUIET = ("healthz", "readyz", "metrics", "published:predict", "static")


class RequestMiddleware:
    """First of all: what comes after it is timed, and says the request's id in its lines."""

    def __init__(self, get_response: GetResponse) -> None:
        self.get_response = get_response

    def __call__(self, request: HttpRequest) -> HttpResponse:
        token = request_ids.begin(request.headers.get(request_ids.HEADER))
        started = time.perf_counter()
        try:
            response = self.get_response(request)
            response.headers[request_ids.HEADER] = request_ids.current()
            seconds = time.perf_counter() - started
            view = metrics.view_of(request)
            metrics.count_request(request, response, view, seconds)
            if response.status_code >= 500 or view not in QUIET:
                _log(request, response, view, seconds)
        finally:
            request_ids.end(token)
        return response


def _log(request: HttpRequest, response: HttpResponse, view: str, seconds: float) -> None:
    """Without the address: somebody may have typed a name into it."""
    fields = {
        "method": metrics.method_of(request),
        "view": view,
        "status": response.status_code,
        "milliseconds": round(seconds * 1000, 1),
    }
    logger.info(
        "%(method)s %(view)s %(status)s in %(milliseconds)s ms", fields, extra={"fields": fields}
    )


class ProbeMiddleware:
    """Answers probes under whatever name or address of this host they ask, and without TLS.

    `/metrics` is no route: for who has not the token there is no such page.
    """

    def __init__(self, get_response: GetResponse) -> None:
        self.get_response = get_response

    def __call__(self, request: HttpRequest) -> HttpResponse:
        if request.method in ("GET", "HEAD"):
            if request.path_info == "/healthz":
                return healthz(request)
            if request.path_info == "/readyz":
                return readyz(request)
            if request.path_info == "/metrics" and metrics.may_read(request):
                return metrics.answer()
        return self.get_response(request)
