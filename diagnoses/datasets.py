"""The dataset `diagnoses`: how a study gets at a hospital's admissions."""

from collections.abc import Callable, Iterator

from diagnoses.models import Patient, Snapshot
from diagnoses.services import admission_records, export_diagnoses, request_export
from diagnoses.services.batches import batched
from envoys.models import Envoy, User
from envoys.storage import envoy_storage, open_object
from federated.cohorts import AdmissionRecord, iter_snapshot
from federated.datasets import ClientDataset, DatasetSource, build_dataset
from federated.schemas import feature_schema
from federated.targets import target_named

PATIENTS_PER_CHUNK = 100  # for who stops counting at a few


def freeze(envoy_id: int, user_id: int | None) -> int:
    envoy = Envoy.objects.get(pk=envoy_id)
    user = User.objects.get(pk=user_id) if user_id else None
    return request_export(envoy, requested_by=user).pk


def snapshot_records(snapshot: Snapshot) -> Iterator[AdmissionRecord]:
    """A frozen export's admissions, sorted by patient and time, one in memory at a time.

    Raises:
        StorageError: it is missing, unreachable or damaged.
    """
    storage, folder = envoy_storage(snapshot.envoy), f"snapshots/{snapshot.sha256}"
    with (
        open_object(
            storage, f"{folder}/diagnoses.csv", sha256=snapshot.diagnoses_sha256
        ) as diagnoses,
        open_object(storage, f"{folder}/outcomes.csv", sha256=snapshot.outcomes_sha256) as outcomes,
    ):
        yield from iter_snapshot(diagnoses, outcomes)


def build(snapshot_id: int, target: str, heartbeat: Callable[[], None]) -> ClientDataset:
    def alive(records: Iterator[AdmissionRecord]) -> Iterator[AdmissionRecord]:
        for record in records:
            heartbeat()
            yield record

    snapshot = Snapshot.objects.select_related("envoy").get(pk=snapshot_id)
    return build_dataset(alive(snapshot_records(snapshot)), feature_schema(target))


def count_labelled_patients(envoy_id: int, target: str, at_most: int | None = None) -> int:
    label_of = target_named(target).label_of
    # Which class an admission has may depend on its diagnoses; whether it has one does not.
    envoy = Envoy.objects.get(pk=envoy_id)
    if at_most is None:
        records = admission_records(envoy, with_diagnoses=False)
        return len({record.subject_id for record in records if label_of(record) is not None})
    labelled: set[str] = set()
    patient_ids = Patient.objects.complete().filter(envoy=envoy).values_list("pk", flat=True)
    for chunk in batched(patient_ids.iterator(PATIENTS_PER_CHUNK), PATIENTS_PER_CHUNK):
        for record in admission_records(envoy, patient_ids=chunk, with_diagnoses=False):
            if label_of(record) is not None:
                labelled.add(record.subject_id)
            if len(labelled) >= at_most:
                return at_most
    return len(labelled)


SOURCE = DatasetSource(
    schema=feature_schema,
    freeze=freeze,
    export=export_diagnoses,
    build=build,
    count_labelled_patients=count_labelled_patients,
)
