"""The site's URLs, and beside them a view that does nothing: what `/predict` is held against.

Served by `predict_bench` alone. Both views take the way of every other page through the middleware
(`/predict` takes a shorter one): the access list knows them as it knows a call's view.
"""

import sys

from django.http import HttpRequest, HttpResponse, JsonResponse
from django.urls import path
from django.views.decorators.csrf import csrf_exempt

from envoys.rest import Call
from techlife import urls


@csrf_exempt
def empty(request: HttpRequest) -> HttpResponse:
    return HttpResponse("{}", content_type="application/json")


@csrf_exempt
def modules(request: HttpRequest) -> HttpResponse:
    """Which packages this web process has loaded."""
    return JsonResponse({"modules": sorted({name.partition(".")[0] for name in sys.modules})})


for _view in (empty, modules):
    _view.cls = Call  # type: ignore[attr-defined]

handler404, handler500 = urls.handler404, urls.handler500
urlpatterns = [
    path("bench/empty", empty, name="bench-empty"),
    path("bench/modules", modules, name="bench-modules"),
    *urls.urlpatterns,
]
