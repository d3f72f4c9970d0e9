from datetime import timedelta

import pytest
from django.utils import timezone

from diagnoses.models import Snapshot
from envoys.work import MAX_ATTEMPTS
from tests.federation import assignment_of, expire_lease, finish, start, start_round
from training import services
from training.models import RoundAssignment, TrainingRound, TrainingRun

pytestmark = pytest.mark.django_db

Status = RoundAssignment.Status


@pytest.fixture
def training_round(queue, hospitals) -> TrainingRound:
    """Round 1, whose messages the broker has lost."""
    training_round = start_round(hospitals, queue)
    assert queue.lose() == ["train_clients_task"] * 2
    return training_round


def assert_finished(training_round: TrainingRound) -> None:
    run = TrainingRun.objects.get(pk=training_round.run_id)
    assert run.status == TrainingRun.Status.FINISHED, run.reason


def test_what_was_enqueued_a_moment_ago_is_not_enqueued_again(queue, training_round):
    assert queue.sweep() == []


def test_a_lost_message_is_enqueued_again_after_a_lease(queue, training_round):
    for assignment in training_round.assignments.all():
        expire_lease(assignment)
    assert queue.sweep() == ["train_clients_task"] * 2
    assert queue.sweep() == ["train_clients_task"] * 2  # once: these are the same two
    queue.work_and_sweep()
    assert_finished(training_round)


def test_what_was_never_enqueued_is_enqueued_at_once(queue, training_round):
    training_round.assignments.update(enqueued_at=None)  # killed between commit and broker
    assert queue.sweep() == ["train_clients_task"] * 2
    queue.work_and_sweep()
    assert_finished(training_round)


def test_a_lease_that_ran_out_is_enqueued_again_and_counted_as_an_attempt(
    queue, hospitals, training_round
):
    killed = assignment_of(training_round, hospitals[0])
    services.train_clients([a.pk for a in training_round.assignments.exclude(pk=killed.pk)])
    RoundAssignment.objects.claim([killed.pk])
    assert queue.sweep() == []

    expire_lease(killed)
    assert queue.sweep() == ["train_clients_task"]
    queue.work_and_sweep()
    killed.refresh_from_db()
    assert (killed.status, killed.attempt) == (Status.SUBMITTED, 2)
    assert_finished(training_round)


def test_what_waits_is_enqueued_again_once_a_lease_whoever_else_trains(
    queue, hospitals, training_round
):
    first, second = (assignment_of(training_round, envoy) for envoy in hospitals[:2])
    RoundAssignment.objects.claim([first.pk])
    assert queue.sweep() == []

    expire_lease(second)  # enqueued long ago: its message may be lost
    assert queue.sweep() == ["train_clients_task"]
    queue.lose()
    assert queue.sweep() == []  # not before another lease


def test_what_kills_its_worker_every_time_is_given_up_in_words(queue, hospitals, training_round):
    deadly = assignment_of(training_round, hospitals[0])
    services.train_clients([a.pk for a in training_round.assignments.exclude(pk=deadly.pk)])
    for _ in range(MAX_ATTEMPTS):
        assert RoundAssignment.objects.claim([deadly.pk])
        expire_lease(deadly)
    queue.work_and_sweep()

    deadly.refresh_from_db()
    assert deadly.status == Status.FAILED
    assert f"given up after {MAX_ATTEMPTS} attempts" in deadly.reason
    run = TrainingRun.objects.get(pk=training_round.run_id)
    assert run.status == TrainingRun.Status.FAILED
    assert f"{hospitals[0]}: given up" in run.reason


def test_a_round_that_is_full_and_open_is_closed(queue, training_round):
    # A worker died between its last update and the closing.
    training_round.assignments.update(status=Status.SUBMITTED)
    assert queue.sweep() == ["close_round_task"]


def test_a_round_past_its_deadline_is_closed(queue, training_round):
    training_round.deadline_at = timezone.now() - timedelta(seconds=1)
    training_round.save(update_fields=["deadline_at"])
    assert queue.sweep() == ["close_round_task"]


def test_a_round_that_is_closed_and_not_aggregated_is_taken_up_after_a_lease(
    queue, training_round, settings, monkeypatch
):
    def die(training_round, going_on):
        raise KeyboardInterrupt

    assignment_ids = list(training_round.assignments.values_list("pk", flat=True))
    with monkeypatch.context() as patch:
        patch.setattr("training.services.rounds._aggregate", die)
        with pytest.raises(KeyboardInterrupt):
            services.train_clients(assignment_ids)
    training_round.refresh_from_db()
    assert training_round.status == TrainingRound.Status.CLOSED
    assert queue.sweep() == []  # somebody may be at it

    TrainingRound.objects.filter(pk=training_round.pk).update(
        closed_at=timezone.now() - timedelta(seconds=settings.LEASE_SECONDS + 1)
    )
    assert queue.sweep() == ["aggregate_round_task"]
    queue.work_and_sweep()
    assert_finished(training_round)


def test_a_lost_export_is_enqueued_again(queue, hospitals):
    run = start(hospitals)
    assert queue.lose() == ["export_snapshot_task"] * 3
    assert queue.sweep() == []

    Snapshot.objects.update(enqueued_at=timezone.now() - timedelta(hours=1))
    assert queue.sweep() == ["export_snapshot_task"] * 3
    queue.work_and_sweep()
    run.refresh_from_db()
    assert run.status == TrainingRun.Status.FINISHED


def test_lost_reports_and_deliveries_are_enqueued_again(queue, hospitals):
    run = finish(hospitals, queue)
    report = run.report_work
    type(report).objects.update(status="FAILED")
    services.request_report(run)
    version = run.versions.of_federation().get()
    services.distribute_version(version, distributed_by=None, envoys=hospitals[:1])
    assert sorted(queue.lose()) == ["distribute_version_task", "report_run_task"]
    for model in (type(report), type(version.distributions.get())):
        model.objects.update(enqueued_at=timezone.now() - timedelta(hours=1))
    assert sorted(queue.sweep()) == ["distribute_version_task", "report_run_task"]
    queue.work()
    assert version.distributions.get().status == "COMPLETE"
    assert queue.sweep() == []


def test_a_run_that_has_ended_is_left_alone(queue, training_round):
    services.stop_run(training_round.run, stopped_by=None)
    training_round.assignments.update(status=Status.PENDING, enqueued_at=None)
    assert queue.sweep() == []
