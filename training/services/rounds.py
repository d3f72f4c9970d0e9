"""A round, from its opening to the next global model.

Every step is one conditional update in the transaction of its result, so it can be asked for
twice, by two workers, or again after a crash: it happens once.
"""

import logging
import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime, timedelta

from django.conf import settings
from django.db import transaction
from django.utils import timezone

from diagnoses.models import Snapshot
from envoys.errors import LostObjectError, StorageError
from envoys.work import lease_holder
from federated.errors import FederatedError
from federated.params import params_sha256
from federated.plan import TrainingPlan
from federated.rounds import check_classes, first_params, next_params
from federated.scaling import FeatureScaling, pooled_scaling
from federated.screening import Screening
from training.errors import NotReadyError
from training.models import (
    ReceivedUpdate,
    RoundAssignment,
    RunParticipant,
    TrainingRound,
    TrainingRun,
)
from training.objects import load_params, params_key, read_once, save_params
from training.services.missing import whom_it_waits_for, why_it_fails
from training.services.screening import Screened, hold_outliers, outlook_of, screen_updates
from training.services.updates import (
    LostUpdateError,
    accepted_updates,
    client_updates,
    round_state,
    update_params,
)
from training.services.versions import create_versions

logger = logging.getLogger(__name__)

# Training that takes less goes faster in one process than with a message to another.
WORTH_A_MESSAGE_SECONDS = 0.03
FINAL_SNAPSHOT = (Snapshot.Status.COMPLETE, Snapshot.Status.FAILED)


def run_scaling(run: TrainingRun) -> FeatureScaling:
    """The scaling pooled in round 0, or brought by the package of a manual launch."""
    if run.scaling is None:
        raise NotReadyError(f"{run} has no scaling yet: its round 0 has not been aggregated")
    return FeatureScaling(tuple(run.scaling["mean"]), tuple(run.scaling["std"]))


@dataclass
class GoingOn:
    """A worker that takes up a part of the round it opens at once, without a message.

    Attributes:
        holder: who has the lease.
        assignments: what it has taken; all that it needs of them is in memory.
    """

    holder: str = field(default_factory=lease_holder)
    assignments: list[RoundAssignment] = field(default_factory=list)

    def take(self, chunk: Sequence[RoundAssignment]) -> None:
        """Claim assignments that are about to be written."""
        for assignment in chunk:
            assignment.status = RoundAssignment.WORKING
            assignment.attempt = 1
            assignment.holder = self.holder
            assignment.leased_until = timezone.now() + timedelta(seconds=settings.LEASE_SECONDS)


def open_round(
    run: TrainingRun,
    number: int,
    *,
    base_sha256: str = "",
    state_sha256: str = "",
    going_on: GoingOn | None = None,
    seconds: float = math.inf,
) -> TrainingRound:
    """Write a round and what each taking part owes it; call it in the transaction that asks.

    Args:
        seconds: that its training is likely to take, all hospitals together.
    """
    training_round = TrainingRound.objects.create(
        run=run,
        number=number,
        base_sha256=base_sha256,
        state_sha256=state_sha256,
        deadline_at=deadline_of(run),
    )
    # Round 0 waits until the data are frozen; from then on it is known here what to hand out.
    now = timezone.now() if number > 0 else None
    participants = run.participants.filter(sits_out_because="", snapshot__isnull=False)
    assignments = [
        RoundAssignment(
            training_round=training_round,
            envoy=participant.envoy,
            snapshot=participant.snapshot,
            enqueued_at=now,
        )
        for participant in participants.order_by("pk").select_related("snapshot", "envoy")
    ]
    chunks = _chunks(assignments, seconds) if now else []
    taken: list[RoundAssignment] = []
    if going_on and chunks and not chunks[0][0].envoy.queue:
        taken = chunks.pop(0)
        going_on.take(taken)
    RoundAssignment.objects.bulk_create(assignments)

    def hand_out() -> None:
        if now is None:
            enqueue_assignments(training_round)
        _hand_out(chunks)
        if going_on:
            going_on.assignments += taken

    transaction.on_commit(hand_out)
    return training_round


def deadline_of(run: TrainingRun) -> datetime | None:
    if run.mode == TrainingRun.Mode.MANUAL:
        return None
    return timezone.now() + timedelta(seconds=run.deadline_seconds)


def enqueue_assignments(training_round: TrainingRound) -> int:
    """Hand out what is due; round 0 waits until every hospital's data is frozen."""
    if (
        training_round.number == 0
        and training_round.assignments.exclude(snapshot__status__in=FINAL_SNAPSHOT).exists()
    ):
        return 0
    due = list(
        training_round.assignments.due()
        .filter(snapshot__status=Snapshot.Status.COMPLETE)
        .select_related("envoy", "snapshot")
    )
    if not due:
        return 0
    RoundAssignment.objects.filter(pk__in=[assignment.pk for assignment in due]).update(
        enqueued_at=timezone.now()
    )
    _hand_out(_chunks(due))
    return len(due)


def _chunks(
    due: Sequence[RoundAssignment], seconds: float = math.inf
) -> list[list[RoundAssignment]]:
    """Hosted envoys in as many chunks as the pool has processes, or as are worth a message each.

    A message and a transaction per client cost more than the training. An envoy with a queue of
    its own gets a message of its own.
    """
    shared = [assignment for assignment in due if not assignment.envoy.queue]
    num_chunks = int(min(settings.WORKER_PROCESSES, seconds / WORTH_A_MESSAGE_SECONDS))
    chunks = balanced_chunks(shared, max(num_chunks, 1))
    return chunks + [[assignment] for assignment in due if assignment.envoy.queue]


def _hand_out(chunks: Iterable[Sequence[RoundAssignment]]) -> None:
    from training.tasks import train_clients_task

    for chunk in chunks:
        train_clients_task.apply_async(
            ([assignment.pk for assignment in chunk],), queue=chunk[0].envoy.queue or None
        )


def balanced_chunks(
    assignments: Sequence[RoundAssignment], num_chunks: int
) -> list[list[RoundAssignment]]:
    """Share clients among processes: the largest first, each to who has the least to do."""
    chunks: list[list[RoundAssignment]] = [[] for _ in range(num_chunks)]
    loads = [0] * num_chunks
    for assignment in sorted(assignments, key=lambda a: (-a.snapshot.num_admissions, a.pk)):
        least = loads.index(min(loads))
        chunks[least].append(assignment)
        loads[least] += assignment.snapshot.num_admissions + 1
    return [chunk for chunk in chunks if chunk]


def close_round(training_round: TrainingRound, *, going_on: GoingOn | None = None) -> bool:
    """Close a round to updates if all are in, or its deadline has passed; then aggregate it.

    Where somebody is missing, the run's `on_miss` says what follows: the round goes on with a quorum
    and all who must take part, and fails without them, and its run with it; it fails in any case;
    or it stays open, with the reason on its row, for a person to decide.
    """
    if _close(training_round):
        _aggregate(training_round, going_on)
        return True
    return False


def _close(training_round: TrainingRound) -> bool:
    now = timezone.now()
    collecting = TrainingRound.objects.collecting().filter(pk=training_round.pk)
    is_manual = training_round.run.mode == TrainingRun.Mode.MANUAL
    if is_manual or not collecting.may_close(now).exists():
        return False
    waits = training_round.run.on_miss == TrainingRun.OnMiss.WAIT
    with transaction.atomic():
        # The round's row, as whoever asks again, goes on without a hospital or stops the run.
        locked = collecting.select_for_update().only("deadline_at").order_by().first()
        if locked is None:
            return False
        if waits and (reason := whom_it_waits_for(training_round)):
            collecting.may_close(now).exclude(reason=reason).update(reason=reason)
            return False
        if not waits and locked.deadline_at is not None and locked.deadline_at < now:
            # First the assignments: one that is submitted meanwhile is either in, or late. Only
            # the rows' own columns decide, which PostgreSQL looks at again after waiting.
            RoundAssignment.objects.filter(training_round_id=training_round.pk).unfinished().update(
                status=RoundAssignment.Status.MISSED,
                reason="no update before the deadline",
                leased_until=None,
            )
        reason = why_it_fails(training_round)
        if not reason:
            closed = {"status": TrainingRound.Status.CLOSED, "closed_at": now, "reason": ""}
            if not collecting.all_in().update(**closed):
                return False
            for name, value in closed.items():
                setattr(training_round, name, value)
            return True
        if collecting.all_in().update(
            status=TrainingRound.Status.FAILED, reason=reason, closed_at=now
        ):
            fail_run(training_round.run, f"Round {training_round.number}: {reason}")
    return False


def fail_run(run: TrainingRun, reason: str) -> None:
    TrainingRun.objects.active().filter(pk=run.pk).update(
        status=TrainingRun.Status.FAILED, reason=reason, finished_at=timezone.now()
    )


def aggregate_round(training_round: TrainingRound) -> bool:
    """Make the next global model of a round closed to updates; False if another worker has.

    What is odd among its updates goes into quarantine first, and the round goes on without it; if
    too few are left, it waits until somebody has decided. An update whose object is gone or damaged is asked for again: the round is open once more. One
    whose base parameters are gone fails, and its run with it.
    """
    training_round = TrainingRound.objects.select_related("run__study").get(pk=training_round.pk)
    return _aggregate(training_round, None)


def _aggregate(training_round: TrainingRound, going_on: GoingOn | None) -> bool:
    if training_round.status != TrainingRound.Status.CLOSED or training_round.reason:
        return False
    try:
        if training_round.number == 0:
            return _finish_statistics(training_round, accepted_updates(training_round), going_on)
        with read_once():
            screened = screen_updates(training_round)
            if screened.is_plain:
                return _finish_training(training_round, screened, going_on)
            # Who is held is written down at once, and decides whether the round goes on.
            if not settle_round(training_round, screened.screenings):
                return False
            screened = Screened(accepted_updates(training_round))
            return _finish_training(training_round, screened, going_on)
    except LostUpdateError as lost:
        _ask_again(training_round, lost.update, str(lost))
        return False
    except LostObjectError as error:  # what the updates were made of: nobody can send it again
        if training_round.deadline_at and timezone.now() < training_round.deadline_at:
            raise  # perhaps it was cut short on the way, or is brought back: the sweeper looks again
        _fail_closed_round(training_round, str(error))
        return False
    except StorageError:
        raise  # out of reach for now: the sweeper tries again
    except FederatedError as error:  # the same again another time
        _fail_closed_round(training_round, str(error))
        return False


@transaction.atomic
def settle_round(
    training_round: TrainingRound, screenings: Mapping[str, Screening] | None = None
) -> bool:
    """Whether enough updates count for a closed round to go on; else it waits, or fails.

    It waits, with the reason on its row, as long as releasing what is in quarantine would help, or
    where a person is to say whether it goes on without a hospital that must take part.

    Args:
        screenings: of its updates, by hospital; what is odd is put into quarantine first.
    """
    training_round = (
        TrainingRound.objects.select_for_update().select_related("run").get(pk=training_round.pk)
    )
    if training_round.status != TrainingRound.Status.CLOSED:
        return False
    hold_outliers(training_round, screenings or {})
    outlook = outlook_of(training_round)
    if outlook.fails_because:
        _fail_closed_round(training_round, f"{outlook.fails_because}. {_left_out(training_round)}")
        return False
    if outlook.waits_because != training_round.reason:
        TrainingRound.objects.closed().filter(pk=training_round.pk).update(
            reason=outlook.waits_because
        )
    return not outlook.waits_because


def _left_out(training_round: TrainingRound) -> str:
    """Why updates that came in do not count."""
    left_out = ReceivedUpdate.objects.filter(
        assignment__training_round=training_round,
        verdict__in=[
            ReceivedUpdate.Verdict.REJECTED,
            ReceivedUpdate.Verdict.REFUSED,
            ReceivedUpdate.Verdict.QUARANTINED,
        ],
    ).select_related("assignment__envoy")
    return "; ".join(
        f"{update.assignment.envoy}: {update.get_verdict_display().lower()}, {update.reason}"
        for update in sorted(left_out, key=lambda update: update.assignment.envoy.slug)
    )


def _finish_statistics(
    training_round: TrainingRound, updates: list[ReceivedUpdate], going_on: GoingOn | None
) -> bool:
    run = training_round.run
    plan = TrainingPlan.from_json(run.plan)
    check_classes(plan, (update.metrics["classes"] for update in updates))
    scaling = pooled_scaling(update_params(update) for update in updates)
    params = first_params(plan, seed=run.seed)
    object_sha256 = save_params(params)
    with transaction.atomic():
        if not _mark_aggregated(training_round, object_sha256):
            return False
        run.scaling = {"mean": list(scaling.mean), "std": list(scaling.std)}
        TrainingRun.objects.active().filter(pk=run.pk).update(
            scaling=run.scaling,
            params_sha256=object_sha256,
            status=TrainingRun.Status.TRAINING,
            training_at=timezone.now(),
        )
        _sit_out_without_statistics(training_round)
        open_round(run, 1, base_sha256=object_sha256, going_on=going_on)
    return True


def _sit_out_without_statistics(training_round: TrainingRound) -> None:
    """Who brought nothing in round 0 is not asked again: its data cannot be used, or is not there."""
    missing = training_round.assignments.exclude(status=RoundAssignment.Status.SUBMITTED)
    for assignment in missing:
        RunParticipant.objects.filter(
            run_id=training_round.run_id, envoy_id=assignment.envoy_id
        ).update(sits_out_because=assignment.reason or assignment.get_status_display())


def _finish_training(
    training_round: TrainingRound, screened: Screened, going_on: GoingOn | None
) -> bool:
    from training.services.reports import request_report  # it needs this module

    run = training_round.run
    plan = TrainingPlan.from_json(run.plan)
    base_params = load_params(training_round.base_sha256)
    state = round_state(training_round, plan, base_params)
    params, state = next_params(plan, base_params, client_updates(screened.updates), state)
    object_sha256 = save_params(params)
    state_sha256 = save_params(state) if state else ""
    is_last = run.mode == TrainingRun.Mode.MANUAL or training_round.number >= plan.num_rounds
    versions = None
    if is_last:
        versions = create_versions(training_round, params, base_params, screened.updates)
    with transaction.atomic():
        if not _mark_aggregated(training_round, object_sha256):
            return False
        screened.save_figures()
        if versions is None:
            TrainingRun.objects.filter(pk=run.pk).update(params_sha256=object_sha256)
            open_round(
                run,
                training_round.number + 1,
                base_sha256=object_sha256,
                state_sha256=state_sha256,
                going_on=going_on,
                seconds=sum(update.metrics.get("seconds", 0.0) for update in screened.updates),
            )
        else:
            versions.save()
            TrainingRun.objects.active().filter(pk=run.pk).update(
                status=TrainingRun.Status.FINISHED,
                params_sha256=object_sha256,
                final_sha256=params_sha256(params),
                reason=versions.notes,
                finished_at=timezone.now(),
            )
            if run.mode == TrainingRun.Mode.AUTOMATIC:
                run.refresh_from_db()
                request_report(run)
    return True


def _mark_aggregated(training_round: TrainingRound, object_sha256: str) -> bool:
    """The conditional update that lets one worker's result count; a stopped run's does not."""
    return bool(
        TrainingRound.objects.closed()
        .filter(pk=training_round.pk, run__in=TrainingRun.objects.active())
        .update(
            status=TrainingRound.Status.AGGREGATED,
            result_sha256=object_sha256,
            aggregated_at=timezone.now(),
        )
    )


@transaction.atomic
def _ask_again(training_round: TrainingRound, update: ReceivedUpdate, reason: str) -> None:
    reopened = (
        TrainingRound.objects.closed()
        .filter(pk=training_round.pk)
        .update(
            status=TrainingRound.Status.COLLECTING,
            closed_at=None,
            deadline_at=deadline_of(training_round.run),  # as much time as at first
        )
    )
    if not reopened:
        return
    logger.warning("update %s is asked for again: %s", params_key(update.sha256), reason)
    ReceivedUpdate.objects.filter(pk=update.pk).update(
        verdict=ReceivedUpdate.Verdict.REFUSED, reason=reason
    )
    RoundAssignment.objects.filter(pk=update.assignment_id).update(
        status=RoundAssignment.Status.PENDING, reason=reason, enqueued_at=None, submitted_at=None
    )


@transaction.atomic
def _fail_closed_round(training_round: TrainingRound, reason: str) -> None:
    failed = TrainingRound.objects.closed().filter(pk=training_round.pk)
    if failed.update(status=TrainingRound.Status.FAILED, reason=reason):
        fail_run(training_round.run, f"Round {training_round.number}: {reason}")
