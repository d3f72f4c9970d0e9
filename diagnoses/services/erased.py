"""Who was erased from a hospital: an import that would bring a patient back is refused.

What is kept of a patient for this is a hash of the subject_id. It is encrypted, since whoever could
read it would need to try but few identifiers; it goes with the hospital, or when a doctor lets the
patient return.
"""

import hashlib
from collections.abc import Iterator

from django.db import transaction

from diagnoses.models import PatientErasure
from envoys import audit
from envoys.errors import NotNowError
from envoys.models import Envoy, User
from federated.cohorts import EnvoyFiles, first_places, iter_outcomes

WHY_REFUSED = (
    "its patient was erased here: take the patient's rows out of the file, or let the patient return"
    " on the page of what was erased"
)


def subject_sha256(envoy: Envoy, subject_id: str) -> str:
    return hashlib.sha256(f"{envoy.serial_id}\n{subject_id}".encode()).hexdigest()


class ErasedSubjects:
    """The subject_ids of those who were erased from a hospital, to be asked `in`."""

    def __init__(self, envoy: Envoy) -> None:
        self._envoy = envoy
        erasures = PatientErasure.objects.filter(envoy=envoy).exclude(subject_sha256="")
        self._hashes = set(erasures.values_list("subject_sha256", flat=True))

    def __bool__(self) -> bool:
        return bool(self._hashes)

    def __contains__(self, subject_id: str) -> bool:
        return bool(self._hashes) and subject_sha256(self._envoy, subject_id) in self._hashes


def erased_places(envoy: Envoy, files: EnvoyFiles) -> Iterator[str]:
    """Where admissions of erased patients stand in files that are in order; the first 20, and why
    they are refused."""
    erased = ErasedSubjects(envoy)
    if not erased:
        return
    hadm_ids = {record.hadm_id for record in iter_outcomes(files) if record.subject_id in erased}
    if hadm_ids:
        for place in first_places(files, hadm_ids):
            yield f"{place}: {WHY_REFUSED}"


def let_return(erasure: PatientErasure, *, allowed_by: User | None) -> PatientErasure:
    """Forget by which subject_id the patient was known, so that imports may bring them again.

    Raises:
        NotNowError: the patient may return already, or is still being erased.
    """
    with transaction.atomic():
        done = PatientErasure.objects.filter(pk=erasure.pk, status=PatientErasure.Status.COMPLETE)
        # An encrypted value cannot be compared with, but an empty one is empty in the database.
        if not done.exclude(subject_sha256="").update(subject_sha256=""):
            raise NotNowError("the patient may return already, or is still being erased")
        audit.record(allowed_by, "let erased patient return", erasure)
    erasure.refresh_from_db()
    return erasure
