from datetime import timedelta

import pytest
from django.db import OperationalError
from django.utils import timezone

import celery_app
from diagnoses.models import Snapshot
from envoys import work, workers
from envoys.errors import NotNowError
from envoys.models import AuditEvent, Envoy, WorkerSign
from tests.factories import make_assignment, make_envoy, make_snapshot, make_user

pytestmark = pytest.mark.django_db

FAILED = Snapshot.Status.FAILED


def test_every_kind_of_work_has_a_title_and_a_name():
    titles = {kind.name: kind.title for kind in work.kinds()}
    assert titles["snapshot"] == "Export"
    assert titles["distribution"] == "Delivery of a model"
    assert {"roundassignment", "runreport", "inferencerun", "erasure"} <= set(titles)
    assert all(titles.values())


def test_failed_work_is_done_again_from_the_first_attempt(queue):
    user = make_user()
    snapshot = make_snapshot(status=FAILED, reason="no space left", attempt=10, num_done=7)
    work.retry(snapshot, retried_by=user)
    assert (snapshot.status, snapshot.attempt, snapshot.reason) == ("PENDING", 0, "")
    assert queue.names() == ["export_snapshot_task"]
    assert AuditEvent.objects.get().action == "retried work"
    queue.work()
    snapshot.refresh_from_db()
    assert (snapshot.status, snapshot.attempt) == ("COMPLETE", 1)


@pytest.mark.parametrize("status", ["PENDING", "RUNNING", "COMPLETE"])
def test_only_failed_work_is_retried(queue, status):
    snapshot = make_snapshot(status=status)
    with pytest.raises(NotNowError, match="only work that has failed can be retried"):
        work.retry(snapshot, retried_by=None)
    assert queue.names() == []


def test_work_for_a_deleted_hospital_is_not_retried(queue):
    snapshot = make_snapshot(make_envoy(status=Envoy.Status.DELETED), status=FAILED)
    with pytest.raises(NotNowError, match="is deleted"):
        work.retry(snapshot, retried_by=None)


def test_a_hospitals_part_of_a_round_is_retried_by_its_own_rules(queue):
    assignment = make_assignment(status=FAILED, reason="diverged", attempt=3)
    work.retry(assignment, retried_by=None)
    assert (assignment.status, assignment.attempt) == ("PENDING", 0)


def test_a_round_is_left_to_its_own_sweeper(queue):
    make_assignment()
    assert work.enqueue_due() == 0


# Workers


class Consumer:
    hostname = "celery@made-up-host"

    class controller:
        concurrency = 2


@pytest.fixture
def sign():
    return celery_app.SignOfLife()


def test_a_worker_says_that_it_lives_and_what_it_listens_to(sign):
    sign.introduce(Consumer)
    row = WorkerSign.objects.get()
    assert (row.hostname, row.queues, row.num_processes) == (
        "celery@made-up-host",
        ["training"],
        2,
    )


def test_a_sign_of_life_is_written_every_ten_seconds_at_the_most(sign, monkeypatch):
    now = [100.0]
    monkeypatch.setattr(celery_app.time, "monotonic", lambda: now[0])
    sign.write()  # a beat before the worker is ready
    assert not WorkerSign.objects.exists()
    sign.introduce(Consumer)
    long_ago = timezone.now() - timedelta(hours=1)
    for seconds, is_written in ((109.0, False), (111.0, True)):
        WorkerSign.objects.update(seen_at=long_ago)
        now[0] = seconds
        sign.write()
        assert (WorkerSign.objects.get().seen_at > long_ago) is is_written


def test_a_worker_goes_on_where_the_database_does_not_take_its_sign(sign, monkeypatch):
    def refuse(*args, **kwargs):
        raise OperationalError("database is locked")

    monkeypatch.setattr(WorkerSign.objects, "update_or_create", refuse)
    sign.introduce(Consumer)
    assert not WorkerSign.objects.exists()


def test_workers_of_last_week_are_forgotten():
    now = timezone.now()
    WorkerSign.objects.create(
        hostname="celery@old", started_at=now, seen_at=now - timedelta(days=8)
    )
    workers.record_sign("celery@new", queues=["training"], num_processes=1, started_at=now)
    assert WorkerSign.objects.get().hostname == "celery@new"


def test_a_broker_that_does_not_answer_is_said_in_words(monkeypatch):
    def refuse(queues):
        raise OSError("connection refused")

    monkeypatch.setattr(workers, "_lengths", refuse)
    state = workers.read_broker()
    assert state.queues == []
    assert "does not answer" in state.trouble


def test_queues_of_a_hospital_are_shown_beside_the_shared_one(monkeypatch):
    make_envoy(name="Alpha", queue="own")
    make_envoy(name="Beta")
    monkeypatch.setattr(workers, "_lengths", lambda queues: (dict.fromkeys(queues, 3), 1))
    state = workers.read_broker()
    assert [(q.name, q.num_messages, q.hospitals) for q in state.queues] == [
        ("training", 3, []),
        ("own", 3, ["Alpha"]),
    ]


def test_rows_are_finished_together_but_for_those_that_have_ended():
    first, ended, second = (
        make_snapshot(status=status) for status in ("PENDING", FAILED, "RUNNING")
    )
    won = Snapshot.objects.finish_all([first, ended, second], status="COMPLETE", reason="done")
    assert won == {first.pk, second.pk}
    for row, status in ((first, "COMPLETE"), (ended, FAILED), (second, "COMPLETE")):
        assert row.status == status  # as the caller holds it
        row.refresh_from_db()
        assert row.status == status
    assert Snapshot.objects.finish_all([first], status=FAILED) == set()
