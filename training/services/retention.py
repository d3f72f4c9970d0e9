"""Which objects of a run are let go, so that storage does not grow with every round for ever.

A run's row says from which round on everything is there, before the first object of an earlier one
goes; and, once they are gone, before which nothing has to be looked for again. So whoever is
killed in between leaves work for the next, and never a row that promises what is gone.
"""

import logging
from collections.abc import Iterable, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from datetime import datetime, timedelta

from django.conf import settings
from django.core.cache import cache
from django.core.files.storage import Storage
from django.db.models import F, Max, OuterRef, Q, QuerySet, Subquery
from django.utils import timezone
from redis.exceptions import RedisError

from envoys.copying import is_copied
from envoys.errors import StorageError
from envoys.models import Envoy
from envoys.storage import delete_object, director_storage, envoy_storage, object_size
from training.errors import NotReadyError
from training.models import ReceivedUpdate, RunQuerySet, TrainingRound, TrainingRun
from training.objects import params_key
from training.services.checking import check_rounds_before
from training.services.updates import client_state_key

logger = logging.getLogger(__name__)

ROUNDS_AT_ONCE = 10  # of which the objects are looked up together
PASS = "remove_old_objects"  # in the cache while one is under way
PASS_SECONDS = 600  # for which one that was killed keeps the next from starting
# By how a row of an update leads to its round and run.
NUMBER = "assignment__training_round__number"
RUN = "assignment__training_round__run"
ENVOY = "assignment__envoy"


@dataclass
class Removed:
    """What was let go, or in a dry run would be; and the runs whose objects stay for now, and why."""

    num_runs: int = 0
    num_objects: int = 0
    num_bytes: int = 0
    put_off: list[str] = field(default_factory=list)


def remove_old_objects(*, is_dry_run: bool = False) -> Removed:
    """Let go of updates, parameters and strategies' states that nobody needs; safe at any time.

    A run under way keeps its last `KEEP_ROUNDS` aggregated rounds, and those younger than
    `KEEP_HOURS`; an older one goes once its model has been made again from it. A run that has ended
    keeps its last round, of which its versions' lineage is computed, once it was checked without a
    finding. Kept are also round 0, whatever another round that is kept refers to, and each
    hospital's last counted update of a run under way, with which its next is compared.
    """
    removed = Removed()
    if not settings.KEEP_ROUNDS:
        return removed
    if is_dry_run:
        _let_go_of_all(removed, is_dry_run)
    elif _begin_pass():
        try:
            _let_go_of_all(removed, is_dry_run)
        finally:
            _end_pass()
    else:
        removed.put_off.append("another pass is under way, or was killed a moment ago")
    return removed


def _begin_pass() -> bool:
    """False while another is under way, where processes share a cache: in production.

    Two at once do no harm, only the same work twice: so one that takes longer is no trouble.
    """
    try:
        return bool(cache.add(PASS, 1, timeout=PASS_SECONDS))
    except RedisError:
        return True


def _end_pass() -> None:
    with suppress(RedisError):
        cache.delete(PASS)


def _let_go_of_all(removed: Removed, is_dry_run: bool) -> None:
    for run in list(_runs_to_look_at()):
        try:
            _let_go(run, removed, is_dry_run)
        except NotReadyError as error:
            removed.put_off.append(f"run {run.pk}: {error}")
        except StorageError as error:
            logger.warning("objects of run %s that are not needed stay for now: %s", run.pk, error)
            removed.put_off.append(f"run {run.pk}: {error}")


def _runs_to_look_at() -> RunQuerySet:
    aggregated = TrainingRound.objects.filter(
        run=OuterRef("pk"), status=TrainingRound.Status.AGGREGATED
    )
    old_enough = aggregated.filter(aggregated_at__lt=_some_time_ago())
    runs = TrainingRun.objects.annotate(
        last_round=Subquery(aggregated.order_by("-number").values("number")[:1]),
        last_old_round=Subquery(old_enough.order_by("-number").values("number")[:1]),
    )
    checked = Q(checked_at__isnull=False, check_problems=[], finished_at__lt=_some_time_ago())
    looked_at = Q(pk__in=TrainingRun.objects.active().values("pk")) | checked
    return (
        runs.filter(looked_at, last_round__gt=1)
        .filter(objects_removed_before_round__lt=F("last_round"))
        .defer("report")
    )


def _some_time_ago() -> datetime:
    return timezone.now() - timedelta(hours=settings.KEEP_HOURS)


def _let_go(run: TrainingRun, removed: Removed, is_dry_run: bool) -> None:
    kept_from = _kept_from(run)
    if kept_from <= max(run.objects_removed_before_round, 1):
        return
    if not is_dry_run:
        TrainingRun.objects.filter(pk=run.pk, objects_kept_from_round__lt=kept_from).update(
            objects_kept_from_round=kept_from
        )
    run.objects_kept_from_round = kept_from
    # Of one that has ended all once more: an update may have come late, after its round was let go.
    first = max(run.objects_removed_before_round, 1) if run.is_active else 1
    for begin in range(first, kept_from, ROUNDS_AT_ONCE):
        _check_may_go(run)
        numbers = range(begin, min(begin + ROUNDS_AT_ONCE, kept_from))
        _remove_rounds(run, numbers, removed, is_dry_run)
    removed.num_runs += 1
    if not is_dry_run:
        # What is needed longer than its round is looked for again until it has gone.
        held = [each.number for each in _last_counted() if each.run_id == run.pk]
        TrainingRun.objects.filter(pk=run.pk).update(
            objects_removed_before_round=min([kept_from, *held])
        )


def _check_may_go(run: TrainingRun) -> None:
    """Refuse to delete while somebody relies on what the rows do not say, or did not a moment ago.

    It is asked before each delete, after it was looked up what is needed: a backup that begins
    later copies rows that know as much, and a run that starts later has stored nothing yet.

    Raises:
        NotReadyError: a backup is being made, or another run may store the same.
        StorageError: storage is out of reach.
    """
    if _may_store_the_same(run):
        raise NotReadyError(
            "another of its study is being prepared, or has the same seed and is under way: the"
            " rest stays until then"
        )
    if is_copied():
        raise NotReadyError("a backup is being made, and the rest stays until its end")


def _kept_from(run: TrainingRun) -> int:
    """The first round that keeps its objects; of one under way none is let go unchecked.

    Raises:
        StorageError: storage is out of reach, so that nothing could be checked.
    """
    last_round: int = run.last_round  # type: ignore[attr-defined]
    if not run.is_active:
        return last_round
    last_old: int | None = run.last_old_round  # type: ignore[attr-defined]
    kept_from = min(last_round - settings.KEEP_ROUNDS, last_old or 0) + 1
    for number, found in check_rounds_before(run, kept_from):
        if found.num_problems:
            for problem in found.problems:
                logger.error("a check has found: %s", problem)
            return number
    return max(kept_from, run.objects_kept_from_round)


def _may_store_the_same(run: TrainingRun) -> bool:
    """Whether another run is about to refer to objects of this one.

    The same seed and rows make the same updates, stored before the row that refers to them is
    written. So what such a run has not written yet cannot be told from what nobody needs.
    """
    others = TrainingRun.objects.active().filter(study=run.study_id).exclude(pk=run.pk)
    return others.filter(Q(status=TrainingRun.Status.PREPARING) | Q(seed=run.seed)).exists()


def _remove_rounds(
    run: TrainingRun, numbers: Iterable[int], removed: Removed, is_dry_run: bool
) -> None:
    rounds = run.rounds.filter(number__in=numbers)
    columns = ("base_sha256", "state_sha256", "result_sha256")
    hashes = {sha256 for row in rounds.values_list(*columns) for sha256 in row}
    updates = ReceivedUpdate.objects.filter(assignment__training_round__in=rounds)
    hashes |= set(updates.values_list("sha256", flat=True))
    keys = [params_key(sha256) for sha256 in sorted(hashes - _needed(run, hashes)) if sha256]
    _remove(run, director_storage(), keys, removed, is_dry_run)
    with_state = updates.exclude(client_state_sha256="")
    envoys = Envoy.objects.standing().filter(pk__in=with_state.values(ENVOY))
    for envoy in envoys:
        of_envoy = with_state.filter(assignment__envoy=envoy)
        states = set(of_envoy.values_list("client_state_sha256", flat=True))
        states -= _needed_states(run, envoy, states)
        keys = [client_state_key(sha256) for sha256 in sorted(states)]
        _remove(run, envoy_storage(envoy), keys, removed, is_dry_run)


def _remove(
    run: TrainingRun, storage: Storage, keys: Sequence[str], removed: Removed, is_dry_run: bool
) -> None:
    for key in keys:
        num_bytes = object_size(storage, key)
        if num_bytes is None:
            continue
        if not is_dry_run:
            _check_may_go(run)
            delete_object(storage, key)
        removed.num_objects += 1
        removed.num_bytes += num_bytes


def _needed(run: TrainingRun, hashes: set[str]) -> set[str]:
    """Those that a round which keeps its objects refers to, or that are still read."""
    rounds = _kept_rounds(run)
    needed = {each.sha256 for each in _last_counted()}
    updates = ReceivedUpdate.objects.filter(sha256__in=hashes)
    needed |= set(
        updates.filter(assignment__training_round__in=rounds).values_list("sha256", flat=True)
    )
    for column in ("base_sha256", "state_sha256", "result_sha256"):
        referring = rounds.filter(**{f"{column}__in": hashes})
        needed |= set(referring.values_list(column, flat=True))
    newest = TrainingRun.objects.filter(params_sha256__in=hashes)
    return needed | set(newest.values_list("params_sha256", flat=True))


def _needed_states(run: TrainingRun, envoy: Envoy, hashes: set[str]) -> set[str]:
    updates = ReceivedUpdate.objects.filter(
        client_state_sha256__in=hashes,
        assignment__envoy=envoy,
        assignment__training_round__in=_kept_rounds(run),
    )
    needed = set(updates.values_list("client_state_sha256", flat=True))
    return needed | {each.client_state_sha256 for each in _last_counted()}


def _kept_rounds(run: TrainingRun) -> "QuerySet[TrainingRound]":
    """Of all runs, with this one's as it is about to be: in a dry run its row does not say so."""
    kept = Q(number__gte=F("run__objects_kept_from_round")) | Q(number=0)
    going = Q(run=run.pk, number__gt=0, number__lt=run.objects_kept_from_round)
    return TrainingRound.objects.filter(kept).exclude(going)


@dataclass(frozen=True)
class LastCounted:
    """A hospital's last counted update of a run under way, in a round that is let go."""

    run_id: int
    number: int
    sha256: str
    client_state_sha256: str


def _last_counted() -> list[LastCounted]:
    """Which screening compares the next with, and whose client state SCAFFOLD goes on from.

    An update counts for good once its round is aggregated: until then it may be lost or refused,
    and the one before it is the last again.
    """
    counted = ReceivedUpdate.objects.filter(
        **{f"{RUN}__in": TrainingRun.objects.active(), f"{NUMBER}__gte": 1},
        assignment__training_round__status=TrainingRound.Status.AGGREGATED,
        verdict=ReceivedUpdate.Verdict.ACCEPTED,
    )
    newest = counted.order_by().values_list(RUN, ENVOY).annotate(number=Max(NUMBER))
    kept_from = dict(TrainingRun.objects.active().values_list("pk", "objects_kept_from_round"))
    found = []
    for run_id, envoy_id, number in newest:
        if number >= kept_from.get(run_id, 0):
            continue
        update = counted.get(**{RUN: run_id, ENVOY: envoy_id, NUMBER: number})
        found.append(LastCounted(run_id, number, update.sha256, update.client_state_sha256))
    return found
