"""`/predict` is answered before sessions, accounts and messages, none of which it has."""

from collections.abc import Callable
from functools import cache

from django.http import HttpRequest, HttpResponse
from django.urls import reverse

from publichealth.published import predict

GetResponse = Callable[[HttpRequest], HttpResponse]


class PredictMiddleware:
    """Calls the view that the URL is of, past the middleware behind this one.

    That would take as long as the answer. Only `/predict` itself: it is what is asked most, and
    the access list opens it to anyone.
    """

    def __init__(self, get_response: GetResponse) -> None:
        self.get_response = get_response

    def __call__(self, request: HttpRequest) -> HttpResponse:
        if request.path_info == _path():
            return predict(request)
        return self.get_response(request)


@cache
def _path() -> str:
    return reverse("published:predict")
