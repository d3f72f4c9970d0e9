"""Too many wrong passwords or codes: who is locked, from where, what is told, and how it ends."""

from datetime import timedelta
from typing import Any

import pytest
from axes.models import AccessAttempt
from django.test import Client
from django.urls import reverse
from django.utils import timezone

from envoys import lockout
from envoys.models import AuditEvent, User
from envoys.tasks import forget_ended_logins_task
from tests.factories import PASSWORD, make_user

pytestmark = [pytest.mark.django_db, pytest.mark.filterwarnings("ignore:No directory at")]


@pytest.fixture(autouse=True)
def lockouts(settings):
    settings.AXES_ENABLED = True


@pytest.fixture
def amina():
    return make_user(username="amina")


def log_in(name: str = "amina", password: str = PASSWORD, **more: Any):
    return Client().post(reverse("login"), {"username": name, "password": password}, **more)


def call(path: str, name: str = "amina", password: str = PASSWORD, **more: Any):
    body = {"username": name, "password": password}
    return Client().post(path, body, content_type="application/json", **more)


def fail(times: int, name: str = "amina", **more: Any) -> None:
    for _ in range(times):
        log_in(name, "wrong", **more)


def test_after_five_wrong_passwords_the_right_one_is_not_looked_at_either(amina):
    fail(4)
    assert log_in().status_code == 302
    fail(5)
    response = log_in()
    assert response.status_code == 429
    assert 890 <= int(response.headers["Retry-After"]) <= 900
    text = response.content.decode()
    assert "Too many wrong passwords or codes" in text
    assert "Try again in 15 minutes" in text
    assert AuditEvent.objects.filter(action="locked out", target=f"user:{amina.pk}").count() == 1


@pytest.mark.parametrize("path", ["/api/v1/token", "/api/login"])
def test_a_call_is_told_so_in_the_calls_shape(amina, path):
    for _ in range(4):
        assert call(path, password="wrong").status_code == 401
    for password in ("wrong", PASSWORD):
        response = call(path, password=password)
        assert response.status_code == 429
        assert set(response.json()) == {"type", "detail", "errors"}
        assert response.json()["type"] == "locked_out"
        assert 890 <= int(response.headers["Retry-After"]) <= 900


def test_pages_and_calls_count_together(amina):
    fail(3)
    call("/api/v1/token", password="wrong")
    assert call("/api/login", password="wrong").status_code == 429
    assert log_in().status_code == 429
    assert (
        Client()
        .get(reverse("admin:login"), follow=True)
        .redirect_chain[0][0]
        .startswith(reverse("login"))
    )  # the admin has no other door


def test_a_name_that_nobody_has_is_told_the_same_at_the_same_time(amina):
    for name in ("amina", "nobody"):
        assert [log_in(name, "wrong").status_code for _ in range(6)] == [200] * 4 + [429] * 2
    known, unknown = (log_in(name).content.decode() for name in ("amina", "nobody"))
    assert known == unknown
    known, unknown = (call("/api/v1/token", name).json() for name in ("amina", "nobody"))
    assert known == unknown


def test_elsewhere_and_others_are_not_locked(amina):
    make_user(username="ben")
    fail(5)
    assert log_in().status_code == 429
    assert log_in(REMOTE_ADDR="192.0.2.7").status_code == 302
    assert log_in("ben").status_code == 302


def test_a_header_that_anybody_writes_does_not_lead_out_of_the_lock(amina, settings):
    fail(5)
    assert log_in(HTTP_X_FORWARDED_FOR="192.0.2.7").status_code == 429
    settings.NUM_PROXIES = 1
    fail(5, HTTP_X_FORWARDED_FOR="10.0.0.1, 192.0.2.8")
    assert log_in(HTTP_X_FORWARDED_FOR="10.0.0.2, 192.0.2.8").status_code == 429
    assert log_in(HTTP_X_FORWARDED_FOR="192.0.2.8, 192.0.2.9").status_code == 302
    fail(5, HTTP_X_FORWARDED_FOR="no address")
    assert log_in(HTTP_X_FORWARDED_FOR="nor this").status_code == 429


@pytest.mark.parametrize(
    ("hop", "same", "other"),
    [
        ("203.0.113.7:50001", "203.0.113.7", "203.0.113.8:50001"),
        ("[2001:db8::1]:443", "2001:db8::2", "[2001:db8:0:1::1]:443"),
        ("[2001:db8::1]", "[2001:db8::1]:1", "2001:db8:0:1::1"),
    ],
)
def test_a_port_that_a_proxy_writes_beside_an_address_makes_no_other_of_it(
    amina, settings, hop, same, other
):
    settings.NUM_PROXIES = 1
    fail(5, HTTP_X_FORWARDED_FOR=hop)
    assert log_in(HTTP_X_FORWARDED_FOR=same).status_code == 429
    assert log_in(HTTP_X_FORWARDED_FOR=other).status_code == 302


def test_another_browser_is_the_same_address(amina):
    for number in range(5):
        fail(1, HTTP_USER_AGENT=f"browser {number}")
    assert log_in(HTTP_USER_AGENT="another").status_code == 429


def test_waiting_opens_it_and_knocking_does_not_make_it_longer(amina):
    fail(5)
    AccessAttempt.objects.update(attempt_time=timezone.now() - timedelta(minutes=14))
    fail(3)
    assert int(log_in().headers["Retry-After"]) <= 60
    AccessAttempt.objects.update(attempt_time=timezone.now() - timedelta(minutes=16))
    assert log_in().status_code == 302
    assert not AccessAttempt.objects.exists()


def test_an_administrator_unlocks_an_account(amina):
    fail(5)
    assert lockout.is_anywhere_locked(amina)
    administrator = make_user(User.Role.ADMINISTRATOR)
    client = Client()
    client.force_login(administrator)
    url = reverse("admin:envoys_user_change", args=[amina.pk])
    assert 'alt="True"' in client.get(url).content.decode().partition("is_locked")[2][:900]
    response = client.post(
        reverse("admin:envoys_user_changelist"),
        {"action": "unlock", "_selected_action": [amina.pk]},
        follow=True,
    )
    assert "can try again at once" in response.content.decode()
    assert not lockout.is_anywhere_locked(amina)
    event = AuditEvent.objects.get(action="unlocked account")
    assert (event.user, event.target) == (administrator, f"user:{amina.pk}")
    assert log_in().status_code == 302


def test_neither_rows_nor_logs_hold_a_password_or_a_name_that_nobody_has(amina, caplog):
    log_in("amina", "a secret of hers")
    log_in("a secret of hers", "")  # typed into the wrong field
    log_in("a secret of hers", "x")
    call("/api/v1/token", "a secret of hers", "a secret of hers")
    assert AccessAttempt.objects.count() == 2
    assert "a secret of hers" not in str(list(AccessAttempt.objects.values()))
    assert "a secret of hers" not in caplog.text


def test_what_locks_nobody_any_more_is_forgotten_by_the_clock(amina):
    fail(1)
    forget_ended_logins_task()
    assert AccessAttempt.objects.count() == 1
    AccessAttempt.objects.update(attempt_time=timezone.now() - timedelta(minutes=16))
    forget_ended_logins_task()
    assert not AccessAttempt.objects.exists()


def test_what_can_be_no_name_is_refused_as_any_other(amina):
    assert log_in("a\0b").status_code == 200
    assert call("/api/v1/token", "a\0b").status_code == 400


# Who is logged in, and guesses


def old_password(client: Client, password: str, *, page: bool):
    if page:
        new = {"new_password1": "a new long sentence", "new_password2": "a new long sentence"}
        return client.post(reverse("password_change"), {"old_password": password, **new})
    body = {"old_password": password, "new_password": "a new long sentence"}
    return client.post(
        "/api/v1/account/password",
        body,
        content_type="application/json",
        headers={"Idempotency-Key": "one"},  # which would take the count back
    )


@pytest.mark.parametrize("page", [True, False])
def test_guesses_of_the_old_password_lock_and_are_audited(amina, page):
    client = Client()
    client.force_login(amina)
    statuses = [old_password(client, f"guess {n}", page=page).status_code for n in range(6)]
    assert statuses == [200 if page else 400] * 4 + [429] * 2
    assert old_password(client, PASSWORD, page=page).status_code == 429
    assert log_in().status_code == 429
    actions = AuditEvent.objects.filter(action__startswith="refused: change password", user=amina)
    assert actions.count() == 5
    assert AuditEvent.objects.filter(action="locked out").count() == 1
    assert "guess" not in str(list(AccessAttempt.objects.values()))
    assert "a new long sentence" not in str(list(AccessAttempt.objects.values()))


@pytest.mark.parametrize("page", [True, False])
def test_guesses_where_a_token_is_made_lock_too(amina, page):
    client = Client()
    client.force_login(amina)
    body = {"name": "nightly", "actions": ["see envoys"], "days": 90}
    url = reverse("access-token-create") if page else "/api/v1/access-tokens"
    more: dict[str, Any] = {} if page else {"content_type": "application/json"}
    for number in range(5):
        client.post(url, body | {"password": f"guess {number}"}, **more)
    answer = client.post(url, body | {"password": PASSWORD}, **more)
    assert answer.status_code == 429
    assert "guess" not in str(list(AccessAttempt.objects.values()))
