"""Who did or saw what. One plain insert; rows are named by kind and primary key, never by name.

A service, or a view that shows a patient, says what happened in its own words. What a request of
somebody who is logged in did not say by itself is said once at its end by `AccessMiddleware`.
"""

from collections.abc import Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from dataclasses import dataclass, field

from django.core.cache import cache
from django.db import connection, models
from django.http import HttpRequest
from django.http.response import HttpResponseBase
from django.urls import ResolverMatch
from redis.exceptions import RedisError

from envoys.access import (
    Action,
    actions_of,
    asks_by_itself,
    is_audited,
    is_call,
    is_published,
    may,
)
from envoys.models import AuditEvent, User

MAX_ID = 2**63 - 1
SAFE_METHODS = ("GET", "HEAD")
# By what a route calls a row, where that is not the kind that events call it by.
KINDS = {
    "approval": "studymembership",
    "assignment": "roundassignment",
    "check": "driftcheck",
    "choice": "modelchoice",
    "export": "snapshot",
    "import": "upload",
    "package": "studymembership",
    "patient_erasure": "patienterasure",
    "proposal": "retrainingproposal",
    "round": "traininground",
    "run": "trainingrun",
    "version": "modelversion",
}


@dataclass
class Trail:
    """What the services of one request have recorded."""

    num_transactions: int  # that were under way when it began
    # Of these a transaction of the request's own may have taken some back.
    events: list[AuditEvent] = field(default_factory=list)
    is_certain: bool = False

    def add(self, event: AuditEvent) -> None:
        self.events.append(event)
        self.is_certain |= _num_transactions() == self.num_transactions

    def is_recorded(self) -> bool:
        return self.is_certain or any(_stands(event) for event in reversed(self.events))


def _num_transactions() -> int:
    return len(connection.atomic_blocks)


# Of the request that this thread answers; None in workers and commands.
_trail: ContextVar[Trail | None] = ContextVar("trail", default=None)


@contextmanager
def one_request() -> Iterator[Trail]:
    trail = Trail(num_transactions=_num_transactions())
    token = _trail.set(trail)
    try:
        yield trail
    finally:
        _trail.reset(token)


def record(user: User | None, action: str, row: models.Model) -> AuditEvent:
    """Write down that `user` (or the system, None) did `action` to `row`.

    Inside a transaction the event stays or goes with what it tells of.
    """
    event = AuditEvent.objects.create(
        user=user, action=action, target=f"{row._meta.model_name}:{row.pk}"
    )
    trail = _trail.get()
    if trail is not None and user is not None:
        trail.add(event)
    return event


def _stands(event: AuditEvent) -> bool:
    """A number alone would not do: one that was taken back is given again."""
    return AuditEvent.objects.filter(pk=event.pk, happened_at=event.happened_at).exists()


def record_request(request: HttpRequest, response: HttpResponseBase, trail: Trail) -> None:
    """Write down what a request of somebody who is logged in showed or did, unless that is done.

    The event outlives whatever the request's own transactions took back. Where it cannot be
    written, the request fails, and what it would have shown is not shown.
    """
    match = request.resolver_match
    if match is None or request.method is None or not is_audited(match.view_name, request.method):
        return
    is_refused = response.status_code in (403, 404)
    if response.status_code >= 400 and not is_refused:
        return
    if request.method in SAFE_METHODS and 300 <= response.status_code < 400:
        return  # shows nothing: what it leads to is recorded
    user = request.user  # a call's too: the framework puts it there once the token is read
    if not isinstance(user, User) or trail.is_recorded():
        return
    target = target_of(match)
    is_poll = asks_by_itself(match.view_name) and not is_refused
    # Once an hour: it is asked for every few seconds, by a page that was recorded or by hand.
    if is_poll and not _is_first_in_a_while(f"audit:{user.pk}:{match.view_name}:{target}"):
        return
    AuditEvent.objects.create(
        user=user,
        action=_name(_action(user, match.view_name, request.method), request, response),
        target=target,
    )


def _is_first_in_a_while(key: str) -> bool:
    try:
        return cache.add(key, 1, timeout=3600)
    except RedisError:
        return True  # then rather once too often


def _action(user: User, view_name: str, method: str) -> Action:
    """Of those that share a route the one that this person may do."""
    actions = actions_of(view_name, method)
    return next((each for each in actions if may(user, each.capability)), actions[0])


def _name(action: Action, request: HttpRequest, response: HttpResponseBase) -> str:
    """The access list's name, and what became of it where that was less than done."""
    assert request.resolver_match is not None
    route = f"{request.method} {request.resolver_match.view_name}"
    if response.status_code >= 400:
        return f"refused: {action.name}"
    if response.headers.get("Idempotency-Replayed"):
        return f"repeated: {action.name}"  # the first answer, given again
    changes = any(not each.startswith(("GET ", "* ")) for each in action.routes)
    if request.method in SAFE_METHODS:
        return f"opened: {action.name}" if changes else action.name
    # A page answers alike where a service did what was asked, and recorded it, or refused in words.
    is_page = not is_call(route) and not is_published(route)
    return f"asked: {action.name}" if is_page else action.name


def target_of(match: ResolverMatch) -> str:
    """Kind and number of the row in an address, as study:3; of a list the route's name.

    What is no number is left out: it may be a name that somebody typed.
    """
    for name, value in match.kwargs.items():
        kind, text = _kind_of(name, match), str(value)
        if kind and text.isascii() and text.isdecimal() and len(text) <= len(str(MAX_ID)):
            return f"{kind}:{text}"
    return match.view_name


def _kind_of(argument: str, match: ResolverMatch) -> str:
    if argument == "object_id":  # admin:<app>_<model>_change
        return match.view_name.rsplit("_", 2)[1]
    word = argument.removesuffix("_id")
    if argument == "pk":
        word = getattr(match.func, "initkwargs", {}).get("basename", "")
    return KINDS.get(word, word.replace("-", ""))
