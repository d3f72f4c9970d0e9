"""A round's updates, screened before they count; and what becomes of those that are held."""

import json
from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import dataclass, field

from django.db import connection
from django.db.models import QuerySet

from envoys.errors import LostObjectError
from federated.params import Params
from federated.plan import TrainingPlan
from federated.screening import Screening, is_beyond_trust, screen_round
from training.models import ReceivedUpdate, RunParticipant, TrainingRound, TrainingRun
from training.objects import load_params
from training.services.missing import envoys_in_words, mandatory_ids
from training.services.updates import client_updates, unpack_update

Verdict = ReceivedUpdate.Verdict
# A hospital of which one of these stands in the run has no say, until somebody releases it.
HELD = (Verdict.QUARANTINED, Verdict.REJECTED)


@dataclass
class Screened:
    """A round's updates, and how they stand to each other; nothing of it is written yet.

    Attributes:
        updates: what counts and what is held, sorted by hospital.
        screenings: by hospital; empty where they have been compared before.
        is_plain: nothing is odd, nothing is held and enough count: there is nothing to decide.
    """

    updates: list[ReceivedUpdate]
    screenings: dict[str, Screening] = field(default_factory=dict)
    is_plain: bool = False

    def save_figures(self) -> None:
        """Write down how they stand to each other. Call it with the round's row locked."""
        if not self.screenings:
            return
        for update in self.updates:
            update.screening = self.screenings[update.assignment.envoy.slug].figures_to_json()
        _save_figures(self.updates)


def screen_updates(training_round: TrainingRound) -> Screened:
    """Compare the updates of a closed round, unless that has been done.

    The run's earlier rounds are over, so that whoever asks comes to the same answer.

    Raises:
        LostUpdateError: an update's object is gone or damaged.
        StorageError: out of reach for now.
    """
    run = training_round.run
    updates = submitted_updates(training_round)
    if all(update.screening for update in updates):
        return Screened(updates)
    trusted = _trusted(training_round)
    screenings = screen_round(
        TrainingPlan.from_json(run.plan),
        lambda: client_updates(updates),
        last_counted=_last_counted(training_round),
        held_since=_held_since(training_round, HELD, trusted),
        trusted=trusted,
    )
    is_plain = (
        len(updates) >= num_needed(run)
        and all(update.verdict == Verdict.ACCEPTED and not update.screening for update in updates)
        and not any(found.is_outlier for found in screenings.values())
        and mandatory_ids(training_round) <= {update.assignment.envoy_id for update in updates}
    )
    return Screened(updates, screenings, is_plain)


def hold_outliers(training_round: TrainingRound, screenings: Mapping[str, Screening]) -> None:
    """Write down how updates stood to the others, and put what is odd into quarantine.

    Call it with the round's row locked. An update is judged once: what somebody has decided
    meanwhile, here or on an earlier round's, stands.
    """
    if not screenings:
        return
    trusted: dict[str, float] = {}
    rejected: dict[str, int] = {}
    if any(found.is_outlier for found in screenings.values()):
        trusted = _trusted(training_round)
        rejected = _held_since(training_round, [Verdict.REJECTED], trusted)
    judged = []
    for update in submitted_updates(training_round):
        name = update.assignment.envoy.slug
        if name not in screenings or update.verdict != Verdict.ACCEPTED or update.screening:
            continue
        update.screening = screenings[name].figures_to_json()
        values = _judged(screenings[name], rejected.get(name), trusted.get(name))
        for column, value in values.items():
            setattr(update, column, value)
        judged.append(update)
    # Only who holds the round's row changes these, so that what was read above still stands.
    _save_figures(judged)
    ReceivedUpdate.objects.bulk_update(
        [update for update in judged if update.verdict != Verdict.ACCEPTED], ["verdict", "reason"]
    )


def _save_figures(updates: Sequence[ReceivedUpdate]) -> None:
    table = ReceivedUpdate._meta.db_table
    # `bulk_update` takes longer to write its statement than the round's mean takes.
    with connection.cursor() as cursor:
        cursor.executemany(
            f"UPDATE {table} SET screening = %s WHERE id = %s",
            [(json.dumps(update.screening), update.pk) for update in updates],
        )


def _judged(
    found: Screening, rejected_in: int | None, trusted_ratio: float | None
) -> dict[str, str]:
    if not found.is_outlier:
        return {}
    if trusted_ratio is not None and not is_beyond_trust(found, trusted_ratio):
        return {}  # somebody vouched for its hospital since it was compared
    if rejected_in is not None:
        return {
            "verdict": Verdict.REFUSED,
            "reason": f"its update of round {rejected_in} was rejected: what comes later in this run"
            " does not count",
        }
    return {"verdict": Verdict.QUARANTINED, "reason": found.reason}


def submitted_updates(training_round: TrainingRound) -> list[ReceivedUpdate]:
    """What counts and what is held, sorted by hospital in Python: collations differ."""
    updates = _submitted(training_round).select_related("assignment__envoy")
    return sorted(updates.order_by(), key=lambda update: update.assignment.envoy.slug)


def _submitted(training_round: TrainingRound) -> QuerySet[ReceivedUpdate]:
    return ReceivedUpdate.objects.filter(
        assignment__training_round=training_round,
        verdict__in=[Verdict.ACCEPTED, Verdict.QUARANTINED],
    )


def _held_since(
    training_round: TrainingRound, verdicts: Sequence[str], trusted: Collection[str]
) -> dict[str, int]:
    """By hospital, the first earlier round of the run in which its update was held."""
    rows = ReceivedUpdate.objects.filter(
        assignment__training_round__run=training_round.run_id,
        assignment__training_round__number__lt=training_round.number,
        verdict__in=verdicts,
    ).values_list("assignment__envoy__slug", "assignment__training_round__number")
    held: dict[str, int] = {}
    for slug, number in rows:
        if slug not in trusted:
            held[slug] = min(number, held.get(slug, number))
    return held


def _trusted(training_round: TrainingRound) -> dict[str, float]:
    """By hospital that somebody has vouched for, how long the longest of the updates was that this
    person looked at.
    """
    participants = RunParticipant.objects.filter(run=training_round.run_id, is_trusted=True)
    trusted = dict.fromkeys(participants.values_list("envoy__slug", flat=True), 0.0)
    released = ReceivedUpdate.objects.filter(
        assignment__training_round__run=training_round.run_id,
        decided_at__isnull=False,
        verdict__in=[Verdict.ACCEPTED, Verdict.LATE],
        assignment__envoy__slug__in=trusted,
    ).values_list("assignment__envoy__slug", "screening")
    for slug, figures in released if trusted else ():
        trusted[slug] = max(trusted[slug], figures.get("norm_ratio") or 0.0)
    return trusted


def _last_counted(training_round: TrainingRound) -> Callable[[str], Params | None]:
    """The change of a hospital's last update that counted in the run, read when it is asked for."""
    counted = ReceivedUpdate.objects.filter(
        assignment__training_round__run=training_round.run_id, verdict=Verdict.ACCEPTED
    ).values_list("assignment__envoy__slug", "sha256")
    before = training_round.number - 1
    newest = dict(counted.filter(assignment__training_round__number=before)) if before else {}
    earlier: dict[str, str] | None = None  # as a run goes on, far more rows

    def find(client_id: str) -> str | None:
        nonlocal earlier
        if client_id in newest:
            return newest[client_id]
        if earlier is None:
            rows = counted.filter(assignment__training_round__number__range=(1, before - 1))
            earlier = dict(
                rows.order_by("assignment__training_round__number") if before > 1 else ()
            )
        return earlier.get(client_id)

    def read(client_id: str) -> Params | None:
        sha256 = find(client_id)
        if sha256 is None:
            return None
        try:
            params = load_params(sha256)
        except LostObjectError:
            return None  # it has counted, and cannot be sent again: the others remain to compare
        return unpack_update(client_id, params, 1).delta_params

    return read


def num_needed(run: TrainingRun) -> int:
    """With fewer updates than this, a round of the run is not aggregated."""
    return max(run.quorum, 1, TrainingPlan.from_json(run.plan).strategy_parameters.min_updates)


@dataclass(frozen=True)
class Outlook:
    """Whether a closed round goes on: with neither of these, in words, it does."""

    fails_because: str = ""  # no decision can help it
    waits_because: str = ""  # until somebody has decided


def outlook_of(training_round: TrainingRound) -> Outlook:
    """What is to come of a closed round whose odd updates are held.

    It needs a quorum, and each hospital that must take part. What is in quarantine may be released,
    and where a run waits for the missing, a person may go on without a hospital that must.
    """
    run = training_round.run
    verdicts = dict(_submitted(training_round).values_list("assignment__envoy_id", "verdict"))
    mandatory = mandatory_ids(training_round)
    counted = {pk for pk, verdict in verdicts.items() if verdict == Verdict.ACCEPTED}
    needed = num_needed(run)
    count = f"{len(counted)} of {needed} needed updates"
    if len(verdicts) < needed:
        return Outlook(fails_because=f"{count} are left")
    if len(counted) >= needed and mandatory <= counted:
        return Outlook()
    lost = mandatory - verdicts.keys()
    if run.on_miss == TrainingRun.OnMiss.STOP:
        lost = mandatory - counted
    if lost and run.on_miss == TrainingRun.OnMiss.WAIT:
        return Outlook(
            waits_because=f"{envoys_in_words(lost)} must take part, and what it sent does not count:"
            " the round waits for somebody who goes on without it, or stops the run"
        )
    if lost:
        return Outlook(
            fails_because=f"{envoys_in_words(lost)} must take part, and what it sent does not count"
        )
    why = f"{count} count"
    if len(counted) >= needed:
        why = f"{envoys_in_words(mandatory - counted)} must take part"
    held = envoys_in_words(verdicts.keys() - counted)
    return Outlook(
        waits_because=f"{why}: the round waits for a decision on what is in quarantine, of {held}"
    )
