from django.http import HttpRequest, HttpResponse


def healthz(request: HttpRequest) -> HttpResponse:
    """Whether this process serves; asks nothing of database or broker."""
    return HttpResponse("ok\n", content_type="text/plain")
