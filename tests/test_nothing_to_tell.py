"""What is another hospital's answers as what does not exist: in status, in words and in headers.

How long either takes is measured by `make bench-enumeration`.
"""

import re
from typing import Any

import pytest
from django.contrib import admin
from django.urls import reverse

from envoys.access import is_call, is_published
from tests.test_access_matrix import (
    CAPABILITIES,
    FEDERATION,
    METHODS,
    ROUTES,
    Visitors,
    body_names_a_hospital,
    people_who_may,
    url_names_a_hospital,
)
from tests.world import World
from tests.world_fixtures import folders as folders  # fixtures
from tests.world_fixtures import world as world

# In tests nothing has been collected for WhiteNoise to serve.
pytestmark = [pytest.mark.django_db, pytest.mark.filterwarnings("ignore:No directory at")]

NOBODYS = 2_000_000_011  # no row has this number
OF_DOCTORS = [route for route in ROUTES if "doctor" in people_who_may(route)]


@pytest.fixture(scope="module")
def visitors(world: World) -> Visitors:
    return Visitors(world)


def nobodys(value: Any) -> Any:
    """In place of what names another's row, what names none."""
    if isinstance(value, int):
        return NOBODYS
    if re.fullmatch(r"[a-z]+-\d+", str(value)):  # a task: kind and number
        return f"{str(value).partition('-')[0]}-{NOBODYS}"
    return "nobody's"


def without(other: Any, own: Any) -> Any:
    """A body for another's rows, with what makes it another's made nobody's."""
    if isinstance(other, dict) and isinstance(own, dict):
        return {name: without(other[name], own.get(name)) for name in other}
    if isinstance(other, list) and isinstance(own, list) and len(other) == len(own):
        return [without(one, two) for one, two in zip(other, own, strict=True)]
    return other if repr(other) == repr(own) else nobodys(other)


def words(answer: Any) -> str:
    """What is told, but for the token of the form and for what was itself asked for."""
    text = re.sub(r'name="csrfmiddlewaretoken" value="\w+"|nonce="[^"]+"', "", answer.text)
    return re.sub(r"(\d+|nobody'?&?#?\w*;?s|[0-9a-f]{8,})+", "#", text)


@pytest.mark.parametrize("route", [each for each in OF_DOCTORS if CAPABILITIES[each]])
def test_a_path_to_anothers_row_is_a_path_to_none(world, visitors, route):
    if not url_names_a_hospital(world, route):
        return
    method = route.partition(" ")[0]
    answers = [
        visitors.send("doctor", method, url, **keywords)
        for url, keywords in requests_for_another_and_for_none(world, route)
    ]
    assert [each.status for each in answers] == [404, 404]
    assert words(answers[0]) == words(answers[1])


@pytest.mark.parametrize("route", OF_DOCTORS)
def test_methods_that_a_route_does_not_have_tell_no_more(world, visitors, route):
    if not url_names_a_hospital(world, route):
        return
    (other, _), (none, _) = requests_for_another_and_for_none(world, route)
    for method in METHODS:
        answers = [visitors.send("doctor", method, url) for url in (other, none)]
        assert answers[0].status == answers[1].status, method
        assert words(answers[0]) == words(answers[1]), method


def requests_for_another_and_for_none(world: World, route: str) -> list[tuple[str, dict[str, Any]]]:
    """The address of another's row and of none, each with what is sent there."""
    method, _, name = route.partition(" ")
    own, other = (world.arguments(name, whose, method) for whose in ("own", "other"))
    none = {key: value if value == own[key] else nobodys(value) for key, value in other.items()}
    sent = {"data": world.body(route, "own"), **json_of(route)}
    return [(reverse(name, kwargs=each), sent) for each in (other, none)]


def json_of(route: str) -> dict[str, str]:
    is_json = (is_call(route) or is_published(route)) and not route.startswith("GET")
    return {"content_type": "application/json"} if is_json else {}


@pytest.mark.parametrize("route", OF_DOCTORS)
def test_a_body_that_names_anothers_row_names_none(world, visitors, route):
    if not body_names_a_hospital(world, route):
        return
    method, _, name = route.partition(" ")
    own, other = world.body(route, "own"), world.body(route, "other")
    url = reverse(name, kwargs=world.arguments(name, "own", method))
    answers = [
        visitors.send("doctor", method, url, data=data, **json_of(route))
        for data in (other, without(other, own))
    ]
    assert answers[0].status == answers[1].status, answers
    assert words(answers[0]) == words(answers[1])


def filters() -> list[tuple[str, str]]:
    """Of the API's lists, the filters that take a row's number."""
    from drf_spectacular.generators import SchemaGenerator

    found = []
    paths = SchemaGenerator().get_schema(request=None, public=True)["paths"]
    for path, operations in paths.items():
        for parameter in operations.get("get", {}).get("parameters", []):
            is_number = parameter["schema"].get("type") == "integer"
            if parameter["in"] == "query" and is_number and "{" not in path:
                found.append((path, parameter["name"]))
    return [each for each in found if each[1] not in ("limit", "offset")]


@pytest.mark.parametrize(("path", "name"), filters())
def test_a_filter_by_anothers_row_finds_what_a_filter_by_none_does(world, visitors, path, name):
    other = world.hospitals["other"]
    row = getattr(other, FIELDS.get(name, name), None)
    if row is None:  # of no hospital, as a study or a version of the federation
        return
    answers = [
        visitors.send("doctor", "GET", f"{path}?{name}={number}") for number in (row.pk, NOBODYS)
    ]
    assert answers[0].status == answers[1].status
    assert words(answers[0]) == words(answers[1])
    if answers[0].status == 200:
        assert '"count":0' in answers[0].text


FIELDS = {"model_version": "version", "round": "training_round"}


@pytest.mark.parametrize("who", ["own", "other"])
def test_a_search_finds_ones_own_patients_alone(world, visitors, who):
    name = {"own": "Test Patient Own", "other": "Test Patient Other"}[who]
    answer = visitors.send(
        "doctor",
        "POST",
        reverse("api:patient-search"),
        data={"name": name},
        content_type="application/json",
    )
    assert answer.status == 200
    assert ('"count":0' in answer.text) is (who == "other"), answer


@pytest.mark.parametrize("order", ["pk", "-pk", "name", "patient__name", "envoy__name", "?"])
def test_no_list_can_be_put_in_an_order_that_tells_of_what_it_does_not_show(world, visitors, order):
    for path in ("/api/v1/patients", "/api/v1/admissions", "/api/v1/runs", "/api/v1/envoys"):
        plain = visitors.send("doctor", "GET", path)
        assert visitors.send("doctor", "GET", f"{path}?ordering={order}&o=1").text == plain.text


@pytest.mark.parametrize("person", sorted(FEDERATION))
def test_the_admin_is_asked_for_nothing_by_way_of_another_row(visitors, person):
    """A filter over relations would tell, letter by letter, what is not shown."""
    asked = 0
    for model in admin.site._registry:
        page = reverse(f"admin:{model._meta.app_label}_{model._meta.model_name}_changelist")
        if visitors.send(person, "GET", page).status != 200:
            continue
        for lookup in (
            "envoy__patients__name__startswith",
            "envoy__users__password__startswith",
            "user__password__startswith",
            "started_by__password__startswith",
            "run__participants__snapshot__envoy__users__email__startswith",
        ):
            answer = visitors.send(person, "GET", f"{page}?{lookup}=a")
            assert answer.status in (400, 404) or answer.location.endswith("?e=1"), (page, lookup)
            asked += 1
    assert asked > 20
