"""Reading a cohort into a hospital."""

import time
from collections.abc import Callable, Iterator
from datetime import datetime, timedelta
from operator import attrgetter
from typing import Any

from django.conf import settings
from django.db import IntegrityError, connection, transaction
from django.db.models import QuerySet
from django.utils import timezone

from diagnoses.errors import ImportRefusedError
from diagnoses.models import Admission, Diagnosis, Import, Patient
from diagnoses.services.batches import BATCH_ROWS, Key, batched, commit_soon, insert_rows
from diagnoses.services.erased import erased_places
from diagnoses.services.hospitals import check_takes_patients
from diagnoses.services.records import RECORD_FIELDS
from envoys.models import Envoy, User
from federated.cohorts import (
    AdmissionRecord,
    CodedDiagnosis,
    EnvoyFiles,
    canonical_time,
    check_envoy,
    first_places,
    iter_diagnoses,
    iter_outcomes,
)
from federated.errors import CohortError, FederatedError

REPORT_SECONDS = 1.0
ACTIVE_IMPORT = (Import.Status.CHECKING, Import.Status.INSERTING)


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
        NotNowError: the hospital has been deleted, or is a node of readings.
    """
    check_takes_patients(envoy)
    clear_abandoned_imports(envoy)
    row = _start_import(envoy, files, started_by)
    try:
        return _check_and_insert(row, files, _import_reporter(row, on_progress))
    except BaseException as error:
        # An interrupt too: else the hospital had to wait until this import counts as dead. Of the
        # messages only our own are sure to name no patient.
        ours = isinstance(error, FederatedError)
        _fail_import(row, str(error) if ours else f"stopped by {type(error).__name__}")
        raise


def _check_and_insert(row: Import, files: EnvoyFiles, report: Callable[[int], None]) -> Import:
    summary = check_envoy(files, on_progress=report)
    earlier = Import.objects.filter(
        envoy=row.envoy, source_sha256=summary.source_sha256, status=Import.Status.COMPLETE
    ).first()
    if earlier:
        row.delete()
        return earlier
    _refuse_known_admissions(row.envoy, files)
    _refuse_erased(row.envoy, files)
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
    return row


def _start_import(envoy: Envoy, files: EnvoyFiles, started_by: User | None) -> Import:
    try:
        with transaction.atomic():
            return Import.objects.create(
                envoy=envoy, source_name=files.name[:200], started_by=started_by
            )
    except IntegrityError:
        raise ImportRefusedError(
            f"{envoy.name}: another import is running; start this one when it has ended. If its"
            f" process was killed, it counts as ended {settings.LEASE_SECONDS * 3:.0f} seconds later"
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


def _refuse_erased(envoy: Envoy, files: EnvoyFiles) -> None:
    if places := list(erased_places(envoy, files)):
        raise CohortError(places)


def _insert_batches(row: Import, files: EnvoyFiles) -> Iterator[int]:
    """Insert everything; yields the size of each batch once it stands."""
    records_read = iter_outcomes(files, num_admissions=row.num_admissions)
    for records in batched(records_read, BATCH_ROWS):
        with transaction.atomic():
            commit_soon()  # nobody sees the rows before the import is COMPLETE
            _update_active(row)  # first: whoever gives this import up waits for this batch
            _insert_admissions(row, records)
        yield len(records)
    for diagnoses in batched(iter_diagnoses(files), BATCH_ROWS):
        with transaction.atomic():
            commit_soon()
            _update_active(row)
            _insert_diagnoses(row, diagnoses)
        yield len(diagnoses)


def _insert_admissions(row: Import, records: list[AdmissionRecord]) -> None:
    now = _moment(canonical_time(timezone.now()))
    sexes = {record.subject_id: record.sex for record in records}
    insert_rows(
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
        ],
        keep_standing=True,
    )
    values_of = attrgetter("hadm_id", *RECORD_FIELDS)
    insert_rows(
        Admission,
        (
            "envoy",
            "source_import",
            "created_at",
            "admitted_at",
            "discharged_at",
            "hadm_id",
            *RECORD_FIELDS,
        ),
        [
            (
                row.envoy_id,
                record.subject_id,
                row.envoy_id,
                row.pk,
                now,
                _moment(record.admitted_at),
                _moment(record.discharged_at),
                *values_of(record),
            )
            for record in records
        ],
        keys={"patient": Key(Patient, ("envoy", "subject_id"))},
    )


def _insert_diagnoses(row: Import, diagnoses: list[tuple[str, str, CodedDiagnosis]]) -> None:
    now = _moment(canonical_time(timezone.now()))
    insert_rows(
        Diagnosis,
        ("recorded_at", "seq_num", "icd_code", "icd_version"),
        [
            (row.envoy_id, hadm_id, now, coded.seq_num, coded.icd_code, coded.icd_version)
            for _, hadm_id, coded in diagnoses
        ],
        keys={"admission": Key(Admission, ("envoy", "hadm_id"))},
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


def clear_abandoned_imports(envoy: Envoy, *, silent_seconds: float | None = None) -> None:
    """End imports whose process was killed, and remove what any failed one has left behind.

    Args:
        silent_seconds: without a sign of life for so long, one counts as killed; three leases
            where not given.
    """
    imports = Import.objects.filter(envoy=envoy)
    silent = settings.LEASE_SECONDS * 3 if silent_seconds is None else silent_seconds
    stale_since = timezone.now() - timedelta(seconds=silent)
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
