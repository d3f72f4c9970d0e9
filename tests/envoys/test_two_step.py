"""The second step of a login: who owes it, what is open before it, and how it is set up and ended."""

import re
import time
from base64 import b32decode
from datetime import timedelta

import pytest
from django.db import connection
from django.test import Client
from django.urls import reverse
from django.utils import timezone
from django_otp.oath import TOTP

from envoys import two_step
from envoys.models import AuditEvent, TwoStepDevice, User
from tests.api import Program
from tests.factories import PASSWORD, make_envoy, make_user

pytestmark = [pytest.mark.django_db, pytest.mark.filterwarnings("ignore:No directory at")]

RUN_IT = [User.Role.DATA_SCIENTIST, User.Role.ADMINISTRATOR]


def code_of(device: TwoStepDevice) -> str:
    """What the app shows; a step later than the newest one taken, as if 30 seconds had passed."""
    device.refresh_from_db()
    totp = TOTP(b32decode(device.secret))
    totp.time = time.time()
    totp.drift = max(0, device.last_step + 1 - totp.t())
    return f"{totp.token():06d}"


def wrong_code_of(device: TwoStepDevice) -> str:
    near = set()
    for drift in range(-3, 4):
        near.add(TOTP(b32decode(device.secret), drift=drift).token())
    return next(f"{number:06d}" for number in range(10) if number not in near)


def with_device(user: User) -> tuple[TwoStepDevice, list[str]]:
    device = two_step.device_to_set_up(user)
    codes = two_step.turn_on(user, code_of(device))
    user.refresh_from_db()
    # Both codes that a clock's tolerance allows are free again, so that a test need not wait.
    TwoStepDevice.objects.filter(pk=device.pk).update(last_step=-1)
    device.refresh_from_db()
    return device, codes


class Browser(Client):
    landed = ""  # where the password led to


def give_password(user: User, next_url: str = "") -> Browser:
    client = Browser()
    body = {"username": user.username, "password": PASSWORD, "next": next_url}
    response = client.post(reverse("login"), body)
    assert response.status_code == 302
    client.landed = response.headers["Location"]
    return client


def no_more_waiting(device: TwoStepDevice) -> None:
    TwoStepDevice.objects.filter(pk=device.pk).update(
        throttling_failure_timestamp=timezone.now() - timedelta(days=1)
    )


# Who owes it


@pytest.mark.parametrize("role", User.Role.values)
def test_in_production_who_runs_the_federation_sets_it_up_within_the_login(role, settings):
    settings.REQUIRE_TOTP = True
    client = give_password(make_user(role))
    is_needed = role in RUN_IT
    assert client.landed == reverse("login-set-up" if is_needed else "home")


@pytest.mark.parametrize("role", RUN_IT)
def test_embedded_nobody_is_asked(role):
    assert give_password(make_user(role)).landed == reverse("home")


def test_a_password_alone_opens_nothing_but_the_second_step(settings):
    settings.REQUIRE_TOTP = True
    fresh, known = make_user(User.Role.ADMINISTRATOR), make_user(User.Role.ADMINISTRATOR)
    with_device(known)
    for user, step in ((fresh, "login-set-up"), (known, "login-code")):
        client = give_password(user)
        for page in (
            "home",
            "training:run-list",
            "admin:index",
            "password_change",
            "account-security",
        ):
            assert client.get(reverse(page)).headers["Location"].startswith(reverse("login"))
        assert client.get("/api/v1/me").status_code == 401
        assert client.post("/api/v1/runs").status_code == 401
        assert client.get(reverse(step)).status_code == 200
        assert client.post(reverse("logout")).status_code == 302
        assert client.get(reverse(step)).headers["Location"] == reverse("login")
    assert not AuditEvent.objects.filter(action="logged in").exists()


def test_without_a_password_there_is_no_second_step():
    for page in ("login-code", "login-set-up"):
        assert Client().get(reverse(page)).headers["Location"] == reverse("login")
        assert Client().post(reverse(page), {"code": "123456"}).status_code == 302


# Set-up


def test_set_up_within_a_login_ends_in_the_session_and_shows_recovery_codes_once(settings):
    settings.REQUIRE_TOTP = True
    user = make_user(User.Role.DATA_SCIENTIST)
    client = give_password(user, next_url=reverse("training:run-list"))
    page = client.get(reverse("login-set-up")).content.decode()
    device = TwoStepDevice.objects.get(user=user)
    assert "data:image/svg+xml;base64," in page
    assert device.secret in page.replace(" ", "")
    assert device.secret in client.get(reverse("login-set-up")).content.decode().replace(" ", "")
    response = client.post(reverse("login-set-up"), {"code": wrong_code_of(device)})
    assert "This code is wrong" in response.content.decode()
    assert not two_step.is_on(user)
    no_more_waiting(device)
    response = client.post(reverse("login-set-up"), {"code": code_of(device)})
    codes = re.findall(r"<code>([0-9a-f-]{19})</code>", response.content.decode())
    assert len(set(codes)) == 10
    assert f'href="{reverse("training:run-list")}"' in response.content.decode()
    assert response.headers["Cache-Control"].startswith("max-age=0")
    assert client.get(reverse("training:run-list")).status_code == 200
    assert client.get(reverse("account-security")).content.decode().count(codes[0]) == 0
    actions = AuditEvent.objects.filter(user=user).values_list("action", flat=True)
    assert {"turned on two-step login", "logged in"} <= set(actions)


def test_a_doctor_may_have_it_and_every_other_login_ends_then():
    user = make_user(envoy=make_envoy())
    here, elsewhere = give_password(user), give_password(user)
    program = Program(user)
    here.get(reverse("two-step-set-up"))
    device = TwoStepDevice.objects.get(user=user)
    response = here.post(reverse("two-step-set-up"), {"code": code_of(device)})
    assert "Keep these recovery codes" in response.content.decode()
    assert here.get(reverse("account-security")).status_code == 200
    assert elsewhere.get(reverse("account-security")).status_code == 302
    program.get("/api/v1/me", 401)
    assert give_password(user).landed == reverse("login-code")
    assert here.get(reverse("two-step-set-up")).headers["Location"] == reverse("account-security")


def test_what_the_database_holds_lets_nobody_in():
    device, codes = with_device(make_user())
    with connection.cursor() as cursor:
        cursor.execute("SELECT * FROM envoys_twostepdevice")
        stored = str(cursor.fetchall())
    assert device.secret not in stored
    assert b32decode(device.secret).hex() not in stored
    assert codes[0] not in stored
    assert codes[0].replace("-", "") not in stored


# The step itself


def test_the_right_code_logs_in_once_and_leads_to_where_one_wanted():
    user = make_user(User.Role.DATA_SCIENTIST)
    device, _ = with_device(user)
    client = give_password(user, next_url=reverse("training:run-list"))
    code = code_of(device)
    response = client.post(reverse("login-code"), {"code": f"{code[:3]} {code[3:]}"})
    assert response.headers["Location"] == reverse("training:run-list")
    assert client.get(reverse("training:run-list")).status_code == 200
    assert AuditEvent.objects.filter(user=user, action="logged in").count() == 1
    again = give_password(user)
    response = again.post(reverse("login-code"), {"code": code})
    assert "has been used" in response.content.decode()
    assert again.get(reverse("home")).headers["Location"].startswith(reverse("login"))


def test_one_is_not_led_to_another_site():
    user = make_user()
    device, _ = with_device(user)
    client = give_password(user, next_url="https://elsewhere.example/")
    response = client.post(reverse("login-code"), {"code": code_of(device)})
    assert response.headers["Location"] == reverse("home")


def test_each_recovery_code_serves_once_instead():
    user = make_user()
    device, codes = with_device(user)
    for code in (codes[0].upper(), codes[1].replace("-", "")):
        client = give_password(user)
        assert client.post(reverse("login-code"), {"code": code}).status_code == 302
        assert client.get(reverse("account-security")).status_code == 200
    assert "8 recovery codes left" in client.get(reverse("account-security")).content.decode()
    client = give_password(user)
    response = client.post(reverse("login-code"), {"code": codes[0]})
    assert "This code is wrong" in response.content.decode()
    no_more_waiting(device)


def test_after_a_wrong_code_the_next_waits():
    user = make_user()
    device, _ = with_device(user)
    client = give_password(user)
    client.post(reverse("login-code"), {"code": wrong_code_of(device)})
    response = client.post(reverse("login-code"), {"code": code_of(device)})
    assert "try again in 1 second" in response.content.decode()
    no_more_waiting(device)
    assert client.post(reverse("login-code"), {"code": code_of(device)}).status_code == 302
    refused = AuditEvent.objects.filter(action="refused: second step of a login")
    assert [event.target for event in refused] == [f"user:{user.pk}"]


def test_wrong_codes_lock_as_wrong_passwords_do_and_a_right_password_does_not_forgive_them(
    settings,
):
    settings.AXES_ENABLED = True
    user = make_user()
    device, _ = with_device(user)
    for _ in range(4):
        client = give_password(user)  # begins anew, as who guesses would
        response = client.post(reverse("login-code"), {"code": wrong_code_of(device)})
        assert response.status_code == 200
        no_more_waiting(device)
    response = client.post(reverse("login-code"), {"code": wrong_code_of(device)})
    assert response.status_code == 429
    no_more_waiting(device)
    response = client.post(reverse("login-code"), {"code": code_of(device)})
    assert response.status_code == 429
    assert int(response.headers["Retry-After"]) > 800
    assert AuditEvent.objects.filter(action="locked out", target=f"user:{user.pk}").count() == 1
    assert client.get(reverse("home")).headers["Location"].startswith(reverse("login"))


def test_the_second_step_does_not_wait_for_ever_nor_outlive_a_new_password(monkeypatch):
    user = make_user()
    device, _ = with_device(user)
    client = give_password(user)
    user.set_password("another long password")
    user.save()
    response = client.post(reverse("login-code"), {"code": code_of(device)})
    assert response.headers["Location"] == reverse("login")
    user.set_password(PASSWORD)
    user.save()
    client = give_password(user)
    later = time.time() + 601
    monkeypatch.setattr("envoys.sessions.time.time", lambda: later)
    assert client.get(reverse("login-code")).headers["Location"] == reverse("login")


# Turning it off, new codes, and a lost phone


def test_turning_it_off_takes_the_password_and_a_code():
    user = make_user()
    device, _ = with_device(user)
    client = give_password(user)
    client.post(reverse("login-code"), {"code": code_of(device)})
    url = reverse("two-step-turn-off")
    response = client.post(url, {"password": "wrong", "code": code_of(device)})
    assert "This is not your password" in response.content.decode()
    response = client.post(url, {"password": PASSWORD, "code": wrong_code_of(device)})
    assert "This code is wrong" in response.content.decode()
    assert two_step.is_on(user)
    no_more_waiting(device)
    assert client.post(url, {"password": PASSWORD, "code": code_of(device)}).status_code == 302
    assert not two_step.is_on(user)
    assert AuditEvent.objects.filter(user=user, action="turned off two-step login").exists()


def test_where_it_is_needed_it_stays_on(settings):
    settings.REQUIRE_TOTP = True
    user = make_user(User.Role.DATA_SCIENTIST)
    device, _ = with_device(user)
    client = give_password(user)
    client.post(reverse("login-code"), {"code": code_of(device)})
    assert (
        reverse("two-step-turn-off") not in client.get(reverse("account-security")).content.decode()
    )
    body = {"password": PASSWORD, "code": code_of(device)}
    response = client.post(reverse("two-step-turn-off"), body, follow=True)
    assert "logs in by two steps here" in response.content.decode()
    assert two_step.is_on(user)


def test_new_recovery_codes_take_a_code_and_end_the_old_ones():
    user = make_user()
    device, old = with_device(user)
    client = give_password(user)
    client.post(reverse("login-code"), {"code": old[0]})
    response = client.post(reverse("two-step-codes"), {"code": code_of(device)})
    new = re.findall(r"<code>([0-9a-f-]{19})</code>", response.content.decode())
    assert len(new) == 10
    client = give_password(user)
    client.post(reverse("login-code"), {"code": old[1]})
    assert client.get(reverse("account-security")).status_code == 302
    no_more_waiting(device)
    assert client.post(reverse("login-code"), {"code": new[1]}).status_code == 302


def test_an_administrator_resets_it_and_every_login_ends(settings):
    user, administrator = make_user(), make_user(User.Role.ADMINISTRATOR)
    device, _ = with_device(user)
    session = give_password(user)
    session.post(reverse("login-code"), {"code": code_of(device)})
    client = Client()
    client.force_login(administrator)
    body = {"action": "reset_two_step", "_selected_action": [user.pk]}
    client.post(reverse("admin:envoys_user_changelist"), body)
    assert session.get(reverse("account-security")).status_code == 302
    assert give_password(user).landed == reverse("home")
    event = AuditEvent.objects.get(action="reset two-step login")
    assert (event.user, event.target) == (administrator, f"user:{user.pk}")
    page = client.post(reverse("admin:envoys_user_changelist"), body, follow=True)
    assert "Two-step login is not on" in page.content.decode()


def test_when_it_becomes_needed_sessions_and_tokens_without_it_end(settings):
    user = make_user(User.Role.DATA_SCIENTIST)
    client, program = give_password(user), Program(user)
    tokens = (
        Client()
        .post(
            "/api/v1/token",
            {"username": user.username, "password": PASSWORD},
            content_type="application/json",
        )
        .json()
    )
    assert client.get(reverse("training:run-list")).status_code == 200
    settings.REQUIRE_TOTP = True
    response = client.get(reverse("training:run-list"), follow=True)
    assert response.redirect_chain[-1][0].startswith(reverse("login"))
    assert "logs in by two steps now" in response.content.decode()
    assert program.get("/api/v1/me", 401)["type"] == "otp_required"
    response = Client().post(
        "/api/v1/token/refresh", {"refresh": tokens["refresh"]}, content_type="application/json"
    )
    assert (response.status_code, response.json()["type"]) == (401, "otp_required")


# Calls


@pytest.mark.parametrize("path", ["/api/v1/token", "/api/login"])
def test_a_call_sends_the_code_beside_the_password(path, settings):
    settings.REQUIRE_TOTP = True
    user = make_user(User.Role.DATA_SCIENTIST)
    body = {"username": user.username, "password": PASSWORD}

    def ask(**more):
        return Client().post(path, body | more, content_type="application/json")

    answer = ask()
    assert (answer.status_code, answer.json()["type"]) == (401, "otp_required")
    assert "on the site once" in answer.json()["detail"]
    device, codes = with_device(user)
    answer = ask()
    assert (answer.status_code, answer.json()["type"]) == (401, "otp_required")
    assert "as `otp`" in answer.json()["detail"]
    answer = ask(otp=wrong_code_of(device))
    assert (answer.status_code, answer.json()["type"]) == (401, "authentication_failed")
    no_more_waiting(device)
    answer = ask(password="wrong", otp=code_of(device))
    assert answer.json()["type"] == "authentication_failed"
    for code in (code_of(device), codes[0]):
        answer = ask(otp=code)
        assert answer.status_code == 200
    token = answer.json().get("access") or answer.json()["token"]
    me = Client().get("/api/v1/me", headers={"Authorization": f"Bearer {token}"})
    assert me.status_code == 200
    refreshed = Client().post(
        "/api/v1/token/refresh",
        {"refresh": answer.json()["refresh"]},
        content_type="application/json",
    )
    token = refreshed.json()["access"]
    me = Client().get("/api/v1/me", headers={"Authorization": f"Bearer {token}"})
    assert me.status_code == 200


def test_wrong_codes_of_calls_lock_too(settings):
    settings.AXES_ENABLED = True
    user = make_user()
    device, _ = with_device(user)
    body = {"username": user.username, "password": PASSWORD, "otp": wrong_code_of(device)}
    for expected in (401, 401, 401, 401, 429, 429):
        answer = Client().post("/api/v1/token", body, content_type="application/json")
        assert answer.status_code == expected
        no_more_waiting(device)
    assert answer.json()["type"] == "locked_out"
