"""Calls for a risk from today's numbers; open to anyone, and rate-limited."""

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Any

from drf_spectacular.utils import extend_schema
from rest_framework import exceptions, serializers, status
from rest_framework.request import Request
from rest_framework.response import Response

from envoys.api import OpenCall
from federated.readings import INPUTS
from publichealth import answers
from publichealth.rate_limit import seconds_to_wait

READINGS_PER_CALL = 20  # of a batch, that count as one call


def num_calls_of(readings: Sequence[object]) -> int:
    """For how many calls a batch counts."""
    return -(-len(readings) // READINGS_PER_CALL)


def _field_of(unit: str, title: str, low: float, high: float) -> serializers.FloatField:
    return serializers.FloatField(
        required=False,
        allow_null=True,
        min_value=low,
        max_value=high,
        help_text=f"{title}{f', {unit}' if unit else ': 0 no, 1 yes'}",
    )


class TodaysNumbersSerializer(serializers.Serializer[Any]):
    """At least one of these; null is not measured. `answers.check_reading` checks them."""

    def get_fields(self) -> dict[str, serializers.Field[Any, Any, Any, Any]]:
        return {each.name: _field_of(each.unit, each.title, each.low, each.high) for each in INPUTS}


class NumbersBatchSerializer(serializers.Serializer[Any]):
    readings = TodaysNumbersSerializer(many=True, help_text=f"1 to {answers.MAX_BATCH}")


class RiskDriverSerializer(serializers.Serializer[Any]):
    input = serializers.CharField()
    title = serializers.CharField()
    change = serializers.FloatField(
        help_text="the risk less the risk without this number; the largest first"
    )


class HealthRiskSerializer(serializers.Serializer[Any]):
    risk_score = serializers.FloatField(min_value=0, max_value=1, help_text="a probability")
    high_risk = serializers.BooleanField(help_text="whether risk_score reaches threshold")
    threshold = serializers.FloatField(help_text="released with the model")
    drivers = RiskDriverSerializer(many=True)
    ignored = serializers.ListField(
        child=serializers.CharField(),
        help_text="inputs that played no part: no node like this reading was trained on them",
    )
    model_version = serializers.CharField()
    advice = serializers.ListField(
        child=serializers.CharField(), help_text="the most urgent first; it is no diagnosis"
    )


class HealthRisksSerializer(serializers.Serializer[Any]):
    predictions = HealthRiskSerializer(many=True, help_text="in the order of the readings")


class NotReleasedError(exceptions.APIException):
    status_code = status.HTTP_503_SERVICE_UNAVAILABLE
    default_code = "not_released"


@contextmanager
def _refused() -> Iterator[None]:
    try:
        yield
    except answers.InvalidAskedError as error:
        raise exceptions.ValidationError(
            error.errors or {"non_field_errors": [str(error)]}
        ) from error
    except answers.NotServedError as error:
        raise NotReleasedError(str(error)) from error


def _check_rate(request: Request, num_calls: int = 1) -> None:
    if seconds := seconds_to_wait(request._request, num_calls=num_calls):
        raise exceptions.Throttled(seconds)


class HealthRiskView(OpenCall):
    @extend_schema(
        request=TodaysNumbersSerializer,
        responses={200: HealthRiskSerializer, 429: None, 503: None},
    )
    def post(self, request: Request) -> Response:
        """The risk that today's numbers speak of, what drives it, and what to do.

        No login, nothing is kept. All fields are optional, and one at least is given.
        """
        _check_rate(request)
        with _refused():
            values = answers.check_reading(request.data)
            return Response(answers.answer(answers.model_to_answer_with(), values))


class HealthRiskBatchView(OpenCall):
    @extend_schema(
        request=NumbersBatchSerializer,
        responses={200: HealthRisksSerializer, 429: None, 503: None},
    )
    def post(self, request: Request) -> Response:
        """The risks of up to 1,000 readings; each 20 count as a call to the rate limit."""
        _check_rate(request)
        with _refused():
            readings = answers.check_batch(request.data)
            _check_rate(request, num_calls_of(readings) - 1)
            served = answers.model_to_answer_with()
            found = answers.answer_all(served, readings)
        return Response({"predictions": found})
