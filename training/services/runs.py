"""Starting and stopping a run, by itself or one hospital at a time."""

from collections.abc import Iterable

from django.db import transaction
from django.utils import timezone

from envoys import audit
from envoys.models import Envoy, User
from federated.datasets import source_named
from federated.plan import TrainingPlan
from federated.scaling import FeatureScaling
from federated.small_counts import HIDDEN, MIN_PATIENTS
from training.errors import ConflictError, NotReadyError, TooFewPatientsError, TrainingError
from training.models import (
    ReceivedUpdate,
    RoundAssignment,
    RunParticipant,
    Study,
    StudyMembership,
    TrainingRound,
    TrainingRun,
)
from training.services.packages import base_model, refuse_other_rows, standing_approval
from training.services.rounds import enqueue_assignments, open_round

MOST_DEADLINE_SECONDS = 30 * 24 * 3600
MANUAL_ROUND = 1  # a manual run has no round 0: its scaling comes with the package


def start_run(
    study: Study,
    plan: TrainingPlan,
    *,
    started_by: User | None,
    seed: int = 0,
    envoys: Iterable[Envoy] | None = None,
    quorum: int | None = None,
    deadline_seconds: int = 3600,
    mandatory: Iterable[Envoy] = (),
    on_miss: str = TrainingRun.OnMiss.GO_ON,
) -> TrainingRun:
    """Freeze each hospital's data as it is now and train round after round.

    A hospital that has not approved the plan, or has too few labelled patients, sits out, with
    the reason. Without a quorum given, a round needs as many updates as a release does.

    Args:
        deadline_seconds: of a round, from 1 to `MOST_DEADLINE_SECONDS`.
        mandatory: hospitals without which no round counts.
        on_miss: what a round does that lacks an update, see `close_round`.
    Raises:
        TrainingError: nobody can take part, or who must cannot (it says why), a round could never
            be what is asked for, or a run of the study is under way.
    """
    source = source_named(plan.dataset)
    chosen = list(study.envoys if envoys is None else envoys)
    participants = participants_for(study, plan, chosen)
    _mark_mandatory(participants, mandatory)
    ready = [participant for participant in participants if not participant.sits_out_because]
    if not ready:
        reasons = "; ".join(participant.sits_out_because for participant in participants)
        reasons = reasons or f"no {study.words.place} has been invited"
        raise TrainingError(f"nobody can take part in {study}: {reasons}")
    num_needed = plan.strategy_parameters.min_updates
    if len(ready) < num_needed:
        raise TrainingError(
            f"{plan.strategy} needs the updates of {num_needed} {study.words.places},"
            f" {len(ready)} can take part: choose other parameters, or another strategy"
        )
    _refuse_impossible_rounds(study, len(ready), quorum, deadline_seconds, on_miss)
    with transaction.atomic():
        _refuse_second_run(study, of_mode=None)
        run = TrainingRun.objects.create(
            study=study,
            plan=plan.to_json(),
            plan_sha256=plan.sha256,
            strategy=plan.strategy,
            num_rounds=plan.num_rounds,
            seed=seed,
            quorum=max(num_needed, quorum or min(len(ready), plan.min_contributors)),
            deadline_seconds=deadline_seconds,
            on_miss=on_miss,
            started_by=started_by,
        )
        user_id = started_by.pk if started_by else None
        for participant in participants:
            participant.run = run
        for participant in ready:
            participant.snapshot_id = source.freeze(participant.envoy_id, user_id)
        RunParticipant.objects.bulk_create(participants)
        open_round(run, 0)
        audit.record(started_by, "started run", run)
    return run


def _mark_mandatory(participants: list[RunParticipant], mandatory: Iterable[Envoy]) -> None:
    by_envoy = {participant.envoy_id: participant for participant in participants}
    for envoy in mandatory:
        participant = by_envoy.get(envoy.pk)
        if participant is None:
            raise TrainingError(f"{envoy} must take part, and is not among those chosen: choose it")
        if participant.sits_out_because:
            raise TrainingError(
                f"{envoy} must take part, and cannot: {participant.sits_out_because}"
            )
        participant.is_mandatory = True


def _refuse_impossible_rounds(
    study: Study, num_ready: int, quorum: int | None, deadline_seconds: int, on_miss: str
) -> None:
    if quorum is not None and not 1 <= quorum <= num_ready:
        raise TrainingError(
            f"a quorum of {quorum} cannot be: {num_ready} {study.words.places} can take part"
        )
    if not 1 <= deadline_seconds <= MOST_DEADLINE_SECONDS:
        raise TrainingError(
            f"a deadline of {deadline_seconds} seconds cannot be: choose 1 second to 30 days"
        )
    if on_miss not in TrainingRun.OnMiss.values:
        known = ", ".join(TrainingRun.OnMiss.values)
        raise TrainingError(
            f"a round cannot do {on_miss!r} where somebody is missing; it can {known}"
        )


def _refuse_second_run(study: Study, *, of_mode: str | None) -> None:
    """One run of a study at a time, but for hospitals that join the open manual one."""
    _lock(study)
    running = study.runs.active().exclude(mode=of_mode).first()
    if running:
        raise ConflictError(f"{running} is still under way: wait for its end, or stop it")


def _lock(study: Study) -> None:
    """Whoever starts, joins, closes by hand or stops a run of a study does so alone."""
    Study.objects.select_for_update().get(pk=study.pk)


def participants_for(
    study: Study, plan: TrainingPlan, envoys: Iterable[Envoy]
) -> list[RunParticipant]:
    """Who could take part in a run as of now, and why the others would sit out; nothing is saved."""
    return [
        _participant(study, plan, envoy) for envoy in sorted(envoys, key=lambda envoy: envoy.slug)
    ]


def _participant(study: Study, plan: TrainingPlan, envoy: Envoy) -> RunParticipant:
    """A hospital in a run to come; one that cannot take part sits out, with the reason."""
    participant = RunParticipant(envoy=envoy)
    try:
        refuse_other_rows(study, [envoy])
        _refuse_remote(envoy)
        standing_approval(study, envoy, plan.sha256)
        check_enough_patients(plan, envoy)
    except TrainingError as error:
        participant.sits_out_because = str(error)
    return participant


def _refuse_remote(envoy: Envoy) -> None:
    if envoy.placement != Envoy.Placement.HOSTED:
        raise TrainingError(f"{envoy} runs its own installation, which is not reached from here")


def check_enough_patients(plan: TrainingPlan, envoy: Envoy) -> None:
    """Count a hospital's patients with an outcome as far as the plan asks for, and no further.

    How many there are, the worker notes that opens its frozen data: here somebody waits.

    Raises:
        TooFewPatientsError: "kutrrh: 12 of 20 patients with an outcome".
    """
    source = source_named(plan.dataset)
    count = source.count_labelled_patients(envoy.pk, plan.target, plan.min_examples)
    if count < plan.min_examples:
        shown = HIDDEN if 0 < count < MIN_PATIENTS else count  # who runs the federation reads it
        raise TooFewPatientsError(
            f"{envoy}: {shown} of {plan.min_examples} {envoy.words.people} with an outcome"
        )


def stop_run(run: TrainingRun, *, stopped_by: User | None) -> bool:
    """Stop a run; what was recorded is kept, what still comes is late. False if it has ended."""
    by = f" by {stopped_by.get_username()}" if stopped_by else ""
    with transaction.atomic():
        _lock(run.study)
        # The rounds' rows before the run's, as aggregation takes them.
        list(run.rounds.select_for_update().order_by("pk").values_list("pk"))
        stopped = (
            TrainingRun.objects.active()
            .filter(pk=run.pk)
            .update(
                status=TrainingRun.Status.STOPPED,
                reason=f"Stopped{by}.",
                finished_at=timezone.now(),
            )
        )
        if stopped:
            # Of all its rounds: an aggregation that was waited for may have opened another.
            RoundAssignment.objects.filter(training_round__run=run).unfinished().update(
                status=RoundAssignment.Status.MISSED, reason="the run was stopped"
            )
            run.rounds.exclude(status=TrainingRound.Status.AGGREGATED).update(
                status=TrainingRound.Status.FAILED, reason="the run was stopped"
            )
            audit.record(stopped_by, "stopped run", run)
    return bool(stopped)


def launch_training(study: Study, envoy: Envoy, *, launched_by: User | None) -> RoundAssignment:
    """Train one hospital by hand, from the released model, or before the first from a seeded one.

    Its round stays open, for other hospitals to be launched, until somebody asks to aggregate.

    Raises:
        NotApprovedError: the hospital has not approved its package, or revoked the approval.
        TooFewPatientsError: "kutrrh: 12 of 20 patients with an outcome".
        ConflictError: it trains already, the open round has another plan, or a run is under way.
    """
    refuse_other_rows(study, [envoy])
    _refuse_remote(envoy)
    membership = standing_approval(study, envoy)
    plan = TrainingPlan.from_json(membership.plan)
    check_enough_patients(plan, envoy)
    base = base_model(study, plan)
    base_sha256 = base.save()
    with transaction.atomic():
        _refuse_second_run(study, of_mode=TrainingRun.Mode.MANUAL)
        training_round = _open_manual_round(membership, base.scaling, base_sha256, launched_by)
        standing = training_round.assignments.filter(envoy=envoy).first()
        if standing and standing.status in (
            RoundAssignment.Status.PENDING,
            RoundAssignment.Status.TRAINING,
        ):
            raise ConflictError(f"{envoy} is training already")
        if standing and standing.status == RoundAssignment.Status.SUBMITTED:
            raise ConflictError(
                f"{envoy} has trained in the open round: aggregate it, then launch again"
            )
        if standing:
            raise ConflictError(f"{envoy} has brought nothing to the open round: retry it there")
        user_id = launched_by.pk if launched_by else None
        snapshot_id = source_named(plan.dataset).freeze(envoy.pk, user_id)
        RunParticipant.objects.create(run=training_round.run, envoy=envoy, snapshot_id=snapshot_id)
        assignment = RoundAssignment.objects.create(
            training_round=training_round, envoy=envoy, snapshot_id=snapshot_id
        )
        audit.record(launched_by, "launched training", assignment)
        transaction.on_commit(lambda: enqueue_assignments(training_round))
    return assignment


def _open_manual_round(
    membership: StudyMembership,
    scaling: FeatureScaling,
    base_sha256: str,
    launched_by: User | None,
) -> TrainingRound:
    study = membership.study
    training_round = TrainingRound.objects.open_manual(study).select_related("run").first()
    if training_round is None:
        run = TrainingRun.objects.create(
            study=study,
            mode=TrainingRun.Mode.MANUAL,
            plan=membership.plan,
            plan_sha256=membership.plan_sha256,
            strategy=membership.plan["strategy"],
            num_rounds=1,
            scaling={"mean": list(scaling.mean), "std": list(scaling.std)},
            status=TrainingRun.Status.TRAINING,
            training_at=timezone.now(),
            started_by=launched_by,
        )
        return open_round(run, MANUAL_ROUND, base_sha256=base_sha256)
    if training_round.run.plan_sha256 != membership.plan_sha256:
        raise ConflictError(
            f"{membership.envoy} approved the plan {membership.plan_sha256[:12]}, the open round"
            f" has {training_round.run.plan_sha256[:12]}: aggregate or stop that one first"
        )
    return training_round


def aggregate_envoys(
    study: Study, envoys: Iterable[Envoy], *, aggregated_by: User | None = None
) -> TrainingRound:
    """Close the open manual round with the updates of these hospitals, and have it aggregated.

    Updates of others are kept and not counted.

    Raises:
        NotReadyError: nothing was launched, or a chosen hospital has not finished; it says which.
    """
    from training.tasks import aggregate_round_task

    chosen = {envoy.pk: envoy for envoy in envoys}
    with transaction.atomic():
        _lock(study)
        training_round = TrainingRound.objects.open_manual(study).select_related("run").first()
        if training_round is None:
            raise NotReadyError(
                f"no {study.words.place} has been launched for {study}: launch some first"
            )
        _refuse_unfinished(training_round, chosen)
        others = training_round.assignments.exclude(envoy_id__in=chosen)
        ReceivedUpdate.objects.filter(
            assignment__in=others, verdict=ReceivedUpdate.Verdict.ACCEPTED
        ).update(
            verdict=ReceivedUpdate.Verdict.REFUSED,
            reason=f"not among the {study.words.places} to aggregate",
        )
        others.update(
            status=RoundAssignment.Status.MISSED,
            reason=f"not among the {study.words.places} to aggregate",
        )
        closed = (
            TrainingRound.objects.collecting()
            .filter(pk=training_round.pk)
            .update(status=TrainingRound.Status.CLOSED, closed_at=timezone.now())
        )
        if not closed:
            raise ConflictError("somebody else has just aggregated this round")
        audit.record(aggregated_by, "aggregated round", training_round)
        aggregate_round_task.delay_on_commit(training_round.pk)
    return training_round


def _refuse_unfinished(training_round: TrainingRound, chosen: dict[int, Envoy]) -> None:
    statuses = {a.envoy_id: a for a in training_round.assignments.filter(envoy_id__in=chosen)}
    obstacles = []
    for pk, envoy in sorted(chosen.items(), key=lambda item: item[1].slug):
        if pk not in statuses:
            obstacles.append(f"{envoy} has not been launched: launch it, or leave it out")
        elif statuses[pk].status != RoundAssignment.Status.SUBMITTED:
            status = statuses[pk].get_status_display().lower()
            next_step = "wait for it" if statuses[pk].is_active else "retry it"
            obstacles.append(f"{envoy}: {status}: {next_step}, or leave it out")
    if obstacles or not chosen:
        words = training_round.run.study.words
        raise NotReadyError(
            "; ".join(obstacles) or f"choose at least one {words.place} to aggregate"
        )
