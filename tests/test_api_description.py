"""The API's description is whole, and is read without anything from outside."""

import io
from collections.abc import Iterator
from typing import Any

import django_filters
import pytest
from django.core.management import call_command
from django.test import Client
from django.urls import reverse

from envoys.access import ACTIONS, is_call, is_published
from envoys.rest import IdFilter
from techlife.api_urls import router
from tests.world import make_world

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


TYPES: dict[str, Any] = {
    "string": str,
    "integer": int,
    "number": (int, float),
    "boolean": bool,
    "array": list,
    "object": dict,
}


def differences(schema: dict[str, Any], value: Any, parts: dict[str, Any], at: str) -> list[str]:
    """Where a value is not as described: its type, null where that is not foretold, a lost field."""
    if "$ref" in schema:
        return differences(parts[schema["$ref"].rpartition("/")[2]], value, parts, at)
    for kind in ("oneOf", "anyOf"):
        if kind in schema:
            tried = [differences(each, value, parts, at) for each in schema[kind]]
            return [] if [] in tried or (value is None and schema.get("nullable")) else tried[0]
    if value is None:
        is_free = not schema.keys() & {"type", "allOf", "enum"}
        is_null_choice = schema.get("enum") == [None]
        return [] if schema.get("nullable") or is_free or is_null_choice else [f"{at}: null"]
    if "allOf" in schema:
        return [each for part in schema["allOf"] for each in differences(part, value, parts, at)]
    if "enum" in schema and value not in schema["enum"]:
        return [f"{at}: {value!r}"]
    wanted = TYPES.get(schema.get("type", ""), object)
    if not isinstance(value, wanted) or (isinstance(value, bool) and wanted not in (bool, object)):
        return [f"{at}: {value!r} is no {schema['type']}"]
    return [*_inside(schema, value, parts, at)]


def _inside(schema: dict[str, Any], value: Any, parts: dict[str, Any], at: str) -> Iterator[str]:
    if isinstance(value, list):
        for number, each in enumerate(value):
            yield from differences(schema.get("items", {}), each, parts, f"{at}.{number}")
    if isinstance(value, dict) and schema.get("type") == "object":
        properties, more = schema.get("properties", {}), schema.get("additionalProperties", {})
        yield from (
            f"{at}.{name}: lost" for name in schema.get("required", []) if name not in value
        )
        for name, each in value.items():
            if name in properties or isinstance(more, dict):
                part = properties.get(name, more)
                yield from differences(part, each, parts, f"{at}.{name}")
        if properties and "additionalProperties" not in schema:
            yield from (f"{at}.{name}: not described" for name in value.keys() - properties.keys())


def test_what_is_read_is_answered_as_it_is_described(description):
    world = make_world()
    parts = description["components"]["schemas"]
    found, num_read = [], 0
    routes = {route for each in ACTIONS for route in each.routes if route.startswith("GET api:")}
    for person in ("doctor", "data scientist"):
        user = world.people[person]
        assert user is not None
        client = Client()
        client.force_login(user)
        for route in sorted(routes):
            view_name = route.partition(" ")[2]
            if view_name == "api:schema":
                continue
            arguments = world.arguments(view_name)
            url = reverse(view_name, kwargs=arguments)
            path = reverse(view_name, kwargs=dict.fromkeys(arguments, 0))
            path = path.replace("/0", "/{id}")
            response = client.get(url)
            if response.status_code != 200:
                continue
            num_read += 1
            content = description["paths"][path]["get"]["responses"]["200"]["content"]
            if "application/json" not in content:
                continue  # a file
            schema = content["application/json"]["schema"]
            found += differences(schema, response.json(), parts, f"{person} {url}")
    assert num_read > 40
    assert found == []


def test_every_filter_by_a_whole_number_refuses_what_is_none():
    """Also one that a model's field brings with it: NumberFilter cuts 1.5 and overflows."""
    for _, viewset, basename in router.registry:
        filterset = getattr(viewset, "filterset_class", None)
        for name, each in (filterset.base_filters if filterset else {}).items():
            is_number = isinstance(each, django_filters.NumberFilter)
            assert not is_number or isinstance(each, IdFilter), (basename, name)


@pytest.mark.parametrize("text", [str(10**30), "1.5", "-1", "x", "9" * 19, "²"])
def test_a_filter_by_what_is_no_number_of_a_row_is_refused(text):
    world = make_world()
    num_filters = 0
    for person in ("doctor", "data scientist"):
        user = world.people[person]
        assert user is not None
        client = Client()
        client.force_login(user)
        for _, viewset, basename in router.registry:
            filterset = getattr(viewset, "filterset_class", None)
            names = [
                name
                for name, each in (filterset.base_filters if filterset else {}).items()
                if isinstance(each, IdFilter)
            ]
            for name in names:
                response = client.get(reverse(f"api:{basename}-list"), {name: text})
                if response.status_code == 404:  # not this person's
                    continue
                num_filters += 1
                assert response.status_code == 400, (basename, name, response.content)
                assert set(response.json()) == {"type", "detail", "errors"}
                assert list(response.json()["errors"]) == [name]
    assert num_filters > 20
