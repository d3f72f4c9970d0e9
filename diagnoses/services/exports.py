"""A hospital's records as a cohort folder in its storage, and frozen as a snapshot."""

import csv
import hashlib
from collections.abc import Iterator
from io import TextIOWrapper
from tempfile import TemporaryFile
from typing import TextIO, cast

from django.db import transaction
from django.utils import timezone

from diagnoses.models import Admission, CodeReport, Snapshot
from diagnoses.services.erased import ErasedSubjects
from diagnoses.services.records import admission_records
from diagnoses.tasks import export_snapshot_task
from envoys import audit
from envoys.errors import LostObjectError, StorageError
from envoys.models import Envoy, User
from envoys.storage import delete_folder, envoy_storage, open_object, write_object
from envoys.work import Progress
from federated.code_report import CodeCounts
from federated.cohorts import AdmissionRecord, write_records

FILES = ("diagnoses", "outcomes")


def request_export(envoy: Envoy, *, requested_by: User | None = None) -> Snapshot:
    """Have a worker export a hospital's rows; the snapshot shows how far it is."""
    snapshot = Snapshot.objects.create(
        envoy=envoy, requested_by=requested_by, enqueued_at=timezone.now()
    )
    export_snapshot_task.delay_on_commit(snapshot.pk)
    return cast(Snapshot, snapshot)


def ask_for_export(envoy: Envoy, *, requested_by: User) -> Snapshot:
    """`request_export` for a person, who is answerable for it."""
    with transaction.atomic():
        snapshot = request_export(envoy, requested_by=requested_by)
        audit.record(requested_by, "requested export", snapshot)
    return snapshot


def export_now(envoy: Envoy, *, requested_by: User | None = None) -> Snapshot:
    """As `request_export`, but in this process; returns the complete snapshot.

    Raises StorageError.
    """
    # Enqueued by nobody, but stamped: the sweeper must not hand it out as well.
    snapshot = Snapshot.objects.create(
        envoy=envoy, requested_by=requested_by, enqueued_at=timezone.now()
    )
    try:
        export_diagnoses(snapshot.pk)
    except (StorageError, OSError) as error:  # who waits for it asks again
        Snapshot.objects.finish(snapshot, status=Snapshot.Status.FAILED, reason=str(error))
        raise
    snapshot.refresh_from_db()
    return cast(Snapshot, snapshot)


def export_diagnoses(snapshot_id: int) -> None:
    """Write a hospital's complete imports and standing diagnoses to its storage, and freeze them.

    What is odd about their codes is found on the way, and replaces the hospital's last report.

    The files are a cohort folder, sorted by subject_id and `admission_order`: under
    `snapshots/<sha256>/` for runs, and at the top in place of the previous export. Nothing is done
    for a snapshot that another worker holds or has finished.

    Raises:
        StorageError: they could not be stored; the snapshot says why, and is tried again.
    """
    claimed = Snapshot.objects.claim([snapshot_id])
    if not claimed:
        return
    snapshot: Snapshot = claimed[0]
    codes = CodeCounts()
    try:
        with (
            TemporaryFile("w+", encoding="utf-8", newline="") as diagnoses,
            TemporaryFile("w+", encoding="utf-8", newline="") as outcomes,
        ):
            counts = _write_export(snapshot, diagnoses, outcomes, codes)
            stored = _store_export(snapshot.envoy, diagnoses, outcomes)
    except (StorageError, OSError) as error:
        Snapshot.objects.fail_or_postpone(snapshot, error)
        raise
    now = timezone.now()
    with transaction.atomic():
        if Snapshot.objects.finish(
            snapshot,
            status=Snapshot.Status.COMPLETE,
            reason="",
            completed_at=now,
            **counts,
            **stored,
        ):
            found = codes.report()
            kinds = [odd.to_json() for odd in found.kinds]
            values = {"num_codes": found.num_codes, "kinds": kinds, "made_at": now}
            CodeReport.objects.update_or_create(envoy_id=snapshot.envoy_id, defaults=values)


def may_hold(snapshot: Snapshot, erased: ErasedSubjects) -> bool:
    """Whether a frozen export has a row of an erased patient; True where it cannot be read.

    Raises:
        StorageError: it is out of reach for the moment.
    """
    key = f"snapshots/{snapshot.sha256}/outcomes.csv"
    storage = envoy_storage(snapshot.envoy)
    try:
        file = open_object(storage, key, sha256=snapshot.outcomes_sha256)
    except LostObjectError:
        return True
    with file, TextIOWrapper(file, encoding="utf-8", newline="") as text:
        return any(row["subject_id"] in erased for row in csv.DictReader(text))


def remove_export(envoy: Envoy, sha256: str) -> None:
    """Remove a frozen export, however many snapshots it is of; runs keep its hash.

    Raises StorageError.
    """
    folder = f"snapshots/{sha256}"
    # Of a hospital or of a node: whichever of the files is there.
    delete_folder(envoy_storage(envoy), [f"{folder}/{name}.csv" for name in (*FILES, "readings")])
    Snapshot.objects.filter(envoy=envoy, sha256=sha256, removed_at=None).update(
        removed_at=timezone.now()
    )


def snapshot_sha256(diagnoses_sha256: str, outcomes_sha256: str) -> str:
    """What identifies a snapshot: the hash of its two files' hashes."""
    return hashlib.sha256(f"{diagnoses_sha256}\n{outcomes_sha256}\n".encode()).hexdigest()


def _write_export(
    snapshot: Snapshot, diagnoses: TextIO, outcomes: TextIO, codes: CodeCounts
) -> dict[str, int]:
    num_total = Admission.objects.complete().filter(envoy_id=snapshot.envoy_id).count()
    progress = Progress(snapshot)
    num_admissions = num_diagnoses = 0

    def counted() -> Iterator[AdmissionRecord]:
        nonlocal num_admissions, num_diagnoses
        for record in admission_records(snapshot.envoy):
            yield record
            codes.add(record)
            num_admissions += 1
            num_diagnoses += len(record.diagnoses)
            progress.show(num_admissions, max(num_total, num_admissions))

    write_records(counted(), diagnoses, outcomes)
    diagnoses.flush()
    outcomes.flush()
    return {
        "num_done": num_admissions,
        "num_total": num_admissions,
        "num_admissions": num_admissions,
        "num_diagnoses": num_diagnoses,
        "num_bytes": diagnoses.buffer.tell() + outcomes.buffer.tell(),
    }


def _store_export(envoy: Envoy, diagnoses: TextIO, outcomes: TextIO) -> dict[str, str]:
    files = {"diagnoses": diagnoses.buffer, "outcomes": outcomes.buffer}
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
    return {"sha256": sha256, **{f"{name}_sha256": hash_ for name, hash_ in hashes.items()}}
