import re
from typing import Any

import pytest
from django.test import Client
from django.utils import timezone

from envoys import storage_errors
from envoys.errors import StorageError
from envoys.models import Envoy, User
from envoys.storage import director_storage, read_object
from envoys.workers import BrokerState, QueueLength, record_sign
from techlife import metrics
from tests.factories import make_patient, make_user
from tests.federation import start_round

pytestmark = [pytest.mark.django_db, pytest.mark.filterwarnings("ignore:No directory at")]

TOKEN = "a token of the metrics, long enough"
LINE = re.compile(r"^(\w+)(?:\{(.*)\})? ([0-9.e+-]+|NaN|\+Inf)$")


@pytest.fixture
def token(settings: Any, monkeypatch: pytest.MonkeyPatch) -> str:
    settings.METRICS_TOKEN = TOKEN
    metrics._counters.cache_clear()
    broker = BrokerState([QueueLength("training", 3, [])], 1, "")
    monkeypatch.setattr(metrics, "read_broker", lambda: broker)
    monkeypatch.setattr(metrics, "count_storage_errors", lambda: 4)
    return TOKEN


def read(token: str) -> dict[str, float]:
    answer = Client().get("/metrics", headers={"Authorization": f"Bearer {token}"})
    assert answer.status_code == 200
    found = {}
    for line in answer.content.decode().splitlines():
        if not line.startswith("#"):
            match = LINE.match(line)
            assert match, line
            found[line.rpartition(" ")[0]] = float(match[3])
    return found


def test_without_the_token_there_is_no_such_page(token, settings):
    client = Client()
    client.force_login(make_user(User.Role.ADMINISTRATOR))
    for authorization in ("", f"Bearer {token}x", "Bearer ", token, f"Basic {token}"):
        answer = client.get("/metrics", headers={"Authorization": authorization})
        assert answer.status_code == 404, authorization
    assert client.post("/metrics", headers={"Authorization": f"Bearer {token}"}).status_code == 404
    settings.METRICS_TOKEN = ""
    assert client.get("/metrics", headers={"Authorization": "Bearer "}).status_code == 404
    assert client.get("/metrics", headers={"Authorization": f"Bearer {token}"}).status_code == 404


def test_requests_are_counted_by_view_and_status_and_never_by_address(token):
    client = Client()
    client.get("/healthz")
    client.get("/login/")
    client.get("/login/")
    client.get("/Test-Patient-Canary/?name=Canary")
    client.generic("CANARY", "/login/")
    doctor = make_user()
    patient = make_patient(doctor.envoy, name="Test Patient Canary")
    client.force_login(doctor)
    client.get(f"/patients/{patient.pk}/")
    found = read(token)
    assert found['techlife_requests_total{method="GET",status="200",view="login"}'] == 2
    assert found['techlife_requests_total{method="GET",status="200",view="healthz"}'] == 1
    assert found['techlife_requests_total{method="GET",status="404",view="none"}'] == 1
    assert (
        found['techlife_requests_total{method="GET",status="200",view="inference:patient-detail"}']
        == 1
    )
    assert found['techlife_request_seconds_count{view="login"}'] == 3
    assert found['techlife_request_seconds_bucket{le="+Inf",view="login"}'] == 3
    assert "anary" not in str(found).lower()
    assert patient.subject_id not in str(found)


def test_nothing_is_counted_where_nobody_reads(settings):
    settings.METRICS_TOKEN = ""
    metrics._counters.cache_clear()
    Client().get("/login/")
    assert metrics._counters.cache_info().currsize == 0


def test_rounds_workers_queues_and_storage_errors_are_told(
    token, hospitals: list[Envoy], queue: Any
):
    record_sign("pool@host", queues=["training"], num_processes=2, started_at=timezone.now())
    opened = start_round(hospitals, queue)
    found = read(token)
    assert found['techlife_runs{status="TRAINING"}'] == 1
    assert found['techlife_rounds{status="COLLECTING"}'] == 1
    assert found['techlife_rounds{status="AGGREGATED"}'] == 1
    assert found["techlife_assignments_due"] == 0  # enqueued a moment ago
    waiting = found['techlife_work_waiting{kind="roundassignment"}']
    assert waiting == opened.assignments.count() > 0
    age = (timezone.now() - opened.opened_at).total_seconds()
    assert 0 < found['techlife_work_oldest_seconds{kind="roundassignment"}'] <= age
    opened.assignments.update(enqueued_at=None)
    assert read(token)["techlife_assignments_due"] == waiting
    assert (found["techlife_workers"], found["techlife_worker_processes"]) == (1, 2)
    assert found['techlife_queue_length{queue="training"}'] == 3
    assert found["techlife_messages_taken"] == 1
    assert found["techlife_storage_errors_total"] == 4


def test_without_a_broker_the_rest_is_told(token, monkeypatch):
    monkeypatch.setattr(metrics, "read_broker", lambda: BrokerState([], 0, "no answer"))
    monkeypatch.setattr(metrics, "count_storage_errors", lambda: None)
    found = read(token)
    assert found["techlife_broker_up"] == 0
    assert not any("queue" in name or "storage" in name for name in found)


def test_every_storage_error_is_counted_where_somebody_reads(settings, monkeypatch):
    class Broker(dict[str, int]):
        def incr(self, key: str) -> None:
            self[key] = self.get(key, 0) + 1

        def __enter__(self) -> "Broker":
            return self

        def __exit__(self, *error: object) -> None:
            pass

    broker = Broker()
    monkeypatch.setattr(storage_errors, "broker_client", lambda: broker)
    for settings.METRICS_TOKEN in ("", TOKEN):
        with pytest.raises(StorageError):
            read_object(director_storage(), "nothing.bin", sha256=None)
    assert storage_errors.count_storage_errors() == 1
