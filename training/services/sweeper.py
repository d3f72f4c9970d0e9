"""Does again what is due and in nobody's hands.

It alone recovers a killed worker, a lost message and a lost broker; redelivery only helps.
"""

from datetime import datetime, timedelta

from django.conf import settings
from django.utils import timezone

from diagnoses.models import Snapshot
from envoys.work import enqueue_due
from training.models import RoundAssignment, RoundQuerySet, TrainingRound, TrainingRun
from training.services.rounds import enqueue_assignments


def advance_runs() -> None:
    """One sweep over everything that is under way; called every few seconds."""
    enqueue_due()
    in_doubt = timezone.now() - timedelta(seconds=settings.LEASE_SECONDS)
    rounds = TrainingRound.objects.filter(run__in=TrainingRun.objects.active())
    for training_round in rounds.collecting().select_related("run"):
        _fail_without_data(training_round)
        training_round.assignments.give_up()
        enqueue_assignments(training_round)  # at most once a lease: a second message does no harm
    _enqueue_closing(rounds, in_doubt)


def _enqueue_closing(rounds: RoundQuerySet, in_doubt: datetime) -> None:
    from training.tasks import aggregate_round_task, close_round_task

    may_close = rounds.collecting().may_close(timezone.now())
    may_close = may_close.filter(run__mode=TrainingRun.Mode.AUTOMATIC)
    for pk, reason in may_close.values_list("pk", "reason"):
        if reason and RoundAssignment.objects.filter(training_round=pk).missing().exists():
            continue  # it waits for them, and for whoever decides; who brings the last one closes it
        close_round_task.apply_async((pk,), expires=settings.LEASE_SECONDS)
    # One that waits for a decision is handed out by whoever decides.
    in_nobodys_hands = rounds.closed().filter(closed_at__lt=in_doubt, reason="")
    for pk in list(in_nobodys_hands.values_list("pk", flat=True)):
        # Counted from now again: one that takes longer than a lease is not done twice at once.
        rounds.closed().filter(pk=pk).update(closed_at=timezone.now())
        aggregate_round_task.apply_async((pk,), expires=settings.LEASE_SECONDS)


def _fail_without_data(training_round: TrainingRound) -> None:
    """A hospital whose data could not be frozen sits out, with the reason."""
    for assignment in (
        training_round.assignments.unfinished()
        .filter(snapshot__status=Snapshot.Status.FAILED)
        .select_related("snapshot", "training_round")
    ):
        RoundAssignment.objects.finish(
            assignment,
            status=RoundAssignment.Status.FAILED,
            reason=f"Its data could not be frozen: {assignment.snapshot.reason}",
        )
