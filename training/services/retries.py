"""What a person does about a hospital that has not done its part of a round."""

from django.db import transaction
from django.db.models import Exists, OuterRef

from diagnoses.models import Snapshot
from envoys import audit
from envoys.models import User
from training.errors import NotReadyError
from training.models import (
    AssignmentQuerySet,
    ReceivedUpdate,
    RoundAssignment,
    TrainingRound,
    TrainingRun,
)
from training.services.rounds import deadline_of, enqueue_assignments, settle_round
from training.services.screening import num_needed, submitted_updates

Status = RoundAssignment.Status
ASKED_AGAIN = (Status.FAILED, Status.MISSED, Status.DROPPED)
OPEN = (TrainingRound.Status.COLLECTING, TrainingRound.Status.CLOSED)


def retryable_assignments(run: TrainingRun) -> AssignmentQuerySet:
    """What can be asked for again: a hospital without an update while its round still collects."""
    rounds = TrainingRound.objects.collecting().filter(run__in=TrainingRun.objects.active())
    assignments: AssignmentQuerySet = RoundAssignment.objects.filter(
        training_round__in=rounds.filter(run=run), status__in=ASKED_AGAIN
    )
    return assignments


def retry_assignment(assignment: RoundAssignment, *, retried_by: User | None) -> RoundAssignment:
    """Ask a hospital again that failed, missed a round or was left out; its time begins anew.

    Where its data could not be frozen, that is tried again first.

    Raises:
        NotReadyError: the round takes no updates any more, or there is nothing to try again.
    """
    training_round = assignment.training_round
    run = training_round.run
    with transaction.atomic():
        collecting = TrainingRound.objects.collecting().filter(
            pk=training_round.pk, run__in=TrainingRun.objects.active()
        )
        # The round's row first, as whoever closes or stops it: one of both comes too late.
        if not collecting.update(deadline_at=deadline_of(run), reason=""):
            raise NotReadyError(
                f"round {training_round.number} of {run} takes no updates any more: start another"
                f" run, and {assignment.envoy} is asked again"
            )
        retried = RoundAssignment.objects.filter(pk=assignment.pk, status__in=ASKED_AGAIN).update(
            status=RoundAssignment.Status.PENDING,
            reason="",
            attempt=0,
            holder="",
            leased_until=None,
            enqueued_at=None,
            submitted_at=None,
        )
        if not retried:
            assignment.refresh_from_db()
            raise NotReadyError(
                f"{assignment.envoy} has not failed: {assignment.get_status_display().lower()}"
            )
        # The sweeper enqueues it, and then the assignment that waits for it.
        Snapshot.objects.filter(pk=assignment.snapshot_id, status=Snapshot.Status.FAILED).update(
            status=Snapshot.Status.PENDING, reason="", attempt=0, enqueued_at=None
        )
        audit.record(retried_by, "retried assignment", assignment)
        transaction.on_commit(lambda: enqueue_assignments(training_round))
    assignment.refresh_from_db()
    return assignment


def droppable_assignments(run: TrainingRun) -> AssignmentQuerySet:
    """Whom an open round of a run that waits for the missing may go on without."""
    if run.on_miss != TrainingRun.OnMiss.WAIT:
        return RoundAssignment.objects.none()
    rounds = TrainingRound.objects.filter(run=run, run__in=TrainingRun.objects.active())
    assignments: AssignmentQuerySet = RoundAssignment.objects.filter(
        training_round__in=rounds.filter(status__in=OPEN)
    )
    standing = [ReceivedUpdate.Verdict.ACCEPTED, ReceivedUpdate.Verdict.QUARANTINED]
    brought = ReceivedUpdate.objects.filter(assignment=OuterRef("pk"), verdict__in=standing)
    return assignments.exclude(status=Status.DROPPED).exclude(Exists(brought))


def drop_assignment(assignment: RoundAssignment, *, dropped_by: User | None) -> RoundAssignment:
    """Let a round go on without a hospital that it waits for, in a run that waits for the missing.

    What the hospital still sends is late. Until the others are in, it can be asked again. In the
    next round it is asked as before, unless this is round 0: without statistics it sits out.

    Raises:
        NotReadyError: the run does not wait, the round has its update or is over, or too few
            others would be left; it says which.
    """
    from training.tasks import aggregate_round_task, close_round_task

    with transaction.atomic():
        # The round's row first, as whoever closes or settles it, and that alone: who stops a run
        # begins with its study.
        training_round = (
            TrainingRound.objects.select_for_update(
                of=("self",)
            )  # not the study: stopping begins there
            .select_related("run__study")
            .get(pk=assignment.training_round_id)
        )
        run = TrainingRun.objects.get(pk=training_round.run_id)
        _refuse_dropping(training_round, run, assignment)
        RoundAssignment.objects.filter(pk=assignment.pk).exclude(status=Status.DROPPED).update(
            status=Status.DROPPED,
            reason="somebody decided to go on without it",
            leased_until=None,
            holder="",
        )
        audit.record(dropped_by, "went on without hospital", assignment)
        if training_round.status == TrainingRound.Status.COLLECTING:
            close_round_task.delay_on_commit(training_round.pk)
        elif settle_round(training_round):
            aggregate_round_task.delay_on_commit(training_round.pk)
    assignment.refresh_from_db()
    return assignment


def _refuse_dropping(
    training_round: TrainingRound, run: TrainingRun, assignment: RoundAssignment
) -> None:
    envoy = assignment.envoy
    is_over = training_round.status not in OPEN or not run.is_active
    if is_over or run.on_miss != TrainingRun.OnMiss.WAIT:
        raise NotReadyError(
            f"round {training_round.number} of {run} "
            + ("is over" if is_over else "does not wait for who is missing")
            + f": there is nothing to decide about {envoy}"
        )
    has_brought = any(
        update.assignment_id == assignment.pk for update in submitted_updates(training_round)
    )
    if has_brought:
        raise NotReadyError(
            f"the update of {envoy} is in: if it is in quarantine, release or reject it"
        )
    others = training_round.assignments.exclude(pk=assignment.pk).exclude(status=Status.DROPPED)
    if others.count() < num_needed(run):
        raise NotReadyError(
            f"without {envoy} {others.count()} would be left of {num_needed(run)} needed:"
            " ask it again, wait, or stop the run"
        )
