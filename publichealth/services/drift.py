"""Whether nodes' newest readings are still like those the released model was trained on."""

from collections.abc import Iterable
from dataclasses import asdict, dataclass
from datetime import datetime, timedelta
from typing import Any

import numpy as np
from django.conf import settings
from django.db import transaction
from django.db.models import QuerySet
from django.utils import timezone
from numpy.typing import NDArray

from envoys import audit
from envoys.models import Envoy, EnvoyQuerySet, User
from federated import drift
from federated.readings import INPUT_NAMES
from federated.targets import READINGS
from publichealth.models import DriftCheck, Reading, Serving
from publichealth.tasks import check_drift_task
from training.errors import NotReadyError
from training.models import ModelVersion

NEWEST = 500  # readings that are held against the others
MOST_BEFORE = 5_000  # readings of a node that trained no model, as its reference
LEAST_NEW = drift.MIN_COMPARED  # readings since the last check, for one that nobody asked for
# Of what a node has released of an input; the rest tells of the values.
NUMBERS_OF_ROWS = ("num_rows", "num_readings")


@dataclass(frozen=True)
class Requested:
    """What came of it: a node that cannot be checked does not stop the others."""

    checks: list[DriftCheck]
    problems: list[str]  # a sentence for each node that could not


@dataclass(frozen=True)
class NodeDrift:
    """A node with readings, and how it stands."""

    envoy: Envoy
    check: DriftCheck | None  # the last that is complete
    newest: DriftCheck | None  # the last that was asked for, as long as it is not complete
    not_yet: str = ""  # why there is none of either
    next_at: datetime | None = None  # before which none is made that nobody asks for


def nodes() -> EnvoyQuerySet:
    """Whoever has readings to check, by name."""
    return Envoy.objects.active().with_dataset(READINGS).order_by("name")


def summary(user: User) -> list[NodeDrift]:
    """How each node that this person may see stands."""
    found = []
    for envoy in nodes().visible_to(user):
        checks = DriftCheck.objects.filter(envoy=envoy).select_related("version__study")
        newest = checks.first()
        is_complete = newest is not None and newest.status == DriftCheck.Status.COMPLETE
        complete = (
            newest if is_complete else checks.filter(status=DriftCheck.Status.COMPLETE).first()
        )
        if newest is None:
            found.append(NodeDrift(envoy, None, None, not_yet=_why_not_yet(envoy)))
            continue
        next_at = newest.created_at + timedelta(hours=settings.DRIFT_HOURS)
        found.append(NodeDrift(envoy, complete, None if is_complete else newest, next_at=next_at))
    return found


def _why_not_yet(envoy: Envoy) -> str:
    """A sentence without a full stop."""
    serving = _serving_of(envoy)
    if serving is None:
        return "No model of readings is served yet: there is nothing to compare with"
    try:
        _check_enough(envoy, serving)
    except NotReadyError as error:
        return f"{error}. The first check is made by itself once there are enough"
    return "There are enough readings: the first check is made within a minute"


def request_due_checks() -> None:
    """Have a worker check the nodes whose last check is long ago and that have new readings."""
    if not _servings().exists():
        return
    since = timezone.now() - timedelta(hours=settings.DRIFT_HOURS)
    checked = DriftCheck.objects.filter(created_at__gt=since).values("envoy")
    unfinished = DriftCheck.objects.unfinished().values("envoy")
    for envoy in nodes().exclude(pk__in=checked).exclude(pk__in=unfinished):
        last = DriftCheck.objects.filter(envoy=envoy).first()
        if last and not _has(LEAST_NEW, Reading.objects.filter(envoy=envoy), after=last.created_at):
            continue
        try:
            request_check(envoy)
        except NotReadyError:
            continue  # too few readings yet


def request_check(envoy: Envoy, *, requested_by: User | None = None) -> DriftCheck:
    """Have a worker check a node; the row shows what came of it.

    Raises:
        NotReadyError: no model is served, there is too little to compare, or it is being checked.
    """
    serving = _serving_of(envoy)
    if serving is None:
        raise NotReadyError(
            "No model of readings is being served: release one first, then there is something to"
            " compare with"
        )
    if DriftCheck.objects.unfinished().filter(envoy=envoy).exists():
        raise NotReadyError(f"{envoy} is being checked already")
    _check_enough(envoy, serving)
    with transaction.atomic():
        check = DriftCheck.objects.create(
            envoy=envoy,
            version=serving.version,
            requested_by=requested_by,
            enqueued_at=timezone.now(),
        )
        if requested_by:
            audit.record(requested_by, "requested drift check", check)
        check_drift_task.delay_on_commit(check.pk)
    return check


def request_checks(envoys: Iterable[Envoy], *, requested_by: User) -> Requested:
    """Have several nodes checked.

    Raises:
        NotReadyError: none of them can be; it says why.
    """
    requested = Requested([], [])
    for envoy in sorted(envoys, key=lambda envoy: envoy.slug):
        try:
            requested.checks.append(request_check(envoy, requested_by=requested_by))
        except NotReadyError as error:
            if str(error) not in requested.problems:
                requested.problems.append(str(error))
    if not requested.checks:
        raise NotReadyError("; ".join(requested.problems) or "There is no node with readings yet")
    return requested


def check_drift(check_id: int) -> None:
    """Hold a node's newest readings against what the model was trained on, input by input.

    Where the node took part in the training that is its distribution then; elsewhere its readings
    before the newest. Nothing is done for a check that another worker holds or has finished.
    """
    for check in DriftCheck.objects.select_related("envoy", "version__run").claim([check_id]):
        serving = Serving.objects.select_related("version__run").get(version=check.version)
        try:
            _check_enough(check.envoy, serving)
        except NotReadyError as error:
            DriftCheck.objects.finish(check, status=DriftCheck.Status.FAILED, reason=str(error))
            continue
        values = _values(_newest(check.envoy, serving))
        reference = serving.training_distribution.get(str(check.envoy.pk))
        if reference is None:
            reference = drift.distributions(_values(_before(check.envoy)))
        found = drift.compare_all(reference, values)
        DriftCheck.objects.finish(
            check,
            status=DriftCheck.Status.COMPLETE,
            completed_at=timezone.now(),
            num_done=len(values),
            num_total=len(values),
            num_readings=len(values),
            figures=[
                {"input": name, **asdict(each), "alerts": each.alerts}
                for name, each in found.items()
            ],
            is_alert=any(each.is_alert for each in found.values()),
        )


def forget_trained_on(envoy: Envoy) -> None:
    """Of a node that is erased let no serving keep how its values were distributed.

    In how many of its rows each input was known stays: the model is served by that
    (`federated.health_risk.views_of`), and without it could refuse what no other node measures.
    """
    node = str(envoy.pk)
    with transaction.atomic():
        servings = Serving.objects.select_for_update().filter(training_distribution__has_key=node)
        for serving in servings:
            serving.training_distribution[node] = only_numbers_of_rows(
                serving.training_distribution[node]
            )
            serving.save(update_fields=["training_distribution"])


def only_numbers_of_rows(released: dict[str, Any]) -> dict[str, Any]:
    """A node's distributions without what tells of its values."""
    return {
        name: {key: value for key, value in one.items() if key in NUMBERS_OF_ROWS}
        for name, one in released.items()
    }


def _servings() -> "QuerySet[Serving]":
    """Of the released versions that are ready, the newest first."""
    return Serving.objects.filter(
        status=Serving.Status.COMPLETE,
        version__state=ModelVersion.State.ACTIVE,
        version__envoy=None,
    ).select_related("version__run")


def _serving_of(envoy: Envoy) -> Serving | None:
    """The newest model that the node has trained, or else the newest; None before the first."""
    servings = list(_servings())
    trained = [each for each in servings if str(envoy.pk) in each.training_distribution]
    return next(iter(trained or servings), None)


def _newest(envoy: Envoy, serving: Serving) -> "QuerySet[Reading]":
    """The readings to check: what the model was trained on is not new."""
    rows = Reading.objects.filter(envoy=envoy).order_by("-received_at", "-pk")
    if str(envoy.pk) in serving.training_distribution:
        rows = rows.filter(received_at__gt=serving.version.run.started_at)
    return rows[:NEWEST]


def _before(envoy: Envoy) -> "QuerySet[Reading]":
    """A node's readings before the newest."""
    rows = Reading.objects.filter(envoy=envoy).order_by("-received_at", "-pk")
    return rows[NEWEST : NEWEST + MOST_BEFORE]


def _check_enough(envoy: Envoy, serving: Serving) -> None:
    """Raises NotReadyError."""
    rows = Reading.objects.filter(envoy=envoy)
    if str(envoy.pk) in serving.training_distribution:
        if not _has(drift.MIN_COMPARED, rows, after=serving.version.run.started_at):
            raise NotReadyError(
                f"Not enough to compare: {envoy} has received fewer than {drift.MIN_COMPARED}"
                f" readings since {serving.version} was trained"
            )
    elif not _has(2 * NEWEST, rows):
        raise NotReadyError(
            f"Not enough to compare: {envoy} took no part in training {serving.version}, and has"
            f" fewer than {2 * NEWEST:,} readings, of which the newest {NEWEST} could be held"
            " against the others"
        )


def _has(num: int, rows: "QuerySet[Reading]", *, after: datetime | None = None) -> bool:
    """Whether there are so many rows; counts no further."""
    if after is not None:
        rows = rows.filter(received_at__gt=after)
    return rows.order_by()[:num].count() == num


def _values(rows: "QuerySet[Reading]") -> NDArray[np.float64]:
    """(num_rows, len(INPUT_NAMES)), NaN where not measured."""
    found: list[Any] = list(rows.values_list(*INPUT_NAMES))
    return np.array(found, np.float64).reshape(-1, len(INPUT_NAMES))
