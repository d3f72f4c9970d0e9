"""The page for everybody: today's numbers, the risk they speak of, and what to do.

Nothing that is entered is stored here or logged. Who asks for it keeps it in their own browser, in
a signed cookie that this page alone is sent.
"""

import json
from typing import Any

from django.conf import settings
from django.http import HttpRequest, HttpResponse
from django.shortcuts import render
from django.urls import reverse
from django.views.decorators.cache import never_cache
from django.views.decorators.debug import sensitive_post_parameters, sensitive_variables
from django.views.decorators.http import require_http_methods

from federated.readings import INPUT_NAMES, input_named
from publichealth.advice import advice_for, air_band
from publichealth.answers import NotServedError, model_to_answer_with
from publichealth.citizen_forms import TodaysNumbersForm
from publichealth.rate_limit import seconds_to_wait
from publichealth.services.serving import ServedModel

COOKIE = "todays_numbers"
COOKIE_SECONDS = 30 * 24 * 3600
MIN_CHANGE = 0.005  # of a driver in points; below, it would be rounded to none
MIN_SHARE = 0.02  # of the largest change, for a driver to be one at all


@never_cache
@sensitive_post_parameters()
@sensitive_variables()
@require_http_methods(["GET", "HEAD", "POST"])
def citizen(request: HttpRequest) -> HttpResponse:
    try:
        served = model_to_answer_with()
    except NotServedError as error:
        status = 503 if request.method == "POST" else 200
        context = {"refused": str(error)}
        return render(request, "publichealth/citizen.html", context, status=status)
    if request.method != "POST":
        return _page(request, served, _empty_form(served, _remembered(request)))
    if "forget" in request.POST:
        response = _page(
            request, served, _empty_form(served, {}), keeps_numbers=False, is_forgotten=True
        )
        response.delete_cookie(COOKIE, path=request.path)
        return response
    if seconds := seconds_to_wait(request):
        text = f"Too many calls from your address: ask again in {seconds} s."
        form = TodaysNumbersForm(request.POST, inputs=served.inputs)
        response = _page(request, served, form, refused=text, status=429)
        response.headers["Retry-After"] = str(seconds)
        return response
    form = TodaysNumbersForm(request.POST, inputs=served.inputs)
    if not form.is_valid():
        return _page(request, served, form)
    keeps_numbers = form.cleaned_data["remember"]
    result = _result(served, form.values)
    response = _page(request, served, form, keeps_numbers=keeps_numbers, result=result)
    if keeps_numbers:
        response.set_signed_cookie(
            COOKIE,
            json.dumps(form.values),
            max_age=COOKIE_SECONDS,
            path=request.path,
            httponly=True,
            samesite="Strict",
            secure=settings.SESSION_COOKIE_SECURE,
        )
    elif request.COOKIES.get(COOKIE):
        response.delete_cookie(COOKIE, path=request.path)
    return response


def _empty_form(served: ServedModel, remembered: dict[str, float]) -> TodaysNumbersForm:
    shown = {
        name: f"{value:g}" if name in INPUT_NAMES else value for name, value in remembered.items()
    }
    initial = {**shown, "remember": bool(remembered)}
    return TodaysNumbersForm(inputs=served.inputs, initial=initial)


def _remembered(request: HttpRequest) -> dict[str, float]:
    """What this browser keeps; nothing where the signature is not ours or too old."""
    text = request.get_signed_cookie(COOKIE, default=None, max_age=COOKIE_SECONDS)
    found: dict[str, float] = json.loads(text) if text else {}
    return found


def _page(
    request: HttpRequest,
    served: ServedModel,
    form: TodaysNumbersForm,
    *,
    status: int = 200,
    keeps_numbers: bool | None = None,
    **context: Any,
) -> HttpResponse:
    if keeps_numbers is None:
        keeps_numbers = bool(request.COOKIES.get(COOKIE))
    context |= {
        "form": form,
        "served": served,
        "keeps_numbers": keeps_numbers,
        "predict_url": reverse("published:predict"),
    }
    return render(request, "publichealth/citizen.html", context, status=status)


def _result(served: ServedModel, values: dict[str, float]) -> dict[str, Any]:
    """What the page shows of a risk."""
    assessed = served.assess(values)
    is_high = served.is_high(assessed.risk)
    largest = max(abs(driver.change) for driver in assessed.drivers) or 1.0
    band = air_band(values)
    raising = [driver.input for driver in assessed.drivers if driver.change > 0]
    advice = advice_for(values, is_high=is_high, drivers=raising)
    return {
        "risk": assessed.risk,
        "percent": _percent(assessed.risk),
        "threshold": _percent(served.threshold),
        "is_high": is_high,
        "drivers": [
            {
                "title": input_named(driver.input).title,
                "value": _value_in_words(driver.input, values[driver.input]),
                "effect": _effect_in_words(driver.change, largest),
                "raises": driver.change > 0,
                "share": abs(driver.change) / largest,
            }
            for driver in assessed.drivers
        ],
        "is_settled": len(assessed.drivers) > 1 and largest < MIN_CHANGE,
        "advice": advice[:-1],
        "disclaimer": advice[-1],
        "band": band,
        "band_is_of_pm25": band is not None and "aqi" not in values,
        "aqi": values.get("aqi"),
        "num_given": len(assessed.drivers),
        "ignored": [input_named(name).title for name in assessed.ignored],
        "num_asked": len(served.inputs),
    }


def _percent(risk: float) -> str:
    """A probability for people, who are not told of certainty."""
    if risk < 0.01:
        return "less than 1\u00a0%"
    if risk > 0.99:
        return "more than 99\u00a0%"
    return f"{100 * risk:.0f}\u00a0%"


def _value_in_words(name: str, value: float) -> str:
    each = input_named(name)
    if each.is_flag:
        return "yes" if value else "no"
    return f"{value:g}" if each.unit in ("", "AQI") else f"{value:g} {each.unit}"


def _effect_in_words(change: float, largest: float) -> str:
    if abs(change) < MIN_SHARE * largest:
        return "hardly changes it"
    word = "raises it" if change > 0 else "lowers it"
    if abs(change) < MIN_CHANGE:
        return f"{word} by less than a point"
    points = round(100 * abs(change))
    return f"{word} by {points} point{'' if points == 1 else 's'}"
