"""Asking for an account, logging in and out, a new password, and pages that say what went wrong."""

import pytest
from django.core.management import call_command
from django.test import Client
from django.urls import reverse
from rest_framework_simplejwt.token_blacklist.models import OutstandingToken
from rest_framework_simplejwt.tokens import RefreshToken

from envoys.access import Capability, may
from envoys.account_services import register_account
from envoys.errors import AccountRefusedError
from envoys.models import AuditEvent, User
from techlife import views
from tests.factories import PASSWORD, make_user

pytestmark = [pytest.mark.django_db, pytest.mark.filterwarnings("ignore:No directory at")]

WISHES = {
    "username": "amina",
    "role": User.Role.DOCTOR,
    "email": "amina@hospital.example",
    "phone": "",
    "password": PASSWORD,
    "password_again": PASSWORD,
}


def test_an_account_asked_for_cannot_log_in_before_it_is_active(client):
    response = client.post(reverse("account-register"), WISHES, follow=True)
    assert response.redirect_chain == [(reverse("account-registered"), 302)]
    assert "waits for an administrator" in response.content.decode()
    user = User.objects.get()
    assert (user.is_active, user.role, user.envoy) == (False, User.Role.DOCTOR, None)
    assert AuditEvent.objects.get().action == "asked for an account"
    credentials = {"username": "amina", "password": PASSWORD}
    refused = client.post(reverse("login"), credentials).content.decode()
    unknown = client.post(reverse("login"), {**credentials, "username": "nobody"}).content.decode()
    advice = "Please enter a correct username and password"
    assert advice in refused
    assert advice in unknown  # who tries names does not learn which there are
    User.objects.update(is_active=True)
    assert client.post(reverse("login"), credentials).status_code == 302


@pytest.mark.parametrize(
    ("wrong", "advice"),
    [
        ({"role": User.Role.ADMINISTRATOR}, "Select a valid choice"),
        ({"password": "short", "password_again": "short"}, "too short"),
        ({"password_again": "another one"}, "The two passwords differ"),
        ({"username": "taken"}, "already exists"),
        ({"username": "a b"}, "Enter a valid username"),
        ({"email": ""}, "This field is required"),
    ],
)
def test_what_is_wrong_with_a_wish_is_said_next_to_the_field_and_nothing_is_stored(
    client, wrong, advice
):
    make_user(username="taken")
    response = client.post(reverse("account-register"), WISHES | wrong)
    assert response.status_code == 200
    assert advice in response.content.decode()
    assert User.objects.count() == 1


def test_who_is_logged_in_needs_no_account(client):
    client.force_login(make_user())
    assert client.get(reverse("account-register")).headers["Location"] == reverse("home")


def test_logging_in_and_out_is_audited_once_each(client):
    user = make_user(username="amina")
    client.post(reverse("login"), {"username": "amina", "password": "wrong"})
    client.post(reverse("login"), {"username": "amina", "password": PASSWORD})
    client.post(reverse("logout"))
    client.post(reverse("logout"))
    events = AuditEvent.objects.filter(user=user).values_list("action", flat=True)
    assert list(events) == ["logged out", "logged in"]


def test_a_new_password_keeps_this_session_and_ends_every_other_and_the_tokens(client):
    user, elsewhere = make_user(), Client()
    for each in (client, elsewhere):
        each.force_login(user)
    RefreshToken.for_user(user)
    url, new = reverse("password_change"), "another long password"
    values = {"old_password": PASSWORD, "new_password1": new, "new_password2": new}
    response = client.post(url, values | {"old_password": "wrong"})
    assert "This is not your password." in response.content.decode()
    response = client.post(url, values, follow=True)
    assert response.redirect_chain == [(reverse("password_change_done"), 302)]
    assert "Your password is changed" in response.content.decode()
    assert elsewhere.get(url).status_code == 302
    assert OutstandingToken.objects.get().blacklistedtoken
    assert [event.action for event in AuditEvent.objects.order_by("pk")] == [
        "refused: change password",
        "changed password",
    ]
    user.refresh_from_db()
    assert user.check_password(new)


def test_the_admins_own_pages_for_it_lead_to_the_sites(client):
    client.force_login(make_user(User.Role.ADMINISTRATOR))
    response = client.get(reverse("admin:password_change"))
    assert response.headers["Location"] == reverse("password_change")
    assert client.post(reverse("admin:logout")).headers["Location"] == reverse("login")
    assert AuditEvent.objects.get().action == "logged out"


def test_an_unknown_call_answers_in_the_calls_shape_and_an_unknown_page_with_a_page(client):
    response = client.get("/api/v1/nothing")
    assert response.status_code == 404
    assert response.json()["type"] == "not_found"
    response = client.get("/nothing/")
    assert response.status_code == 404
    assert "There is no such page" in response.content.decode()


def test_the_page_for_an_error_needs_no_database(rf, django_assert_num_queries):
    with django_assert_num_queries(0):
        page, call = (views.server_error(rf.get(path)) for path in ("/", "/api/v1/envoys"))
    assert (page.status_code, call.status_code) == (500, 500)
    assert "Something went wrong here" in page.content.decode()
    assert b'"type": "error"' in call.content


def test_the_first_account_of_an_installation_is_an_administrators(monkeypatch):
    monkeypatch.setenv("DJANGO_SUPERUSER_PASSWORD", PASSWORD)
    call_command("createsuperuser", "--no-input", username="first", email="first@example.org")
    first = User.objects.get(username="first")
    assert first.role == User.Role.ADMINISTRATOR
    assert may(first, Capability.ACCOUNTS)


@pytest.mark.parametrize(
    ("username", "words"),
    [
        ("d\u043ec", "letters from a to z"),  # a Cyrillic o
        ("DOC", "already exists"),
        ("doc", "already exists"),
    ],
)
def test_a_name_that_looks_like_anothers_is_refused(username, words):
    make_user(username="doc")
    with pytest.raises(AccountRefusedError) as refused:
        register_account(
            username=username,
            password="a longer horse battery",
            email="d@example.org",
            role="doctor",
        )
    assert words in " ".join(refused.value.problems["username"])
