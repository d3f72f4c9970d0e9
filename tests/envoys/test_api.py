from datetime import timedelta
from typing import Any

import pytest
from django.contrib.auth.hashers import make_password
from django.core.files.uploadedfile import SimpleUploadedFile
from django.db import connection
from django.urls import reverse
from django.utils import timezone
from rest_framework.test import APIClient

from diagnoses.models import Snapshot, Upload
from envoys.access import ACTIONS
from envoys.models import AuditEvent, Envoy, IdempotentCall, User, WorkerSign
from tests.api import Program
from tests.factories import PASSWORD, make_assignment, make_distribution, make_envoy, make_user
from training.models import Distribution, RoundAssignment

pytestmark = pytest.mark.django_db

SCIENTIST = User.Role.DATA_SCIENTIST
NEW_PASSWORD = "quite another battery staple"
ACCOUNT = {
    "username": "newcomer",
    "password": NEW_PASSWORD,
    "email": "newcomer@example.org",
    "phone": "000",
    "role": "doctor",
}


@pytest.fixture
def scientist():
    return Program(make_user(SCIENTIST))


def post(path, body, code, **headers):
    response = APIClient().post(path, body, headers=headers)
    assert response.status_code == code, response.content
    return response.json() if response.content else None


# Logging in


def test_a_name_and_a_password_give_two_tokens_and_the_login_is_written_down():
    user = make_user(SCIENTIST)
    tokens = post("/api/v1/token", {"username": user.username, "password": PASSWORD}, 200)
    assert set(tokens) == {"access", "refresh", "role"}
    assert tokens["role"] == "data_scientist"
    event = AuditEvent.objects.get()
    assert (event.user, event.action) == (user, "logged in")
    user.refresh_from_db()
    assert user.last_login is not None


@pytest.mark.parametrize("path", ["/api/v1/token", "/api/login"])
def test_a_wrong_password_an_unknown_name_and_a_sleeping_account_look_the_same(path):
    user = make_user()
    sleeping = make_user(is_active=False)
    answers = [
        post(path, {"username": name, "password": password}, 401)
        for name, password in (
            (user.username, "wrong"),
            ("nobody", PASSWORD),
            (sleeping.username, PASSWORD),
        )
    ]
    assert answers[0] == answers[1] == answers[2]
    assert answers[0]["type"] == "authentication_failed"
    events = AuditEvent.objects.order_by("pk").values_list("action", "target", "user")
    assert list(events) == [
        ("refused: log in", f"user:{each.pk}", None) for each in (user, sleeping)
    ]


def test_an_old_token_does_not_keep_anybody_from_logging_in():
    body = {"username": make_user().username, "password": PASSWORD}
    post("/api/v1/token", body, 200, Authorization="Bearer old")


def test_a_refresh_token_serves_once():
    user = make_user()
    first = post("/api/v1/token", {"username": user.username, "password": PASSWORD}, 200)
    second = post("/api/v1/token/refresh", {"refresh": first["refresh"]}, 200)
    assert second["refresh"] != first["refresh"]
    client = APIClient()
    assert client.get("/api/v1/me").status_code == 401
    client.credentials(HTTP_AUTHORIZATION=f"Bearer {second['access']}")
    assert client.get("/api/v1/me").json()["username"] == user.username
    refused = post("/api/v1/token/refresh", {"refresh": first["refresh"]}, 401)
    assert "log in again" in refused["detail"]
    assert client.get("/api/v1/me").status_code == 401
    post("/api/v1/token/refresh", {"refresh": second["refresh"]}, 401)


def test_a_revoked_token_serves_no_more():
    user = make_user()
    tokens = post("/api/v1/token", {"username": user.username, "password": PASSWORD}, 200)
    post("/api/v1/token/revoke", {"refresh": tokens["refresh"]}, 204)
    post("/api/v1/token/refresh", {"refresh": tokens["refresh"]}, 401)
    post("/api/v1/token/revoke", {"refresh": tokens["refresh"]}, 401)
    actions = AuditEvent.objects.order_by("pk").values_list("action", flat=True)
    assert list(actions) == ["logged in", "logged out", "refused: reused token"]


def test_what_is_no_refresh_token_is_refused():
    user = make_user()
    tokens = post("/api/v1/token", {"username": user.username, "password": PASSWORD}, 200)
    for text in ("nonsense", tokens["access"]):
        assert post("/api/v1/token/refresh", {"refresh": text}, 401)["errors"] == {}
    assert post("/api/v1/token/refresh", {}, 400)["errors"] == {
        "refresh": ["This field is required."]
    }


def test_a_token_ends_with_the_account_and_with_the_password():
    user = make_user()
    tokens = post("/api/v1/token", {"username": user.username, "password": PASSWORD}, 200)
    User.objects.filter(pk=user.pk).update(is_active=False)
    post("/api/v1/token/refresh", {"refresh": tokens["refresh"]}, 401)
    # As an administrator does who sets a password: no service of ours sees it.
    User.objects.filter(pk=user.pk).update(is_active=True, password=make_password(NEW_PASSWORD))
    refused = post("/api/v1/token/refresh", {"refresh": tokens["refresh"]}, 401)
    assert "password has changed" in refused["detail"]
    User.objects.filter(pk=user.pk).update(password=user.password)
    post("/api/v1/token/refresh", {"refresh": tokens["refresh"]}, 200)


def test_a_new_password_ends_every_token_and_session():
    user = make_user()
    tokens = post("/api/v1/token", {"username": user.username, "password": PASSWORD}, 200)
    browser = APIClient()
    browser.force_login(user)
    program = Program(user)
    weak = program.post(
        "/api/v1/account/password", {"old_password": PASSWORD, "new_password": "123"}, code=400
    )
    assert "new_password" in weak["errors"]
    wrong = program.post(
        "/api/v1/account/password",
        {"old_password": "wrong", "new_password": NEW_PASSWORD},
        code=400,
    )
    assert wrong["errors"] == {"old_password": ["This is not your password."]}
    assert browser.get("/api/v1/me").status_code == 200

    program.post(
        "/api/v1/account/password",
        {"old_password": PASSWORD, "new_password": NEW_PASSWORD},
        code=204,
    )
    program.get("/api/v1/me", 401)
    assert browser.get("/api/v1/me").status_code == 401
    post("/api/v1/token/refresh", {"refresh": tokens["refresh"]}, 401)
    post("/api/v1/token", {"username": user.username, "password": NEW_PASSWORD}, 200)
    assert AuditEvent.objects.filter(action="changed password").count() == 1


# Accounts


@pytest.mark.parametrize(("path", "code"), [("/api/v1/account", 201), ("/api/register", 200)])
def test_an_account_that_is_asked_for_cannot_log_in_until_it_is_activated(path, code):
    assert set(post(path, ACCOUNT, code)) == {"message"}
    user = User.objects.get(username="newcomer")
    assert (user.is_active, user.role, user.envoy) == (False, "doctor", None)
    assert not user.is_staff
    assert not user.is_superuser
    login = {"username": "newcomer", "password": NEW_PASSWORD}
    post("/api/v1/token", login, 401)
    User.objects.filter(pk=user.pk).update(is_active=True)
    post("/api/v1/token", login, 200)


@pytest.mark.parametrize(
    ("values", "field"),
    [
        ({"role": "administrator"}, "role"),
        ({"role": "king"}, "role"),
        ({"password": "12345"}, "password"),
        ({"password": "newcomer"}, "password"),
        ({"email": "nowhere"}, "email"),
        ({"username": "taken"}, "username"),
        ({"username": "with spaces"}, "username"),
    ],
)
def test_an_account_is_refused_field_by_field(values, field):
    make_user(username="taken")
    for path in ("/api/v1/account", "/api/register"):
        refused = post(path, {**ACCOUNT, **values}, 400)
        assert refused["type"] == "invalid"
        assert list(refused["errors"]) == [field]
    assert User.objects.count() == 1


def test_me_says_who_one_is_and_what_one_may_do():
    doctor = make_user()
    me = Program(doctor).get("/api/v1/me")
    assert doctor.envoy is not None
    assert me["envoy"] == {"id": doctor.envoy.pk, "name": doctor.envoy.name}
    assert "register a patient" in me["may"]
    assert "invite an envoy" not in me["may"]
    assert set(me["may"]) <= {action.name for action in ACTIONS}
    assert "invite an envoy" in Program(make_user(SCIENTIST)).get("/api/v1/me")["may"]


# Errors and keys


def test_every_error_has_one_shape(scientist):
    answers = [
        scientist.get("/api/v1/envoys/999", 404),
        scientist.get("/api/v1/runs?status=NO", 400),
        scientist.get("/api/v1/patients", 404),  # no doctor
        scientist.post("/api/v1/envoys", {}, code=400),
        scientist.post("/api/v1/envoys", {"name": ""}, code=400),
        scientist.post("/api/v1/rounds/aggregate", {"envoys": []}, code=409),
        scientist.get("/api/v1/rounds/aggregate", 405),
    ]
    client = APIClient()
    answers.append(client.get("/api/v1/envoys").json())
    response = client.post("/api/v1/token", data=b"{", content_type="application/json")
    assert response.status_code == 400
    answers.append(response.json())
    for answer in answers:
        assert set(answer) == {"type", "detail", "errors"}
        assert answer["detail"]
    assert [answer["type"] for answer in answers] == [
        "not_found",
        "invalid",
        "not_found",
        "invalid",
        "invalid",
        "conflict",
        "method_not_allowed",
        "not_authenticated",
        "parse_error",
    ]
    assert answers[3]["errors"] == {"name": ["This field is required."]}


def test_a_call_that_asks_for_a_login_says_how():
    response = APIClient().get("/api/v1/envoys")
    assert response.status_code == 401
    assert response.headers["WWW-Authenticate"].startswith("Bearer")


def test_a_browser_that_is_logged_in_needs_its_token_against_forgery():
    user = make_user(SCIENTIST)
    browser = APIClient(enforce_csrf_checks=True)
    browser.force_login(user)
    assert browser.get("/api/v1/envoys").status_code == 200
    response = browser.post("/api/v1/envoys", {"name": "Hospital X"})
    assert response.status_code == 403
    assert set(response.json()) == {"type", "detail", "errors"}


KEY = "one"


def test_a_call_sent_twice_with_one_key_is_done_once_and_answers_the_same(scientist):
    body = {"name": "Hospital X"}
    first = scientist.post("/api/v1/envoys", body, key=KEY)
    second = scientist.post("/api/v1/envoys", body, key=KEY)
    assert first == second
    assert scientist.headers["Idempotency-Replayed"] == "true"
    assert Envoy.objects.count() == 1
    assert AuditEvent.objects.filter(action="created envoy").count() == 1


def test_a_key_that_was_used_for_another_call_is_refused(scientist):
    scientist.post("/api/v1/envoys", {"name": "Hospital X"}, key=KEY)
    refused = scientist.post("/api/v1/envoys", {"name": "Hospital Y"}, code=422, key=KEY)
    assert refused["type"] == "key_used"
    scientist.post("/create_envoy", {"name": "Hospital X"}, code=422, key=KEY)
    assert Envoy.objects.count() == 1


def test_a_key_belongs_to_who_used_it(scientist):
    scientist.post("/api/v1/envoys", {"name": "Hospital X"}, key=KEY)
    Program(make_user(SCIENTIST)).post("/api/v1/envoys", {"name": "Hospital Y"}, key=KEY)
    assert Envoy.objects.count() == 2


def test_a_call_that_fails_leaves_neither_work_nor_a_used_key(scientist):
    make_envoy(name="Hospital X")
    scientist.post("/api/v1/envoys", {"name": "Hospital X"}, code=400, key=KEY)
    assert not IdempotentCall.objects.exists()
    scientist.post("/api/v1/envoys", {"name": "Hospital Y"}, key=KEY)


def test_a_key_is_forgotten_after_a_day_and_cannot_be_endless(scientist):
    scientist.post("/api/v1/envoys", {"name": "Hospital X"}, key=KEY)
    IdempotentCall.objects.update(created_at=timezone.now() - timedelta(hours=25))
    scientist.post("/api/v1/envoys", {"name": "Hospital Y"}, key=KEY)
    refused = scientist.post("/api/v1/envoys", {"name": "Hospital Z"}, code=400, key="k" * 201)
    assert list(refused["errors"]) == ["Idempotency-Key"]


def test_while_a_call_is_worked_on_the_same_call_is_a_conflict(scientist):
    body = {"name": "Hospital X"}
    first = scientist.post("/api/v1/envoys", body, key=KEY)
    IdempotentCall.objects.update(status_code=0, answer="")  # as if it had not ended
    refused = scientist.post("/api/v1/envoys", body, code=409, key=KEY)
    assert "being worked on" in refused["detail"]
    scientist.post("/api/v1/envoys", {"name": "Hospital Y"}, code=422, key=KEY)
    Envoy.objects.filter(pk=first["id"]).delete()
    IdempotentCall.objects.update(created_at=timezone.now() - timedelta(minutes=11))
    scientist.post("/api/v1/envoys", body, key=KEY)  # it was cut off: the key is free again
    assert IdempotentCall.objects.get().status_code == 201


def test_a_bug_in_a_call_leaves_neither_work_nor_a_used_key(scientist, monkeypatch):
    def fail(*args: Any, **kwargs: Any) -> None:
        raise RuntimeError("a bug")

    monkeypatch.setattr("inference.api.EnvoySerializer.to_representation", fail)
    with pytest.raises(RuntimeError):
        scientist.post("/api/v1/envoys", {"name": "Hospital X"}, key=KEY)
    assert not Envoy.objects.exists()
    assert not IdempotentCall.objects.exists()


def test_a_call_that_takes_long_holds_its_key_but_no_transaction(monkeypatch):
    doctor = make_user()
    seen = []

    def export_now(envoy: Envoy, **kwargs: Any) -> Snapshot:
        depth = len(connection.savepoint_ids)  # the test's own transaction is one
        seen.append((IdempotentCall.objects.get().status_code, depth))
        return Snapshot(envoy=envoy, pk=1, num_diagnoses=0)

    monkeypatch.setattr("diagnoses.services.export_now", export_now)
    program = Program(doctor)
    path = f"/envoy/{doctor.envoy_id}/export_diagnoses"
    depth = len(connection.savepoint_ids)
    first = program.post(path, code=200, key=KEY)
    assert program.post(path, code=200, key=KEY) == first
    assert seen == [(0, depth)]


def test_the_same_key_with_another_file_of_equal_length_is_refused(queue):
    program = Program(make_user())

    def send(code: str, status: int) -> Any:
        rows = f"subject_id,hadm_id,seq_num,icd_code,icd_version\np,h,1,{code},10\n"
        file = SimpleUploadedFile("diagnoses.csv", rows.encode(), content_type="text/csv")
        response = program.client.post(
            "/api/v1/imports",
            {"diagnoses": file},
            format="multipart",
            headers={"Idempotency-Key": KEY},
        )
        assert response.status_code == status, response.content
        return response

    first = send("I10", 202)
    assert send("I10", 202).json() == first.json()
    assert send("I11", 422).json()["type"] == "key_used"
    assert Upload.objects.count() == 1


def test_what_is_answered_is_kept_by_nobody_on_the_way(scientist):
    scientist.get("/api/v1/me")
    assert scientist.headers["Cache-Control"] == "no-store"


def test_an_answer_that_is_kept_is_kept_encrypted():
    doctor = Program(make_user())
    body = {"name": "Test Patient Zero", "sex": "F"}
    first = doctor.post("/api/v1/patients", body, key=KEY)
    kept = IdempotentCall.objects.raw("select id, answer as token from envoys_idempotentcall")[0]
    assert "Patient" not in kept.token  # type: ignore[attr-defined]
    assert doctor.post("/api/v1/patients", body, key=KEY) == first


# Envoys


def test_an_envoy_is_invited_edited_suspended_and_returns(scientist):
    envoy = scientist.post("/api/v1/envoys", {"name": "Hospital X", "region": "eu-west-1"})
    path = f"/api/v1/envoys/{envoy['id']}"
    assert (envoy["slug"], envoy["region"], envoy["status"]) == (
        "hospital-x",
        "eu-west-1",
        "ACTIVE",
    )
    assert scientist.patch(path, {"name": "Hospital Y"})["name"] == "Hospital Y"
    assert scientist.get(path)["region"] == "eu-west-1"
    assert scientist.post(f"{path}/suspend", code=200)["status"] == "SUSPENDED"
    assert scientist.post(f"{path}/suspend", code=409)["type"] == "conflict"
    assert scientist.get("/api/v1/envoys?status=SUSPENDED")["count"] == 1
    assert scientist.post(f"{path}/resume", code=200)["status"] == "ACTIVE"
    assert scientist.get("/api/v1/envoys?status=SUSPENDED")["count"] == 0
    changes = AuditEvent.objects.exclude(action="see envoys").order_by("pk")
    assert list(changes.values_list("action", flat=True))[1:] == [
        "created envoy",
        "edited envoy",
        "suspended envoy",
        "resumed envoy",
    ]


def test_a_name_with_a_hidden_character_is_refused_and_the_field_named(scientist):
    envoy, hidden = make_envoy(), "Alpha\u202eBeta"
    words = "the name has a character that is not seen, U+202E: type it again"
    for send, url in (
        (scientist.post, reverse("api:envoy-list")),
        (scientist.patch, reverse("api:envoy-detail", args=[envoy.pk])),
    ):
        answer = send(url, {"name": hidden}, code=400)
        assert answer["errors"] == {"name": [words]}
        assert answer["detail"] == f"name: {words}"
    assert Envoy.objects.get() == envoy


def test_deleting_an_envoy_asks_for_its_name_and_answers_with_a_task_to_watch(queue, scientist):
    envoy = make_envoy(name="Hospital X")
    path = f"/api/v1/envoys/{envoy.pk}"
    scientist.delete(path, {}, 400)
    scientist.delete(path, {"name": "Hospital Y"}, 400)
    erasure = scientist.delete(path, {"name": "Hospital X"})
    scientist.get(path, 404)
    assert scientist.headers["Content-Type"] == "application/json"
    task = scientist.get(erasure["url"])
    assert (task["kind"], task["is_active"]) == ("erasure", True)
    assert "Hospital X" in task["about"]


def test_a_doctor_sees_their_own_envoy_only():
    doctor = make_user()
    other = make_envoy()
    program = Program(doctor)
    assert [row["id"] for row in program.get("/api/v1/envoys")["results"]] == [doctor.envoy_id]
    assert [row["id"] for row in program.get("/list_envoys")] == [doctor.envoy_id]
    program.get(f"/api/v1/envoys/{other.pk}", 404)
    program.post("/api/v1/envoys", {"name": "Hospital X"}, code=404)


def test_the_published_paths_list_and_invite_envoys(scientist):
    made = scientist.post(
        "/create_envoy",
        {"name": "Hospital X", "s3_bucket": "bucket-x", "s3_prefix": "some/place"},
        code=200,
    )
    assert set(made) == {"message", "id", "serial_id"}
    (listed,) = scientist.get("/list_envoys")
    assert listed == {
        "id": made["id"],
        "name": "Hospital X",
        "serial_id": made["serial_id"],
        "region": "eu-north-1",
        "s3_bucket": "bucket-x",
        "s3_prefix": "some/place",
        "s3_output_prefix": "some/place/trained_model",
    }


def test_the_published_path_takes_null_where_the_default_place_is_meant(scientist):
    body = {"name": "Hospital X", "s3_bucket": None, "s3_prefix": None}
    scientist.post("/create_envoy", body, code=200)
    envoy = Envoy.objects.get()
    assert (envoy.bucket, envoy.storage_prefix) == ("", "envoys/hospital-x")


# Tasks and workers


def test_tasks_are_listed_by_state_and_kind_and_what_failed_is_retried(queue, scientist):
    now = timezone.now()
    make_distribution(status="PENDING", enqueued_at=now)
    failed = make_distribution(status="FAILED", reason="no such bucket", enqueued_at=now)
    make_distribution(status="COMPLETE", enqueued_at=now)
    make_assignment(status=RoundAssignment.Status.PENDING)

    assert scientist.get("/api/v1/tasks")["count"] == 3
    assert scientist.get("/api/v1/tasks?kind=distribution")["count"] == 2
    assert scientist.get("/api/v1/tasks?state=ended&kind=distribution&limit=1")["count"] == 2
    scientist.get("/api/v1/tasks?state=lost", 400)
    (task,) = scientist.get("/api/v1/tasks?state=failed")["results"]
    assert task["id"] == f"distribution-{failed.pk}"
    assert (task["reason"], task["about"]) == ("no such bucket", failed.envoy.name)

    retried = scientist.post(f"{task['url']}/retry", code=202)
    assert (retried["status"], retried["reason"]) == ("PENDING", "")
    assert queue.names() == ["distribute_version_task"]
    assert scientist.post(f"{task['url']}/retry", code=409)["type"] == "conflict"
    assert Distribution.objects.get(pk=failed.pk).attempt == 0


@pytest.mark.parametrize("name", ["distribution-0", "nothing-1", "distribution", "distribution-x"])
def test_a_task_that_is_not_there_is_not_found(name, scientist):
    scientist.get(f"/api/v1/tasks/{name}", 404)


def test_workers_are_listed_with_their_last_sign(scientist):
    now = timezone.now()
    WorkerSign.objects.create(hostname="w1", queues=["training"], started_at=now, seen_at=now)
    (worker,) = scientist.get("/api/v1/workers")["results"]
    assert (worker["hostname"], worker["queues"]) == ("w1", ["training"])
