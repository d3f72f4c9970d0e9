"""The published path `/predict`: a risk for whoever asks, without a login.

Plain views: the framework's own work for a call would take as long as the answer. What they share
with `/api/v1/health-risk`, whose view describes them, is in `answers`.
"""

import json
from collections.abc import Callable
from typing import Any

from django.core.exceptions import RequestDataTooBig
from django.http import HttpRequest, HttpResponse
from django.views.decorators.csrf import csrf_exempt

from publichealth import answers
from publichealth.api.health_risk import HealthRiskBatchView, HealthRiskView, num_calls_of
from publichealth.rate_limit import seconds_to_wait

# Made once: `json.dumps` makes another for every call whose options are not its own.
_encode = json.JSONEncoder(separators=(",", ":"), allow_nan=False).encode


def _answer(body: Any, *, status: int = 200, headers: dict[str, str] | None = None) -> HttpResponse:
    content = _encode(body).encode()
    return HttpResponse(
        content,
        status=status,
        content_type="application/json",
        headers={
            "Cache-Control": "no-store",
            "Content-Length": str(len(content)),
            **(headers or {}),
        },
    )


def _refuse(
    status: int,
    word: str,
    detail: str,
    errors: dict[str, list[str]] | None = None,
    **headers: str,
) -> HttpResponse:
    """As `envoys.rest.answer_error` does."""
    named = {name.replace("_", "-"): value for name, value in headers.items()}
    body = {"type": word, "detail": detail, "errors": errors or {}}
    return _answer(body, status=status, headers=named)


def _throttled(seconds: int) -> HttpResponse:
    text = f"Too many calls from your address: ask again in {seconds} s."
    return _refuse(429, "throttled", text, Retry_After=str(seconds))


def _guarded(answer: Callable[[HttpRequest], HttpResponse]) -> Callable[..., HttpResponse]:
    """A view that asks `answer`, and says in words why it does not."""

    @csrf_exempt  # there is no login whose rights another site could borrow
    def view(request: HttpRequest) -> HttpResponse:
        if request.method != "POST":
            return _refuse(405, "method_not_allowed", "Ask with POST.", Allow="POST")
        if seconds := seconds_to_wait(request):
            return _throttled(seconds)
        if request.content_type != "application/json":
            return _refuse(
                415, "unsupported_media_type", "Send JSON, with Content-Type: application/json."
            )
        try:
            return answer(request)
        except answers.InvalidAskedError as error:
            return _refuse(400, "invalid", str(error), error.errors)
        except RequestDataTooBig:
            return _refuse(413, "too_large", "The body is too large: send fewer readings at once.")
        except answers.NotServedError as error:
            return _refuse(503, "not_released", str(error))

    return view


@_guarded
def predict(request: HttpRequest) -> HttpResponse:
    values = answers.check_reading(answers.read_json(request.body))
    return _answer(answers.answer(answers.model_to_answer_with(), values))


@_guarded
def predict_batch(request: HttpRequest) -> HttpResponse:
    readings = answers.check_batch(answers.read_json(request.body))
    if seconds := seconds_to_wait(request, num_calls=num_calls_of(readings) - 1):
        return _throttled(seconds)
    served = answers.model_to_answer_with()
    return _answer({"predictions": answers.answer_all(served, readings)})


# What describes them, and is asked who may: see `envoys.middleware` and the API's description.
for _view, _described in ((predict, HealthRiskView), (predict_batch, HealthRiskBatchView)):
    _view.cls = _described  # type: ignore[attr-defined]
    _view.initkwargs = {}  # type: ignore[attr-defined]
