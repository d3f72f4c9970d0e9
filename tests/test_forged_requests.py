"""What another site has a browser send is refused: on every page, and in every call of a session."""

from collections.abc import Iterator
from typing import Any

import pytest
from django.test import Client
from django.urls import reverse

from envoys.access import ACTIONS, Capability, is_call, is_published
from envoys.models import User
from tests.world import World, make_world

pytestmark = [pytest.mark.django_db, pytest.mark.filterwarnings("ignore:No directory at")]

PEOPLE = ("doctor", "data scientist", "public-health officer", "administrator")


@pytest.fixture
def world() -> World:
    return make_world()


def changing_routes(*, calls: bool) -> Iterator[tuple[str, Capability]]:
    """What changes something, once each; the admin's own pages are all of one kind."""
    seen = set()
    for each in ACTIONS:
        for route in each.routes:
            is_a_call = is_call(route) or is_published(route)
            if route.startswith(("GET", "*")) or is_a_call is not calls or route in seen:
                continue
            seen.add(route)
            yield route, each.capability


def client_of(user: User) -> Client:
    client = Client(enforce_csrf_checks=True)
    client.force_login(user)
    return client


def send(client: Client, world: World, route: str, **more: Any) -> Any:
    method, _, view_name = route.partition(" ")
    url = reverse(view_name, kwargs=world.arguments(view_name, method=method))
    return getattr(client, method.lower())(url, **more)


def test_every_page_that_changes_something_refuses_a_form_of_another_site(world):
    routes = list(changing_routes(calls=False))
    assert len(routes) > 40
    for person in PEOPLE:
        user = world.people[person]
        assert user is not None
        client = client_of(user)
        for route, _ in routes:
            response = send(client, world, route, data=world.body(route))
            assert response.status_code == 403, (person, route)
            assert "reload the page" in response.content.decode(), (person, route)
    anonymous = Client(enforce_csrf_checks=True)
    for route, _ in routes:
        assert send(anonymous, world, route, data=world.body(route)).status_code == 403, route


def test_the_admins_forms_refuse_it_too(world):
    administrator = world.people["administrator"]
    assert administrator is not None
    client = client_of(administrator)
    for page in ("admin:envoys_user_add", "admin:envoys_user_changelist", "admin:logout"):
        assert client.post(reverse(page), {"username": "x"}).status_code == 403, page


def test_a_call_of_a_session_needs_the_token_of_the_form(world):
    num_refused = 0
    for person in PEOPLE:
        user = world.people[person]
        assert user is not None
        client = client_of(user)
        for route, capability in changing_routes(calls=True):
            if capability is Capability.ANYONE:
                continue  # whom it acts for is in its body, or nobody
            response = send(client, world, route, data="{}", content_type="application/json")
            assert response.status_code == 403, (person, route, response.content)
            assert "CSRF" in response.json()["detail"]
            num_refused += 1
    assert num_refused > 100


def test_a_call_with_a_token_of_its_own_needs_none(world):
    user = world.people["data scientist"]
    assert user is not None
    from tests.api import Program

    program = Program(user)
    program.client.handler.enforce_csrf_checks = True
    program.post("/api/v1/envoys", {"name": "Hospital new"})
