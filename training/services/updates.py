"""Updates: recorded as they arrive, and read back where they count."""

import hashlib
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from datetime import timedelta
from typing import Any

from django.db import transaction
from django.utils import timezone

from envoys.errors import LostObjectError
from envoys.models import Envoy
from envoys.storage import envoy_storage, read_object, write_object
from federated.aggregation import ClientUpdate
from federated.params import Params, from_bytes, to_bytes, under, with_prefix
from federated.plan import TrainingPlan
from federated.rounds import first_server_state
from federated.strategies import strategy_named
from training.models import ReceivedUpdate, RoundAssignment, TrainingRound
from training.objects import load_base_params, load_params

SEEN_SECONDS = 5.0  # how exactly it is known when a hospital was last heard of
CONTROL = "control"  # the part of an update's file that SCAFFOLD adds


@dataclass(frozen=True)
class FinishedUpdate:
    """An update whose object is stored, and whose row is not yet."""

    assignment: RoundAssignment
    sha256: str
    num_examples: int
    metrics: dict[str, Any]
    client_state_sha256: str = ""


@transaction.atomic
def record_updates(finished: Sequence[FinishedUpdate]) -> list[ReceivedUpdate]:
    """Write updates whose objects are stored, in one transaction.

    The same update again gets the same answer; one that comes after its round was closed is kept
    as late, and another one than was accepted as refused.
    """
    now = timezone.now()
    if not finished:
        return []
    won = RoundAssignment.objects.finish_all(
        [update.assignment for update in finished],
        status=RoundAssignment.Status.SUBMITTED,
        submitted_at=now,
        reason="",
    )
    recorded = [
        _received(update) if update.assignment.pk in won else _answer_again(update)
        for update in finished
    ]
    accepted = [u for u in recorded if u.pk is None]
    ReceivedUpdate.objects.bulk_create(accepted)
    seen = [update.assignment.envoy for update in accepted]
    moment_ago = now - timedelta(seconds=SEEN_SECONDS)
    if any(envoy.last_seen_at is None or envoy.last_seen_at < moment_ago for envoy in seen):
        Envoy.objects.filter(pk__in=[envoy.pk for envoy in seen]).update(last_seen_at=now)
    return recorded


def _received(update: FinishedUpdate, **values: Any) -> ReceivedUpdate:
    values.setdefault("verdict", ReceivedUpdate.Verdict.ACCEPTED)
    return ReceivedUpdate(
        assignment=update.assignment,
        sha256=update.sha256,
        client_state_sha256=update.client_state_sha256,
        num_examples=update.num_examples,
        metrics=update.metrics,
        **values,
    )


def _answer_again(update: FinishedUpdate) -> ReceivedUpdate:
    accepted = ReceivedUpdate.objects.filter(  # at first; screening may have held it since
        assignment=update.assignment,
        verdict__in=[
            ReceivedUpdate.Verdict.ACCEPTED,
            ReceivedUpdate.Verdict.QUARANTINED,
            ReceivedUpdate.Verdict.REJECTED,
        ],
    ).first()
    if accepted is None:
        late = ReceivedUpdate.objects.filter(
            assignment=update.assignment,
            verdict=ReceivedUpdate.Verdict.LATE,
            sha256=update.sha256,
        ).first()
        return late or _received(
            update, verdict=ReceivedUpdate.Verdict.LATE, reason=_why_late(update.assignment)
        )
    if accepted.sha256 != update.sha256:
        return _received(
            update,
            verdict=ReceivedUpdate.Verdict.REFUSED,
            reason=f"the update {accepted.sha256[:12]} has been accepted for this round;"
            f" {update.sha256[:12]} is another one",
        )
    return accepted


def _why_late(assignment: RoundAssignment) -> str:
    training_round = TrainingRound.objects.get(pk=assignment.training_round_id)
    status = RoundAssignment.objects.get(pk=assignment.pk).status
    when = "the round was closed"
    if training_round.status == TrainingRound.Status.COLLECTING:
        gave_up = status == RoundAssignment.Status.FAILED
        when = "it had failed" if gave_up else "somebody had decided to go on without it"
    return f"it came after {when}; it is kept and not counted"


class LostUpdateError(Exception):
    """An accepted update whose object is gone or damaged."""

    def __init__(self, update: ReceivedUpdate, reason: str) -> None:
        super().__init__(reason)
        self.update = update


def accepted_updates(training_round: TrainingRound) -> list[ReceivedUpdate]:
    """What counts in a round, sorted by hospital in Python: collations differ."""
    updates = ReceivedUpdate.objects.filter(
        assignment__training_round=training_round, verdict=ReceivedUpdate.Verdict.ACCEPTED
    ).select_related("assignment__envoy")
    return sorted(updates.order_by(), key=lambda update: update.assignment.envoy.slug)


def update_params(update: ReceivedUpdate) -> Params:
    try:
        return load_params(update.sha256)
    except LostObjectError as error:  # one out of reach is no reason: the sweeper tries again
        raise LostUpdateError(update, str(error)) from error


def pack_update(update: ClientUpdate) -> Params:
    """What an update's file holds: the change of the parameters and of the control variate."""
    return update.delta_params | with_prefix(CONTROL, update.delta_control)


def unpack_update(client_id: str, params: Params, num_examples: int) -> ClientUpdate:
    """The update whose file holds these arrays."""
    return ClientUpdate(
        client_id,
        {name: value for name, value in params.items() if not name.startswith(f"{CONTROL}/")},
        num_examples,
        delta_control=under(CONTROL, params),
    )


def client_updates(updates: Iterable[ReceivedUpdate]) -> Iterator[ClientUpdate]:
    """Updates as the algorithm takes them, one in memory at a time."""
    for update in updates:
        client_id = update.assignment.envoy.slug
        yield unpack_update(client_id, update_params(update), update.num_examples)


def round_state(training_round: TrainingRound, plan: TrainingPlan, base_params: Params) -> Params:
    """What the strategy remembers on the server before a round; at first, its first state."""
    if training_round.state_sha256:
        return load_base_params(training_round.state_sha256)
    if not strategy_named(plan.strategy).has_state:
        return {}
    num_clients = training_round.assignments.count()
    return first_server_state(plan, base_params, num_clients=num_clients)


def client_state(assignment: RoundAssignment) -> Params:
    """What the strategy remembered at the hospital after its last counted update of the run."""
    last = (
        ReceivedUpdate.objects.filter(
            assignment__envoy=assignment.envoy,
            assignment__training_round__run=assignment.training_round.run_id,
            verdict=ReceivedUpdate.Verdict.ACCEPTED,
        )
        .exclude(client_state_sha256="")
        .order_by("-assignment__training_round__number")
        .first()
    )
    if last is None:
        return {}
    storage, sha256 = envoy_storage(assignment.envoy), last.client_state_sha256
    return from_bytes(read_object(storage, client_state_key(sha256), sha256=sha256))


def save_client_state(assignment: RoundAssignment, state: Params) -> str:
    """Keep it in the hospital's own storage; returns the sha256. Raises StorageError."""
    content = to_bytes(state)
    key = client_state_key(hashlib.sha256(content).hexdigest())
    return write_object(envoy_storage(assignment.envoy), key, content)


def client_state_key(sha256: str) -> str:
    return f"client_state/{sha256}.safetensors"
