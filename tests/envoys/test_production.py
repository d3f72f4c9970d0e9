"""Production settings, read in a process of their own as an installation reads them."""

import json
import os
import secrets
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

ROOT = Path(__file__).parents[2]
GOOD = {
    "TECHLIFE_MODE": "production",
    "SECRET_KEY": secrets.token_urlsafe(48),
    "TECHLIFE_FIELD_KEY": secrets.token_urlsafe(48),
    "TECHLIFE_NAME_INDEX_KEY": secrets.token_urlsafe(48),
    "DATABASE_URL": "postgres://techlife@localhost:1/none",
    "REDIS_URL": "redis://localhost:1/0",
    "TECHLIFE_ALLOWED_HOSTS": "techlife.example.org",
}
SHOWN = (
    "SESSION_COOKIE_NAME",
    "CSRF_COOKIE_NAME",
    "SESSION_COOKIE_SECURE",
    "CSRF_COOKIE_SECURE",
    "SESSION_COOKIE_HTTPONLY",
    "CSRF_COOKIE_HTTPONLY",
    "SESSION_COOKIE_SAMESITE",
    "SECURE_HSTS_SECONDS",
    "SECURE_SSL_REDIRECT",
    "REQUIRE_TOTP",
    "RATES",
)


def run(*arguments: str, **changed: str | None) -> "subprocess.CompletedProcess[str]":
    mine = {name: value for name, value in (GOOD | changed).items() if value is not None}
    of_system = {name: os.environ[name] for name in ("PATH", "HOME") if name in os.environ}
    return subprocess.run(
        [sys.executable, *arguments],
        cwd=ROOT,
        env=of_system | mine,
        capture_output=True,
        text=True,
        timeout=120,
    )


def settings_of_production(**changed: str | None) -> dict[str, Any]:
    code = (
        "import json; from techlife import settings as s;"
        f" print(json.dumps({{name: getattr(s, name) for name in {SHOWN!r}}}))"
    )
    done = run("-c", code, **changed)
    assert done.returncode == 0, done.stderr
    found: dict[str, Any] = json.loads(done.stdout)
    return found


def test_djangos_check_of_a_deployment_has_nothing_to_say():
    done = run("-W", "error", "manage.py", "check", "--deploy", "--fail-level", "INFO")
    assert done.returncode == 0, done.stdout + done.stderr
    assert "no issues (0 silenced)" in done.stdout


def test_cookies_are_for_this_host_over_tls_alone_and_two_steps_are_asked():
    found = settings_of_production()
    assert found["SESSION_COOKIE_NAME"] == "__Host-sessionid"
    assert found["CSRF_COOKIE_NAME"] == "__Host-csrftoken"
    for name in SHOWN[2:6]:
        assert found[name] is True, name
    assert found["SESSION_COOKIE_SAMESITE"] == "Lax"
    assert found["SECURE_HSTS_SECONDS"] == 31_536_000
    assert found["SECURE_SSL_REDIRECT"] is True
    assert found["REQUIRE_TOTP"] is True
    assert settings_of_production(TECHLIFE_REQUIRE_TOTP="false")["REQUIRE_TOTP"] is False


@pytest.mark.parametrize(
    ("variable", "value", "advice"),
    [
        ("SECRET_KEY", None, "must be set in production"),
        ("SECRET_KEY", "", "must be set in production"),
        ("SECRET_KEY", "short-but-mixed-3f9a1", "has fewer than 32 characters"),
        ("SECRET_KEY", "django-insecure-" + "3f9a1c7e" * 6, "is a default or an example"),
        ("SECRET_KEY", "change-me-" + "3f9a1c7e" * 6, "is a default or an example"),
        ("SECRET_KEY", "this-is-my-SECRET-key-0123456789abcdef", "is a default or an example"),
        ("SECRET_KEY", "abcabcabc" * 8, "is a default or an example"),
        ("TECHLIFE_FIELD_KEY", None, "must be set in production"),
        ("TECHLIFE_FIELD_KEY", "change-me-" + "3f9a1c7e" * 6, "is a default or an example"),
        ("TECHLIFE_NAME_INDEX_KEY", None, "must be set in production"),
        ("TECHLIFE_NAME_INDEX_KEY", "9q-Zr", "has fewer than 32 characters"),
    ],
)
def test_it_does_not_start_with_a_secret_that_others_know(variable, value, advice):
    done = run("-c", "import techlife.settings", **{variable: value})
    assert done.returncode != 0
    assert variable in done.stderr.splitlines()[-1]
    assert advice in done.stderr.splitlines()[-1]
    assert not value or value not in done.stderr


@pytest.mark.parametrize(
    ("changed", "words"),
    [
        ({"SECRET_KEY": GOOD["TECHLIFE_FIELD_KEY"]}, "must differ"),
        ({"TECHLIFE_DEBUG": "true"}, "shows settings and rows to strangers"),
        ({"TECHLIFE_ALLOWED_HOSTS": None}, "TECHLIFE_ALLOWED_HOSTS must be set"),
    ],
)
def test_it_does_not_start_with_what_would_open_it_to_others(changed, words):
    done = run("-c", "import techlife.settings", **changed)
    assert done.returncode != 0
    assert words in done.stderr.splitlines()[-1]


LISTS = {
    "TECHLIFE_FIELD_KEYS": "TECHLIFE_FIELD_KEY",
    "TECHLIFE_NAME_INDEX_KEYS": "TECHLIFE_NAME_INDEX_KEY",
}


@pytest.mark.parametrize("variable", [*LISTS, "SECRET_KEY_FALLBACKS"])
def test_a_weak_old_key_is_told_of_and_can_be_left_behind(variable):
    changed: dict[str, str | None] = {variable: f"{secrets.token_urlsafe(48)},weak-one"}
    if variable in LISTS:
        changed[LISTS[variable]] = None
    done = run("-c", "import techlife.settings", **changed)
    assert done.returncode == 0
    assert f"of an older key: {variable} has fewer than 32 characters" in done.stderr
    assert "weak-one" not in done.stderr


@pytest.mark.parametrize(("variable", "single"), LISTS.items())
def test_a_weak_key_that_is_in_use_is_refused_in_a_list_too(variable, single):
    value = f"weak-one,{secrets.token_urlsafe(48)}"
    done = run("-c", "import techlife.settings", **{variable: value, single: None})
    assert done.returncode != 0
    assert f"{variable} has fewer than 32 characters" in done.stderr


@pytest.mark.parametrize(("variable", "single"), LISTS.items())
def test_a_key_beside_a_list_of_keys_is_not_left_out_in_silence(variable, single):
    done = run("-c", "import techlife.settings", **{variable: secrets.token_urlsafe(48)})
    assert done.returncode != 0
    assert f"{variable} and {single} are both set" in done.stderr


@pytest.mark.parametrize("variable", ["DATABASE_URL", "REDIS_URL"])
def test_it_does_not_start_without_its_services(variable):
    done = run("-c", "import techlife.settings", **{variable: None})
    assert f"{variable} must be set in production" in done.stderr


@pytest.mark.parametrize(
    "rates", ["login=often", "login=0/minute", "nothing=1/minute", "login=1/m"]
)
def test_a_rate_that_is_none_is_refused_with_what_it_takes(rates):
    done = run("-c", "import techlife.settings", TECHLIFE_RATES=rates)
    assert "as login=60/minute" in done.stderr
    assert settings_of_production(TECHLIFE_RATES="login=5/hour")["RATES"]["login"] == "5/hour"
