"""A hospital's predictions a page at a time, for clients that walk through all of them."""

from dataclasses import dataclass
from typing import cast

from django.db.models import Q

from diagnoses.models import Admission, Snapshot
from diagnoses.services import admission_records
from envoys import audit
from envoys.models import Envoy, User
from federated.features import encode
from federated.prediction import predict_examples
from federated.targets import num_diagnoses
from inference.services.predictions import load_model
from inference.services.risk import NO_STUDY, study_in_use
from training.errors import NotReadyError
from training.models import ModelVersion, Study

EXPORT_KEY = "diagnoses.csv"


@dataclass(frozen=True)
class PagePrediction:
    """The risk of one admission, without its reasons."""

    subject_id: str
    hadm_id: str
    diagnosis_count: int
    predicted_class: int
    predicted_risk: str  # the class's name
    probabilities: list[float]  # one per class, in the order of the model's manifest


@dataclass(frozen=True)
class PredictedPage:
    envoy: Envoy
    version: ModelVersion
    source_csv: str  # the key of the newest export
    predictions: list[PagePrediction]


def predict_page(
    envoy: Envoy, version: ModelVersion, *, limit: int, offset: int, requested_by: User | None
) -> PredictedPage:
    """Score a page of the admissions that the newest export holds, as they are recorded now.

    Nothing is stored: it takes milliseconds, and what was corrected since the export is in it.

    Args:
        limit: how many admissions, 1000 at the most.
        offset: how many to skip, in the order in which they were recorded.
    Raises:
        NotReadyError: the hospital has not been exported.
        StorageError, SchemaMismatchError: the model cannot be used here; see `load_model`.
    """
    snapshot = _newest_export(envoy)
    model = load_model(version.pk, envoy.pk)
    admissions = dict(
        Admission.objects.complete()
        .filter(_exported(snapshot), envoy=envoy)
        .order_by("pk")
        .values_list("hadm_id", "patient_id")[offset : offset + limit]
    )
    # An admission's input counts those before it: all of a patient's are read, the page's shown.
    records = admission_records(envoy, patient_ids=set(admissions.values()))
    pairs = {
        record.hadm_id: (record, encoded)
        for record, encoded in encode(records, model.schema)
        if record.hadm_id in admissions
    }
    in_order = [pairs[hadm_id] for hadm_id in admissions]
    predictions = []
    if in_order:
        probabilities = predict_examples(
            model.params, model.scaling, [encoded for _, encoded in in_order]
        )
        for (record, _), row in zip(in_order, probabilities, strict=True):
            predicted_class = int(row.argmax())
            predictions.append(
                PagePrediction(
                    subject_id=record.subject_id,
                    hadm_id=record.hadm_id,
                    diagnosis_count=num_diagnoses(record),
                    predicted_class=predicted_class,
                    predicted_risk=model.classes[predicted_class],
                    probabilities=row.tolist(),
                )
            )
    audit.record(requested_by, "saw risks", envoy)
    return PredictedPage(envoy, version, f"{envoy.storage_prefix}/{EXPORT_KEY}", predictions)


def _newest_export(envoy: Envoy) -> Snapshot:
    newest = (
        Snapshot.objects.filter(envoy=envoy, status=Snapshot.Status.COMPLETE)
        .order_by("-completed_at", "-pk")
        .first()
    )
    if newest is None:
        raise NotReadyError(f"{envoy} has not been exported: export its diagnoses first")
    return cast(Snapshot, newest)


def _exported(snapshot: Snapshot) -> Q:
    """What was there, complete, when the export was asked for."""
    asked_at = snapshot.created_at
    return Q(created_at__lte=asked_at) & (
        Q(source_import__isnull=True) | Q(source_import__completed_at__lte=asked_at)
    )


def study_to_predict(envoy: Envoy) -> Study:
    """Raises NotReadyError where there is no study yet."""
    study = study_in_use(envoy)
    if study is None:
        raise NotReadyError(NO_STUDY)
    return study
