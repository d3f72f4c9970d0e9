"""The hospitals' part of a round, done here by a worker or sent from outside."""

import hashlib
import logging
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

from django.conf import settings
from django.db.models import F, Prefetch
from django.utils import timezone

from envoys.errors import LostObjectError, StorageError
from envoys.work import MAX_ATTEMPTS
from federated.errors import FederatedError, UnreadableParamsError
from federated.params import from_bytes
from federated.plan import TrainingPlan
from federated.rounds import check_update, classes_seen, client_update
from federated.scaling import feature_statistics
from federated.strategies import strategy_named
from training.arrays import let_go_of_removed, open_snapshot
from training.errors import ConflictError, NotItsDataError, RefusedUpdateError
from training.models import ReceivedUpdate, RoundAssignment, TrainingRound, TrainingRun
from training.objects import (
    PackedParams,
    load_base_params,
    pack_params,
    save_packed,
    save_params,
)
from training.services.rounds import GoingOn, close_round, run_scaling
from training.services.updates import (
    FinishedUpdate,
    client_state,
    pack_update,
    record_updates,
    round_state,
    save_client_state,
    unpack_update,
)

logger = logging.getLogger(__name__)

# Updates are stored and recorded together, at least this often, and before they fill the memory.
RECORD_SECONDS = 1.0
RECORD_BYTES = 16 * 2**20


@dataclass(frozen=True)
class TrainedClient:
    """What a hospital's training has brought, still in memory only."""

    packed: PackedParams
    update: FinishedUpdate


def train_clients(assignment_ids: Sequence[int]) -> None:
    """Do the hospitals' part of a round: claim, train, store, record; then close the round.

    Who has opened the next round by that takes its own part of it at once, for some seconds: with
    small models a message would take longer than the training. Whoever finds the assignments
    taken, or done, does nothing. An error of one hospital is written on its assignment and does not
    stop the others.
    """
    started = time.monotonic()
    # The round and its run once, not once a hospital: a run's plan is long to read.
    rounds = Prefetch("training_round", TrainingRound.objects.select_related("run"))
    assignments = (
        RoundAssignment.objects.select_related("snapshot", "envoy")
        .prefetch_related(rounds)
        .claim(assignment_ids)
    )
    if assignments:
        let_go_of_removed()
    # Not on a hospital's own host: what others have frozen stays away from there.
    is_shared = not any(assignment.envoy.queue for assignment in assignments)
    while assignments:
        has_time = time.monotonic() - started < settings.GO_ON_SECONDS
        assignments = _train_chunk(assignments, GoingOn() if is_shared and has_time else None)


def _train_chunk(
    assignments: Sequence[RoundAssignment], going_on: GoingOn | None
) -> list[RoundAssignment]:
    """Train what is claimed; returns what it has claimed of the round that was opened by that."""
    rounds = {assignment.training_round for assignment in assignments}
    plans = {each: TrainingPlan.from_json(each.run.plan) for each in rounds}
    heartbeat = Heartbeat(assignments[0].holder)
    trained: list[TrainedClient] = []
    recorded_at = time.monotonic()
    try:
        for assignment in sorted(assignments, key=lambda a: a.envoy.slug):
            try:
                plan = plans[assignment.training_round]
                trained.append(_train_client(assignment, plan, heartbeat))
            except StorageError as error:
                _postpone(assignment, error)
            except FederatedError as error:
                _fail(assignment, str(error))
            held_bytes = sum(len(each.packed.content) for each in trained)
            if held_bytes > RECORD_BYTES or time.monotonic() - recorded_at > RECORD_SECONDS:
                _store_and_record(trained)
                trained, recorded_at = [], time.monotonic()
    finally:
        _store_and_record(trained)  # also where something unforeseen ends the chunk
    for training_round in plans:
        close_round(training_round, going_on=going_on)
    return going_on.assignments if going_on else []


class Heartbeat:
    """Renews a worker's leases while it works, no more often than needed."""

    def __init__(self, holder: str) -> None:
        self._holder = holder
        self._renewed_at = time.monotonic()

    def __call__(self) -> None:
        if time.monotonic() - self._renewed_at > settings.LEASE_SECONDS / 4:
            RoundAssignment.objects.renew(self._holder)
            self._renewed_at = time.monotonic()


def _train_client(
    assignment: RoundAssignment, plan: TrainingPlan, heartbeat: Callable[[], None]
) -> TrainedClient:
    started = time.monotonic()
    training_round = assignment.training_round
    run = training_round.run
    dataset = open_snapshot(assignment.snapshot, plan, heartbeat=heartbeat)
    if training_round.number == 0 or run.mode == TrainingRun.Mode.MANUAL:
        run.participants.filter(envoy=assignment.envoy).update(
            num_labelled_patients=dataset.num_labelled_patients
        )
    state_sha256 = ""
    if training_round.number == 0:
        statistics = feature_statistics(dataset)
        metrics: dict[str, Any] = {"classes": classes_seen(dataset)}
        packed, num_examples = pack_params(statistics), dataset.num_examples
    else:
        base_params = load_base_params(training_round.base_sha256)
        uses_controls = strategy_named(plan.strategy).uses_controls
        update = client_update(
            plan,
            base_params,
            dataset,
            run_scaling(run),
            seed=run.seed,
            round_number=training_round.number,
            client_id=assignment.envoy.slug,
            server_state=round_state(training_round, plan, base_params) if uses_controls else None,
            client_state=client_state(assignment) if uses_controls else None,
            on_batch=heartbeat,
        )
        check_update(base_params, update, with_control=uses_controls)
        metrics = update.metrics
        packed, num_examples = pack_params(pack_update(update)), update.num_examples
        if update.client_state:
            state_sha256 = save_client_state(assignment, update.client_state)
    metrics["seconds"] = round(time.monotonic() - started, 3)
    finished = FinishedUpdate(assignment, packed.sha256, num_examples, metrics, state_sha256)
    return TrainedClient(packed, finished)


def _store_and_record(trained: Sequence[TrainedClient]) -> None:
    """The objects first, then in one transaction the rows that name them."""
    try:
        save_packed(each.packed for each in trained)
    except StorageError as error:
        for each in trained:
            _postpone(each.update.assignment, error)
        return
    record_updates([each.update for each in trained])


def _postpone(assignment: RoundAssignment, error: StorageError) -> None:
    """Storage may come back: leave the assignment to the sweeper, until its round's deadline.

    A few times only where there is no deadline, or an object is gone.
    """
    logger.warning("assignment %s: %s", assignment.pk, error)
    is_lost = isinstance(error, LostObjectError)
    counts = is_lost or assignment.training_round.deadline_at is None
    if counts and assignment.attempt >= MAX_ATTEMPTS:
        _fail(assignment, str(error))
        return
    is_mine = RoundAssignment.objects.hand_back(
        assignment,
        status=RoundAssignment.Status.PENDING,
        reason=f"Attempt {assignment.attempt}: {error}",
        attempt=assignment.attempt if counts else assignment.attempt - 1,
        enqueued_at=timezone.now(),  # due again after a lease
    )
    if not is_mine and not counts:
        # It was silent for longer than a lease lasts, and another has begun since.
        begun_again = RoundAssignment.objects.filter(pk=assignment.pk, attempt__gt=1)
        begun_again.unfinished().update(attempt=F("attempt") - 1)


def _fail(assignment: RoundAssignment, reason: str) -> None:
    RoundAssignment.objects.hand_back(
        assignment, status=RoundAssignment.Status.FAILED, reason=reason
    )
    logger.warning("assignment %s failed: %s", assignment.pk, reason)


def receive_update(
    assignment: RoundAssignment,
    content: bytes,
    *,
    num_examples: int,
    metrics: dict[str, Any],
    sha256: str | None = None,
) -> ReceivedUpdate:
    """Take an update that comes from outside; what must not count is recorded and refused.

    Args:
        content: the delta of the round's base parameters, as safetensors.
        sha256: what the sender says that the content hashes to.
        num_examples: the rows it was trained on.
    Raises:
        RefusedUpdateError: unreadable, not what was announced, of another model, not finite, without examples, or late.
        ConflictError: another update of this hospital has been accepted for this round.
        StorageError: it could not be stored; nothing was recorded, send it again.
    """
    training_round = assignment.training_round
    base_params = load_base_params(training_round.base_sha256)
    uses_controls = strategy_named(training_round.run.strategy).uses_controls
    content_sha256 = hashlib.sha256(content).hexdigest()
    try:
        if sha256 not in (None, content_sha256):
            raise UnreadableParamsError(f"its sha256 is {content_sha256}, {sha256} was announced")
        update = unpack_update(assignment.envoy.slug, from_bytes(content), num_examples)
        check_update(base_params, update, with_control=uses_controls)
        _check_weight(assignment, num_examples)
    except FederatedError as error:
        ReceivedUpdate.objects.create(
            assignment=assignment,
            sha256=content_sha256,
            num_examples=max(num_examples, 0),
            verdict=ReceivedUpdate.Verdict.REFUSED,
            reason=str(error),
        )
        raise RefusedUpdateError(f"{assignment.envoy}: {error}") from error
    stored_sha256 = save_params(pack_update(update))
    (received,) = record_updates([FinishedUpdate(assignment, stored_sha256, num_examples, metrics)])
    if received.verdict == ReceivedUpdate.Verdict.LATE:
        raise RefusedUpdateError(f"{assignment.envoy}: {received.reason}")
    if received.verdict == ReceivedUpdate.Verdict.REFUSED:
        raise ConflictError(f"{assignment.envoy}: {received.reason}")
    close_round(training_round)
    return received


def _check_weight(assignment: RoundAssignment, num_examples: int) -> None:
    """An update weighs as much as it has examples: no more than its frozen data has rows."""
    snapshot = assignment.snapshot
    most = snapshot.num_admissions + snapshot.num_readings
    if num_examples > most:
        raise NotItsDataError(
            f"it names {num_examples:,} examples, and its frozen data has {most:,} rows"
        )
