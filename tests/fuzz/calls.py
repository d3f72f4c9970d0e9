"""Every call of the API, as its description allows it and as it does not, by everybody.

Schemathesis makes the calls from the description; half of them are pointed at rows that there are,
of one's own hospital or another, and some carry a body that works but for what is changed in it.
What a call does is undone before the next.
"""

import contextlib
import re
from collections import Counter
from dataclasses import dataclass, field
from typing import Any

import schemathesis
from django.contrib.auth.models import AnonymousUser
from django.core.cache import cache
from django.core.wsgi import get_wsgi_application
from django.db import transaction
from django.urls import Resolver404, resolve
from drf_spectacular.generators import SchemaGenerator
from hypothesis import HealthCheck, Phase, given, seed, settings
from hypothesis import strategies as st
from hypothesis.errors import InvalidArgument, Unsatisfiable
from rest_framework_simplejwt.tokens import RefreshToken
from schemathesis.checks import not_a_server_error
from schemathesis.core.failures import Failure, FailureGroup
from schemathesis.core.result import Ok
from schemathesis.generation.modes import GenerationMode
from schemathesis.specs.openapi.checks import (
    content_type_conformance,
    response_schema_conformance,
    status_code_conformance,
)

from envoys.access import may_use
from envoys.models import User
from publichealth.rate_limit import forget_counts
from tests.world import World

CHECKS = [
    not_a_server_error,
    status_code_conformance,
    content_type_conformance,
    response_schema_conformance,
]


@dataclass
class Found:
    """What a run has asked, what was answered, and what should not have been."""

    num_cases: int = 0
    by_status: Counter[int] = field(default_factory=Counter)
    by_person: Counter[str] = field(default_factory=Counter)
    failures: dict[str, str] = field(default_factory=dict)  # by call and what is wrong


class CallFuzzer:
    """Asks, and undoes what was done. Within a transaction, with nobody else at the database."""

    def __init__(self, world: World) -> None:
        self.world = world
        self.found = Found()
        self._schema = schemathesis.openapi.from_dict(
            SchemaGenerator().get_schema(request=None, public=True)
        )
        self._schema.app = get_wsgi_application()
        self._headers = {person: _login(user) for person, user in world.people.items()}

    def operations(self) -> list[Any]:
        return [each.ok() for each in self._schema.get_all_operations() if isinstance(each, Ok)]

    def ask(self, operation: Any, *, num_cases: int, seed_number: int) -> None:
        """So many calls of one operation, each by somebody."""
        ways = st.one_of(*_strategies(operation))

        @seed(seed_number)
        @settings(
            max_examples=num_cases,
            database=None,
            deadline=None,
            phases=[Phase.generate],
            suppress_health_check=list(HealthCheck),
        )
        @given(ways, st.randoms(use_true_random=False))
        def ask_once(case: Any, random: Any) -> None:
            row, body = (
                random.choice(["", "own", "own", "other"]),
                random.choice(["", "own", "other"]),
            )
            self._point(case, row, body, random)
            self._send(case, self._whose_turn(case))

        with contextlib.suppress(Unsatisfiable):  # there is no wrong way to make this call
            ask_once()

    def _whose_turn(self, case: Any) -> str:
        """Everybody in turn, and every other time somebody who may."""
        return whose_turn(
            self.world, f"{case.method} {_view_name(case.operation.path)}", self.found.num_cases
        )

    def _point(self, case: Any, row: str, body: str, random: Any) -> None:
        """At rows that there are, with a body in which some fields are what was made.

        Args:
            row, body: whose rows stand in the path and in the body; "" leaves it as it was made.
        """
        name = _view_name(case.operation.path)
        if row:
            known = self.world.arguments(name, row, case.method)
            if known:
                wanted = case.path_parameters or {}
                values = iter(known.values())
                case.path_parameters = {each: known.get(each) or next(values) for each in wanted}
        working = self.world.body(f"{case.method} {name}", body) if body else {}
        if isinstance(working, dict) and working and isinstance(case.body, dict):
            made = {key: value for key, value in case.body.items() if random.random() < 0.3}
            if "diagnoses" not in working:  # files are as they were made
                case.body = {**working, **made}

    def _send(self, case: Any, person: str) -> None:
        cache.clear()  # no limit on how often somebody asks
        forget_counts()
        with transaction.atomic():
            try:
                response = case.call(headers=self._headers[person])
            finally:
                transaction.set_rollback(True)
        self.found.num_cases += 1
        self.found.by_status[response.status_code] += 1
        self.found.by_person[person] += 1
        try:
            case.validate_response(response, checks=CHECKS)
        except (Failure, FailureGroup) as failure:
            for each in getattr(failure, "exceptions", [failure]):
                what = f"{case.method} {case.operation.path}: {each.title} ({response.status_code})"
                self.found.failures.setdefault(what, f"as {person}: {failure}")


def whose_turn(world: World, route: str, number: int) -> str:
    """Everybody in turn, and every other time somebody who may use the route."""
    method, _, name = route.partition(" ")
    who_may = sorted(
        person
        for person, user in world.people.items()
        if may_use(user or AnonymousUser(), name, method)
    )
    people = who_may if number % 2 and who_may else sorted(world.people)
    return people[number // 2 % len(people)]


def _strategies(operation: Any) -> list[Any]:
    found = []
    for mode in (GenerationMode.POSITIVE, GenerationMode.NEGATIVE):
        with contextlib.suppress(InvalidArgument):
            found.append(operation.as_strategy(generation_mode=mode))
    return found


def _login(user: User | None) -> dict[str, str]:
    if user is None:
        return {}
    return {"Authorization": f"Bearer {RefreshToken.for_user(user).access_token}"}


def _view_name(path: str) -> str:
    for number in ("1", "aqi"):
        with contextlib.suppress(Resolver404):
            return resolve(re.sub(r"\{\w+\}", number, path)).view_name
    raise AssertionError(f"no URL is like {path}")
