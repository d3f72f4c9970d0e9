"""A round's updates, screened before they count; and what becomes of those that are held."""

from collections.abc import Callable, Mapping, Sequence

from envoys.errors import LostObjectError
from federated.params import Params
from federated.plan import TrainingPlan
from federated.screening import Screening, screen_round
from training.models import ReceivedUpdate, RunParticipant, TrainingRound, TrainingRun
from training.objects import load_params
from training.services.updates import client_updates, unpack_update

Verdict = ReceivedUpdate.Verdict
# A hospital of which one of these stands in the run has no say, until somebody releases it.
HELD = (Verdict.QUARANTINED, Verdict.REJECTED)


def screen_updates(training_round: TrainingRound) -> dict[str, Screening]:
    """Compare the updates of a closed round, by hospital; empty where that has been done.

    The run's earlier rounds are over, so that whoever asks comes to the same answer.

    Raises:
        LostUpdateError: an update's object is gone or damaged.
        StorageError: out of reach for now.
    """
    standing = submitted_updates(training_round)
    if all(update.screening for update in standing):
        return {}
    return screen_round(
        TrainingPlan.from_json(training_round.run.plan),
        lambda: client_updates(standing),
        last_counted=_last_counted(training_round),
        held_since=_held_since(training_round, HELD),
        trusted=_trusted(training_round),
    )


def hold_outliers(training_round: TrainingRound, screenings: Mapping[str, Screening]) -> None:
    """Write down how updates stood to the others, and put what is odd into quarantine.

    Call it with the round's row locked. An update is judged once: what somebody has decided
    meanwhile, here or on an earlier round's, stands.
    """
    rejected = _held_since(training_round, [Verdict.REJECTED])
    trusted = _trusted(training_round)
    for update in submitted_updates(training_round):
        name = update.assignment.envoy.slug
        if name not in screenings:
            continue
        values = _judged(screenings[name], rejected.get(name), is_trusted=name in trusted)
        ReceivedUpdate.objects.filter(pk=update.pk, verdict=Verdict.ACCEPTED, screening={}).update(
            screening=screenings[name].figures_to_json(), **values
        )


def _judged(found: Screening, rejected_in: int | None, *, is_trusted: bool) -> dict[str, str]:
    if not found.is_outlier or is_trusted:
        return {}
    if rejected_in is not None:
        return {
            "verdict": Verdict.REFUSED,
            "reason": f"its update of round {rejected_in} was rejected: what comes later in this run"
            " does not count",
        }
    return {"verdict": Verdict.QUARANTINED, "reason": found.reason}


def submitted_updates(training_round: TrainingRound) -> list[ReceivedUpdate]:
    """What counts and what is held, sorted by hospital in Python: collations differ."""
    updates = ReceivedUpdate.objects.filter(
        assignment__training_round=training_round,
        verdict__in=[Verdict.ACCEPTED, Verdict.QUARANTINED],
    ).select_related("assignment__envoy")
    return sorted(updates, key=lambda update: update.assignment.envoy.slug)


def _held_since(training_round: TrainingRound, verdicts: Sequence[str]) -> dict[str, int]:
    """By hospital, the first earlier round of the run in which its update was held."""
    trusted = _trusted(training_round)
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


def _trusted(training_round: TrainingRound) -> set[str]:
    participants = RunParticipant.objects.filter(run=training_round.run_id, is_trusted=True)
    return set(participants.values_list("envoy__slug", flat=True))


def _last_counted(training_round: TrainingRound) -> Callable[[str], Params | None]:
    """The change of a hospital's last update that counted in the run, read when it is asked for."""
    rows = (
        ReceivedUpdate.objects.filter(
            assignment__training_round__run=training_round.run_id,
            assignment__training_round__number__gte=1,
            assignment__training_round__number__lt=training_round.number,
            verdict=Verdict.ACCEPTED,
        )
        .order_by("assignment__training_round__number")
        .values_list("assignment__envoy__slug", "sha256")
    )
    newest = dict(rows)

    def read(client_id: str) -> Params | None:
        if client_id not in newest:
            return None
        try:
            params = load_params(newest[client_id])
        except LostObjectError:
            return None  # it has counted, and cannot be sent again: the others remain to compare
        return unpack_update(client_id, params, 1).delta_params

    return read


def num_needed(run: TrainingRun) -> int:
    """With fewer updates than this, a round of the run is not aggregated."""
    return max(run.quorum, 1, TrainingPlan.from_json(run.plan).strategy_parameters.min_updates)


def why_it_waits(training_round: TrainingRound) -> str:
    """What a closed round waits for, in words; empty where enough updates count without it."""
    held = submitted_updates(training_round)
    counted = [update for update in held if update.verdict == Verdict.ACCEPTED]
    needed = num_needed(training_round.run)
    if len(counted) >= needed:
        return ""
    names = ", ".join(
        str(update.assignment.envoy) for update in held if update.verdict == Verdict.QUARANTINED
    )
    return (
        f"{len(counted)} of {needed} needed updates count: the round waits for a decision on what"
        f" is in quarantine, of {names}"
    )


def can_reach_quorum(training_round: TrainingRound) -> bool:
    """Whether enough updates would count if all in quarantine were released."""
    return len(submitted_updates(training_round)) >= num_needed(training_round.run)
