"""How long a session lasts, and what ends it and the tokens at once."""

import time
from datetime import timedelta
from importlib import import_module
from typing import Any

import pytest
from django.apps import apps
from django.contrib.sessions.models import Session
from django.test import Client
from django.urls import reverse
from django.utils import timezone
from rest_framework_simplejwt.token_blacklist.models import OutstandingToken
from rest_framework_simplejwt.tokens import RefreshToken

from envoys.models import AuditEvent, User
from envoys.service_tokens import make_token
from envoys.tasks import forget_ended_logins_task
from tests.api import Program
from tests.factories import PASSWORD, make_envoy, make_user

pytestmark = [pytest.mark.django_db, pytest.mark.filterwarnings("ignore:No directory at")]


@pytest.fixture
def later(monkeypatch):
    """Lets time pass for sessions."""
    passed = [0.0]
    real = time.time
    monkeypatch.setattr("envoys.sessions.time.time", lambda: real() + passed[0])

    def wait(seconds: float) -> None:
        passed[0] += seconds

    return wait


def log_in(user: User, client: Client | None = None) -> Client:
    client = client or Client()
    body = {"username": user.username, "password": PASSWORD}
    assert client.post(reverse("login"), body).status_code == 302
    return client


def is_in(client: Client) -> bool:
    return client.get("/api/v1/me").status_code == 200


def test_a_session_that_is_left_alone_ends_in_words(later):
    client = log_in(make_user())
    later(59 * 60)
    assert is_in(client)
    later(59 * 60)
    assert is_in(client)
    later(61 * 60)
    response = client.get(reverse("password_change"), follow=True)
    assert response.redirect_chain == [(f"{reverse('login')}?next=/password/", 302)]
    assert "nothing was done here for 60 minutes" in response.content.decode()
    assert AuditEvent.objects.filter(action="session ended").count() == 1


def test_a_page_that_asks_for_its_own_news_does_not_keep_a_session(later):
    client = log_in(make_user(User.Role.DATA_SCIENTIST))
    for _ in range(3):
        later(25 * 60)
        response = client.get(reverse("envoys:task-list-live"), headers={"HX-Request": "true"})
    assert response.headers.get("HX-Refresh") == "true"


def test_no_session_lasts_longer_than_half_a_day(later):
    client = log_in(make_user())
    for _ in range(23):
        later(30 * 60)
        assert is_in(client)
    later(29 * 60)
    assert is_in(client)
    later(2 * 60)
    assert not is_in(client)


def test_what_is_seen_is_written_down_at_most_once_a_minute(later):
    client = log_in(make_user())
    is_in(client)
    later(50)
    before = Session.objects.get().session_data
    assert is_in(client)
    assert Session.objects.get().session_data == before
    later(20)
    assert is_in(client)
    assert Session.objects.get().session_data != before


def test_a_login_takes_a_new_key():
    client = Client()
    client.get(reverse("login"))
    session = client.session
    session["set"] = "by somebody else"
    session.save()
    before = session.session_key
    client.cookies["sessionid"] = str(before)
    log_in(make_user(), client)
    assert client.cookies["sessionid"].value != before


def everything_of(user: User) -> tuple[Client, Program, str]:
    answer = Client().post(
        "/api/v1/token",
        {"username": user.username, "password": PASSWORD},
        content_type="application/json",
    )
    return log_in(user), Program(user), answer.json()["refresh"]


def what_is_open(client: Client, program: Program, refresh: str) -> list[bool]:
    bearer = program.client.get("/api/v1/me").status_code == 200
    answer = Client().post(
        "/api/v1/token/refresh", {"refresh": refresh}, content_type="application/json"
    )
    return [is_in(client), bearer, answer.status_code == 200]


def account(user: User, **values: Any) -> dict[str, Any]:
    fields = {"username": user.username, "role": user.role, "email": user.email, "is_active": "on"}
    return fields | ({"envoy": user.envoy_id} if user.envoy_id else {}) | values


@pytest.mark.parametrize("change", ["closed", "role", "hospital", "password", "action", "none"])
def test_what_an_administrator_changes_ends_sessions_and_tokens_at_once(change):
    user, other = make_user(), make_envoy()
    mine = everything_of(user)
    administrator = log_in(make_user(User.Role.ADMINISTRATOR))
    url = reverse("admin:envoys_user_change", args=[user.pk])
    body: dict[str, Any]
    if change == "password":
        url = reverse("admin:auth_user_password_change", args=[user.pk])
        new = "another long password"
        body = {"password1": new, "password2": new, "usable_password": "true"}
    elif change == "action":
        url = reverse("admin:envoys_user_changelist")
        body = {"action": "log_out_everywhere", "_selected_action": [user.pk]}
    else:
        changes: dict[str, dict[str, Any]] = {
            "closed": {},
            "role": {"role": User.Role.PUBLIC_HEALTH},
            "hospital": {"envoy": other.pk},
            "none": {"phone": "000"},
        }
        body = account(user, **changes[change])
        if change == "closed":
            del body["is_active"]
    assert administrator.post(url, body).status_code == 302
    assert what_is_open(*mine) == ([True] * 3 if change == "none" else [False] * 3)
    assert is_in(administrator)


@pytest.mark.parametrize("change", ["closed", "role", "hospital", "password", "none"])
def test_what_an_administrator_changes_ends_the_tokens_of_programs_for_good(change):
    user, other = make_user(), make_envoy()
    token, _ = make_token(name="n", user=user, actions=["see envoys"], made_by=user)
    administrator = log_in(make_user(User.Role.ADMINISTRATOR))
    url = reverse("admin:envoys_user_change", args=[user.pk])
    if change == "password":
        url = reverse("admin:auth_user_password_change", args=[user.pk])
        new = "another long password"
        body: dict[str, Any] = {"password1": new, "password2": new, "usable_password": "true"}
    else:
        changes: dict[str, dict[str, Any]] = {
            "closed": {},
            "role": {"role": User.Role.PUBLIC_HEALTH},
            "hospital": {"envoy": other.pk},
            "none": {"phone": "000"},
        }
        body = account(user, **changes[change])
        if change == "closed":
            del body["is_active"]
    assert administrator.post(url, body).status_code == 302
    if change == "closed":
        administrator.post(url, account(user))  # and opened again
    token.refresh_from_db()
    assert token.is_standing is (change == "none")


@pytest.mark.parametrize("page", [True, False])
def test_a_new_password_ends_the_tokens_of_programs_too(page):
    user = make_user()
    token, _ = make_token(name="n", user=user, actions=["see envoys"], made_by=user)
    new, client = "another long password", log_in(user)
    if page:
        body = {"old_password": PASSWORD, "new_password1": new, "new_password2": new}
        client.post(reverse("password_change"), body)
    else:
        body = {"old_password": PASSWORD, "new_password": new}
        client.post("/api/v1/account/password", body, content_type="application/json")
    token.refresh_from_db()
    assert not token.is_standing
    assert AuditEvent.objects.filter(action="revoked access token", user=user).count() == 1


def test_a_person_ends_every_other_login_and_stays_here():
    user = make_user(User.Role.DATA_SCIENTIST)
    mine, here = everything_of(user), log_in(user)
    _, key = make_token(name="n", user=user, actions=["see envoys"], made_by=user)
    page = here.post(reverse("logins-end"), follow=True).content.decode()
    assert "Everywhere else you are logged out now" in page
    assert what_is_open(*mine) == [False] * 3
    assert is_in(here)
    headers = {"Authorization": f"Bearer {key}"}
    assert Client().get("/api/v1/envoys", headers=headers).status_code == 200
    here.post(reverse("logins-end"), {"access_tokens": "on"})
    assert Client().get("/api/v1/envoys", headers=headers).status_code == 401
    assert AuditEvent.objects.filter(user=user, action="ended all logins").count() == 2


def test_a_program_ends_its_persons_logins_and_its_own():
    user = make_user()
    client, program, refresh = everything_of(user)
    program.post("/api/v1/account/end-logins", {}, code=204)
    assert what_is_open(client, program, refresh) == [False] * 3


def test_no_refresh_token_is_kept_and_rotation_goes_on():
    user = make_user()
    body = {"username": user.username, "password": PASSWORD}
    first = Client().post("/api/v1/token", body, content_type="application/json").json()
    send = {"refresh": first["refresh"]}
    second = Client().post("/api/v1/token/refresh", send, content_type="application/json").json()
    assert OutstandingToken.objects.count() == 2
    stored = str(list(OutstandingToken.objects.values()))
    for tokens in (first, second):
        assert tokens["refresh"] not in stored
    assert refreshed(second["refresh"]).status_code == 200


def refreshed(refresh: str):
    body = {"refresh": refresh}
    return Client().post("/api/v1/token/refresh", body, content_type="application/json")


def test_a_refresh_token_that_comes_twice_ends_every_login_of_the_account():
    user = make_user()
    client, program, first = everything_of(user)
    second = refreshed(first).json()["refresh"]
    again = refreshed(first)
    assert again.status_code == 401
    assert "used before" in again.json()["detail"]
    assert what_is_open(client, program, second) == [False] * 3
    assert [refreshed(first).status_code for _ in range(2)] == [401] * 2
    event = AuditEvent.objects.get(action="refused: reused token")
    assert (event.user, event.target) == (None, f"user:{user.pk}")
    # What was ended so does not end the next login.
    client, program, third = everything_of(user)
    assert refreshed(second).status_code == 401
    assert what_is_open(client, program, third) == [True] * 3


def test_what_has_run_out_is_forgotten_by_the_clock():
    user = make_user()
    log_in(user), log_in(user), Program(user), Program(user)
    old_session, old_token = Session.objects.first(), OutstandingToken.objects.first()
    assert old_session is not None
    assert old_token is not None
    past = timezone.now() - timedelta(seconds=1)
    Session.objects.filter(pk=old_session.pk).update(expire_date=past)
    OutstandingToken.objects.filter(pk=old_token.pk).update(expires_at=past)
    forget_ended_logins_task()
    assert Session.objects.count() == 1
    assert OutstandingToken.objects.count() == 1


def test_tokens_that_an_older_version_has_kept_are_blanked():
    migration = import_module("envoys.migrations.0009_forget_refresh_tokens")
    RefreshToken.for_user(make_user())
    assert OutstandingToken.objects.get().token
    migration.blank_tokens(apps, None)
    assert OutstandingToken.objects.get().token == ""
