import pytest

from diagnoses.models import Snapshot
from envoys.models import AuditEvent, User
from tests.factories import make_assignment, make_participant, make_round, make_run, make_user
from tests.federation import assignment_of, start_round
from training import services
from training.errors import NotReadyError
from training.models import RoundAssignment, TrainingRound, TrainingRun

pytestmark = pytest.mark.django_db
Status = RoundAssignment.Status


@pytest.fixture
def scientist() -> User:
    return make_user(User.Role.DATA_SCIENTIST)


@pytest.fixture
def assignment():
    run = make_run(status=TrainingRun.Status.TRAINING)
    participant = make_participant(run)
    return make_assignment(
        make_round(run), participant.envoy, status=Status.FAILED, attempt=10, reason="not finite"
    )


def test_a_hospital_that_failed_is_asked_again_and_counts(queue, hospitals, scientist):
    training_round = start_round(hospitals, queue)
    assignment = assignment_of(training_round, hospitals[0])
    failed = RoundAssignment.objects.filter(pk=assignment.pk)
    failed.update(status=Status.FAILED, attempt=3, reason="worker was out of memory")
    num_messages = len(queue.names())

    services.retry_assignment(assignment, retried_by=scientist)
    assert queue.names()[num_messages:] == ["train_clients_task"]
    queue.work_and_sweep()
    assignment.refresh_from_db()
    assert (assignment.status, assignment.reason) == (Status.SUBMITTED, "")
    assert training_round.run.versions.of_federation().exists()


def test_a_retry_starts_the_count_of_attempts_again_and_gives_time(queue, assignment, scientist):
    before = assignment.training_round.deadline_at
    retried = services.retry_assignment(assignment, retried_by=scientist)
    assert (retried.status, retried.attempt, retried.reason) == (Status.PENDING, 0, "")
    assert before is None
    assert TrainingRound.objects.get().deadline_at is not None
    assert AuditEvent.objects.get().action == "retried assignment"
    assert not services.retryable_assignments(assignment.training_round.run).exists()


def test_data_that_could_not_be_frozen_is_frozen_again_first(queue, assignment, scientist):
    snapshots = Snapshot.objects.filter(pk=assignment.snapshot_id)
    snapshots.update(status=Snapshot.Status.FAILED, reason="the bucket is away", attempt=1)
    services.retry_assignment(assignment, retried_by=scientist)
    assert queue.sweep() == ["export_snapshot_task"]
    assert snapshots.get().reason == ""


@pytest.mark.parametrize("status", [Status.PENDING, Status.TRAINING, Status.SUBMITTED])
def test_a_hospital_that_has_not_failed_is_not_asked_again(assignment, scientist, status):
    RoundAssignment.objects.filter(pk=assignment.pk).update(status=status)
    with pytest.raises(NotReadyError, match="has not failed"):
        services.retry_assignment(assignment, retried_by=scientist)
    assert not AuditEvent.objects.exists()


def test_a_round_that_has_closed_and_a_run_that_has_ended_take_no_retry(assignment, scientist):
    training_round = assignment.training_round
    runs = TrainingRun.objects.filter(pk=training_round.run_id)
    runs.update(status=TrainingRun.Status.STOPPED)
    with pytest.raises(NotReadyError, match="takes no updates any more: start another run"):
        services.retry_assignment(assignment, retried_by=scientist)
    runs.update(status=TrainingRun.Status.TRAINING)
    TrainingRound.objects.filter(pk=training_round.pk).update(status=TrainingRound.Status.CLOSED)
    with pytest.raises(NotReadyError, match="takes no updates any more"):
        services.retry_assignment(assignment, retried_by=scientist)
    assignment.refresh_from_db()
    assert assignment.status == Status.FAILED
