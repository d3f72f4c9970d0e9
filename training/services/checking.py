"""Whether anything was lost: rows left behind, objects gone, models that are not what made them.

Everything is computed again from what lies in storage, one update in memory at a time.
"""

import hashlib
import logging
from collections.abc import Iterator
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from typing import Any

from django.conf import settings
from django.db.models import Q
from django.utils import timezone

from diagnoses.models import Snapshot
from envoys.errors import LostObjectError, StorageError
from envoys.models import AuditEvent, Envoy
from envoys.storage import director_storage, envoy_storage, read_object
from envoys.work import WorkKind, kinds
from federated.aggregation import ClientUpdate
from federated.errors import FederatedError, InvalidPlanError
from federated.params import Params, add, from_bytes, params_sha256, to_bytes
from federated.plan import TrainingPlan
from federated.rounds import first_params, first_server_state, next_params
from federated.scaling import pooled_scaling
from training.models import (
    REPORT_MAY_FOLLOW,
    ModelVersion,
    ReceivedUpdate,
    RoundAssignment,
    RunReport,
    TrainingRound,
    TrainingRun,
)
from training.objects import params_key
from training.services.updates import unpack_update

logger = logging.getLogger(__name__)

OPEN = (TrainingRound.Status.COLLECTING, TrainingRound.Status.CLOSED)
# What a person does that has a round aggregated which may have waited long, as the audit calls it.
ASKED_FOR = (
    "aggregated round",
    "released update",
    "rejected update",
    "went on without hospital",
)
MOST_PROBLEMS = 1000  # told; all are counted
MOST_RUNS_TOLD = 20  # on a page, the newest


@dataclass
class Findings:
    """What was looked at, and what is wrong with it, in words that name the row."""

    num_rows: int = 0
    num_runs: int = 0
    num_rounds: int = 0
    num_updates: int = 0
    num_versions: int = 0
    num_problems: int = 0
    problems: list[str] = field(default_factory=list)
    notes: list[str] = field(default_factory=list)  # what could not be looked at; nothing wrong

    def tell(self, problem: str) -> None:
        self.num_problems += 1
        if len(self.problems) < MOST_PROBLEMS:
            self.problems.append(problem)

    def add(self, others: "Findings") -> None:
        """What was found in a part of what was looked at."""
        for name in ("num_rounds", "num_updates", "num_versions", "num_problems"):
            setattr(self, name, getattr(self, name) + getattr(others, name))
        self.notes += others.notes
        self.problems += others.problems[: MOST_PROBLEMS - len(self.problems)]


# --- Rows --------------------------------------------------------------------------------------


def check_rows(found: Findings) -> None:
    """Tell of rows that have not ended and that nobody is about to end.

    What the sweeper does a lease after its time is given three leases and five sweeps. What waits
    for a person, or for a worker that is busy, is no problem: the sweeper hands it out again. A
    round that is so long past its deadline is told even while somebody tries to aggregate it.
    """
    _check_runs(found, _long_ago())
    _check_open_rounds(found, _long_ago())
    for kind in kinds():
        _check_work(found, kind, _long_ago())


def num_open_rows() -> int:
    """How many rows have not ended: runs, rounds, and work of every kind."""
    num_runs = TrainingRun.objects.active().count()
    num_rounds = TrainingRound.objects.filter(status__in=OPEN).count()
    work: list[Any] = [kind.model.objects for kind in kinds()]
    num_work: int = sum(rows.unfinished().count() for rows in work)
    return num_runs + num_rounds + num_work


def _long_ago() -> datetime:
    return timezone.now() - timedelta(
        seconds=3 * settings.LEASE_SECONDS + 5 * settings.SWEEP_SECONDS
    )


def _check_runs(found: Findings, long_ago: datetime) -> None:
    open_rounds = TrainingRound.objects.filter(status__in=OPEN)
    active = TrainingRun.objects.active().only("status")
    for run in active.filter(started_at__lt=long_ago).exclude(rounds__in=open_rounds):
        found.tell(f"run {run.pk}: {run.get_status_display().lower()}, and no round of it is open")


def _check_open_rounds(found: Findings, long_ago: datetime) -> None:
    rounds = TrainingRound.objects.filter(status__in=OPEN)
    active = TrainingRun.objects.active()
    for each in rounds.exclude(run__in=active).select_related("run"):
        ended = each.run.get_status_display().lower()
        found.tell(f"{_round(each)}: {each.get_status_display().lower()}, in a run that is {ended}")
    recently = RoundAssignment.objects.filter(submitted_at__gte=long_ago)
    collecting = rounds.collecting().filter(
        run__in=active.filter(mode=TrainingRun.Mode.AUTOMATIC), reason=""
    )
    for each in collecting.filter(deadline_at__lt=long_ago):
        found.tell(f"{_round(each)}: still collecting, past its deadline of {each.deadline_at}")
    for each in (
        collecting.all_in()
        .filter(opened_at__lt=long_ago)
        .exclude(deadline_at__lt=long_ago)
        .exclude(pk__in=recently.values("training_round"))
    ):
        found.tell(f"{_round(each)}: all are in, and nobody closes it")
    for each in rounds.closed().filter(run__in=active, reason="", closed_at__lt=long_ago):
        found.tell(f"{_round(each)}: closed on {each.closed_at}, and nobody aggregates it")
    # One that is handed out, and never comes to an end: each time it is, it counts as closed anew.
    closed = rounds.closed().filter(run__in=active, reason="", closed_at__gte=long_ago)
    past_deadline = Q(deadline_at__lt=long_ago)
    by_hand = Q(deadline_at__isnull=True, opened_at__lt=long_ago)
    for each in closed.filter(past_deadline | by_hand):
        if not _was_asked_for(each, since=long_ago):
            when = f"past its deadline of {each.deadline_at}" if each.deadline_at else "by hand"
            found.tell(f"{_round(each)}: closed, {when}, and not aggregated")


def _was_asked_for(training_round: TrainingRound, *, since: datetime) -> bool:
    """Whether something has happened that lets a round go on which has waited, perhaps for days."""
    assignments = training_round.assignments.all()
    if assignments.filter(submitted_at__gte=since).exists():
        return True
    updates = ReceivedUpdate.objects.filter(assignment__in=assignments)
    rows = {
        "traininground": [training_round.pk],
        "roundassignment": assignments.values_list("pk", flat=True),
        "receivedupdate": updates.values_list("pk", flat=True),
    }
    targets = [f"{kind}:{pk}" for kind, ids in rows.items() for pk in ids]
    events = AuditEvent.objects.filter(target__in=targets, happened_at__gte=since)
    return events.filter(action__in=ASKED_FOR).exists()


def _check_work(found: Findings, kind: WorkKind, long_ago: datetime) -> None:
    rows: Any = kind.model.objects.all()
    since = "created_at"
    if kind.model is RoundAssignment:
        since = "training_round__opened_at"
        collecting = TrainingRound.objects.collecting().filter(run__in=TrainingRun.objects.active())
        rows = rows.select_related("training_round", "envoy")
        for row in rows.unfinished().exclude(training_round__in=collecting):
            ended = row.training_round.get_status_display().lower()
            found.tell(
                f"{_round(row.training_round)}, {row.envoy}:"
                f" {row.get_status_display().lower()}, in a round that is {ended} or of a run that is over"
            )
        # The others wait for their data to be frozen, which is work of its own.
        rows = rows.filter(training_round__in=collecting, snapshot__status=Snapshot.Status.COMPLETE)
    silent = Q(status=kind.model.PENDING) | Q(status=kind.model.WORKING, leased_until__lt=long_ago)
    not_handed_out = Q(enqueued_at__lt=long_ago) | Q(
        enqueued_at__isnull=True, **{f"{since}__lt": long_ago}
    )
    for row in rows.filter(silent, not_handed_out).order_by("pk").iterator():
        found.tell(
            f"{kind.title} {row.pk} ({kind.about_of(row)}): {row.get_status_display().lower()},"
            " nobody has it, and it is not handed out"
        )


def _round(training_round: TrainingRound) -> str:
    return f"run {training_round.run_id}, round {training_round.number}"


# --- Objects and lineage -----------------------------------------------------------------------


def check_runs(found: Findings, run_ids: list[int]) -> Iterator[Findings]:
    """Go through runs, and keep on each that has ended what was found; yields after every round.

    Raises:
        StorageError: storage is out of reach, which says nothing about what lies there.
    """
    for pk in run_ids:
        run = TrainingRun.objects.select_related("study").get(pk=pk)
        of_run = Findings()
        try:
            for _ in check_run(of_run, run):
                yield found
        except StorageError:
            found.add(of_run)
            raise
        found.add(of_run)
        found.num_runs += 1
        keep_findings(run, of_run)
        yield found


def keep_findings(run: TrainingRun, found: Findings) -> None:
    """Write down what a check of a run has found, for the pages; of one that has ended."""
    TrainingRun.objects.filter(pk=run.pk).exclude(pk__in=TrainingRun.objects.active()).update(
        checked_at=timezone.now(), check_problems=found.problems
    )
    for problem in found.problems:
        logger.error("a check has found: %s", problem)


def standing_problems() -> list[str]:
    """What is wrong now: rounds that nobody ends, and what the last check of each run has found.

    In few queries, for a page; work that nobody has, the page of tasks shows.
    """
    found = Findings()
    _check_runs(found, _long_ago())
    _check_open_rounds(found, _long_ago())
    runs = TrainingRun.objects.exclude(check_problems=[]).only("check_problems")
    for run in runs[:MOST_RUNS_TOLD]:
        found.problems += run.check_problems
    return found.problems[:MOST_PROBLEMS]


def check_often() -> TrainingRun | None:
    """What beat has done: log rows that nobody ends, and check one run that has ended."""
    found = Findings()
    check_rows(found)
    for problem in found.problems:
        logger.error("a check has found: %s", problem)
    return check_newest_run()


def check_newest_run() -> TrainingRun | None:
    """Check the newest run that has ended and was not checked yet; None if there is none."""
    ended = TrainingRun.objects.exclude(pk__in=TrainingRun.objects.active()).filter(
        checked_at__isnull=True, finished_at__lt=timezone.now() - REPORT_MAY_FOLLOW
    )
    at_work = [RunReport.Status.PENDING, RunReport.Status.RUNNING]
    pk = ended.exclude(report_work__status__in=at_work).values_list("pk", flat=True).first()
    if pk is None:
        return None
    try:
        for _ in check_runs(Findings(), [pk]):
            pass
    except StorageError as error:
        logger.warning("run %s could not be checked, it is tried again: %s", pk, error)
        return None
    return TrainingRun.objects.get(pk=pk)


def check_run(found: Findings, run: TrainingRun) -> Iterator[None]:
    """Read every counted update of a run, and make each of its models again; yields every round.

    Raises:
        StorageError: storage is out of reach.
    """
    plan = _plan_of(run)
    if plan is None:
        found.notes.append(
            f"run {run.pk} was planned by another version of the program: its objects were checked,"
            " and its models were not made again"
        )
    newest = ""
    rounds = {each.number: each for each in run.rounds.all()}
    for number in sorted(rounds):
        following = rounds.get(number + 1)
        if not run.has_let_go_of(number):
            found.add(_check_kept_round(run, rounds[number], following, plan))
        _check_chain(found, rounds[number], following)
        if rounds[number].status == TrainingRound.Status.AGGREGATED:
            newest = rounds[number].result_sha256
        found.num_rounds += 1
        yield
    if newest and run.params_sha256 != newest:
        found.tell(
            f"run {run.pk}: its parameters are {run.params_sha256[:12]}, its last round made"
            f" {newest[:12]}"
        )
    if run.status == TrainingRun.Status.FINISHED and not run.versions.of_federation().exists():
        found.tell(f"run {run.pk}: finished, and made no version")


def _check_kept_round(
    run: TrainingRun,
    training_round: TrainingRound,
    following: TrainingRound | None,
    plan: TrainingPlan | None,
) -> Findings:
    """As `check_round`; nothing of one that was let go meanwhile, which was checked before."""
    found = check_round(training_round, following, plan)
    if found.num_problems:
        run.refresh_from_db(fields=["objects_kept_from_round"])
        if run.has_let_go_of(training_round.number):
            return Findings()
    return found


def check_round(
    training_round: TrainingRound, following: TrainingRound | None, plan: TrainingPlan | None
) -> Findings:
    """Read a round's counted updates, and make its model again; without a plan, read them only.

    Raises:
        StorageError: storage is out of reach.
    """
    found = Findings()
    updates = _counted_updates(training_round)
    found.num_updates += len(updates)
    if training_round.status != TrainingRound.Status.AGGREGATED or plan is None:
        _check_objects(found, training_round, updates)
        return found
    try:
        if training_round.number == 0:
            _check_statistics(found, training_round, updates, plan)
        else:
            _check_training(found, training_round, following, updates, plan)
    except LostObjectError as error:
        if not any(update.sha256 in str(error) for update in updates):
            found.tell(f"{_round(training_round)}: {error}")
        _check_objects(found, training_round, updates)  # whose, and whether others are gone too
    except StorageError:
        raise
    except FederatedError as error:
        found.tell(f"{_round(training_round)}: its model cannot be made again: {error}")
    return found


def check_rounds_before(run: TrainingRun, number: int) -> Iterator[tuple[int, Findings]]:
    """Check those of a run's rounds that still keep their objects, up to the one before `number`.

    Yields each round's number with what was found. Raises StorageError: it is out of reach.
    """
    plan = _plan_of(run)
    rounds = {each.number: each for each in run.rounds.filter(number__lte=number)}
    for each in range(max(run.objects_kept_from_round, 1), number):
        yield each, _check_kept_round(run, rounds[each], rounds.get(each + 1), plan)


def _check_chain(
    found: Findings, training_round: TrainingRound, following: TrainingRound | None
) -> None:
    is_made = training_round.status == TrainingRound.Status.AGGREGATED
    if is_made and following and following.base_sha256 != training_round.result_sha256:
        found.tell(
            f"{_round(following)}: it started from {following.base_sha256[:12]}, the round before"
            f" made {training_round.result_sha256[:12]}"
        )


def _plan_of(run: TrainingRun) -> TrainingPlan | None:
    """None for the plan of another version of the program."""
    try:
        return TrainingPlan.from_json(run.plan)
    except InvalidPlanError:
        return None


def _counted_updates(training_round: TrainingRound) -> list[ReceivedUpdate]:
    """What counts, in the order in which it was added up: a deleted hospital's slug has changed."""
    updates = list(
        ReceivedUpdate.objects.filter(
            assignment__training_round=training_round, verdict=ReceivedUpdate.Verdict.ACCEPTED
        )
        .select_related("assignment__envoy")
        .defer("metrics", "screening")
    )
    return sorted(updates, key=lambda update: update.assignment.envoy.known_as[1])


def _check_objects(
    found: Findings, training_round: TrainingRound, updates: list[ReceivedUpdate]
) -> None:
    for update in updates:
        try:
            _read_stored(update.sha256)
        except LostObjectError as error:
            envoy = update.assignment.envoy
            found.tell(f"{_round(training_round)}, {envoy}: its counted update: {error}")


def _stored(sha256: str) -> Params:
    """Parameters as they lie in storage now: a process remembers what it has read before."""
    return from_bytes(_read_stored(sha256))


def _read_stored(sha256: str) -> bytes:
    return read_object(director_storage(), params_key(sha256), sha256=sha256)


def _check_statistics(
    found: Findings,
    training_round: TrainingRound,
    updates: list[ReceivedUpdate],
    plan: TrainingPlan,
) -> None:
    run = training_round.run
    scaling = pooled_scaling(_stored(update.sha256) for update in updates)
    if run.scaling != {"mean": list(scaling.mean), "std": list(scaling.std)}:
        found.tell(
            f"{_round(training_round)}: its statistics pool to another scaling than recorded"
        )
    _compare(found, training_round, to_bytes(first_params(plan, seed=run.seed)))
    _stored(training_round.result_sha256)


def _check_training(
    found: Findings,
    training_round: TrainingRound,
    following: TrainingRound | None,
    updates: list[ReceivedUpdate],
    plan: TrainingPlan,
) -> None:
    base_params = _stored(training_round.base_sha256)
    if training_round.state_sha256:
        state = _stored(training_round.state_sha256)
    else:
        num_clients = training_round.assignments.count()
        state = first_server_state(plan, base_params, num_clients=num_clients)
    params, state = next_params(plan, base_params, _client_updates(updates), state)
    _compare(found, training_round, to_bytes(params))
    state_sha256 = hashlib.sha256(to_bytes(state)).hexdigest() if state else ""
    if following and following.state_sha256 != state_sha256:
        found.tell(
            f"{_round(training_round)}: its strategy's state is {state_sha256[:12]} made again,"
            f" {following.state_sha256[:12] or 'none'} was recorded"
        )
    _stored(training_round.result_sha256)
    _check_versions(found, training_round, base_params, params, updates)


def _client_updates(updates: list[ReceivedUpdate]) -> Iterator[ClientUpdate]:
    for update in updates:
        client_id = update.assignment.envoy.known_as[1]
        yield unpack_update(client_id, _stored(update.sha256), update.num_examples)


def _compare(found: Findings, training_round: TrainingRound, content: bytes) -> None:
    sha256 = hashlib.sha256(content).hexdigest()
    if sha256 != training_round.result_sha256:
        found.tell(
            f"{_round(training_round)}: its updates make {sha256[:12]}, and"
            f" {training_round.result_sha256[:12]} was recorded"
        )


def _check_versions(
    found: Findings,
    training_round: TrainingRound,
    base_params: Params,
    params: Params,
    updates: list[ReceivedUpdate],
) -> None:
    by_envoy = {update.assignment.envoy_id: update for update in updates}
    for version in training_round.versions.select_related("study", "envoy").order_by("pk"):
        found.num_versions += 1
        if version.kind == ModelVersion.Kind.GLOBAL:
            _check_global_version(found, version, params, updates)
        elif version.kind == ModelVersion.Kind.FINE_TUNED:
            update = by_envoy.get(version.envoy_id or 0)
            if update is None:
                found.tell(f"{_name(version)}: no counted update of its hospital made it")
                continue
            delta_params = unpack_update(
                "", _stored(update.sha256), update.num_examples
            ).delta_params
            made = add(base_params, delta_params)
            _compare_version(found, version, params_sha256(made), _lineage_of([update]))
        _check_object(found, version)


def _check_global_version(
    found: Findings, version: ModelVersion, params: Params, updates: list[ReceivedUpdate]
) -> None:
    sha256 = params_sha256(params)
    _compare_version(found, version, sha256, _lineage_of(updates))
    run = version.training_round.run
    if run.status == TrainingRun.Status.FINISHED and run.final_sha256 != sha256:
        found.tell(
            f"run {run.pk}: its last round makes {sha256[:12]}, {run.final_sha256[:12]} was recorded"
        )


def _lineage_of(updates: list[ReceivedUpdate]) -> list[tuple[str, int]]:
    return [(update.sha256, update.num_examples) for update in updates]


def _compare_version(
    found: Findings, version: ModelVersion, sha256: str, lineage: list[tuple[str, int]]
) -> None:
    recorded: dict[str, Any] = version.manifest["lineage"]
    if [(each["sha256"], each["num_examples"]) for each in recorded["updates"]] != lineage:
        found.tell(f"{_name(version)}: its lineage names other updates than those that counted")
    if recorded["base_sha256"] != version.training_round.base_sha256:
        found.tell(f"{_name(version)}: its lineage names other base parameters than its round's")
    for where, value in (
        ("recorded", version.params_sha256),
        ("in its manifest", version.manifest["params_sha256"]),
    ):
        if value != sha256:
            found.tell(
                f"{_name(version)}: its lineage makes {sha256[:12]}, {value[:12]} is {where}"
            )


def _check_object(found: Findings, version: ModelVersion) -> None:
    """Its file is there, as it was written, and holds its parameters; a deleted hospital has none."""
    if version.envoy and version.envoy.status == Envoy.Status.DELETED:
        return
    storage = envoy_storage(version.envoy) if version.envoy else director_storage()
    key = f"{version.storage_key}/model.safetensors"
    try:
        params = from_bytes(read_object(storage, key, sha256=version.object_sha256))
    except LostObjectError as error:
        found.tell(f"{_name(version)}: {error}")
        return
    if params_sha256(params) != version.params_sha256:
        found.tell(f"{_name(version)}: its file holds other parameters than recorded")


def _name(version: ModelVersion) -> str:
    return f"run {version.run_id}, {version}"
