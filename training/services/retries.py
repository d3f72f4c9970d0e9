"""Asking a hospital again that could not do its part of a round."""

from django.db import transaction

from diagnoses.models import Snapshot
from envoys import audit
from envoys.models import User
from training.errors import NotReadyError
from training.models import AssignmentQuerySet, RoundAssignment, TrainingRound, TrainingRun
from training.services.rounds import deadline_of, enqueue_assignments

ASKED_AGAIN = (RoundAssignment.Status.FAILED, RoundAssignment.Status.MISSED)


def retryable_assignments(run: TrainingRun) -> AssignmentQuerySet:
    """What can be asked for again: a hospital without an update while its round still collects."""
    rounds = TrainingRound.objects.collecting().filter(run__in=TrainingRun.objects.active())
    assignments: AssignmentQuerySet = RoundAssignment.objects.filter(
        training_round__in=rounds.filter(run=run), status__in=ASKED_AGAIN
    )
    return assignments


def retry_assignment(assignment: RoundAssignment, *, retried_by: User | None) -> RoundAssignment:
    """Ask a hospital again that failed or missed a round; it gets as much time as at first.

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
        if not collecting.update(deadline_at=deadline_of(run)):
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
