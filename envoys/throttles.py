"""How often one may ask for what is open to strangers, or starts much work.

Calls are counted by account, and by address where nobody is logged in, in the cache that all web
processes share. What is limited is listed here by route, as in `envoys.access`.
"""

import logging
from collections.abc import Callable
from typing import Any

from django.conf import settings
from django.http import HttpRequest, HttpResponse
from redis.exceptions import RedisError
from rest_framework import exceptions
from rest_framework.throttling import SimpleRateThrottle

from envoys.addresses import client_of
from envoys.lockout import in_words, too_many

ROUTES = {
    "login": (
        "POST login",
        "POST login-code",
        "POST login-set-up",
        "POST api:token",
        "POST published:login",
    ),
    "refresh": ("POST api:token-refresh", "POST api:token-revoke"),
    "register": ("POST account-register", "POST api:account-register", "POST published:register"),
    "password": (
        "POST password_change",
        "POST api:password-change",
        "POST two-step-set-up",
        "POST two-step-turn-off",
        "POST two-step-codes",
        "POST access-token-create",
        "POST api:access-token-list",
    ),
    "work": (
        "POST diagnoses:import-create",
        "POST api:import-list",
        "POST diagnoses:export-create",
        "POST api:export-list",
        "POST published:export-create",
        "POST inference:inference-run-create",
        "POST api:inference-run-list",
    ),
}
SCOPES = {route: scope for scope, routes in ROUTES.items() for route in routes}


class TooManyCalls(exceptions.Throttled):
    wait: int
    default_detail = "Too many calls: nothing was done."
    extra_detail_singular = "Try again in {wait} second."
    extra_detail_plural = "Try again in {wait} seconds."


class RouteThrottle(SimpleRateThrottle):
    """Counts the calls of a route's scope; a route in no scope is not limited.

    A cache that does not answer stops nobody: wrong passwords are counted in the database.
    """

    def __init__(self) -> None:
        """The rate is that of the route, once there is one."""

    def allow_request(self, request: Any, view: Any) -> bool:
        match = request.resolver_match
        scope = SCOPES.get(f"{request.method} {match.view_name}") if match else None
        self.rate = settings.RATES.get(scope) if scope else None
        if self.rate is None:
            return True
        self.scope = scope
        self.num_requests, self.duration = self.parse_rate(self.rate)
        try:
            return bool(super().allow_request(request, view))
        except RedisError as error:
            logging.getLogger(__name__).warning("calls are not counted: %s", type(error).__name__)
            return True

    def get_cache_key(self, request: Any, view: Any) -> str:
        if request.user.is_authenticated:
            return f"calls:{self.scope}:user:{request.user.pk}"
        return f"calls:{self.scope}:{client_of(request)}"

    def throttle_failure(self) -> bool:
        wait = self.wait()
        raise TooManyCalls(wait=max(1, wait or self.duration or 1))


class ThrottleMiddleware:
    """The same for pages; calls ask by themselves, once the token is read."""

    def __init__(self, get_response: Callable[[HttpRequest], HttpResponse]) -> None:
        self.get_response = get_response

    def __call__(self, request: HttpRequest) -> HttpResponse:
        return self.get_response(request)

    def process_view(
        self, request: HttpRequest, view: Any, args: Any, kwargs: Any
    ) -> HttpResponse | None:
        if hasattr(view, "cls"):
            return None
        try:
            RouteThrottle().allow_request(request, view)
        except TooManyCalls as refusal:
            seconds = refusal.wait
            text = f"{TooManyCalls.default_detail} Try again in {in_words(seconds)}."
            return too_many(request, text, seconds=seconds, word="throttled")
        return None
