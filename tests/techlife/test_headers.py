"""What every answer tells a browser: a strict policy, on pages, errors, calls and the admin."""

import pytest
from django.test import Client, override_settings
from django.urls import reverse

from envoys.models import User
from tests.factories import make_user

pytestmark = [pytest.mark.django_db, pytest.mark.filterwarnings("ignore:No directory at")]

# ReDoc writes its style sheet from a script.
LESS_STRICT = {"/redoc": "style-src 'self' 'unsafe-inline'"}
PATHS = (
    "/login/",
    "/register/",
    "/account/",
    "/account/two-step/",
    "/account/tokens/new/",
    "/federation/",
    "/runs/",
    "/admin/",
    "/admin/envoys/user/",
    "/docs",
    "/redoc",
    "/nothing/",
    "/api/v1/me",
    "/api/v1/nothing",
    "/healthz",
)


def policy_of(response) -> dict[str, str]:
    parts = response.headers["Content-Security-Policy"].split(";")
    return {name: rest for name, _, rest in (part.strip().partition(" ") for part in parts)}


def assert_strict(response, path: str = "") -> None:
    policy = policy_of(response)
    assert policy["default-src"] == "'none'", path
    for name in ("script-src", "connect-src", "form-action", "font-src"):
        assert policy[name] == "'self'", (path, name)
    assert policy["frame-ancestors"] == policy["base-uri"] == "'none'", path
    assert policy["img-src"] == "'self' data:", path
    if path in LESS_STRICT:
        assert f"style-src {policy['style-src']}" == LESS_STRICT[path]
    else:
        assert policy["style-src"] == "'self'", path
    assert response.headers["X-Content-Type-Options"] == "nosniff", path
    assert response.headers["X-Frame-Options"] == "DENY", path
    assert response.headers["Referrer-Policy"] == "same-origin", path
    assert response.headers["Cross-Origin-Opener-Policy"] == "same-origin", path
    assert "camera=()" in response.headers["Permissions-Policy"], path


@pytest.mark.parametrize("role", ["", User.Role.ADMINISTRATOR])
def test_every_kind_of_answer_has_them(role):
    client = Client()
    if role:
        client.force_login(make_user(role))
    for path in PATHS:
        assert_strict(client.get(path), path)


def test_a_refusal_and_a_bug_have_them(monkeypatch):
    client = Client(enforce_csrf_checks=True, raise_request_exception=False)
    refused = client.post(reverse("login"), {"username": "x"})
    assert refused.status_code == 403
    assert_strict(refused)
    answered = client.post("/predict", "{}", content_type="application/json")
    assert_strict(answered)

    def fail(*args, **kwargs):
        raise RuntimeError

    monkeypatch.setattr("envoys.sessions.begin_session", fail)
    user = make_user()
    from tests.factories import PASSWORD

    client.handler.enforce_csrf_checks = False
    broken = client.post(reverse("login"), {"username": user.username, "password": PASSWORD})
    assert broken.status_code == 500
    assert_strict(broken)


def test_behind_tls_browsers_are_told_to_stay_there():
    with override_settings(
        SECURE_HSTS_SECONDS=31_536_000,
        SECURE_HSTS_INCLUDE_SUBDOMAINS=True,
        SECURE_HSTS_PRELOAD=True,
        SECURE_SSL_REDIRECT=True,
        SECURE_PROXY_SSL_HEADER=("HTTP_X_FORWARDED_PROTO", "https"),
        SESSION_COOKIE_NAME="__Host-sessionid",
        CSRF_COOKIE_NAME="__Host-csrftoken",
        SESSION_COOKIE_SECURE=True,
        CSRF_COOKIE_SECURE=True,
    ):
        plain = Client().get(reverse("login"))
        assert (plain.status_code, plain.headers["Location"][:8]) == (301, "https://")
        tls = {"X-Forwarded-Proto": "https", "Host": "testserver"}
        client = Client(headers=tls, enforce_csrf_checks=True)
        page = client.get(reverse("login"))
        assert page.headers["Strict-Transport-Security"] == (
            "max-age=31536000; includeSubDomains; preload"
        )
        from tests.factories import PASSWORD

        body = {
            "username": make_user().username,
            "password": PASSWORD,
            "csrfmiddlewaretoken": page.context["csrf_token"],
        }
        headers = {"Referer": "https://testserver/login/"}
        response = client.post(reverse("login"), body, headers=headers)
        assert response.status_code == 302
        for name in ("__Host-sessionid", "__Host-csrftoken"):
            cookie = response.cookies[name]
            assert cookie["secure"]
            assert cookie["path"] == "/"
            assert not cookie["domain"]
            assert cookie["samesite"] == "Lax"
        assert response.cookies["__Host-sessionid"]["httponly"]
        assert client.get(reverse("password_change")).status_code == 200


@pytest.mark.parametrize("proto", ["http", "https"])
def test_a_host_that_is_not_ours_is_refused_with_them(proto):
    with override_settings(
        SECURE_SSL_REDIRECT=True,
        SECURE_PROXY_SSL_HEADER=("HTTP_X_FORWARDED_PROTO", "https"),
        ALLOWED_HOSTS=["techlife.example.org"],
    ):
        headers = {"Host": "elsewhere.example", "X-Forwarded-Proto": proto}
        answer = Client().get(reverse("login"), headers=headers)
    assert answer.status_code == 400
    assert policy_of(answer)["default-src"] == "'none'"
    assert answer.headers["X-Frame-Options"] == "DENY"
