"""Every page, with a form filled in as it should be but for some of its fields, by everybody.

Lists and tables are asked with odd filters in the same way. What a form does is undone before the
next.
"""

import contextlib
import re
from collections import Counter
from functools import cache
from pathlib import Path
from typing import Any

from django.conf import settings as django_settings
from django.core.cache import cache as shared_cache
from django.db import transaction
from django.test import Client
from django.urls import reverse
from hypothesis import HealthCheck, Phase, given, seed, settings
from hypothesis import strategies as st

from envoys.access import ACTIONS
from envoys.models import User
from tests.fuzz.calls import Found, whose_turn
from tests.world import World

ANSWERS = {200, 302, 400, 404, 409, 413, 429}
MAY_NOT_BE_READY = "GET readyz"  # here no broker and no worker runs
ODD = st.one_of(
    st.sampled_from(
        [
            *("", " ", "0", "-1", "1.5", "٣", "²", "1e400", "nan", "true", "null", "[]", "{}"),
            *("\0", "a\0b", "\u202egpj", "\ufeff", "\x7f", "=1+1", "'; drop table x; --"),
            *("<script>alert(1)</script>", "../../etc/passwd", "{{ 7 * 7 }}", "%00", "%s%n"),
            *("9" * 19, "9" * 400, "x" * 10_000, "2026-02-30", "0000-00-00T00:00", "9999-12-31"),
        ]
    ),
    st.text(max_size=40),
    st.integers().map(str),
    st.datetimes().map(str),
    st.lists(st.text(max_size=5), max_size=4),
)


def pages() -> list[str]:
    """Of the access list, the pages that take a form or a query."""
    routes = {route for action in ACTIONS for route in action.pages}
    return sorted(route for route in routes if not route.startswith("*"))


class FormFuzzer:
    """Fills in, and undoes what was done. Within a transaction, with nobody else at the database."""

    def __init__(self, world: World) -> None:
        self.world = world
        self.found = Found()
        self._client = Client(raise_request_exception=False)
        self._sessions = {person: self._log_in(user) for person, user in world.people.items()}

    def _log_in(self, user: User | None) -> str:
        if user is None:
            return ""
        self._client.force_login(user)
        return self._client.cookies.pop(django_settings.SESSION_COOKIE_NAME).value

    def fill_in(self, route: str, *, num_cases: int, seed_number: int) -> None:
        """A page so many times, each by somebody."""
        method, _, name = route.partition(" ")

        @seed(seed_number)
        @settings(
            max_examples=num_cases,
            database=None,
            deadline=None,
            phases=[Phase.generate],
            suppress_health_check=list(HealthCheck),
        )
        @given(st.data())
        def fill_in_once(data: Any) -> None:
            person = whose_turn(self.world, route, self.found.num_cases)
            row = data.draw(st.sampled_from(["own", "own", "other"]))
            fields = self._fields(route, row, data)
            url = reverse(name, kwargs=self.world.arguments(name, row, method))
            self._send(route, person, url, fields)

        fill_in_once()

    def _fields(self, route: str, row: str, data: Any) -> dict[str, Any]:
        if route.startswith("GET"):
            return dict(data.draw(st.dictionaries(st.sampled_from(query_names()), ODD, max_size=4)))
        fields = dict(self.world.body(route, row))
        for name in data.draw(st.sets(st.sampled_from(sorted(fields) or ["more"]), max_size=3)):
            if not hasattr(fields.get(name), "read"):
                fields[name] = data.draw(ODD)
        for name in data.draw(st.sets(st.sampled_from(sorted(fields) or ["more"]), max_size=1)):
            fields.pop(name, None)
        return {name: value for name, value in fields.items() if value is not None}

    def _send(self, route: str, person: str, url: str, fields: dict[str, Any]) -> None:
        shared_cache.clear()  # no limit on how often somebody asks
        self._client.cookies.clear()
        if self._sessions[person]:
            self._client.cookies[django_settings.SESSION_COOKIE_NAME] = self._sessions[person]
        ask = getattr(self._client, route.partition(" ")[0].lower())
        with transaction.atomic():
            try:
                response = ask(url, fields)
                with contextlib.suppress(AttributeError):
                    b"".join(response.streaming_content)  # made while it is read
            finally:
                transaction.set_rollback(True)
        self.found.num_cases += 1
        self.found.by_status[response.status_code] += 1
        self.found.by_person[person] += 1
        answers = {*ANSWERS, 503} if route == MAY_NOT_BE_READY else ANSWERS
        if response.status_code not in answers:
            what = f"{route}: {response.status_code}"
            raised = getattr(response, "exc_info", None)
            self.found.failures.setdefault(what, f"as {person}: {fields!r:.600} {raised!r:.600}")


@cache
def query_names() -> list[str]:
    """What some page reads from its query, and a word that none does."""
    names = Counter(["page", "unknown"])
    for app in ("envoys", "diagnoses", "training", "inference", "publichealth"):
        for path in Path(django_settings.BASE_DIR, app).rglob("*.py"):
            names.update(re.findall(r"GET(?:\.get(?:list)?\(|\[)\"(\w+)\"", path.read_text()))
    return sorted(names)
