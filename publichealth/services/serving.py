"""The released model of a study of readings, ready to serve."""

import time
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from datetime import timedelta
from functools import lru_cache
from typing import Any

import numpy as np
from django.db import transaction
from django.db.models import Case, IntegerField, QuerySet, Value, When
from django.utils import timezone

from envoys.errors import StorageError
from envoys.models import Envoy
from envoys.storage import director_storage, read_object
from envoys.work import Progress
from federated.datasets import UNLABELLED
from federated.drift import distributions
from federated.errors import FederatedError, SchemaMismatchError, UnusedInputsError
from federated.features import TRAIN, VALIDATION
from federated.health_risk import Assessed, RiskModel, View, assess, views_of
from federated.params import from_bytes
from federated.plan import TrainingPlan
from federated.readings import INPUT_NAMES, reading_schema
from federated.recalibration import NodeMargins, recalibrate
from federated.scaling import FeatureScaling
from federated.targets import READINGS
from publichealth.models import Reading, Serving
from publichealth.services.drift import only_numbers_of_rows
from publichealth.tasks import prepare_serving_task
from training.arrays import open_snapshot
from training.models import ModelVersion, RunParticipant

STUDIES = ("health-risk", "health-tier")  # whose model is served: the first that is ready
SCORED_BACK = timedelta(hours=24)
SCORED_AT_ONCE = 1000  # one transaction, and one pass of the model


@dataclass(frozen=True)
class ServedModel:
    """A released version with its calibration.

    Attributes:
        name: of the version, for people.
        threshold: from this risk on it is called high.
        views: the kinds of nodes that it was trained at.
    """

    version: ModelVersion
    name: str
    model: RiskModel
    slope: float
    intercept: float
    threshold: float
    views: tuple[View, ...]

    @property
    def inputs(self) -> tuple[str, ...]:
        """What some node measured that it was trained on; of others it knows nothing."""
        return tuple(
            name for name in INPUT_NAMES if any(name in view.inputs for view in self.views)
        )

    def risks(self, readings: Iterable[Mapping[str, float]]) -> list[float | None]:
        """Calibrated probabilities of high risk; None of a reading that it knows nothing of."""
        risks: list[float | None] = []
        for reading in readings:
            try:
                risks.append(self.assess(reading).risk)
            except UnusedInputsError:
                risks.append(None)
        return risks

    def assess(self, reading: Mapping[str, float]) -> Assessed:
        """The risk of one reading, and what drives it. Raises UnusedInputsError."""
        return assess(
            self.model,
            reading,
            views=self.views,
            slope=self.slope,
            intercept=self.intercept,
        )

    def is_high(self, risk: float) -> bool:
        return risk >= self.threshold


def served_model() -> ServedModel | None:
    """The model to answer with, looked up at most once a second; None before the first release.

    A newly released version is served once it is prepared; until then the one before it is.

    Raises:
        StorageError: its parameters are missing, unreachable or damaged.
        SchemaMismatchError: it was trained with other inputs than this code has.
    """
    return _served_in(int(time.monotonic()))


@lru_cache(maxsize=1)
def _served_in(second: int) -> ServedModel | None:
    return _look_up()


def forget_served() -> None:
    """Look again at once: what was served may be another's by now."""
    _served_in.cache_clear()


def _look_up() -> ServedModel | None:
    serving_id = _newest_ready()
    return None if serving_id is None else load_served(serving_id)


def released_threshold() -> float | None:
    """From which risk on the served model calls a reading high; read without its parameters."""
    serving_id = _newest_ready()
    return None if serving_id is None else Serving.objects.get(pk=serving_id).threshold


def _newest_ready() -> int | None:
    states = ModelVersion.State
    ready = (
        Serving.objects.filter(
            status=Serving.Status.COMPLETE, version__state__in=[states.ACTIVE, states.RETIRED]
        )
        .annotate(is_newest=_one_where(version__state=states.ACTIVE))
        .order_by("-is_newest", "-version__number")
    )
    for name in STUDIES:
        study = ModelVersion.objects.of_federation().active().filter(study__name=name)
        if study.exists():
            serving_id = ready.filter(version__study__name=name).values_list("pk", flat=True)
            if (found := serving_id.first()) is not None:
                return found
    return None


def _one_where(**condition: str) -> Case:
    return Case(When(**condition, then=Value(1)), default=Value(0), output_field=IntegerField())


@lru_cache(maxsize=4)  # a version never changes, nor does its calibration
def load_served(serving_id: int) -> ServedModel:
    """A version of which the preparation is complete. Raises as `served_model`."""
    serving = Serving.objects.select_related("version__study").get(pk=serving_id)
    return ServedModel(
        serving.version,
        str(serving.version),
        load_model(serving.version),
        serving.slope,
        serving.intercept,
        serving.threshold,
        views_of(serving.training_distribution.values()),
    )


def load_model(version: ModelVersion) -> RiskModel:
    """A version's parameters from the director's storage, checked against what was recorded.

    Raises as `served_model`.
    """
    manifest = version.manifest
    schema = reading_schema(manifest["target"])
    if schema.sha256 != manifest["schema_sha256"]:
        raise SchemaMismatchError(
            f"{version} was trained with the inputs {manifest['schema_sha256'][:12]}, here they are"
            f" {schema.sha256[:12]}: train and release a newer version"
        )
    content = read_object(
        director_storage(),
        f"{version.storage_key}/model.safetensors",
        sha256=version.object_sha256,
    )
    scaling = manifest["scaling"]
    return RiskModel(
        from_bytes(content), FeatureScaling(tuple(scaling["mean"]), tuple(scaling["std"]))
    )


def request_missing_servings() -> None:
    """Have a worker prepare each released version of a study of readings that is not yet."""
    released = ModelVersion.objects.of_federation().active()
    for version in released.filter(study__dataset=READINGS, serving__isnull=True):
        serving, is_new = Serving.objects.get_or_create(
            version=version, defaults={"enqueued_at": timezone.now()}
        )
        if is_new:
            prepare_serving_task.delay_on_commit(serving.pk)


def prepare_now(version: ModelVersion) -> Serving:
    """As `request_missing_servings` for one version, but in this process; returns it complete.

    Raises StorageError or FederatedError.
    """
    # Enqueued by nobody, but stamped: the sweeper must not hand it out as well.
    serving, _ = Serving.objects.get_or_create(
        version=version, defaults={"enqueued_at": timezone.now()}
    )
    prepare_serving(serving.pk)
    serving.refresh_from_db()
    return serving


def prepare_serving(serving_id: int) -> None:
    """Calibrate a released version on the nodes' validation rows and note what it was trained on.

    Then score what came in lately and has no score. Nothing else is done of a row that another
    worker holds or has finished.

    Raises:
        StorageError: parameters or a snapshot cannot be read; the row is FAILED with the reason.
        FederatedError: they do not fit this code's inputs; likewise.
    """
    claimed: list[Serving] = Serving.objects.select_related("version__run", "version__study").claim(
        [serving_id]
    )
    for serving in claimed:
        try:
            found = _prepare(serving)
        except (StorageError, FederatedError) as error:
            Serving.objects.finish(serving, status=Serving.Status.FAILED, reason=str(error))
            raise
        _complete(serving, found)
    forget_served()
    score_unscored()


def _complete(serving: Serving, found: dict[str, Any]) -> None:
    """Store what preparation has found; of a node that was erased meanwhile, as erasing leaves it.

    A node's row is held meanwhile: erasing, which takes the node out of the rows that there are,
    begins either before, and is seen here, or after, and finds this row.
    """
    trained_on = found["training_distribution"]
    with transaction.atomic():
        nodes = Envoy.objects.select_for_update().order_by("pk").filter(pk__in=trained_on)
        standing = {str(each.pk) for each in nodes if each.status != Envoy.Status.DELETED}
        found["training_distribution"] = {
            node: released if node in standing else only_numbers_of_rows(released)
            for node, released in trained_on.items()
        }
        Serving.objects.finish(
            serving, status=Serving.Status.COMPLETE, completed_at=timezone.now(), **found
        )


def _prepare(serving: Serving) -> dict[str, Any]:
    """The fields that preparation finds."""
    version, progress = serving.version, Progress(serving)
    plan, model = TrainingPlan.from_json(version.run.plan), load_model(version)
    highest = len(version.manifest["classes"]) - 1
    nodes, trained_on = [], {}
    participants = list(
        RunParticipant.objects.filter(run=version.run, sits_out_because="")
        .exclude(snapshot=None)
        .select_related("snapshot__envoy")
    )
    for num_done, participant in enumerate(participants):
        progress.show(num_done, len(participants) + 1)
        assert participant.snapshot is not None
        dataset = open_snapshot(
            participant.snapshot,
            plan,
            heartbeat=lambda done=num_done: progress.show(  # type: ignore[misc]
                done, len(participants) + 1
            ),
        )
        values = dataset.numeric[:, : len(INPUT_NAMES)].astype(np.float64)
        is_labelled = dataset.labels != UNLABELLED
        train, validation = (
            np.flatnonzero((dataset.splits == split) & is_labelled) for split in (TRAIN, VALIDATION)
        )
        released = distributions(values[train], dataset.patients[train])
        trained_on[str(participant.envoy_id)] = released
        for view in views_of([released]):  # one, or none without a training row
            nodes.append(
                NodeMargins(
                    model.margins(values[validation], view),
                    dataset.labels[validation] == highest,
                    dataset.patients[validation],
                )
            )
    line = recalibrate(nodes)
    return {
        "slope": line.slope,
        "intercept": line.intercept,
        "threshold": line.threshold,
        "num_validation": line.num_rows,
        "training_distribution": trained_on,
        "num_done": len(participants) + 1,
        "num_total": len(participants) + 1,
    }


def score_unscored() -> int:
    """Score what came in within 24 hours and has neither outcome nor score; returns how many."""
    served = served_model()
    if served is None:
        return 0
    num_scored, waiting = 0, _unscored()
    while rows := list(waiting.order_by("pk")[:SCORED_AT_ONCE]):
        risks = served.risks(row.values for row in rows)
        for row, risk in zip(rows, risks, strict=True):
            row.risk_score = risk
            row.scored_with = served.version if risk is not None else None
        Reading.objects.bulk_update(rows, ["risk_score", "scored_with"])
        num_scored += len(rows)
        waiting = _unscored().filter(pk__gt=rows[-1].pk)
    return num_scored


def _unscored() -> "QuerySet[Reading]":
    since = timezone.now() - SCORED_BACK
    return Reading.objects.filter(outcome=None, tier=None, risk_score=None, measured_at__gte=since)
