"""Lockouts and throttles hold for all web processes together, in production as it is run."""

import json
import os
import secrets
import socket
import subprocess
import sys
import time
import urllib.error
import urllib.request
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from email.message import Message
from pathlib import Path

import pytest

from tests.journeys.services import database_url, redis_url  # noqa: F401  (fixtures)

pytestmark = [pytest.mark.journey, pytest.mark.services]

ROOT = Path(__file__).parents[2]
PASSWORD = "correct horse battery staple"
TLS = {"X-Forwarded-Proto": "https", "Host": "techlife.example.org"}


def environment_of(folder: Path, database: str, broker: str) -> dict[str, str]:
    keys = ("SECRET_KEY", "TECHLIFE_FIELD_KEY", "TECHLIFE_NAME_INDEX_KEY")
    return {
        **os.environ,
        **{key: secrets.token_urlsafe(48) for key in keys},
        "TECHLIFE_MODE": "production",
        "TECHLIFE_DATA_DIR": str(folder),
        "TECHLIFE_ALLOWED_HOSTS": TLS["Host"],
        "TECHLIFE_RATES": "register=3/hour",
        "TECHLIFE_LOG_LEVEL": "ERROR",
        "DATABASE_URL": database,
        "REDIS_URL": broker,
    }


@contextmanager
def serving(environment: dict[str, str]) -> Iterator[str]:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    server = subprocess.Popen(
        [sys.executable, "-m", "gunicorn", "techlife.wsgi", f"--bind=127.0.0.1:{port}"],
        cwd=ROOT,
        env=environment,
    )
    try:
        deadline = time.monotonic() + 60
        while server.poll() is None and time.monotonic() < deadline:
            with socket.socket() as probe:
                if probe.connect_ex(("127.0.0.1", port)) == 0:
                    break
            time.sleep(0.1)
        yield f"http://127.0.0.1:{port}"
    finally:
        server.terminate()
        server.wait(30)


def manage(environment: dict[str, str], *arguments: str) -> None:
    subprocess.run([sys.executable, "manage.py", *arguments], cwd=ROOT, env=environment, check=True)


@dataclass
class Answer:
    status: int
    type: str
    headers: Message


def post(site: str, path: str, **body: str) -> Answer:
    headers = {**TLS, "Content-Type": "application/json"}
    asked = urllib.request.Request(f"{site}{path}", json.dumps(body).encode(), headers)
    try:
        with urllib.request.urlopen(asked, timeout=30) as response:
            return Answer(response.status, "", response.headers)
    except urllib.error.HTTPError as refused:
        with refused:
            return Answer(refused.code, json.load(refused)["type"], refused.headers)


def test_two_processes_count_together(tmp_path: Path, database_url: str, redis_url: str) -> None:  # noqa: F811
    environment = environment_of(tmp_path, database_url, redis_url)
    manage(environment, "migrate", "--verbosity=0")
    environment["DJANGO_SUPERUSER_PASSWORD"] = PASSWORD
    manage(
        environment,
        "createsuperuser",
        "--no-input",
        "--username=first",
        "--email=first@example.org",
        "--verbosity=0",
    )
    with ExitStack() as both:
        sites = [both.enter_context(serving(environment)) for _ in range(2)]
        # Who runs the federation is asked for the second step.
        answer = post(sites[0], "/api/v1/token", username="first", password=PASSWORD)
        assert (answer.status, answer.type) == (401, "otp_required")

        answers = [
            post(sites[n % 2], "/api/login", username="first", password="wrong") for n in range(5)
        ]
        assert [each.status for each in answers] == [401] * 4 + [429]
        for site in sites:
            answer = post(site, "/api/v1/token", username="first", password=PASSWORD)
            assert (answer.status, answer.type) == (429, "locked_out")
            assert int(answer.headers["Retry-After"]) > 800

        account = {"email": "n@example.org", "role": "doctor", "password": PASSWORD}
        answers = [
            post(sites[n % 2], "/api/v1/account", username=f"name{n}", **account) for n in range(4)
        ]
        assert [each.status for each in answers] == [201] * 3 + [429]
        assert answers[3].type == "throttled"
