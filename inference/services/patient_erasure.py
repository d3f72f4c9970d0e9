"""Erasing a patient: the rows at once, then by a worker what storage and its hosts hold."""

from dataclasses import dataclass
from datetime import datetime
from typing import Any

from django.db import transaction
from django.db.models import QuerySet
from django.utils import timezone

from diagnoses.models import Admission, Diagnosis, Import, Patient, PatientErasure, Snapshot, Upload
from diagnoses.services import (
    ErasedSubjects,
    clear_abandoned_imports,
    export_now,
    is_top_another,
    may_hold,
    remove_export,
    remove_files_of_erased,
    remove_leftovers,
    subject_sha256,
)
from diagnoses.services.patients import CLOCKS_DIFFER
from envoys import audit
from envoys.errors import NotNowError
from envoys.forgetting import forget_answers_of
from envoys.models import AuditEvent, Envoy, User
from envoys.work import Progress
from federated.errors import FederatedError
from federated.targets import DIAGNOSES
from inference.models import Prediction
from inference.searches import forget_searches
from inference.services.remains import (
    Remains,
    of_patients_exports,
    of_patients_rows,
    versions_trained_with,
)
from training.arrays import remove_arrays
from training.models import RunParticipant, RunReport, TrainingRun


class NotThisPatientError(FederatedError):
    """The subject ID that was typed is not the patient's."""


class _NotYetError(NotNowError):
    """What still has to end before the rest can be erased."""


@dataclass(frozen=True)
class PatientHoldings:
    """What erasing a patient takes away."""

    num_admissions: int
    num_diagnoses: int  # also those struck out
    num_predictions: int
    num_exports: int  # frozen: each is looked through
    num_uploads: int  # that wait: each is looked through
    active_runs: list[TrainingRun]  # that train on such an export, which is removed after them

    def in_words(self) -> list[tuple[str, int]]:
        return [
            ("Admissions", self.num_admissions),
            ("Diagnoses, also those struck out", self.num_diagnoses),
            ("Predictions", self.num_predictions),
        ]


def what_goes_with(patient: Patient) -> PatientHoldings:
    envoy = patient.envoy
    exports = _exports(envoy)
    since = _since(patient)
    return PatientHoldings(
        num_admissions=Admission.objects.filter(patient=patient).count(),
        num_diagnoses=Diagnosis.objects.filter(admission__patient=patient).count(),
        num_predictions=Prediction.objects.filter(admission__patient=patient).count(),
        num_exports=exports.count(),
        num_uploads=_waiting_uploads(envoy).count(),
        active_runs=list(
            TrainingRun.objects.active().filter(
                participants__envoy=envoy, participants__snapshot__in=since
            )
        ),
    )


def erase_patient(
    patient: Patient, *, confirmed_subject_id: str, erased_by: User | None
) -> PatientErasure:
    """Erase a patient's rows now, and have a worker remove what storage holds of them.

    Raises:
        NotThisPatientError: `confirmed_subject_id` is not the patient's.
        NotNowError: somebody has erased the patient already, or an import is running.
    """
    from inference.tasks import erase_patient_task

    envoy = patient.envoy
    if confirmed_subject_id.strip() != patient.subject_id:
        raise NotThisPatientError(
            "to erase the patient, give the subject ID exactly as it is written on the page"
        )
    clear_abandoned_imports(envoy)
    with transaction.atomic():
        if not Patient.objects.select_for_update().filter(pk=patient.pk).first():
            raise NotNowError("the patient has been erased already")
        _refuse_while_importing(envoy)
        erasure = PatientErasure(
            envoy=envoy,
            patient_number=patient.pk,
            subject_sha256=subject_sha256(envoy, patient.subject_id),
            requested_by=erased_by,
            enqueued_at=timezone.now(),
            held=_hashes_of(_since(patient, also_removed=True)),
        )
        num_events = _events_about(patient).count()
        erasure.counts = _erase_rows(patient)
        audit.record(erased_by, "erased patient", patient)
        erasure.remains = [each.to_json() for each in of_patients_rows(num_events=num_events + 1)]
        erasure.save()
        erase_patient_task.delay_on_commit(erasure.pk)
    return erasure


def _refuse_while_importing(envoy: Envoy) -> None:
    active = [Import.Status.CHECKING, Import.Status.INSERTING]
    if envoy.imports.filter(status__in=active).exists():
        raise NotNowError(
            f"an import into {envoy} is running, and the patient may be in it: wait for its end"
        )


def _erase_rows(patient: Patient) -> list[dict[str, Any]]:
    rows: list[tuple[str, QuerySet[Any]]] = [
        ("Patients", Patient.objects.filter(pk=patient.pk)),
        ("Admissions", Admission.objects.filter(patient=patient)),
        ("Diagnoses", Diagnosis.objects.filter(admission__patient=patient)),
        ("Predictions", Prediction.objects.filter(admission__patient=patient)),
    ]
    counts = [{"what": what, "count": each.count()} for what, each in rows]
    for _, each in reversed(rows):  # nothing refers to what goes
        each.delete()
    # Which of the answers are about this patient only their programs know.
    num_answers, num_searches = forget_answers_of(patient.envoy), forget_searches(patient.envoy)
    return [
        *counts,
        {"what": "Answers kept for calls sent again", "count": num_answers},
        {"what": "Searches kept in sessions", "count": num_searches},
    ]


def _count(erasure: PatientErasure, what: str, number: int = 1) -> None:
    if not number:
        return
    known = next((each for each in erasure.counts if each["what"] == what), None)
    if known is None:
        known = {"what": what, "count": 0}
        erasure.counts.append(known)
    known["count"] += number


def _events_about(patient: Patient) -> "QuerySet[AuditEvent]":
    return AuditEvent.objects.filter(target__in=targets_of(patient))


def targets_of(patient: Patient) -> list[str]:
    """What the audit calls a patient and the patient's rows."""
    rows: dict[str, QuerySet[Any]] = {
        "patient": Patient.objects.filter(pk=patient.pk),
        "admission": Admission.objects.filter(patient=patient),
        "diagnosis": Diagnosis.objects.filter(admission__patient=patient),
        "prediction": Prediction.objects.filter(admission__patient=patient),
    }
    return [
        f"{kind}:{pk}" for kind, each in rows.items() for pk in each.values_list("pk", flat=True)
    ]


def finish_patient_erasure(erasure_id: int) -> None:
    """Remove an erased patient from uploads, exports and arrays; safe to do again from any point.

    What a run still trains on is removed once it has ended: until then the erasure waits, and is
    looked at again after every lease.

    Raises:
        StorageError: also written on the row; it can be retried.
    """
    for erasure in PatientErasure.objects.select_related("envoy").claim([erasure_id]):
        try:
            remains = _erase_stored(erasure)
        except _NotYetError as error:
            PatientErasure.objects.hand_back(
                erasure,
                status=PatientErasure.Status.PENDING,
                reason=str(error),
                counts=erasure.counts,
                seen=erasure.seen,
                held=erasure.held,
                attempt=0,
                enqueued_at=timezone.now(),
            )
        except (FederatedError, OSError) as error:
            PatientErasure.objects.finish(
                erasure,
                status=PatientErasure.Status.FAILED,
                reason=str(error),
                counts=erasure.counts,
                seen=erasure.seen,
                held=erasure.held,
            )
            raise
        else:
            PatientErasure.objects.finish(
                erasure,
                status=PatientErasure.Status.COMPLETE,
                reason="",
                counts=erasure.counts,
                seen=[],
                held=[],
                remains=[*(each.to_json() for each in remains), *erasure.remains],
                completed_at=timezone.now(),
            )


def _erase_stored(erasure: PatientErasure) -> list[Remains]:
    """Raises _NotYetError for what has to end first, after all else is done."""
    envoy, erased = erasure.envoy, ErasedSubjects(erasure.envoy)
    waits_for = _erase_uploads(erasure, erased)
    # What began to be written before the rows went may still hold them when it is complete.
    if _exports_being_written(envoy).filter(created_at__lte=_latest(erasure)).exists():
        raise _NotYetError("an export is being written that may hold the patient: it ends first")
    waits_for += _erase_exports(erasure, erased)
    num_left, waits_for_others = remove_leftovers(envoy)
    _count(erasure, "Files that killed exports and uploads had left", num_left)
    waits_for += waits_for_others
    if waits_for:
        raise _NotYetError("; ".join(dict.fromkeys(waits_for)))
    runs = RunParticipant.objects.filter(
        envoy=envoy, snapshot__sha256__in=erasure.held, sits_out_because=""
    )
    versions = versions_trained_with(envoy, runs)
    return of_patients_exports(
        versions=list(versions.select_related("study", "envoy").order_by("pk")),
        num_exports=len(erasure.held),
    )


def _erase_uploads(erasure: PatientErasure, erased: ErasedSubjects) -> list[str]:
    waits_for = []
    for upload in _waiting_uploads(erasure.envoy):
        try:
            if remove_files_of_erased(upload, erased):
                _count(erasure, "Uploads that waited")
        except NotNowError as error:
            waits_for.append(f"{error}: it ends first")
    return waits_for


def _waiting_uploads(envoy: Envoy) -> "QuerySet[Upload]":
    """Whose files are in storage."""
    gone = [Upload.Stage.IMPORT, Upload.Stage.DISCARDED]
    uploads: QuerySet[Upload] = Upload.objects.filter(envoy=envoy).exclude(files={})
    return uploads.exclude(status=Upload.Status.COMPLETE, stage__in=gone)


def _erase_exports(erasure: PatientErasure, erased: ErasedSubjects) -> list[str]:
    """Remove the exports with the patient, but for those in use; returns what to wait for."""
    envoy, waits_for = erasure.envoy, []
    exports = _exports(envoy).filter(created_at__lte=_latest(erasure))
    newest = _exports(envoy, also_removed=True).order_by("-completed_at", "-pk").first()
    by_sha256 = {snapshot.sha256: snapshot for snapshot in exports.select_related("envoy")}
    progress = Progress(erasure)
    for number, (sha256, snapshot) in enumerate(sorted(by_sha256.items())):
        progress.show(number, len(by_sha256))
        if sha256 in erasure.seen:
            continue
        if not may_hold(snapshot, erased):
            erasure.seen.append(sha256)
            erasure.held = [each for each in erasure.held if each != sha256]
        elif in_use := use_of(envoy, sha256, whose="the patient"):
            waits_for.append(in_use)
        else:
            remove_arrays([snapshot])
            remove_export(envoy, sha256)
            _count(erasure, "Frozen exports")
            if sha256 not in erasure.held:  # written later, or before the patient was registered
                erasure.held.append(sha256)
    is_clean = newest is not None and (
        newest.created_at > _latest(erasure) or newest.sha256 in erasure.seen
    )
    # The files on top of the hospital's storage are those of the newest export, or of one that
    # failed, or was killed, halfway.
    if (newest is not None and not is_clean) or is_top_another(envoy, newest):
        if _exports_being_written(envoy).exists():  # by another worker, or for somebody else
            waits_for.append("the newest export is being written anew: it ends first")
        else:
            export_now(envoy, requested_by=erasure.requested_by)
    return waits_for


def _latest(erasure: PatientErasure) -> datetime:
    """An export that was asked for later was read without the patient, whichever clock says so."""
    return erasure.created_at + CLOCKS_DIFFER


def _exports(envoy: Envoy, *, also_removed: bool = False) -> "QuerySet[Snapshot]":
    snapshots: QuerySet[Snapshot] = Snapshot.objects.filter(
        envoy=envoy, dataset=DIAGNOSES, status=Snapshot.Status.COMPLETE
    )
    return snapshots if also_removed else snapshots.filter(removed_at=None)


def _since(patient: Patient, *, also_removed: bool = False) -> "QuerySet[Snapshot]":
    """The exports in which a patient can be: those written since the registration."""
    exports = _exports(patient.envoy, also_removed=also_removed)
    return exports.filter(completed_at__gte=patient.created_at)


def _hashes_of(exports: "QuerySet[Snapshot]") -> list[str]:
    return sorted(set(exports.values_list("sha256", flat=True)))


def _exports_being_written(envoy: Envoy) -> "QuerySet[Snapshot]":
    running: QuerySet[Snapshot] = Snapshot.objects.filter(
        envoy=envoy, dataset=DIAGNOSES, status=Snapshot.Status.RUNNING
    )
    # Without a lease nobody writes it; who takes it up next reads the rows anew.
    return running.filter(leased_until__gte=timezone.now())


def use_of(envoy: Envoy, sha256: str, *, whose: str) -> str:
    """Who needs an export still, in words; empty if nobody.

    Args:
        whose: who is to be erased from it, as "the patient".
    """
    runs = TrainingRun.objects.filter(
        pk__in=RunParticipant.objects.filter(envoy=envoy, snapshot__sha256=sha256).values("run")
    )
    active = runs.active().first()
    if active is not None:
        return f"{active} trains on an export with {whose}, which is removed when it has ended"
    report = RunReport.objects.unfinished().filter(run__in=runs).first()
    if report is not None or any(run.is_being_reported for run in runs.filter(report__isnull=True)):
        return f"a report is being made from an export with {whose}, which is removed then"
    return ""
