"""Text with marks that are not seen is taken by no form and no call: each field is tried.

Which fields a route reads is seen while it reads its body from `tests/world.py`; those of the admin
are tried in `tests/envoys/test_admin.py`.
"""

import copy
import re
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import pytest
from django import forms
from django.db import connection
from django.urls import reverse
from rest_framework import serializers

from envoys.access import is_call, is_published
from tests.test_access_matrix import ROUTES, Answer, Visitors, people_who_may
from tests.world import World
from tests.world_fixtures import folders as folders  # fixtures
from tests.world_fixtures import world as world

pytestmark = [pytest.mark.django_db, pytest.mark.filterwarnings("ignore:No directory at")]

MARKS = ("\u202e", "\0")
# What a refusal may write: that there was one.
OF_REFUSALS = {"envoys_auditevent", "django_session", "axes_accessattempt", "axes_accesslog"}
# Compared, and kept by nobody but as a hash.
SECRETS = {
    *("password", "password_again", "old_password"),
    *("new_password", "new_password1", "new_password2", "code", "otp", "refresh"),
}
EXEMPT = {
    "POST inference:patient-list text": "searched for, and kept in one's own session for a while",
    "POST api:patient-search name": "searched for, and not kept",
    "POST api:patient-search hadm_id": "searched for, and not kept",
    "POST api:patient-search subject_id": "searched for, and not kept",
    "POST diagnoses:icd-code-search icd_code": "searched for, and not kept",
}
# Routes whose body of the world is refused for another reason: there the answer has to name the field.
WRITES_NOTHING = {
    "POST api:reading-list",
    "POST api:retraining-proposal-list",
    "POST api:run-list",
    "POST publichealth:proposal-create",
}
Path = tuple[str | int, ...]


@pytest.fixture(scope="module")
def visitors(world: World) -> Visitors:
    return Visitors(world)


@contextmanager
def fields_read(route: str) -> Iterator[set[Path]]:
    """Where in the body of this route, read meanwhile, free text is taken."""
    is_page = not is_call(route) and not is_published(route)  # a call's forms read filters
    found: set[Path] = set()
    read_form, read_call = forms.BaseForm.full_clean, serializers.Serializer.run_validation

    def full_clean(self: Any) -> Any:
        if self.is_bound and is_page:
            found.update(
                (self.add_prefix(name),)
                for name, field in self.fields.items()
                if isinstance(field, forms.CharField)
            )
        return read_form(self)

    def run_validation(self: Any, *args: Any) -> Any:
        if self.parent is None or self.parent.parent is None:
            found.update(_texts(self, ()))
        return read_call(self, *args)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(forms.BaseForm, "full_clean", full_clean)
        patch.setattr(serializers.Serializer, "run_validation", run_validation)
        yield found


def _texts(field: Any, path: Path) -> Iterator[Path]:
    if isinstance(field, serializers.Serializer):
        inside = (0,) if isinstance(field.parent, serializers.ListSerializer) and not path else ()
        for name, each in field.fields.items():
            if not each.read_only:
                yield from _texts(each, (*path, *inside, name))
    elif isinstance(field, serializers.ListSerializer | serializers.ListField):
        yield from _texts(field.child, (*path, 0))
    elif isinstance(field, serializers.CharField):
        yield path


@contextmanager
def tables_written() -> Iterator[set[str]]:
    found: set[str] = set()

    def look(execute: Any, sql: str, params: Any, many: bool, context: Any) -> Any:
        if match := re.match(r'(?:INSERT INTO|UPDATE|DELETE FROM) "(\w+)"', sql):
            found.add(match[1])
        return execute(sql, params, many, context)

    with connection.execute_wrapper(look):
        yield found


def ask(visitors: Visitors, route: str, body: Any) -> Answer:
    method, _, view_name = route.partition(" ")
    person = asker(route)
    arguments = visitors.world.arguments(view_name, "own", method)
    is_json = is_call(route) or is_published(route)
    more = {"content_type": "application/json"} if is_json else {}
    return visitors.send(person, method, reverse(view_name, kwargs=arguments), data=body, **more)


def asker(route: str) -> str:
    people = people_who_may(route)
    order = ("anonymous", "doctor", "data scientist", "administrator", "public-health officer")
    return next(person for person in order if person in people)


def with_mark(body: Any, path: Path, mark: str) -> Any:
    """The body with a mark at the end of one text; one that is not there yet is put in."""
    changed = copy.deepcopy(body)
    *way, last = path
    inner = changed
    for step in way:
        inner = inner[step]
    before = inner[last] if isinstance(last, int) or last in inner else ""
    inner[last] = f"{before or 'x'}{mark}"
    return changed


CHANGING = [route for route in ROUTES if not route.startswith("GET ")]


@pytest.mark.parametrize("route", CHANGING)
def test_a_text_with_marks_that_are_not_seen_is_refused_and_nothing_is_stored(
    world, visitors, route
):
    body = world.body(route)
    if isinstance(body, dict) and "diagnoses" in body:
        pytest.skip("files, whose every line is checked: tests/federated/test_cohorts.py")
    with fields_read(route) as fields, tables_written() as tables:
        ask(visitors, route, body)
    tried = [
        path
        for path in sorted(fields, key=str)
        if path[-1] not in SECRETS and f"{route} {path[-1]}" not in EXEMPT
    ]
    # Else what is refused might be the rest of the body.
    assert not tried or tables - OF_REFUSALS or route in WRITES_NOTHING
    for path in tried:
        for mark in MARKS:
            with tables_written() as tables:
                answer = ask(visitors, route, with_mark(body, path, mark))
            assert answer.status < 500, (path, mark, answer)
            assert tables - OF_REFUSALS == set(), (path, mark, answer)
            if is_call(route) or is_published(route):
                assert answer.status in (400, 401), (path, mark, answer)
                if route in WRITES_NOTHING:
                    assert "not seen" in answer.text or str(path[-1]) in answer.text, answer
