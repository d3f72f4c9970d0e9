"""The access list and the URLs say the same: nothing is in one that is not in the other."""

from collections.abc import Iterator
from typing import Any

import pytest
from django.urls import URLPattern, URLResolver, get_resolver

from envoys.access import ACTIONS, is_call, is_published

METHODS = ("get", "post", "put", "patch", "delete")
# What whole namespaces are covered by.
COVERED = ("admin:",)


def url_patterns(resolver: Any = None, namespace: str = "") -> Iterator[tuple[str, URLPattern]]:
    for pattern in (resolver or get_resolver()).url_patterns:
        if isinstance(pattern, URLResolver):
            inner = f"{namespace}{pattern.namespace}:" if pattern.namespace else namespace
            yield from url_patterns(pattern, inner)
        else:
            yield f"{namespace}{pattern.name}", pattern


PATTERNS = {name: pattern for name, pattern in url_patterns() if not name.startswith(COVERED)}
ROUTES = [(action, route) for action in ACTIONS for route in action.routes]
NAMED = {route for _, route in ROUTES if not route.startswith("* ")}


def methods_of(pattern: URLPattern) -> set[str]:
    """What an API's view answers to; a plain view's are not written anywhere but in itself."""
    view: Any = pattern.callback
    if hasattr(view, "actions"):  # of a view set
        return {method.upper() for method in view.actions if method in METHODS}
    cls = getattr(view, "cls", None) or getattr(view, "view_class", None)
    return {method.upper() for method in METHODS if hasattr(cls, method)}


def is_api(pattern: URLPattern) -> bool:
    return hasattr(pattern.callback, "cls")


@pytest.mark.parametrize("route", sorted(NAMED))
def test_every_route_of_the_list_is_there_and_answers_to_its_method(route):
    method, _, name = route.partition(" ")
    assert name in PATTERNS, f"{name} is in envoys/access.py, and no URL is called that"
    if is_api(PATTERNS[name]):
        assert method in methods_of(PATTERNS[name]), f"{name} does not answer to {method}"


@pytest.mark.parametrize("name", sorted(PATTERNS))
def test_every_url_is_in_the_list_with_every_method_it_answers_to(name):
    listed = {route.partition(" ")[0] for route in NAMED if route.partition(" ")[2] == name}
    assert listed, f"{name} is in no action of envoys/access.py: nobody can use it"
    if is_api(PATTERNS[name]):
        assert methods_of(PATTERNS[name]) == listed


def test_no_two_urls_share_a_name():
    names = [name for name, _ in url_patterns() if not name.startswith(COVERED)]
    assert sorted(names) == sorted(set(names))


@pytest.mark.parametrize("action", ACTIONS, ids=lambda action: action.name)
def test_whatever_a_page_can_do_has_a_call(action):
    if action.page_only:
        assert action.pages
        assert not action.calls, f"{action.name!r} has a call: it is not for pages only"
    else:
        assert action.calls, f"{action.name!r} has no call, and does not say why"


def test_whatever_a_call_or_a_published_path_can_do_has_a_page():
    without = {action.name for action in ACTIONS if not action.pages}
    assert without == {action.name for action in ACTIONS if action.call_only}


def test_every_published_path_does_what_an_action_of_the_api_does():
    published = {route for route in NAMED if is_published(route)}
    of_actions_with_calls = {
        route for action, route in ROUTES if is_published(route) and action.calls
    }
    assert published == of_actions_with_calls


def test_a_page_and_its_call_are_told_apart_by_their_namespace():
    assert all(name.startswith("api:") for name in PATTERNS if is_call(f"GET {name}"))
