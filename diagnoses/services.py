import hashlib
import io
import time
from collections import defaultdict
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import replace
from datetime import datetime, timedelta
from itertools import islice
from operator import attrgetter
from tempfile import TemporaryFile
from typing import IO, Any, BinaryIO, TextIO, TypeVar, cast

from django.conf import settings
from django.db import IntegrityError, connection, transaction
from django.db.models import Field, Model, QuerySet
from django.utils import timezone

from diagnoses.errors import ImportRefusedError
from diagnoses.models import Admission, Diagnosis, IcdCode, Import, Patient, Snapshot
from diagnoses.tasks import export_diagnoses_task
from envoys.errors import StorageError
from envoys.models import Envoy, User
from envoys.storage import envoy_storage, write_object
from envoys.work import Progress
from federated import icd
from federated.cohorts import (
    READMISSION_DAYS,
    AdmissionRecord,
    CodedDiagnosis,
    EnvoyFiles,
    RecordWriter,
    admission_order,
    canonical_time,
    check_envoy,
    days_between,
    first_places,
    is_readmission,
    iter_diagnoses,
    iter_outcomes,
)
from federated.errors import CohortError, FederatedError

BATCH_ROWS = 2_000  # one transaction: short enough for others to get their turn
PATIENTS_PER_CHUNK = 500
REPORT_SECONDS = 1.0
ACTIVE_IMPORT = (Import.Status.CHECKING, Import.Status.INSERTING)

Item = TypeVar("Item")


def batched(items: Iterable[Item], size: int) -> Iterator[list[Item]]:
    remaining = iter(items)
    while batch := list(islice(remaining, size)):
        yield batch


# --- The public code list ----------------------------------------------------------------------


def load_icd_codes() -> int:
    """Fill IcdCode from the public lists; returns how many rows were written, 0 if all stood."""
    num_codes = sum(1 for _ in icd.all_codes())
    if IcdCode.objects.count() == num_codes:
        return 0
    with transaction.atomic():
        IcdCode.objects.all().delete()
        for rows in batched(icd.all_codes(), BATCH_ROWS):
            _insert_rows(IcdCode, icd.CodeRow._fields, rows)
    return num_codes


def _insert_rows(model: type[Model], names: Sequence[str], rows: Sequence[Sequence[Any]]) -> None:
    """INSERT plain values: `bulk_create` spends nine tenths of an import on model instances."""
    quote = connection.ops.quote_name
    fields = [cast("Field[Any, Any]", model._meta.get_field(name)) for name in names]
    columns = [quote(str(field.column)) for field in fields]
    marks = ", ".join(["%s"] * len(columns))
    table = quote(model._meta.db_table)
    with connection.cursor() as cursor:
        cursor.executemany(f"INSERT INTO {table} ({', '.join(columns)}) VALUES ({marks})", rows)


# --- Import ------------------------------------------------------------------------------------


def import_cohort(
    envoy: Envoy,
    files: EnvoyFiles,
    *,
    started_by: User | None = None,
    on_progress: Callable[[Import], None] | None = None,
) -> Import:
    """Read a cohort into a hospital: all of it, or nothing.

    The files are checked before a row is written, and the rows stay invisible until the last one
    stands. Files that have been imported here before give that import again.

    Args:
        on_progress: called about every second with the import: its status, `num_done`, `num_total`.
    Raises:
        CohortError: the files are refused, or an admission stands in this hospital already.
        ImportRefusedError: another import into this hospital is running, or took over.
    """
    _clear_abandoned_imports(envoy)
    row = _start_import(envoy, files, started_by)
    report = _import_reporter(row, on_progress)
    try:
        summary = check_envoy(files, on_progress=report)
        earlier = Import.objects.filter(
            envoy=envoy, source_sha256=summary.source_sha256, status=Import.Status.COMPLETE
        ).first()
        if earlier:
            row.delete()
            return earlier
        _refuse_known_admissions(envoy, files)
        _update_active(
            row,
            status=Import.Status.INSERTING,
            source_sha256=summary.source_sha256,
            num_done=0,
            num_total=summary.num_admissions + summary.num_diagnoses,
            num_admissions=summary.num_admissions,
            num_diagnoses=summary.num_diagnoses,
            warnings=summary.warnings,
        )
        for num_rows in _insert_batches(row, files):
            report(row.num_done + num_rows)
        _update_active(
            row,
            status=Import.Status.COMPLETE,
            num_done=row.num_total,
            completed_at=timezone.now(),
        )
    except BaseException as error:
        # An interrupt too: else the hospital had to wait until this import counts as dead. Of the
        # messages only our own are sure to name no patient.
        ours = isinstance(error, FederatedError)
        _fail_import(row, str(error) if ours else f"stopped by {type(error).__name__}")
        raise
    return row


def _start_import(envoy: Envoy, files: EnvoyFiles, started_by: User | None) -> Import:
    try:
        with transaction.atomic():
            return Import.objects.create(
                envoy=envoy, source_name=files.name[:200], started_by=started_by
            )
    except IntegrityError:
        raise ImportRefusedError(
            f"{envoy.name}: another import is running; start this one when it has ended"
        ) from None


def _import_reporter(
    row: Import, on_progress: Callable[[Import], None] | None
) -> Callable[[int], None]:
    """Notes how far an import is, and about every second shows it, which says that it lives."""
    reported_at = time.monotonic()

    def report(num_done: int) -> None:
        nonlocal reported_at
        row.num_done = num_done
        if time.monotonic() - reported_at >= REPORT_SECONDS:
            reported_at = time.monotonic()
            _update_active(row, num_done=num_done)
            if on_progress:
                on_progress(row)

    return report


def _update_active(row: Import, **values: Any) -> None:
    """Change an import and give a sign of life, unless it has been given up as dead."""
    active = Import.objects.filter(pk=row.pk, status__in=ACTIVE_IMPORT)
    if not active.update(heartbeat_at=timezone.now(), **values):
        raise ImportRefusedError(
            f"{row.source_name}: no sign of life came from this import in time, and it was ended"
        )
    for name, value in values.items():
        setattr(row, name, value)


def _refuse_known_admissions(envoy: Envoy, files: EnvoyFiles) -> None:
    standing = Admission.objects.filter(envoy=envoy)
    if not standing.exists():
        return
    known: set[str] = set()
    for batch in batched(iter_outcomes(files), BATCH_ROWS):
        hadm_ids = [record.hadm_id for record in batch]
        known.update(standing.filter(hadm_id__in=hadm_ids).values_list("hadm_id", flat=True))
    if known:
        places = first_places(files, known)
        raise CohortError(
            [f"{place}: its hadm_id stands in {envoy.name} already" for place in places]
        )


def _insert_batches(row: Import, files: EnvoyFiles) -> Iterator[int]:
    """Insert everything; yields the size of each batch once it stands."""
    for records in batched(iter_outcomes(files), BATCH_ROWS):
        with transaction.atomic():
            _update_active(row)  # first: whoever gives this import up waits for this batch
            _insert_admissions(row, records)
        yield len(records)
    for diagnoses in batched(iter_diagnoses(files), BATCH_ROWS):
        with transaction.atomic():
            _update_active(row)
            _insert_diagnoses(row, diagnoses)
        yield len(diagnoses)


def _insert_admissions(row: Import, records: list[AdmissionRecord]) -> None:
    now = _moment(canonical_time(timezone.now()))
    sexes = {record.subject_id: record.sex for record in records}
    patients = Patient.objects.filter(envoy_id=row.envoy_id, subject_id__in=sexes)
    known = set(patients.values_list("subject_id", flat=True))
    _insert_rows(
        Patient,
        (
            "envoy",
            "source_import",
            "created_at",
            "name",
            "phone",
            "name_index",
            "subject_id",
            "sex",
        ),
        [
            (row.envoy_id, row.pk, now, "", "", "", subject_id, sex)
            for subject_id, sex in sexes.items()
            if subject_id not in known
        ],
    )
    patient_ids = dict(patients.values_list("subject_id", "pk"))
    values_of = attrgetter("hadm_id", *RECORD_FIELDS)
    _insert_rows(
        Admission,
        (
            "envoy",
            "source_import",
            "created_at",
            "patient",
            "admitted_at",
            "discharged_at",
            "hadm_id",
            *RECORD_FIELDS,
        ),
        [
            (
                row.envoy_id,
                row.pk,
                now,
                patient_ids[record.subject_id],
                _moment(record.admitted_at),
                _moment(record.discharged_at),
                *values_of(record),
            )
            for record in records
        ],
    )


def _insert_diagnoses(row: Import, diagnoses: list[tuple[str, str, CodedDiagnosis]]) -> None:
    now = _moment(canonical_time(timezone.now()))
    hadm_ids = {hadm_id for _, hadm_id, _ in diagnoses}
    admissions = Admission.objects.filter(source_import=row, hadm_id__in=hadm_ids)
    admission_ids = dict(admissions.values_list("hadm_id", "pk"))
    _insert_rows(
        Diagnosis,
        ("admission", "recorded_at", "seq_num", "icd_code", "icd_version"),
        [
            (admission_ids[hadm_id], now, coded.seq_num, coded.icd_code, coded.icd_version)
            for _, hadm_id, coded in diagnoses
        ],
    )


def _moment(text: str) -> Any:
    """A record's time as the database takes it."""
    moment = datetime.fromisoformat(f"{text}+00:00") if text else None
    return connection.ops.adapt_datetimefield_value(moment)


def _fail_import(row: Import, reason: str) -> None:
    row.status, row.reason = Import.Status.FAILED, reason
    Import.objects.filter(pk=row.pk, status__in=ACTIVE_IMPORT).update(
        status=row.status, reason=reason
    )
    _remove_rows(row)


def _clear_abandoned_imports(envoy: Envoy) -> None:
    """End imports whose process was killed, and remove what any failed one has left behind."""
    imports = Import.objects.filter(envoy=envoy)
    stale_since = timezone.now() - timedelta(seconds=settings.LEASE_SECONDS * 3)
    imports.filter(status__in=ACTIVE_IMPORT, heartbeat_at__lt=stale_since).update(
        status=Import.Status.FAILED, reason="its process was killed: there was no sign of life"
    )
    for row in imports.filter(status=Import.Status.FAILED):
        _remove_rows(row)


def _remove_rows(row: Import) -> None:
    """Remove what an import has inserted, in batches; safe to do again."""
    inserted: tuple[QuerySet[Any], ...] = (
        Diagnosis.objects.filter(admission__source_import=row),
        Admission.objects.filter(source_import=row),
        Patient.objects.filter(source_import=row, admissions__isnull=True),
    )
    for rows in inserted:
        while ids := list(rows.values_list("pk", flat=True)[:BATCH_ROWS]):
            rows.model.objects.filter(pk__in=ids).delete()
    # Somebody has registered an admission of such a patient in the meantime.
    Patient.objects.filter(source_import=row).update(source_import=None)


# --- Rows as records ---------------------------------------------------------------------------

# The fields that a record and an admission share as they are.
RECORD_FIELDS = (
    "age",
    "los_days",
    "discharged_home",
    "died_in_hospital",
    "died_30d_after_discharge",
    "readmit_30d",
    "risk_tier",
    "clinician_risk_level",
    "number_diagnoses",
    "number_inpatient",
    "number_emergency",
    "number_outpatient",
)


def admission_records(envoy: Envoy, *, patient: Patient | None = None) -> Iterator[AdmissionRecord]:
    """A hospital's admissions as the algorithm reads them, by subject_id and `admission_order`.

    Age, length of stay and readmission are as given; where they are not, they follow from birth
    year and dates, readmission only once 30 days have passed since the discharge. A few hundred
    patients are in memory at a time.

    Args:
        patient: all of this patient's admissions, since how many came before is an input; if None,
            those of every patient.
    """
    patients = Patient.objects.complete().filter(envoy=envoy)
    if patient is not None:
        patients = patients.filter(pk=patient.pk)
    now = timezone.now()
    # Sorted in Python: collations differ between databases.
    in_order = sorted(patients.values_list("subject_id", "pk").iterator())
    for chunk in batched(in_order, PATIENTS_PER_CHUNK):
        by_patient = _records_by_patient(envoy, [pk for _, pk in chunk])
        for _, patient_id in chunk:
            yield from _with_readmissions(sorted(by_patient[patient_id], key=admission_order), now)


def _records_by_patient(envoy: Envoy, patient_ids: list[int]) -> dict[int, list[AdmissionRecord]]:
    admissions = Admission.objects.complete().filter(envoy=envoy, patient_id__in=patient_ids)
    diagnoses = defaultdict(list)
    standing = Diagnosis.objects.standing().filter(admission__in=admissions)
    for admission_id, seq_num, icd_code, icd_version in standing.order_by("seq_num").values_list(
        "admission_id", "seq_num", "icd_code", "icd_version"
    ):
        diagnoses[admission_id].append(CodedDiagnosis(seq_num, icd_code, icd_version))
    records = defaultdict(list)
    for admission in admissions.values(
        "pk",
        "patient_id",
        "hadm_id",
        "admitted_at",
        "discharged_at",
        "patient__subject_id",
        "patient__sex",
        "patient__birth_year",
        *RECORD_FIELDS,
    ):
        record = _record(admission, tuple(diagnoses[admission["pk"]]))
        records[admission["patient_id"]].append(record)
    return records


def _record(admission: dict[str, Any], diagnoses: tuple[CodedDiagnosis, ...]) -> AdmissionRecord:
    given = {name: admission[name] for name in RECORD_FIELDS}
    admitted_at, discharged_at = admission["admitted_at"], admission["discharged_at"]
    times = [canonical_time(moment) if moment else "" for moment in (admitted_at, discharged_at)]
    if given["age"] is None and admission["patient__birth_year"] and admitted_at:
        given["age"] = float(max(0, admitted_at.year - admission["patient__birth_year"]))
    if given["los_days"] is None:
        given["los_days"] = days_between(*times)
    return AdmissionRecord(
        subject_id=admission["patient__subject_id"],
        hadm_id=admission["hadm_id"],
        sex=admission["patient__sex"],
        admitted_at=times[0],
        discharged_at=times[1],
        diagnoses=diagnoses,
        **given,
    )


def _with_readmissions(records: list[AdmissionRecord], now: datetime) -> Iterator[AdmissionRecord]:
    """One patient's admissions in order, each with whether another followed within 30 days."""
    settled = canonical_time(now - timedelta(days=READMISSION_DAYS))
    for record, following in zip(records, [*records[1:], None], strict=True):
        if record.readmit_30d is not None or record.died_in_hospital or not record.discharged_at:
            yield record
            continue
        readmitted = is_readmission(
            record.discharged_at, following.admitted_at if following else ""
        )
        known = readmitted or record.discharged_at <= settled
        yield replace(record, readmit_30d=readmitted) if known else record


# --- Export ------------------------------------------------------------------------------------


def request_export(envoy: Envoy, *, requested_by: User | None = None) -> Snapshot:
    """Have a worker export a hospital's rows; the snapshot shows how far it is."""
    snapshot = Snapshot.objects.create(
        envoy=envoy, requested_by=requested_by, enqueued_at=timezone.now()
    )
    export_diagnoses_task.delay_on_commit(snapshot.pk)
    return cast(Snapshot, snapshot)


def export_now(envoy: Envoy, *, requested_by: User | None = None) -> Snapshot:
    """As `request_export`, but in this process; returns the complete snapshot.

    Raises StorageError.
    """
    # Enqueued by nobody, but stamped: the sweeper must not hand it out as well.
    snapshot = Snapshot.objects.create(
        envoy=envoy, requested_by=requested_by, enqueued_at=timezone.now()
    )
    export_diagnoses(snapshot.pk)
    snapshot.refresh_from_db()
    return cast(Snapshot, snapshot)


def export_diagnoses(snapshot_id: int) -> None:
    """Write a hospital's complete imports and standing diagnoses to its storage, and freeze them.

    The files are a cohort folder, sorted by subject_id and `admission_order`: under
    `snapshots/<sha256>/` for runs, and at the top in place of the previous export. Nothing is done
    for a snapshot that another worker holds or has finished.

    Raises:
        StorageError: they could not be stored; the snapshot is FAILED with the reason.
    """
    claimed = Snapshot.objects.claim([snapshot_id])
    if not claimed:
        return
    snapshot: Snapshot = claimed[0]
    try:
        with TemporaryFile() as diagnoses, TemporaryFile() as outcomes:
            counts = _write_export(snapshot, diagnoses, outcomes)
            stored = _store_export(snapshot.envoy, diagnoses, outcomes)
    except (StorageError, OSError) as error:
        Snapshot.objects.finish(snapshot, status=Snapshot.Status.FAILED, reason=str(error))
        raise
    Snapshot.objects.finish(
        snapshot,
        status=Snapshot.Status.COMPLETE,
        completed_at=timezone.now(),
        **counts,
        **stored,
    )


def snapshot_sha256(diagnoses_sha256: str, outcomes_sha256: str) -> str:
    """What identifies a snapshot: the hash of its two files' hashes."""
    return hashlib.sha256(f"{diagnoses_sha256}\n{outcomes_sha256}\n".encode()).hexdigest()


def _write_export(snapshot: Snapshot, diagnoses: IO[bytes], outcomes: IO[bytes]) -> dict[str, int]:
    num_total = Admission.objects.complete().filter(envoy_id=snapshot.envoy_id).count()
    progress = Progress(snapshot)
    num_admissions = num_diagnoses = 0
    with _as_text(diagnoses) as diagnoses_text, _as_text(outcomes) as outcomes_text:
        writer = RecordWriter(diagnoses_text, outcomes_text)
        for record in admission_records(snapshot.envoy):
            writer.write(record)
            num_admissions += 1
            num_diagnoses += len(record.diagnoses)
            progress.show(num_admissions, max(num_total, num_admissions))
    return {
        "num_done": num_admissions,
        "num_total": num_admissions,
        "num_admissions": num_admissions,
        "num_diagnoses": num_diagnoses,
        "num_bytes": diagnoses.tell() + outcomes.tell(),
    }


@contextmanager
def _as_text(file: IO[bytes]) -> Iterator[TextIO]:
    text = io.TextIOWrapper(cast(BinaryIO, file), encoding="utf-8", newline="")
    try:
        yield text
    finally:
        text.detach()  # flushes; the file lives on


def _store_export(envoy: Envoy, diagnoses: IO[bytes], outcomes: IO[bytes]) -> dict[str, str]:
    files = {"diagnoses": cast(BinaryIO, diagnoses), "outcomes": cast(BinaryIO, outcomes)}
    hashes = {}
    for name, file in files.items():
        file.seek(0)
        hashes[name] = hashlib.file_digest(file, "sha256").hexdigest()  # type: ignore[arg-type]
    sha256 = snapshot_sha256(hashes["diagnoses"], hashes["outcomes"])
    storage = envoy_storage(envoy)
    # The frozen copy first: the one at the top is for people, and the next export replaces it.
    for folder in (f"snapshots/{sha256}/", ""):
        for name, file in files.items():
            write_object(storage, f"{folder}{name}.csv", file)
    return {
        "sha256": sha256,
        "diagnoses_sha256": hashes["diagnoses"],
        "outcomes_sha256": hashes["outcomes"],
    }
