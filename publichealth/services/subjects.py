"""Erasing what a node holds of one of its subjects."""

import csv
from dataclasses import dataclass
from io import TextIOWrapper

from django.db import transaction
from django.db.models import QuerySet

from diagnoses.models import Snapshot
from diagnoses.services import are_exports_being_written, remove_export, remove_leftovers
from envoys import audit
from envoys.errors import LostObjectError, NotNowError
from envoys.models import Envoy, User
from envoys.storage import delete_object, envoy_storage, object_exists, open_object
from federated.errors import FederatedError
from federated.targets import READINGS
from inference.services.patient_erasure import use_of
from publichealth import datasets
from publichealth.models import Reading
from training.arrays import remove_arrays

TOP_FILE = "readings.csv"


class UnknownSubjectError(FederatedError):
    """Nothing of this subject is stored at the node."""


@dataclass(frozen=True)
class SubjectErased:
    num_readings: int
    num_exports: int


def erase_subject(envoy: Envoy, subject_id: str, *, erased_by: User) -> SubjectErased:
    """Erase a node's readings of one subject, and the frozen exports that hold them.

    Safe to do again after a failure halfway. What a device sends afterwards is recorded anew.

    Raises:
        UnknownSubjectError: there is nothing of it here.
        NotNowError: an export with the subject is in use, or one is being written; nothing has
            been erased.
        StorageError: the readings are gone, and exports with them perhaps not: do it again.
    """
    if are_exports_being_written(envoy):
        raise NotNowError("an export that may hold the subject is being written: wait for its end")
    exports = {
        each.sha256: each for each in _exports(envoy) if _may_hold(envoy, each.sha256, subject_id)
    }
    for sha256 in exports:
        if in_use := use_of(envoy, sha256, whose="the subject"):
            raise NotNowError(f"{in_use}: nothing has been erased, do it again then")
    readings = Reading.objects.filter(envoy=envoy, subject_id=subject_id)
    if not exports and not readings.exists():
        raise UnknownSubjectError("there is no reading of this subject at the node")
    # First what only the next call would not find: it goes by the rows and the exports.
    remove_leftovers(envoy)
    storage = envoy_storage(envoy)
    had_top_file = object_exists(storage, TOP_FILE)  # written anew by the export that follows
    delete_object(storage, TOP_FILE)
    with transaction.atomic():
        num_readings, _ = readings.delete()
        audit.record(erased_by, "erased readings of a subject", envoy)
    for sha256, snapshot in exports.items():
        remove_arrays([snapshot])
        remove_export(envoy, sha256)
    if had_top_file or exports:
        datasets.freeze(envoy.pk, erased_by.pk)
    return SubjectErased(num_readings, len(exports))


def _exports(envoy: Envoy) -> "QuerySet[Snapshot]":
    exports: QuerySet[Snapshot] = Snapshot.objects.filter(
        envoy=envoy, dataset=READINGS, status=Snapshot.Status.COMPLETE, removed_at=None
    )
    return exports


def _may_hold(envoy: Envoy, sha256: str, subject_id: str) -> bool:
    """Whether a frozen export has a row of the subject; True where it cannot be read."""
    try:
        file = open_object(envoy_storage(envoy), f"snapshots/{sha256}/{TOP_FILE}", sha256=sha256)
    except LostObjectError:
        return True
    with file, TextIOWrapper(file, encoding="utf-8", newline="") as text:
        return any(row["subject_id"] == subject_id for row in csv.DictReader(text))
