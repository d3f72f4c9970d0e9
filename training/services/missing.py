"""Who is missing from a round, and what its run was started to do about that."""

from collections.abc import Iterable

from envoys.models import Envoy
from training.models import RoundAssignment, RunParticipant, TrainingRound, TrainingRun

OnMiss = TrainingRun.OnMiss


def why_it_fails(training_round: TrainingRound) -> str:
    """Why a round, to which nobody owes an update any more, must not go on; empty if it may."""
    run = training_round.run
    statuses = list(training_round.assignments.order_by().values_list("status", flat=True))
    num_in, quorum = statuses.count(RoundAssignment.Status.SUBMITTED), max(run.quorum, 1)
    if quorum <= num_in == len(statuses):
        return ""
    missing = missing_assignments(training_round)
    reasons = "; ".join(
        f"{each.envoy}: {each.reason or each.get_status_display()}" for each in missing
    )
    if num_in < quorum:
        return f"{num_in} of {quorum} needed updates came in. {reasons}"
    if not missing:
        return ""
    if lacking := mandatory_ids(training_round) & {each.envoy_id for each in missing}:
        return f"{envoys_in_words(lacking)} must take part and brought no update. {reasons}"
    if run.on_miss == OnMiss.STOP:
        return f"{num_in} of {num_in + len(missing)} came in, and this run stops there. {reasons}"
    return ""


def whom_it_waits_for(training_round: TrainingRound) -> str:
    """For whom a round past its time stays open, in words; empty where all are in."""
    missing = missing_assignments(training_round)
    if not missing:
        return ""
    num_in = training_round.assignments.submitted().count()
    names = envoys_in_words(each.envoy_id for each in missing)
    return f"{num_in} of {num_in + len(missing)} are in: the round waits for {names}"


def missing_assignments(training_round: TrainingRound) -> list[RoundAssignment]:
    """Without an update, and nobody has gone on without them; sorted by hospital."""
    missing = training_round.assignments.missing().select_related("envoy")
    return sorted(missing, key=lambda each: each.envoy.slug)


def mandatory_ids(training_round: TrainingRound) -> set[int]:
    """The hospitals that a round must not do without, but for whom somebody went on without."""
    asked = training_round.assignments.exclude(status=RoundAssignment.Status.DROPPED)
    mandatory = RunParticipant.objects.filter(
        run=training_round.run_id, is_mandatory=True, envoy__in=asked.values("envoy")
    )
    return set(mandatory.values_list("envoy_id", flat=True))


def envoys_in_words(envoy_ids: Iterable[int]) -> str:
    names = sorted(str(envoy) for envoy in Envoy.objects.filter(pk__in=list(envoy_ids)))
    return " and ".join([", ".join(names[:-1]), names[-1]] if len(names) > 1 else names)
