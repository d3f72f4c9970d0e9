"""After some wrong passwords or codes a name is locked for a while, from where they came.

django-axes counts, in the database that all processes share; a name that does not exist is counted
and locked as one that does, so that nobody learns which there are.
"""

import hashlib
import hmac
from datetime import datetime
from ipaddress import ip_address
from typing import Any

from axes.handlers.proxy import AxesProxyHandler
from axes.models import AccessAttempt
from django.conf import settings
from django.db.models import Max, Sum
from django.http import HttpRequest, HttpResponse, JsonResponse
from django.shortcuts import render
from django.utils import timezone

from envoys import audit
from envoys.addresses import client_of
from envoys.models import User

NOWHERE = "0.0.0.0"  # what is no address: a header that nobody sensible writes


def address_of(request: HttpRequest) -> str:
    """The address that axes counts by: one that its column can hold."""
    try:
        return str(ip_address(client_of(request)))
    except ValueError:
        return NOWHERE


def name_of(request: HttpRequest, credentials: dict[str, Any] | None = None) -> str:
    """The name that axes counts by. One that no account has is kept as a keyed hash.

    It may be a password, typed into the wrong field.
    """
    name = str((credentials or {}).get("username") or "")
    if User.objects.filter(username=name).exists():
        return name
    digest = hmac.new(settings.SECRET_KEY.encode(), name.encode(), hashlib.sha256)
    return f"unknown {digest.hexdigest()[:32]}"


def is_locked(request: HttpRequest, user: User) -> bool:
    """Whether a code is not to be looked at; then the answer to the request says so."""
    if AxesProxyHandler.is_allowed(request, _credentials(user)):
        return False
    request.axes_locked_out = True  # type: ignore[attr-defined]
    request.axes_credentials = _credentials(user)  # type: ignore[attr-defined]
    return True


def count_failure(request: HttpRequest, user: User) -> None:
    """A wrong code counts as a wrong password does."""
    AxesProxyHandler.user_login_failed(
        sender=__name__, credentials=_credentials(user), request=request
    )


def forget_failures(request: HttpRequest, user: User) -> None:
    """Who is in, by every step, begins to count anew."""
    AxesProxyHandler.update_request(request)
    AxesProxyHandler.get_implementation().reset_user_attempts(request, _credentials(user))


def _credentials(user: User) -> dict[str, Any]:
    return {"username": user.username}


def answer(
    request: HttpRequest,
    original_response: HttpResponse | None = None,
    credentials: dict[str, Any] | None = None,
) -> HttpResponse:
    """What who is locked out is told, on a page or as a call's answer."""
    name, address = name_of(request, credentials), address_of(request)
    if getattr(request, "axes_failures_since_start", None) is not None:  # this one locked it
        user = User.objects.filter(username=name).first()
        if user is not None:
            audit.record(None, "locked out", user)
    newest = AccessAttempt.objects.filter(username=name, ip_address=address).aggregate(
        at=Max("attempt_time")
    )["at"]
    until: datetime = (newest or timezone.now()) + settings.AXES_COOLOFF_TIME
    seconds = max(1, round((until - timezone.now()).total_seconds()))
    text = (
        "Too many wrong passwords or codes for this name from where you are. Nothing was looked at."
        f" Try again in {in_words(seconds)}, or ask an administrator to unlock the account."
    )
    return too_many(request, text, seconds=seconds, word="locked_out")


def too_many(request: HttpRequest, text: str, *, seconds: int, word: str) -> HttpResponse:
    """429 with when to come again: a page for people, `{"type", "detail", "errors"}` for programs."""
    headers = {"Retry-After": str(seconds)}
    match = request.resolver_match
    if match is not None and match.namespace in ("api", "published"):
        refusal = {"type": word, "detail": text, "errors": {}}
        return JsonResponse(refusal, status=429, headers=headers | {"Cache-Control": "no-store"})
    page = render(request, "429.html", {"text": text}, status=429)
    page.headers["Retry-After"] = headers["Retry-After"]
    return page


def in_words(seconds: int) -> str:
    if seconds < 60:
        return f"{seconds} second{'' if seconds == 1 else 's'}"
    minutes = -(-seconds // 60)
    return f"{minutes} minute{'' if minutes == 1 else 's'}"


def is_anywhere_locked(user: User) -> bool:
    """Whether somebody, somewhere, is kept from trying this name."""
    since = timezone.now() - settings.AXES_COOLOFF_TIME
    found = (
        AccessAttempt.objects.filter(username=user.username, attempt_time__gte=since)
        .order_by()
        .values("ip_address")
        .annotate(failures=Sum("failures_since_start"))
    )
    return any(each["failures"] >= settings.AXES_FAILURE_LIMIT for each in found)


def unlock(user: User, *, unlocked_by: User) -> None:
    AccessAttempt.objects.filter(username=user.username).delete()
    audit.record(unlocked_by, "unlocked account", user)


def forget_old_attempts() -> int:
    """Those that lock nobody any more; axes does so too, but only when somebody logs in."""
    since = timezone.now() - settings.AXES_COOLOFF_TIME
    return AccessAttempt.objects.filter(attempt_time__lt=since).delete()[0]
