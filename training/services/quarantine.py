"""What a person decides about an update in quarantine."""

from django.db import transaction
from django.utils import timezone

from envoys import audit
from envoys.models import User
from training.errors import ConflictError
from training.models import ReceivedUpdate, RunParticipant
from training.services.rounds import settle_round

Verdict = ReceivedUpdate.Verdict


def release_update(update: ReceivedUpdate, *, decided_by: User | None) -> ReceivedUpdate:
    """Say that an update in quarantine is honest, and with it its hospital for the rest of the run.

    It counts if its round still waits. In a round that is over nothing changes: it is kept as late.
    Whatever else of the hospital is in quarantine in this run is released with it, and what it
    sends from now on is not screened again.

    Raises:
        ConflictError: it is not in quarantine, or somebody has decided before; it says who.
    """
    return _decide(update, decided_by, is_honest=True)


def reject_update(update: ReceivedUpdate, *, decided_by: User | None) -> ReceivedUpdate:
    """Say that an update in quarantine must not count, nor what its hospital sends in this run.

    A round that waits for it goes on waiting only if others in quarantine can make up the quorum;
    else it fails, and its run, in words.

    Raises:
        ConflictError: it is not in quarantine, or somebody has decided before; it says who.
    """
    return _decide(update, decided_by, is_honest=False)


@transaction.atomic
def _decide(update: ReceivedUpdate, decided_by: User | None, *, is_honest: bool) -> ReceivedUpdate:
    from training.tasks import aggregate_round_task

    run = update.assignment.training_round.run
    # The rounds' rows first, as whoever screens, aggregates or stops: one of both comes later.
    rounds = {each.pk: each for each in run.rounds.select_for_update().order_by("pk")}
    held = ReceivedUpdate.objects.in_quarantine().filter(
        assignment__envoy=update.assignment.envoy_id, assignment__training_round__run=run
    )
    together = list(held.select_related("assignment").order_by("pk"))
    if update.pk not in {each.pk for each in together}:
        update.refresh_from_db()
        raise ConflictError(_decided_before(update))
    run.refresh_from_db()
    for each in together:
        training_round = rounds[each.assignment.training_round_id]
        still_counts = run.is_active and training_round.is_open_to_decisions
        verdict = Verdict.REJECTED
        if is_honest:
            verdict = Verdict.ACCEPTED if still_counts else Verdict.LATE
        ReceivedUpdate.objects.filter(pk=each.pk, verdict=Verdict.QUARANTINED).update(
            verdict=verdict, decided_by=decided_by, decided_at=timezone.now()
        )
        audit.record(decided_by, "released update" if is_honest else "rejected update", each)
    if is_honest:
        RunParticipant.objects.filter(run=run, envoy=update.assignment.envoy_id).update(
            is_trusted=True
        )
    for training_round in rounds.values():
        if run.is_active and training_round.is_waiting and settle_round(training_round):
            aggregate_round_task.delay_on_commit(training_round.pk)
    update.refresh_from_db()
    return update


def _decided_before(update: ReceivedUpdate) -> str:
    if update.decided_at is None:
        return f"this update is not in quarantine: {update.get_verdict_display().lower()}"
    decision = "rejected" if update.verdict == Verdict.REJECTED else "released"
    by = f" by {update.decided_by.get_username()}" if update.decided_by else ""
    return (
        f"this update has been {decision} already{by},"
        f" on {update.decided_at:%-d %b %Y at %H:%M} UTC: that stands"
    )
