"""What API calls of every app share: who may, errors in one shape, paging, and calls sent twice."""

import hashlib
import json
from contextlib import ExitStack
from datetime import timedelta
from typing import Any

import django_filters
from django import forms
from django.core.exceptions import PermissionDenied, RequestDataTooBig
from django.db import IntegrityError, transaction
from django.db.models import Q, QuerySet
from django.http import Http404
from django.http.response import HttpResponseBase
from django.urls import reverse
from django.utils import timezone
from drf_spectacular.utils import OpenApiParameter, extend_schema, extend_schema_field
from rest_framework import exceptions, serializers, status
from rest_framework.pagination import LimitOffsetPagination
from rest_framework.permissions import BasePermission
from rest_framework.request import Request
from rest_framework.response import Response
from rest_framework.utils.encoders import JSONEncoder
from rest_framework.views import APIView
from rest_framework.views import exception_handler as answer_of_framework

from envoys.access import Capability, capabilities_of, may_use
from envoys.errors import NotNowError, StorageError
from envoys.forgetting import KEY_LIVES
from envoys.models import IdempotentCall, ServiceToken, User
from envoys.pages import MAX_ID
from envoys.service_tokens import allows
from federated.errors import CohortError, FederatedError

# A call that was cut off, as by a restart, says nothing of its end: then its key is free again.
CALL_LASTS = timedelta(minutes=10)


class UserRequest(Request):
    """A call of somebody who is logged in: the access list has let it through."""

    user: User


def valid(
    serializer_class: type[serializers.BaseSerializer[Any]], request: Request, **kwargs: Any
) -> dict[str, Any]:
    """The body of a call, checked; a ValidationError says what is wrong with which field."""
    serializer = serializer_class(data=request.data, **kwargs)
    serializer.is_valid(raise_exception=True)
    data: dict[str, Any] = serializer.validated_data
    return data


class MayUseRoute(BasePermission):
    """The access list's answer; without a login 401, and 404 for what is not one's own."""

    def has_permission(self, request: Request, view: APIView) -> bool:
        match = request.resolver_match
        assert match is not None
        assert request.method is not None
        if may_use(request.user, match.view_name, request.method):
            token = request.auth
            if isinstance(token, ServiceToken) and not allows(
                token, match.view_name, request.method
            ):
                what = ", ".join(token.actions)
                raise exceptions.PermissionDenied(f"This access token is only for: {what}.")
            return True
        if not request.user.is_authenticated and capabilities_of(match.view_name, request.method):
            raise exceptions.NotAuthenticated
        raise Http404


class ErrorSerializer(serializers.Serializer[Any]):
    """What every refused call answers."""

    type = serializers.CharField(help_text="a word for programs: invalid, conflict, not_found, …")
    detail = serializers.CharField(help_text="what is wrong and what to do, for people")
    errors = serializers.DictField(  # type: ignore[assignment]
        child=serializers.ListField(child=serializers.CharField()),
        help_text="what is wrong with which field; empty where it is not a field",
    )


class AnsweredBefore(Exception):
    """A call whose key has been used: this is the answer it got."""

    def __init__(self, call: IdempotentCall) -> None:
        super().__init__()
        self.call = call


class KeyUsedError(FederatedError):
    """An idempotency key that has been used for another call."""


class StillWorkedOnError(NotNowError):
    """A call whose key is that of one that has not ended yet."""


def answer_error(error: Exception, context: dict[str, Any]) -> Response | None:
    """An error as `{"type", "detail", "errors"}`; None for what is a bug, which answers 500."""
    if isinstance(error, AnsweredBefore):
        return Response(
            json.loads(error.call.answer),
            status=error.call.status_code,
            headers={"Idempotency-Replayed": "true"}
            | ({"Location": error.call.location} if error.call.location else {}),
        )
    if isinstance(error, exceptions.ValidationError):
        errors = _by_field(error.detail)
        first = next((texts[0] for texts in errors.values() if texts), "The call is not valid.")
        field = next(iter(errors), "")
        detail = f"{field}: {first}" if field and field != "non_field_errors" else first
        return _answer(status.HTTP_400_BAD_REQUEST, "invalid", detail, errors)
    if isinstance(error, CohortError):
        return _answer(400, "invalid", str(error), {"files": [str(p) for p in error.problems]})
    if isinstance(error, RequestDataTooBig):
        return _answer(413, "too_large", "The body is too large: send less at once.")
    for kind, code, word in (
        (KeyUsedError, status.HTTP_422_UNPROCESSABLE_ENTITY, "key_used"),
        (NotNowError, status.HTTP_409_CONFLICT, "conflict"),
        (StorageError, status.HTTP_503_SERVICE_UNAVAILABLE, "storage_unavailable"),
        (FederatedError, status.HTTP_400_BAD_REQUEST, "invalid"),
        (Http404, status.HTTP_404_NOT_FOUND, "not_found"),
        (PermissionDenied, status.HTTP_403_FORBIDDEN, "permission_denied"),
    ):
        if isinstance(error, kind):
            text = "There is no such thing, or it is not yours." if code == 404 else str(error)
            return _answer(code, word, text)
    response = answer_of_framework(error, context)
    if response is not None:
        word = getattr(error, "default_code", "error")
        detail = response.data.get("detail", "") if isinstance(response.data, dict) else ""
        response.data = {"type": word, "detail": str(detail), "errors": {}}
    return response


def _answer(
    code: int, word: str, detail: str, errors: dict[str, list[str]] | None = None
) -> Response:
    return Response({"type": word, "detail": detail, "errors": errors or {}}, status=code)


def _by_field(detail: Any, prefix: str = "") -> dict[str, list[str]]:
    """Validation errors, however deep, as one level: "rows.3.icd_code" -> texts."""
    if isinstance(detail, dict):
        pairs = [(str(name), value) for name, value in detail.items()]
    elif isinstance(detail, list) and any(isinstance(item, dict | list) for item in detail):
        pairs = [(str(index), value) for index, value in enumerate(detail) if value]
    else:
        texts = detail if isinstance(detail, list) else [detail]
        return {prefix or "non_field_errors": [str(text) for text in texts]}
    found: dict[str, list[str]] = {}
    for name, value in pairs:
        found.update(_by_field(value, f"{prefix}.{name}" if prefix else name))
    return found


@extend_schema_field({"type": "string", "format": "uri-reference"})
class UrlField(serializers.IntegerField):
    """Where to look at a row, or to watch what was started; a 201 or 202 repeats it as Location."""

    def __init__(self, route: str, **kwargs: Any) -> None:
        super().__init__(source=kwargs.pop("source", "pk"), read_only=True, **kwargs)
        self.route = route

    def to_representation(self, value: Any) -> Any:
        return reverse(self.route, args=[value])


class Pages(LimitOffsetPagination):
    """`?limit=` (100, at most 1000) and `?offset=`; `{count, next, previous, results}`."""

    default_limit = 100
    max_limit = 1000


@extend_schema_field({"type": "integer", "minimum": 0})
class IdFilter(django_filters.NumberFilter):
    """By a whole number that a row can have; what is none is refused in words."""

    field_class = forms.IntegerField

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, min_value=0, max_value=MAX_ID, **kwargs)


class IdField(serializers.IntegerField):
    """The number of a row."""

    def __init__(self, **kwargs: Any) -> None:
        super().__init__(min_value=0, max_value=MAX_ID, **kwargs)


IDEMPOTENCY_KEY = OpenApiParameter(
    "Idempotency-Key",
    str,
    OpenApiParameter.HEADER,
    description="Any text of your own, up to 200 characters: the same call sent again with the same"
    " key within 24 hours is not done again, and gets the first answer.",
)
starts_work = extend_schema(parameters=[IDEMPOTENCY_KEY])


class Call(APIView):
    """Base of every call: asks the access list, and answers a POST with a used key as before.

    The key is claimed first. Then work and answer are one transaction, so that what fails leaves
    neither work nor a used key. A call that takes long `is_long`: it would keep every other writer
    waiting, so its services' own transactions have to do, and only its answer is kept at the end.
    """

    asks_access_list = True
    permission_classes = [MayUseRoute]
    is_long = False
    _call: IdempotentCall | None = None
    _transaction: ExitStack

    def dispatch(self, request: Any, *args: Any, **kwargs: Any) -> HttpResponseBase:
        is_done = False
        try:
            with ExitStack() as self._transaction:
                response = super().dispatch(request, *args, **kwargs)
                is_done = response.status_code < 400
                if self._call is not None and not self.is_long and not is_done:
                    transaction.set_rollback(True)
        finally:
            if self._call is not None and not is_done:
                _unanswered(self._call).delete()
        return response

    def initial(self, request: Request, *args: Any, **kwargs: Any) -> None:
        super().initial(request, *args, **kwargs)
        key = request.headers.get("Idempotency-Key")
        if request.method == "POST" and key is not None and isinstance(request.user, User):
            self._call = _begin_call(request.user, key, _fingerprint(request))
            if not self.is_long:
                self._transaction.enter_context(transaction.atomic())

    def finalize_response(self, request: Request, response: Any, *args: Any, **kwargs: Any) -> Any:
        response = super().finalize_response(request, response, *args, **kwargs)
        data = getattr(response, "data", None)
        if response.status_code in (201, 202) and isinstance(data, dict) and "url" in data:
            response.headers.setdefault("Location", data["url"])
        response.headers.setdefault("Cache-Control", "no-store")
        if self._call is not None and response.status_code < 400:
            _unanswered(self._call).update(
                status_code=response.status_code,
                answer=json.dumps(response.data, cls=JSONEncoder),
                location=response.headers.get("Location", ""),
            )
        return response


class VisibleRows:
    """Of the rows of a call those that this person may see; before its GenericViewSet."""

    request: Any

    def get_queryset(self) -> Any:
        rows = super().get_queryset()  # type: ignore[misc]
        if getattr(self, "swagger_fake_view", False):  # the API's description is being made
            return rows.none()
        return self.visible(rows, self.request.user)

    def visible(self, rows: Any, user: Any) -> Any:
        return rows.visible_to(user)


def _fingerprint(request: Request) -> str:
    """What tells one call from another: path, body, and the files' content."""
    digest = hashlib.sha256(request.get_full_path().encode())
    fields: Any = request.data
    files = request.FILES
    if files:
        fields = {name: texts for name, texts in fields.lists() if name not in files}
    digest.update(json.dumps(fields, sort_keys=True, cls=JSONEncoder).encode())
    for name, sent in sorted(files.lists()):
        for file in sent:
            content = hashlib.sha256()
            for chunk in file.chunks():
                content.update(chunk)
            file.seek(0)
            digest.update(f"\n{name} {content.hexdigest()}".encode())
    return digest.hexdigest()


def _begin_call(user: User, key: str, fingerprint: str) -> IdempotentCall:
    """Claim a key, for everybody to see at once.

    Raises:
        AnsweredBefore: the same call has been answered.
        StillWorkedOnError: it is still being worked on.
        KeyUsedError: the key is another call's.
    """
    if not 0 < len(key) <= 200:
        raise exceptions.ValidationError({"Idempotency-Key": ["It has 1 to 200 characters."]})
    calls, now = IdempotentCall.objects.filter(user=user), timezone.now()
    is_cut_off = Q(status_code=0, created_at__lt=now - CALL_LASTS)
    calls.filter(is_cut_off | Q(created_at__lt=now - KEY_LIVES)).delete()
    calls.exclude(envoy=user.envoy_id).delete()  # who has moved gets no answer of the last hospital
    try:
        with transaction.atomic():
            return calls.create(user=user, envoy_id=user.envoy_id, key=key, fingerprint=fingerprint)
    except IntegrityError:
        call = calls.filter(key=key).first()
    if call is not None and call.fingerprint != fingerprint:
        raise KeyUsedError(
            "This Idempotency-Key was used for another call within 24 hours: choose a new one"
        )
    if call is None or call.status_code == 0:
        raise StillWorkedOnError(
            "A call with this Idempotency-Key is being worked on: send it again in a while"
        )
    raise AnsweredBefore(call)


def _unanswered(call: IdempotentCall) -> "QuerySet[IdempotentCall]":
    """The call's row, while it is still this call's: a deleted hospital's are gone at once."""
    return IdempotentCall.objects.filter(pk=call.pk, status_code=0)


def is_open(view_name: str, method: str) -> bool:
    return Capability.ANYONE in capabilities_of(view_name, method)
