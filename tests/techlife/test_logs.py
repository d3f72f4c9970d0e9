"""A line of the log says who asked for what, by an id; of a patient it says nothing."""

import io
import json
import logging
from collections.abc import Iterator
from types import SimpleNamespace
from typing import Any

import pytest
from celery import shared_task
from django.core.files.uploadedfile import SimpleUploadedFile
from django.db import IntegrityError, OperationalError
from django.test import Client
from django.urls import reverse

import celery_app
from diagnoses.models import Patient, Upload
from diagnoses.tasks import process_upload_task
from envoys.errors import StorageError
from envoys.models import AuditEvent
from techlife import request_ids
from techlife.logs import JsonFormatter, LineFormatter
from tests.api import Program
from tests.factories import make_user

pytestmark = [pytest.mark.django_db, pytest.mark.filterwarnings("ignore:No directory at")]

CANARY = "Quisquilia"
PHONE = "0998877665"


class Log:
    """All that is logged, at DEBUG, as either format writes it."""

    def __init__(self) -> None:
        self.line, self.json = io.StringIO(), io.StringIO()
        self.plain = io.StringIO()  # as Python would write it

    @property
    def text(self) -> str:
        return self.line.getvalue() + self.json.getvalue()

    def entries(self, logger: str = "") -> list[dict[str, Any]]:
        found = [json.loads(line) for line in self.json.getvalue().splitlines()]
        return [each for each in found if each["logger"].startswith(logger)]


@pytest.fixture
def log() -> Iterator[Log]:
    log = Log()
    root = logging.getLogger()
    handlers = [logging.StreamHandler(each) for each in (log.line, log.json, log.plain)]
    handlers[0].setFormatter(LineFormatter())
    handlers[1].setFormatter(JsonFormatter())
    level = root.level
    root.setLevel(logging.DEBUG)
    for handler in handlers:
        root.addHandler(handler)
    yield log
    for handler in handlers:
        root.removeHandler(handler)
    root.setLevel(level)


def client_of(user: Any = None, **options: Any) -> Client:
    client = Client(raise_request_exception=False, **options)
    if user:
        client.force_login(user)
    return client


def test_a_request_has_one_line_with_its_id_and_without_its_address(log):
    answer = Client().get("/login/?next=/patients/")
    (entry,) = log.entries("techlife.requests")
    assert entry["request_id"] == answer.headers["X-Request-ID"]
    assert (entry["method"], entry["view"], entry["status"]) == ("GET", "login", 200)
    assert entry["milliseconds"] > 0
    assert "patients" not in log.text
    assert f"[{entry['request_id']}]: GET login 200 in" in log.line.getvalue()


@pytest.mark.parametrize(
    ("given", "is_taken"),
    [
        ("3f9a1c7e-0b2d", True),
        ("short", False),
        ("a" * 65, False),
        ("with a space in it", False),
        ("line\\nbreak-0000", False),
        ("Müller-Quisquilia", False),
    ],
)
def test_an_id_that_is_plain_and_short_is_taken(log, given, is_taken):
    answer = Client().get("/login/", headers={"X-Request-ID": given})
    assert (answer.headers["X-Request-ID"] == given) is is_taken
    assert (given in log.text) is is_taken
    assert request_ids.current() == ""  # nothing is left for what this thread does next


def test_what_is_asked_by_the_second_has_no_line_unless_it_fails(log, monkeypatch):
    Client().get("/healthz")
    assert log.entries("techlife.requests") == []
    Client().get("/readyz")  # 503: no worker here
    (entry,) = log.entries("techlife.requests")
    assert (entry["view"], entry["status"]) == ("readyz", 503)


def test_a_click_is_followed_into_the_worker_and_into_what_that_enqueues():
    token = request_ids.begin("of-the-click")
    headers: dict[str, Any] = {}
    celery_app.send_request_id(headers=headers)
    request_ids.end(token)
    assert headers == {"request_id": "of-the-click"}

    seen = []
    for message in (headers, {}):  # by a click, and by the scheduler
        celery_app.take_request_id(task=SimpleNamespace(request=SimpleNamespace(**message)))
        enqueued: dict[str, Any] = {}
        celery_app.send_request_id(headers=enqueued)
        seen.append(enqueued["request_id"])
    request_ids._request_id.set("")
    assert seen[0] == "of-the-click"
    assert len(seen[1]) == 32


@shared_task
def failing_task(kind: str) -> None:
    try:
        raise IntegrityError(f"Key (name)=({CANARY}) already exists")
    except IntegrityError as error:
        if kind == "storage":
            raise StorageError("the bucket director does not answer") from error
        raise ValueError(CANARY) from error


def test_a_task_that_fails_tells_where_and_not_what(log):
    failing_task.apply(["value"])
    (entry,) = [each for each in log.entries("celery.app.trace") if "errors" in each]
    assert "raised unexpected: ValueError" in entry["message"]
    assert [each["type"] for each in entry["errors"]] == [
        "builtins.ValueError",
        "django.db.utils.IntegrityError",
    ]
    assert any("test_logs.py" in place for place in entry["errors"][0]["where"])
    failing_task.apply(["storage"])
    assert "the bucket director does not answer" in log.text  # our own words are kept
    assert CANARY not in log.text


def test_a_bug_in_a_page_tells_where_and_not_what(log, monkeypatch):
    def fail(*args: Any, **keywords: Any) -> None:
        raise IntegrityError(f"Key (name)=({CANARY}) already exists")

    monkeypatch.setattr("diagnoses.services.register_patient", fail)
    answer = client_of(make_user()).post(
        reverse("diagnoses:patient-register"), {"name": CANARY, "sex": "F"}
    )
    assert answer.status_code == 500
    (entry,) = log.entries("django.request")
    assert entry["message"] == "Internal Server Error: diagnoses:patient-register"
    assert entry["errors"][0]["type"] == "django.db.utils.IntegrityError"
    assert entry["errors"][0]["where"]
    assert entry["request_id"] == answer.headers["X-Request-ID"]
    assert CANARY not in log.text + answer.content.decode()


def test_what_says_why_a_service_fails_is_kept(log):
    try:
        raise OperationalError("could not translate host name")
    except OperationalError:
        logging.getLogger("django.request").exception("Internal Server Error: %s", "/x/")
    assert "could not translate host name" in log.text


def test_a_patient_is_in_no_line_and_no_event(log, queue, monkeypatch):
    """Registered, searched, mistyped, refused, imported with and without errors, and in bugs."""
    doctor = make_user()
    client = client_of(doctor)
    assert client.post(
        reverse("diagnoses:patient-register"),
        {"name": f"{CANARY} One", "sex": "F", "phone": PHONE, "birth_year": "1950"},
    ).headers["Location"]
    patient = Patient.objects.get()
    search = reverse("inference:patient-list")
    assert client.post(search, {"name": f"{CANARY} One"}, follow=True).status_code == 200
    client.get(search, {"name": CANARY})
    for path in (f"/{CANARY}/", f"/patients/{CANARY}/", f"/envoy/{CANARY}/x?name={CANARY}"):
        assert client.get(path).status_code == 404
    client.generic(CANARY, f"/patients/?{CANARY}")
    client.post(f"/healthz/{CANARY}", {"name": CANARY})
    assert client.get(search, headers={"host": f"{CANARY}.example"}).status_code == 400
    strict = client_of(doctor, enforce_csrf_checks=True)
    assert strict.post(search, {"name": CANARY}).status_code == 403

    program = Program(doctor)
    program.post("/api/v1/patients", {"name": f"{CANARY} Two", "sex": CANARY}, code=400)
    program.post("/api/v1/patients/search", {"name": f"{CANARY} Two"}, code=200)
    program.get(f"/api/v1/patients/{CANARY}", 404)
    broken = f'{{"name": "{CANARY}'
    client.post("/api/v1/patients", broken, content_type="application/json")

    rows = "subject_id,hadm_id,seq_num,icd_code,icd_version\n"
    files = {
        "refused": f"{rows}{CANARY}1,{CANARY}2,1,{CANARY},10\n",
        "checked": f"{rows}{CANARY}1,{CANARY}2,1,I10,10\n",
        "unreadable": f'{rows}"{CANARY}',
    }
    for name, content in files.items():
        file = SimpleUploadedFile(f"{CANARY}-{name}.csv", content.encode())
        client.post(reverse("diagnoses:import-create"), {"diagnoses": file})
    for upload in Upload.objects.all():
        process_upload_task.apply([upload.pk])
    assert Upload.objects.filter(num_problems__gt=0).exists()
    failing_task.apply(["value"])

    def fail(*args: Any, **keywords: Any) -> None:
        raise ValueError(f"{patient.name} {patient.phone}")

    monkeypatch.setattr("diagnoses.services.uploads._check", fail)
    upload = Upload.objects.order_by("pk")[0]
    Upload.objects.filter(pk=upload.pk).update(status=Upload.Status.PENDING, stage="CHECK")
    process_upload_task.apply([upload.pk])

    assert len(log.entries("techlife.requests")) > 15
    failed = [each for each in log.entries("celery.app.trace") if "errors" in each]
    assert len(failed) == 2
    assert CANARY in log.plain.getvalue()
    for value in (CANARY, CANARY.lower(), PHONE, patient.subject_id):
        assert value not in log.text, value
    assert AuditEvent.objects.count() > 5
    for event in AuditEvent.objects.all():
        assert CANARY.lower() not in f"{event.action} {event.target}".lower()
