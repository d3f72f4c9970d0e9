"""How often one may ask: by account or address, on pages and in calls, and what is told."""

import pytest
from django.core.cache import caches
from django.test import Client
from django.urls import reverse
from redis.exceptions import ConnectionError as RedisDown

from envoys.throttles import ROUTES, SCOPES
from tests.factories import PASSWORD, make_user
from tests.test_access_table import NAMED

pytestmark = [pytest.mark.django_db, pytest.mark.filterwarnings("ignore:No directory at")]


def test_every_route_that_is_limited_is_there_and_has_a_rate():
    assert set(SCOPES) <= NAMED
    assert sum(len(routes) for routes in ROUTES.values()) == len(SCOPES)


def test_every_scope_has_a_rate_unless_the_installation_says_otherwise():
    from tests.envoys.test_production import settings_of_production

    assert settings_of_production()["RATES"].keys() == ROUTES.keys()


def test_a_call_too_many_answers_when_to_come_again_and_does_nothing(settings):
    settings.RATES = {"register": "2/hour"}
    account = {"email": "n@example.org", "password": PASSWORD, "role": "doctor"}
    answers = [
        Client().post(path, account | {"username": f"name{n}"}, content_type="application/json")
        for n, path in enumerate(("/api/v1/account", "/api/register", "/api/v1/account"))
    ]
    assert [each.status_code for each in answers] == [201, 200, 429]
    assert answers[2].json()["type"] == "throttled"
    assert "nothing was done. Try again in" in answers[2].json()["detail"]
    assert 0 < int(answers[2].headers["Retry-After"]) <= 3600
    page = Client().post(reverse("account-register"), account | {"username": "name4"})
    assert page.status_code == 429
    assert "Try again in 60 minutes" in page.content.decode()
    elsewhere = Client(REMOTE_ADDR="192.0.2.7")
    assert elsewhere.post(reverse("account-register"), account).status_code == 200


def test_names_tried_from_one_address_are_limited_together(settings):
    settings.RATES = {"login": "3/minute"}
    for n in range(3):
        body = {"username": f"name{n}", "password": "x"}
        assert Client().post(reverse("login"), body).status_code == 200
    body = {"username": make_user().username, "password": PASSWORD}
    assert Client().post(reverse("login"), body).status_code == 429
    assert Client().post("/api/v1/token", body, content_type="application/json").status_code == 429
    assert Client().get(reverse("login")).status_code == 200


def test_who_is_logged_in_is_counted_by_account(settings):
    settings.RATES = {"work": "1/minute"}
    ours, theirs = Client(), Client()
    ours.force_login(make_user())
    theirs.force_login(make_user())
    url = reverse("diagnoses:import-create")
    assert ours.post(url).status_code == 200
    assert ours.post(url).status_code == 429
    assert ours.post("/api/v1/imports").status_code == 429
    assert theirs.post(url).status_code == 200
    assert ours.get(url).status_code == 200


def test_a_cache_that_does_not_answer_stops_nobody(settings, monkeypatch):
    settings.RATES = {"login": "1/minute"}

    def refuse(*args):
        raise RedisDown

    monkeypatch.setattr(type(caches["default"]), "get", refuse)
    body = {"username": make_user().username, "password": PASSWORD}
    for _ in range(2):
        assert Client().post(reverse("login"), body).status_code == 302


@pytest.mark.parametrize("path", ["/api/v1/token", "/api/login", "/api/v1/imports"])
def test_the_description_says_which_calls_are_limited(path):
    from drf_spectacular.generators import SchemaGenerator

    paths = SchemaGenerator().get_schema(request=None, public=True)["paths"]
    assert "Retry-After" in paths[path]["post"]["responses"]["429"]["description"]
    assert "429" not in paths["/api/v1/me"]["get"]["responses"]
