"""Risk with its reasons: for one admission, and for a whole hospital."""

from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import lru_cache
from itertools import islice

from django.db import transaction
from django.utils import timezone

from diagnoses.models import Admission
from diagnoses.services import admission_records
from envoys import audit
from envoys.errors import LostObjectError
from envoys.models import Envoy, User
from envoys.storage import envoy_storage, read_object
from envoys.work import Progress
from federated.cohorts import AdmissionRecord
from federated.errors import FederatedError, SchemaMismatchError
from federated.features import EncodedExample, FeatureSchema, encode
from federated.params import Params, from_bytes
from federated.prediction import contributions, predict_examples
from federated.scaling import FeatureScaling
from federated.schemas import feature_schema
from inference.models import InferenceRun, Prediction
from training.errors import NotReadyError
from training.models import Distribution, ModelChoice, ModelVersion, Study
from training.services import choice_in_use, chosen_version

ADMISSIONS_AT_ONCE = 1000


@dataclass(frozen=True)
class ServingModel:
    """A model version, ready to score."""

    params: Params
    scaling: FeatureScaling
    schema: FeatureSchema
    classes: tuple[str, ...]


def global_version(study: Study, envoy: Envoy) -> ModelVersion:
    """The federation's model as it was last delivered to this hospital.

    Raises:
        NotReadyError: nothing has been delivered there.
    """
    delivered = (
        Distribution.objects.filter(
            version__study=study, envoy=envoy, status=Distribution.Status.COMPLETE
        )
        .select_related("version")
        .order_by("-delivered_at", "-pk")
        .first()
    )
    if delivered is None:
        raise NotReadyError(
            f"{envoy} has not received a model of {study}: a data scientist distributes one"
        )
    return delivered.version


def own_version(study: Study, envoy: Envoy) -> ModelVersion:
    """The model of its own that suits this hospital, or else its newest fine-tuned one.

    Raises:
        NotReadyError: it has not trained yet.
    """
    return own_version_by(choice_in_use(study, envoy), study, envoy)


def own_version_by(choice: ModelChoice | None, study: Study, envoy: Envoy) -> ModelVersion:
    """As `own_version`, for who has read the choice already."""
    chosen = chosen_version(choice) if choice else None
    if chosen is not None:
        return chosen
    fine_tuned = ModelVersion.objects.select_related("run").filter(
        study=study, envoy=envoy, kind=ModelVersion.Kind.FINE_TUNED
    )
    version = fine_tuned.order_by("-number").first()
    if version is None:
        raise NotReadyError(f"{envoy} has no model of its own for {study}: train there first")
    return version


@lru_cache(maxsize=32)  # a version never changes; a hospital's model is about 100 kB
def load_model(version_id: int, envoy_id: int) -> ServingModel:
    """Read a version from the hospital's own storage, checked against what was recorded.

    Raises:
        StorageError: it is missing there, unreachable or damaged.
        NotReadyError: a newer version has replaced it there.
        SchemaMismatchError: it was trained with another vocabulary or other inputs.
    """
    version = ModelVersion.objects.select_related("study").get(pk=version_id)
    envoy = Envoy.objects.get(pk=envoy_id)
    is_own = version.envoy_id is not None
    folder = version.storage_key if is_own else f"{version.study.storage_prefix}global_model"
    try:
        content = read_object(
            envoy_storage(envoy), f"{folder}/model.safetensors", sha256=version.object_sha256
        )
    except LostObjectError as error:
        newest = version if is_own else global_version(version.study, envoy)
        if newest != version:
            raise NotReadyError(
                f"{version} has been replaced at {envoy} by {newest}: ask again"
            ) from error
        raise
    manifest = version.manifest
    schema = feature_schema(manifest["target"])
    if schema.sha256 != manifest["schema_sha256"]:
        raise SchemaMismatchError(
            f"{version} was trained with the vocabulary {manifest['vocabulary_sha256'][:12]},"
            f" here it is {schema.vocabulary_sha256[:12]}: distribute a newer version"
        )
    scaling = manifest["scaling"]
    return ServingModel(
        from_bytes(content),
        FeatureScaling(tuple(scaling["mean"]), tuple(scaling["std"])),
        schema,
        tuple(manifest["classes"]),
    )


def predict_admission(
    admission: Admission, version: ModelVersion, *, requested_by: User | None
) -> Prediction:
    """The risk of one admission with what drives it, stored and audited.

    Raises:
        StorageError, SchemaMismatchError: the model cannot be used here; see `load_model`.
    """
    records = list(admission_records(admission.envoy, patient=admission.patient))
    with transaction.atomic():
        prediction = score_admission(admission, version, records, requested_by=requested_by)
        audit.record(requested_by, "predicted risk", admission)
    return prediction


def score_admission(
    admission: Admission,
    version: ModelVersion,
    records: Sequence[AdmissionRecord],
    *,
    requested_by: User | None,
) -> Prediction:
    """As `predict_admission`, for who writes down the look and has read the patient's records.

    Args:
        records: all of the patient's: the earlier ones count.
    """
    model = load_model(version.pk, admission.envoy_id)
    encoded = _encode_one(admission, records, model.schema)
    probabilities = predict_examples(model.params, model.scaling, [encoded])[0]
    drivers = contributions(model.params, model.scaling, encoded, model.schema)
    prediction, _ = Prediction.objects.update_or_create(
        admission=admission,
        model_version=version,
        defaults={
            "predicted_class": int(probabilities.argmax()),
            "probabilities": probabilities.tolist(),
            "contributions": [contribution._asdict() for contribution in drivers],
            "requested_by": requested_by,
            "envoy_id": admission.envoy_id,
        },
    )
    prediction.model_version = version  # a row that was there already has only its number
    return prediction


def _encode_one(
    admission: Admission, records: Sequence[AdmissionRecord], schema: FeatureSchema
) -> EncodedExample:
    """An admission as input; the patient's earlier ones count, later ones do not."""
    for record, encoded in encode(records, schema):
        if record.hadm_id == admission.hadm_id:
            return encoded
    raise NotReadyError("the admission is part of an import that is not complete")


def request_inference(
    envoy: Envoy, version: ModelVersion, *, requested_by: User | None
) -> InferenceRun:
    """Have a whole hospital scored with a version, as a task."""
    from inference.tasks import predict_envoy_task

    inference_run = InferenceRun.objects.create(
        envoy=envoy,
        model_version=version,
        requested_by=requested_by,
        enqueued_at=timezone.now(),
        num_total=Admission.objects.complete().filter(envoy=envoy).count(),
    )
    predict_envoy_task.delay_on_commit(inference_run.pk)
    return inference_run


def predict_envoy(inference_run_id: int) -> None:
    """Score every admission of a hospital, a thousand at a time.

    Raises:
        StorageError, SchemaMismatchError: also written on the row.
    """
    for inference_run in InferenceRun.objects.select_related("envoy", "model_version").claim(
        [inference_run_id]
    ):
        try:
            _predict_all(inference_run)
        except FederatedError as error:
            InferenceRun.objects.fail_or_postpone(inference_run, error)
            raise


def _predict_all(inference_run: InferenceRun) -> None:
    model = load_model(inference_run.model_version_id, inference_run.envoy_id)
    progress = Progress(inference_run)
    counts: Counter[str] = Counter(dict.fromkeys(model.classes, 0))
    encoded = encode(admission_records(inference_run.envoy), model.schema)
    num_done = 0
    while batch := list(islice(encoded, ADMISSIONS_AT_ONCE)):
        counts.update(_predict_batch(inference_run, model, batch))
        num_done += len(batch)
        progress.show(num_done, max(inference_run.num_total, num_done))
    InferenceRun.objects.finish(
        inference_run,
        status=InferenceRun.Status.COMPLETE,
        reason="",
        counts=dict(counts),
        num_done=num_done,
        num_total=num_done,
        completed_at=timezone.now(),
    )


def _predict_batch(
    inference_run: InferenceRun,
    model: ServingModel,
    batch: list[tuple[AdmissionRecord, EncodedExample]],
) -> Iterator[str]:
    probabilities = predict_examples(model.params, model.scaling, [encoded for _, encoded in batch])
    ids = dict(
        Admission.objects.filter(
            envoy_id=inference_run.envoy_id, hadm_id__in=[record.hadm_id for record, _ in batch]
        ).values_list("hadm_id", "pk")
    )
    now = timezone.now()
    Prediction.objects.bulk_create(
        (
            Prediction(
                admission_id=ids[record.hadm_id],
                model_version_id=inference_run.model_version_id,
                envoy_id=inference_run.envoy_id,
                inference_run=inference_run,
                predicted_class=int(row.argmax()),
                probabilities=row.tolist(),
                requested_by_id=inference_run.requested_by_id,
                created_at=now,
            )
            for (record, _), row in zip(batch, probabilities, strict=True)
            if record.hadm_id in ids  # its patient may have been erased since it was read
        ),
        update_conflicts=True,
        unique_fields=["admission", "model_version"],
        update_fields=[
            "inference_run",
            "predicted_class",
            "probabilities",
            "contributions",  # of another input, perhaps: they are made again when looked at
            "requested_by",
            "created_at",
        ],
    )
    return (model.classes[index] for index in probabilities.argmax(axis=1))
