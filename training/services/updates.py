"""Updates: recorded as they arrive, and read back where they count."""

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any

from django.db import transaction
from django.utils import timezone

from envoys.errors import LostObjectError
from envoys.models import Envoy
from federated.aggregation import ClientUpdate
from federated.params import Params
from training.models import ReceivedUpdate, RoundAssignment, TrainingRound
from training.objects import load_params


@dataclass(frozen=True)
class FinishedUpdate:
    """An update whose object is stored, and whose row is not yet."""

    assignment: RoundAssignment
    sha256: str
    num_examples: int
    metrics: dict[str, Any]


@transaction.atomic
def record_updates(finished: Sequence[FinishedUpdate]) -> list[ReceivedUpdate]:
    """Write updates whose objects are stored, in one transaction.

    The same update again gets the same answer; one that comes after its round was closed is kept
    as late, and another one than was accepted as refused.
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
        return _received(
            update,
            verdict=ReceivedUpdate.Verdict.REFUSED,
            reason=f"the update {accepted.sha256[:12]} has been accepted for this round;"
            f" {update.sha256[:12]} is another one",
        )
    return accepted


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
    return sorted(updates, key=lambda update: update.assignment.envoy.slug)


def update_params(update: ReceivedUpdate) -> Params:
    try:
        return load_params(update.sha256)
    except LostObjectError as error:  # one out of reach is no reason: the sweeper tries again
        raise LostUpdateError(update, str(error)) from error


def client_updates(updates: Iterable[ReceivedUpdate]) -> Iterator[ClientUpdate]:
    for update in updates:
        yield ClientUpdate(update.assignment.envoy.slug, update_params(update), update.num_examples)
