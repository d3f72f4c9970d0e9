"""A person's session: begun by every step of a login, and ended by age or by idleness."""

import time
from collections.abc import Callable
from typing import Any

from django.conf import settings
from django.contrib import messages
from django.contrib.auth import login, logout, update_session_auth_hash
from django.http import HttpRequest, HttpResponse

from envoys import audit, lockout, two_step
from envoys.lockout import in_words
from envoys.models import ServiceToken, User

BACKEND = "django.contrib.auth.backends.ModelBackend"
BEGAN_AT, SEEN_AT, TWO_STEPS, PASSWORD_GIVEN = "began_at", "seen_at", "two_steps", "password_given"
# How long the second step may take after the first.
SECOND_STEP_SECONDS = 600
# What is seen is written down at most so often.
SEEN_WRITTEN_SECONDS = 60


def owes_second_step(user: User) -> bool:
    return two_step.is_required(user) or two_step.is_on(user)


def begin_second_step(request: HttpRequest, user: User, *, next_url: str) -> None:
    """Remember that the password was right. Nobody is logged in yet, so nothing is open."""
    request.session.cycle_key()
    request.session[PASSWORD_GIVEN] = {
        "user": user.pk,
        "hash": user.get_session_auth_hash(),  # a new password, or an ended login, begins anew
        "at": time.time(),
        "next": next_url,
    }


def in_second_step(request: HttpRequest) -> User | None:
    """Who has given the password and owes a code."""
    given = request.session.get(PASSWORD_GIVEN)
    if not given or time.time() - given["at"] > SECOND_STEP_SECONDS:
        return None
    user = User.objects.filter(pk=given["user"], is_active=True).first()
    return user if user is not None and user.get_session_auth_hash() == given["hash"] else None


def begin_session(request: HttpRequest, user: User, *, two_steps: bool) -> str:
    """Log a person in who has taken every step; returns where they wanted to go."""
    given = request.session.pop(PASSWORD_GIVEN, None) or {}
    login(request, user, backend=BACKEND)
    request.session[BEGAN_AT] = request.session[SEEN_AT] = time.time()
    request.session[TWO_STEPS] = two_steps
    lockout.forget_failures(request, user)
    audit.record(user, "logged in", user)
    for token in ServiceToken.objects.filter(user=user).ending_soon():
        messages.warning(
            request,
            f"The access token {token} ends on {token.expires_at:%Y-%m-%d}: make a new one in time.",
        )
    return str(given.get("next", ""))


def keep_session(request: HttpRequest, user: User, *, two_steps: bool | None = None) -> None:
    """Let this session go on where all others of a person have been ended."""
    update_session_auth_hash(request, user)
    if two_steps is not None:
        request.session[TWO_STEPS] = two_steps


class SessionLimits:
    """Ends a session that is too old, was left alone, or has come without a step that is needed."""

    def __init__(self, get_response: Callable[[HttpRequest], HttpResponse]) -> None:
        self.get_response = get_response

    def __call__(self, request: HttpRequest) -> HttpResponse:
        return self.get_response(request)

    def process_view(self, request: HttpRequest, view: Any, args: Any, kwargs: Any) -> None:
        if settings.SESSION_COOKIE_NAME not in request.COOKIES:
            return
        if not isinstance(request.user, User):
            return
        if reason := _reason_to_end(request, request.user):
            audit.record(request.user, "session ended", request.user)
            logout(request)
            messages.info(request, reason)


def _reason_to_end(request: HttpRequest, user: User) -> str:
    session, now = request.session, time.time()
    # One that was opened past our pages, or by an older version, began no later than this.
    last_login = user.last_login.timestamp() if user.last_login else 0.0
    began_at = session.get(BEGAN_AT, last_login)
    seen_at = session.get(SEEN_AT, began_at)
    if now - began_at > settings.SESSION_COOKIE_AGE:
        return f"After {settings.SESSION_COOKIE_AGE // 3600} hours one logs in again."
    if now - seen_at > settings.SESSION_IDLE_SECONDS:
        idle = in_words(settings.SESSION_IDLE_SECONDS)
        return f"You were logged out because nothing was done here for {idle}."
    if two_step.is_required(user) and not session.get(TWO_STEPS):
        return "This account logs in by two steps now: log in again."
    match = request.resolver_match
    # A page that asks for its own news does so also where nobody sits before it.
    is_poll = match is not None and match.view_name.endswith("-live")
    if not is_poll and now - seen_at > SEEN_WRITTEN_SECONDS:
        session[SEEN_AT] = now
    return ""
