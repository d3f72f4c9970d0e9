from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest
import redis
from django.db import OperationalError
from django.test import Client
from django.utils import timezone

from envoys.models import AuditEvent, User, WorkerSign
from envoys.storage import director_storage, write_object
from envoys.workers import record_sign
from techlife import readiness
from tests.factories import make_user

pytestmark = [pytest.mark.django_db, pytest.mark.filterwarnings("ignore:No directory at")]


@pytest.fixture(autouse=True)
def asked_anew(monkeypatch: pytest.MonkeyPatch) -> None:
    readiness._troubles.cache_clear()
    monkeypatch.setattr(readiness, "broker_answers", lambda: True)


@pytest.fixture
def worker() -> WorkerSign:
    record_sign("pool@host", queues=["training"], num_processes=2, started_at=timezone.now())
    return WorkerSign.objects.get()


def ask(**headers: str) -> tuple[int, dict[str, Any]]:
    readiness._troubles.cache_clear()
    answer = Client().get("/readyz", headers=headers)
    return answer.status_code, answer.json()


def test_it_is_ready_when_everything_answers(worker):
    assert ask() == (200, {"ready": True, "troubles": {}})


def test_a_probe_may_ask_by_any_name_and_without_tls(worker, settings):
    settings.ALLOWED_HOSTS = ["techlife.example.org"]
    settings.SECURE_SSL_REDIRECT = True
    settings.SECURE_REDIRECT_EXEMPT = ["^(healthz|readyz|metrics)$"]
    assert ask(host="10.1.2.3:8000")[0] == 200
    assert Client().get("/healthz", headers={"host": "10.1.2.3"}).status_code == 200
    assert Client().get("/login/", headers={"host": "10.1.2.3"}).status_code != 200


def test_whoever_asks_is_not_in_the_audit(worker):
    client = Client()
    client.force_login(make_user(User.Role.ADMINISTRATOR))
    assert client.get("/readyz").status_code == 200
    assert not AuditEvent.objects.exists()


def test_a_broker_that_does_not_answer_is_named(worker, monkeypatch):
    monkeypatch.setattr(readiness, "broker_answers", lambda: False)
    status, body = ask()
    assert (status, list(body["troubles"])) == (503, ["broker"])


def test_the_broker_is_really_asked(monkeypatch):
    from envoys import workers

    def refuse():
        raise redis.ConnectionError("connection refused")

    monkeypatch.setattr(workers, "broker_client", refuse)
    assert not workers.broker_answers()


def test_storage_that_cannot_be_used_is_named_without_its_place(worker, settings, tmp_path):
    write_object(director_storage(), "one.bin", b"1")
    assert ask()[0] == 200
    Path(settings.OBJECT_FOLDER).rename(tmp_path / "aside")
    Path(settings.OBJECT_FOLDER).write_text("a file in its place")
    status, body = ask()
    assert (status, list(body["troubles"])) == (503, ["storage"])
    assert str(tmp_path) not in str(body)


def test_silent_and_missing_workers_are_told_apart(worker):
    silent = timezone.now() - WorkerSign.SILENT_AFTER - timedelta(seconds=1)
    WorkerSign.objects.update(seen_at=silent)
    status, body = ask()
    assert status == 503
    assert "lately" in body["troubles"]["worker"]
    WorkerSign.objects.all().delete()
    assert "yet" in ask()[1]["troubles"]["worker"]


def test_a_database_that_does_not_answer_is_named_without_what_it_says(worker, monkeypatch, caplog):
    def refuse():
        raise OperationalError("connection to host db.example.org, password 3f9a1c7e")

    monkeypatch.setattr(readiness, "_ask_database", refuse)
    status, body = ask()
    assert (status, list(body["troubles"])) == (503, ["database"])
    assert "3f9a1c7e" not in str(body) + caplog.text


def test_while_the_demonstration_prepares_it_is_not_ready(worker, settings, tmp_path):
    settings.PREPARING_FLAG = tmp_path / "preparing"
    settings.PREPARING_FLAG.touch()
    assert list(ask()[1]["troubles"]) == ["site"]


def test_however_many_ask_the_services_are_asked_once_in_a_while(worker, monkeypatch):
    asked = []

    def find_nothing():
        asked.append(1)
        return {}

    monkeypatch.setattr(readiness, "find_troubles", find_nothing)
    monkeypatch.setattr(readiness.time, "monotonic", lambda: 1000.0)
    for _ in range(5):
        Client().get("/readyz")
    assert len(asked) == 1
