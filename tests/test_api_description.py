"""The API's description is whole, and is read without anything from outside."""

import io

import pytest
from django.core.management import call_command
from django.test import Client
from django.urls import reverse

from envoys.access import ACTIONS, is_call, is_published

# In tests nothing has been collected for WhiteNoise to serve.
pytestmark = [pytest.mark.django_db, pytest.mark.filterwarnings("ignore:No directory at")]


@pytest.fixture(scope="module")
def description():
    from drf_spectacular.generators import SchemaGenerator

    return SchemaGenerator().get_schema(request=None, public=True)


def test_the_description_is_valid_and_nothing_in_it_was_guessed(capsys):
    call_command("spectacular", validate=True, fail_on_warn=True, stdout=io.StringIO())


def test_every_call_is_described_with_its_errors(description):
    calls = [route for each in ACTIONS for route in each.routes if is_call(route)]
    published = [route for each in ACTIONS for route in each.routes if is_published(route)]
    described = [
        (path, method, operation)
        for path, operations in description["paths"].items()
        for method, operation in operations.items()
    ]
    # The description itself is the one operation more.
    assert len(described) == len(set(calls) | set(published)) + (
        1 if "/api/v1/schema" in description["paths"] else 0
    )
    for path, _, operation in described:
        assert operation["summary"], path
        assert {"400", "404"} <= set(operation["responses"]), path


def test_a_call_says_whether_it_asks_for_a_login(description):
    assert "401" in description["paths"]["/api/v1/patients"]["get"]["responses"]
    assert description["paths"]["/api/v1/patients"]["get"]["security"]
    assert "security" not in description["paths"]["/api/v1/token"]["post"] or (
        {} in description["paths"]["/api/v1/token"]["post"]["security"]
    )


@pytest.mark.parametrize("name", ["docs", "redoc"])
def test_the_pages_of_the_description_ask_for_nothing_from_outside(name):
    response = Client().get(reverse(name))
    assert response.status_code == 200
    html = response.content.decode()
    assert "http://" not in html
    assert "https://" not in html
    assert "<style" not in html
    policy = response.headers["Content-Security-Policy"]
    assert "script-src 'self';" in f"{policy};"
    assert ("unsafe-inline" in policy) is (name == "redoc")
