"""A round, from its opening to the next global model.

Every step is one conditional update in the transaction of its result, so it can be asked for
twice, by two workers, or again after a crash: it happens once.
"""

import logging
import time
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Any

from django.conf import settings
from django.db import transaction
from django.utils import timezone

from diagnoses.models import Snapshot
from envoys.errors import LostObjectError, StorageError
from envoys.models import Envoy
from envoys.work import MAX_ATTEMPTS, enqueue_due
from federated.aggregation import ClientUpdate
from federated.errors import FederatedError
from federated.params import Params, from_bytes, params_sha256
from federated.plan import TrainingPlan
from federated.rounds import check_update, client_update, first_params, next_params
from federated.scaling import FeatureScaling, feature_statistics, pooled_scaling
from training.arrays import open_snapshot
from training.errors import ConflictError, NotReadyError, RefusedUpdateError
from training.models import (
    ReceivedUpdate,
    RoundAssignment,
    RunParticipant,
    TrainingRound,
    TrainingRun,
)
from training.objects import load_base_params, load_params, params_key, save_params
from training.services.versions import create_versions

logger = logging.getLogger(__name__)

RECORD_SECONDS = 1.0  # updates are recorded together, at least this often
FINAL_SNAPSHOT = (Snapshot.Status.COMPLETE, Snapshot.Status.FAILED)


@dataclass(frozen=True)
class FinishedUpdate:
    """An update whose object is stored, and whose row is not yet."""

    assignment: RoundAssignment
    sha256: str
    num_examples: int
    metrics: dict[str, Any]


def run_scaling(run: TrainingRun) -> FeatureScaling:
    """The scaling pooled in round 0, or brought by the package of a manual launch."""
    if run.scaling is None:
        raise NotReadyError(f"{run} has no scaling yet: its round 0 has not been aggregated")
    return FeatureScaling(tuple(run.scaling["mean"]), tuple(run.scaling["std"]))


def open_round(run: TrainingRun, number: int, *, base_sha256: str = "") -> TrainingRound:
    """Write a round and what each taking part owes it; call it in the transaction that asks."""
    training_round = TrainingRound.objects.create(
        run=run, number=number, base_sha256=base_sha256, deadline_at=_deadline(run)
    )
    participants = run.participants.filter(sits_out_because="")
    RoundAssignment.objects.bulk_create(
        RoundAssignment(
            training_round=training_round,
            envoy_id=participant.envoy_id,
            snapshot=participant.snapshot,
        )
        for participant in participants.select_related("snapshot")
        if participant.snapshot
    )
    transaction.on_commit(lambda: enqueue_assignments(training_round))
    return training_round


def _deadline(run: TrainingRun) -> datetime | None:
    if run.mode == TrainingRun.Mode.MANUAL:
        return None
    return timezone.now() + timedelta(seconds=run.deadline_seconds)


def enqueue_assignments(training_round: TrainingRound) -> int:
    """Hand out what is due: hosted envoys in as many chunks as the pool has processes.

    A message and a transaction per client cost more than the training. An envoy with a queue of
    its own gets a message of its own. Round 0 waits until every hospital's data is frozen.
    """
    from training.tasks import train_clients_task

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
    shared = [a for a in due if not a.envoy.queue]
    for chunk in balanced_chunks(shared, settings.WORKER_PROCESSES):
        train_clients_task.delay([assignment.pk for assignment in chunk])
    for assignment in due:
        if assignment.envoy.queue:
            train_clients_task.apply_async(([assignment.pk],), queue=assignment.envoy.queue)
    return len(due)


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


def train_clients(assignment_ids: Sequence[int]) -> None:
    """Do the hospitals' part of a round: claim, train, store, record; then close the round.

    Whoever finds the assignments taken, or done, does nothing. An error of one hospital is written
    on its assignment and does not stop the others.
    """
    assignments = RoundAssignment.objects.select_related(
        "training_round__run", "snapshot", "envoy"
    ).claim(assignment_ids)
    if not assignments:
        return
    heartbeat = Heartbeat(assignments[0].holder)
    finished: list[FinishedUpdate] = []
    recorded_at = time.monotonic()
    for assignment in sorted(assignments, key=lambda a: a.envoy.slug):
        try:
            finished.append(_train_client(assignment, heartbeat))
        except StorageError as error:
            _postpone(assignment, error)
        except FederatedError as error:
            _fail_assignment(assignment, str(error))
        if time.monotonic() - recorded_at > RECORD_SECONDS:
            record_updates(finished)
            finished, recorded_at = [], time.monotonic()
    record_updates(finished)
    for training_round in {a.training_round for a in assignments}:
        close_round(training_round)


class Heartbeat:
    """Renews a worker's leases while it works, no more often than needed."""

    def __init__(self, holder: str) -> None:
        self._holder = holder
        self._renewed_at = time.monotonic()

    def __call__(self) -> None:
        if time.monotonic() - self._renewed_at > settings.LEASE_SECONDS / 4:
            RoundAssignment.objects.renew(self._holder)
            self._renewed_at = time.monotonic()


def _train_client(assignment: RoundAssignment, heartbeat: Callable[[], None]) -> FinishedUpdate:
    started = time.monotonic()
    training_round = assignment.training_round
    run = training_round.run
    plan = TrainingPlan.from_json(run.plan)
    dataset = open_snapshot(assignment.snapshot, plan, heartbeat=heartbeat)
    if training_round.number == 0:
        statistics = feature_statistics(dataset)
        metrics: dict[str, Any] = {"num_labelled_patients": dataset.num_labelled_patients}
        sha256, num_examples = save_params(statistics), dataset.num_examples
    else:
        base_params = load_base_params(training_round.base_sha256)
        update = client_update(
            plan,
            base_params,
            dataset,
            run_scaling(run),
            seed=run.seed,
            round_number=training_round.number,
            client_id=assignment.envoy.slug,
            on_batch=heartbeat,
        )
        check_update(base_params, update)
        metrics = update.metrics
        sha256, num_examples = save_params(update.delta_params), update.num_examples
    metrics["seconds"] = round(time.monotonic() - started, 3)
    return FinishedUpdate(assignment, sha256, num_examples, metrics)


def _postpone(assignment: RoundAssignment, error: StorageError) -> None:
    """Storage may come back: leave the assignment to the sweeper, a few times."""
    logger.warning("assignment %s: %s", assignment.pk, error)
    if assignment.attempt >= MAX_ATTEMPTS:
        _fail_assignment(assignment, str(error))
        return
    RoundAssignment.objects.finish(
        assignment,
        status=RoundAssignment.Status.PENDING,
        reason=f"Attempt {assignment.attempt}: {error}",
        enqueued_at=timezone.now(),  # due again after a lease
    )


def _fail_assignment(assignment: RoundAssignment, reason: str) -> None:
    RoundAssignment.objects.finish(assignment, status=RoundAssignment.Status.FAILED, reason=reason)
    if assignment.training_round.number == 0:
        RunParticipant.objects.filter(
            run_id=assignment.training_round.run_id, envoy_id=assignment.envoy_id
        ).update(sits_out_because=reason)
    logger.warning("assignment %s failed: %s", assignment.pk, reason)


def receive_update(
    assignment: RoundAssignment, content: bytes, *, num_examples: int, metrics: dict[str, Any]
) -> ReceivedUpdate:
    """Take an update that comes from outside; what must not count is recorded and refused.

    Args:
        content: the delta of the round's base parameters, as safetensors.
        num_examples: the rows it was trained on.
    Raises:
        RefusedUpdateError: unreadable, of another model, not finite, without examples, or late.
        ConflictError: another update of this hospital has been accepted for this round.
        StorageError: it could not be stored; nothing was recorded, send it again.
    """
    base_params = load_base_params(assignment.training_round.base_sha256)
    try:
        update = ClientUpdate(assignment.envoy.slug, from_bytes(content), num_examples, metrics)
        check_update(base_params, update)
    except FederatedError as error:
        ReceivedUpdate.objects.create(
            assignment=assignment,
            num_examples=max(num_examples, 0),
            verdict=ReceivedUpdate.Verdict.REFUSED,
            reason=str(error),
        )
        raise RefusedUpdateError(f"{assignment.envoy}: {error}") from error
    sha256 = save_params(update.delta_params)
    (received,) = record_updates([FinishedUpdate(assignment, sha256, num_examples, metrics)])
    if received.verdict == ReceivedUpdate.Verdict.LATE:
        raise RefusedUpdateError(f"{assignment.envoy}: {received.reason}")
    close_round(assignment.training_round)
    return received


@transaction.atomic
def record_updates(finished: Sequence[FinishedUpdate]) -> list[ReceivedUpdate]:
    """Write updates whose objects are stored, in one transaction.

    The same update again gets the same answer; one that comes after its round was closed is kept
    as late.

    Raises:
        ConflictError: a different update has been accepted in its place.
    """
    now = timezone.now()
    recorded = []
    for update in finished:
        won = RoundAssignment.objects.finish(
            update.assignment,
            status=RoundAssignment.Status.SUBMITTED,
            submitted_at=now,
            reason="",
        )
        recorded.append(_received(update) if won else _answer_again(update))
    accepted = [u for u in recorded if u.pk is None]
    ReceivedUpdate.objects.bulk_create(accepted)
    if accepted:
        Envoy.objects.filter(pk__in=[u.assignment.envoy_id for u in accepted]).update(
            last_seen_at=now
        )
    return recorded


def _received(update: FinishedUpdate, **values: Any) -> ReceivedUpdate:
    values.setdefault("verdict", ReceivedUpdate.Verdict.ACCEPTED)
    return ReceivedUpdate(
        assignment=update.assignment,
        sha256=update.sha256,
        num_examples=update.num_examples,
        metrics=update.metrics,
        **values,
    )


def _answer_again(update: FinishedUpdate) -> ReceivedUpdate:
    accepted = ReceivedUpdate.objects.filter(
        assignment=update.assignment, verdict=ReceivedUpdate.Verdict.ACCEPTED
    ).first()
    if accepted is None:
        return _received(
            update,
            verdict=ReceivedUpdate.Verdict.LATE,
            reason="it came after the round was closed; it is kept and not counted",
        )
    if accepted.sha256 != update.sha256:
        raise ConflictError(
            f"{update.assignment.envoy}: the update {accepted.sha256[:12]} has been accepted for"
            f" this round; {update.sha256[:12]} is another one"
        )
    return accepted


def close_round(training_round: TrainingRound) -> bool:
    """Close a round to updates if all are in, or its deadline has passed; then aggregate it.

    A round whose deadline passes without a quorum fails, and its run with it.
    """
    if _close(training_round):
        aggregate_round(training_round)
        return True
    return False


def _close(training_round: TrainingRound) -> bool:
    now = timezone.now()
    collecting = TrainingRound.objects.collecting().filter(pk=training_round.pk)
    is_manual = training_round.run.mode == TrainingRun.Mode.MANUAL
    if is_manual or not collecting.may_close(now).exists():
        return False
    with transaction.atomic():
        # First the assignments: one that is submitted meanwhile is either in, or late.
        training_round.assignments.unfinished().filter(training_round__deadline_at__lt=now).update(
            status=RoundAssignment.Status.MISSED,
            reason="no update before the deadline",
            leased_until=None,
        )
        num_submitted = training_round.assignments.submitted().count()
        if num_submitted >= max(training_round.run.quorum, 1):
            return bool(
                collecting.all_in().update(status=TrainingRound.Status.CLOSED, closed_at=now)
            )
        reason = _no_quorum(training_round, num_submitted)
        if collecting.all_in().update(
            status=TrainingRound.Status.FAILED, reason=reason, closed_at=now
        ):
            fail_run(training_round.run, f"Round {training_round.number}: {reason}")
    return False


def _no_quorum(training_round: TrainingRound, num_submitted: int) -> str:
    missing = "; ".join(
        f"{assignment.envoy}: {assignment.reason or assignment.get_status_display()}"
        for assignment in training_round.assignments.exclude(
            status=RoundAssignment.Status.SUBMITTED
        ).select_related("envoy")
    )
    quorum = max(training_round.run.quorum, 1)
    return f"{num_submitted} of {quorum} needed updates came in. {missing}"


def fail_run(run: TrainingRun, reason: str) -> None:
    TrainingRun.objects.active().filter(pk=run.pk).update(
        status=TrainingRun.Status.FAILED, reason=reason, finished_at=timezone.now()
    )


def aggregate_round(training_round: TrainingRound) -> bool:
    """Make the next global model of a round closed to updates; False if another worker has.

    An update whose object is gone or damaged is asked for again: the round is open once more. One
    whose base parameters are gone fails, and its run with it.
    """
    training_round = TrainingRound.objects.select_related("run__study").get(pk=training_round.pk)
    if training_round.status != TrainingRound.Status.CLOSED:
        return False
    updates = accepted_updates(training_round)
    try:
        if training_round.number == 0:
            return _finish_statistics(training_round, updates)
        return _finish_training(training_round, updates)
    except _LostUpdateError as lost:
        _ask_again(training_round, lost.update, str(lost))
        return False
    except LostObjectError as error:  # what the updates were made of: nobody can send it again
        _fail_closed_round(training_round, str(error))
        return False


class _LostUpdateError(Exception):
    def __init__(self, update: ReceivedUpdate, reason: str) -> None:
        super().__init__(reason)
        self.update = update


def accepted_updates(training_round: TrainingRound) -> list[ReceivedUpdate]:
    """What counts in a round, sorted by hospital in Python: collations differ."""
    updates = ReceivedUpdate.objects.filter(
        assignment__training_round=training_round, verdict=ReceivedUpdate.Verdict.ACCEPTED
    ).select_related("assignment__envoy")
    return sorted(updates, key=lambda update: update.assignment.envoy.slug)


def update_params(update: ReceivedUpdate) -> Params:
    try:
        return load_params(update.sha256)
    except LostObjectError as error:  # one out of reach is no reason: the sweeper tries again
        raise _LostUpdateError(update, str(error)) from error


def client_updates(updates: Iterable[ReceivedUpdate]) -> Iterator[ClientUpdate]:
    for update in updates:
        yield ClientUpdate(update.assignment.envoy.slug, update_params(update), update.num_examples)


def _finish_statistics(training_round: TrainingRound, updates: list[ReceivedUpdate]) -> bool:
    run = training_round.run
    scaling = pooled_scaling(update_params(update) for update in updates)
    params = first_params(TrainingPlan.from_json(run.plan), seed=run.seed)
    object_sha256 = save_params(params)
    with transaction.atomic():
        if not _mark_aggregated(training_round, object_sha256):
            return False
        TrainingRun.objects.active().filter(pk=run.pk).update(
            scaling={"mean": list(scaling.mean), "std": list(scaling.std)},
            params_sha256=object_sha256,
            status=TrainingRun.Status.TRAINING,
            training_at=timezone.now(),
        )
        open_round(run, 1, base_sha256=object_sha256)
    return True


def _finish_training(training_round: TrainingRound, updates: list[ReceivedUpdate]) -> bool:
    run = training_round.run
    plan = TrainingPlan.from_json(run.plan)
    base_params = load_params(training_round.base_sha256)
    params = next_params(plan, base_params, client_updates(updates))
    object_sha256 = save_params(params)
    is_last = run.mode == TrainingRun.Mode.MANUAL or training_round.number >= plan.num_rounds
    versions = create_versions(training_round, params, base_params, updates) if is_last else None
    with transaction.atomic():
        if not _mark_aggregated(training_round, object_sha256):
            return False
        if versions is None:
            TrainingRun.objects.filter(pk=run.pk).update(params_sha256=object_sha256)
            open_round(run, training_round.number + 1, base_sha256=object_sha256)
        else:
            versions.save()
            TrainingRun.objects.active().filter(pk=run.pk).update(
                status=TrainingRun.Status.FINISHED,
                params_sha256=object_sha256,
                final_sha256=params_sha256(params),
                reason=versions.notes,
                finished_at=timezone.now(),
            )
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
            deadline_at=_deadline(training_round.run),  # as much time as at first
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


def advance_runs() -> None:
    """The sweeper's part: do again whatever is due and in nobody's hands.

    It alone recovers a killed worker, a lost message and a lost broker; redelivery only helps.
    """
    enqueue_due()
    in_doubt = timezone.now() - timedelta(seconds=settings.LEASE_SECONDS)
    rounds = TrainingRound.objects.filter(run__in=TrainingRun.objects.active())
    for training_round in rounds.collecting().select_related("run"):
        _fail_without_data(training_round)
        training_round.assignments.give_up()
        # A client that only waits behind another's chunk is not lost.
        if (
            not training_round.assignments.exclude(leased_until=None)
            .filter(leased_until__gt=timezone.now())
            .exists()
        ):
            enqueue_assignments(training_round)
    _enqueue_closing(rounds, in_doubt)


def _enqueue_closing(rounds: Any, in_doubt: Any) -> None:
    from training.tasks import aggregate_round_task, close_round_task

    may_close = rounds.collecting().may_close(timezone.now())
    may_close = may_close.filter(run__mode=TrainingRun.Mode.AUTOMATIC)
    for pk in may_close.values_list("pk", flat=True):
        close_round_task.delay(pk)
    for pk in rounds.closed().filter(closed_at__lt=in_doubt).values_list("pk", flat=True):
        aggregate_round_task.delay(pk)


def _fail_without_data(training_round: TrainingRound) -> None:
    """A hospital whose data could not be frozen sits out, with the reason."""
    for assignment in (
        training_round.assignments.unfinished()
        .filter(snapshot__status=Snapshot.Status.FAILED)
        .select_related("snapshot", "training_round")
    ):
        _fail_assignment(assignment, f"Its data could not be frozen: {assignment.snapshot.reason}")
