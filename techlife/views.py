from django.conf import settings
from django.http import HttpRequest, HttpResponse


def healthz(request: HttpRequest) -> HttpResponse:
    """Whether this process serves; asks nothing of database or broker.

    While a demonstration prepares what it shows, pages are served already, and this answers 503.
    """
    if settings.EMBEDDED and settings.PREPARING_FLAG.exists():
        return HttpResponse("preparing\n", status=503, content_type="text/plain")
    return HttpResponse("ok\n", content_type="text/plain")
