"""Deleting a hospital: out of sight at once, then its rows and objects batch by batch."""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from axes.utils import reset as forget_failed_logins
from django.db import transaction
from django.db.models import Exists, Model, OuterRef, QuerySet
from django.utils import timezone

from diagnoses.models import (
    Admission,
    CodeReport,
    Diagnosis,
    Import,
    Patient,
    PatientErasure,
    Snapshot,
    Upload,
)
from diagnoses.services import clear_abandoned_imports
from envoys import audit, work
from envoys.errors import NotNowError
from envoys.forgetting import forget_answers_of
from envoys.logins import end_logins
from envoys.models import Envoy, IdempotentCall, ServiceToken, User
from envoys.storage import bucket_of, delete_objects, envoy_storage
from envoys.work import Progress, WorkQuerySet
from federated.errors import FederatedError
from federated.small_counts import MIN_PATIENTS
from federated.targets import DIAGNOSES
from federated.words import words_of
from inference.models import Erasure, InferenceRun, Prediction
from inference.searches import forget_searches
from inference.services.remains import (
    Remains,
    of_hospitals_people,
    of_hospitals_runs,
    versions_trained_with,
)
from training.arrays import remove_arrays
from training.models import (
    Distribution,
    ModelChoice,
    ModelVersion,
    RoundAssignment,
    RunParticipant,
    RunReport,
    StudyMembership,
    TrainingRun,
)

BATCH_ROWS = 2_000  # one transaction: short enough for others to get their turn


@dataclass(frozen=True)
class OtherRows:
    """An upper app's rows of a hospital or node, which go with it."""

    model: type[Model]
    title: str
    is_of_people: bool

    def of(self, envoy: Envoy) -> "QuerySet[Any]":
        return self.model._default_manager.filter(envoy=envoy)


_other_rows: list[OtherRows] = []
_forgetting: list[Callable[[Envoy], None]] = []


def register(model: type[Model], *, title: str, is_of_people: bool = False) -> None:
    """Erase these rows with the hospital that their `envoy` names; in the order of registering.

    Args:
        title: as the page that announces what will go calls them.
        is_of_people: a number under 10 of them is not shown there.
    """
    _other_rows.append(OtherRows(model, title, is_of_people))


def other_rows() -> tuple[OtherRows, ...]:
    return tuple(_other_rows)


def register_forgetting(forget: Callable[[Envoy], None]) -> None:
    """Have a function called that takes a hospital out of rows that stay; it may be called again."""
    _forgetting.append(forget)


class NotConfirmedError(FederatedError):
    """The name that was typed is not the hospital's."""


@dataclass(frozen=True)
class WhatWillGo:
    """What deleting a hospital erases, and what of it stays."""

    num_patients: int
    num_admissions: int  # each with its diagnoses
    num_predictions: int
    num_inference_runs: int
    num_imports: int  # and uploads
    num_exports: int
    num_own_versions: int
    num_packages: int
    num_accounts: int  # of its doctors, who can no longer log in
    place: str  # where its objects lie
    num_runs: int  # that name it, for good
    others: list[tuple[OtherRows, int]]
    dataset: str

    def in_words(self) -> list[tuple[str, str]]:
        """What is counted; a small number of patients is not shown to who may not see them.

        What a hospital or node cannot have is left out, unless it is there all the same.
        """
        words, is_hospital = words_of([self.dataset]), self.dataset == DIAGNOSES
        of_patients = [
            ("Patients, with names and phone numbers", self.num_patients),
            ("Admissions, with their diagnoses", self.num_admissions),
            ("Predictions", self.num_predictions),
        ]
        of_work = [
            ("Inference runs", self.num_inference_runs),
            ("Imports and uploads", self.num_imports),
        ]
        others = [(rows, count) for rows, count in self.others if not is_hospital or count]
        of_people = [
            *(row for row in of_patients if is_hospital or row[1]),
            *((rows.title, count) for rows, count in others if rows.is_of_people),
        ]
        of_program = [
            *(row for row in of_work if is_hospital or row[1]),
            ("Exports", self.num_exports),
            (f"The {words.place}'s own models", self.num_own_versions),
            ("Packages and their approvals", self.num_packages),
            *((rows.title, count) for rows, count in others if not rows.is_of_people),
            (f"{words.keeper.capitalize()}s who can no longer log in", self.num_accounts),
        ]
        return [
            *((title, "–" if count < MIN_PATIENTS else f"{count:,}") for title, count in of_people),
            *((title, f"{count:,}") for title, count in of_program),
        ]


def what_will_go(envoy: Envoy) -> WhatWillGo:
    """Count what `delete_envoy` would erase, in statements that read indexes alone."""
    return WhatWillGo(
        num_patients=Patient.objects.filter(envoy=envoy).count(),
        num_admissions=Admission.objects.filter(envoy=envoy).count(),
        num_predictions=Prediction.objects.filter(envoy=envoy).count(),
        num_inference_runs=InferenceRun.objects.filter(envoy=envoy).count(),
        num_imports=Import.objects.filter(envoy=envoy).count()
        + Upload.objects.filter(envoy=envoy).count(),
        num_exports=Snapshot.objects.filter(envoy=envoy).count(),
        num_own_versions=ModelVersion.objects.filter(envoy=envoy).count(),
        num_packages=StudyMembership.objects.filter(envoy=envoy).count(),
        num_accounts=envoy.users.filter(is_active=True, role=User.Role.DOCTOR).count(),
        place=f"{bucket_of(envoy)}/{envoy.storage_prefix}/",
        num_runs=RunParticipant.objects.filter(envoy=envoy, sits_out_because="").count(),
        others=[(rows, rows.of(envoy).count()) for rows in _other_rows],
        dataset=envoy.dataset,
    )


def delete_envoy(envoy: Envoy, *, confirmed_name: str, deleted_by: User | None) -> Erasure:
    """Take a hospital out of the federation for good, and have a worker erase what it holds.

    Its doctors can no longer log in, its name is free, and work that waits for it is not begun.

    Raises:
        NotConfirmedError: `confirmed_name` is not its name.
        NotNowError: it is deleted already, or work on its data is under way; it says which.
    """
    from inference.tasks import erase_envoy_task

    if confirmed_name.strip() != envoy.name:
        raise NotConfirmedError(
            f"to delete the {envoy.words.place}, give its name exactly as it is written:"
            f" {envoy.name}"
        )
    clear_abandoned_imports(envoy)
    with transaction.atomic():
        erasure = Erasure(envoy=envoy, envoy_name=envoy.name, requested_by=deleted_by)
        _mark_deleted(envoy)
        _refuse_in_use(envoy, erasure.envoy_name)
        _end_work(envoy, erasure.envoy_name)
        erasure.counts = [
            {"what": what, "count": count} for what, count in what_will_go(envoy).in_words()
        ]
        erasure.remains = [each.to_json() for each in _close_accounts(envoy)]
        doctors = envoy.users.filter(role=User.Role.DOCTOR)
        doctors.update(is_active=False, envoy=None)
        envoy.users.update(envoy=None)
        erasure.enqueued_at = timezone.now()
        erasure.save()
        audit.record(deleted_by, "deleted envoy", envoy)
        erase_envoy_task.delay_on_commit(erasure.pk)
    return erasure


def _close_accounts(envoy: Envoy) -> list[Remains]:
    """End whatever the hospital's doctors have open, and forget what it holds of patients.

    Returns what remains of their accounts.
    """
    forget_searches(envoy)
    forget_answers_of(envoy)  # patients may be in them
    doctors = list(envoy.users.filter(role=User.Role.DOCTOR))
    for doctor in doctors:
        tokens = ServiceToken.objects.filter(user=doctor, revoked_at=None)
        tokens.update(revoked_at=timezone.now())
        end_logins(doctor)
        forget_failed_logins(username=doctor.username)
    num_tokens = ServiceToken.objects.filter(user__in=doctors).count()
    return of_hospitals_people(envoy, num_accounts=len(doctors), num_tokens=num_tokens)


def _mark_deleted(envoy: Envoy) -> None:
    marked = Envoy.objects.get(pk=envoy.pk)
    marked.mark_deleted()
    values = {name: getattr(marked, name) for name in ("status", "prefix", "name", "slug")}
    if not Envoy.objects.standing().filter(pk=envoy.pk).update(**values):
        raise NotNowError(f"{envoy} is deleted already")


def _refuse_in_use(envoy: Envoy, name: str) -> None:
    taking_part = RunParticipant.objects.filter(envoy=envoy, sits_out_because="")
    run = TrainingRun.objects.active().filter(pk__in=taking_part.values("run")).first()
    if run:
        raise NotNowError(f"{name} takes part in {run}: wait for its end, or stop it")
    report = RunReport.objects.unfinished().filter(run__in=taking_part.values("run")).first()
    if report:
        raise NotNowError(
            f"the report of {report.run} is being made from the data of {name}: wait for its end"
        )
    if envoy.imports.filter(status__in=[Import.Status.CHECKING, Import.Status.INSERTING]).exists():
        raise NotNowError(f"an import into {name} is running: wait for its end")


def _end_work(envoy: Envoy, name: str) -> None:
    """Let nobody begin what waits for a hospital; refuse while somebody is at it."""
    for kind in work.kinds():
        if kind.about != "envoy" or kind.for_deleted:
            continue
        rows: WorkQuerySet = kind.model.objects.filter(**{kind.about: envoy})
        rows.claimable().update(
            status="FAILED", reason=f"the {envoy.words.place} was deleted", leased_until=None
        )
        if rows.unfinished().exists():
            raise NotNowError(
                f"a worker is busy with {name} ({kind.title.lower()}): wait for its end"
            )


def erase_envoy(erasure_id: int) -> None:
    """Erase a deleted hospital's rows and objects; safe to do again from any point.

    What a run names stays: the hospital's name, its part in each round and the hashes of what it
    trained on. A hospital that no run names goes entirely.

    Raises:
        StorageError, NotNowError: also written on the row; it can be retried.
    """
    for erasure in Erasure.objects.select_related("envoy").claim([erasure_id]):
        try:
            _erase(erasure)
        except FederatedError as error:
            Erasure.objects.finish(erasure, status=Erasure.Status.FAILED, reason=str(error))
            raise


def _erase(erasure: Erasure) -> None:
    envoy = erasure.envoy
    if envoy is None:  # a worker before this one was killed after its last step
        Erasure.objects.finish(erasure, status=Erasure.Status.COMPLETE, completed_at=timezone.now())
        return
    _refuse_in_use(envoy, erasure.envoy_name)  # it may have joined a run at the same moment
    rows = _rows_to_erase(envoy)
    progress, num_done = Progress(erasure), 0
    remove_arrays(Snapshot.objects.filter(envoy=envoy))
    num_total = sum(each.count() for each in rows)
    for each in rows:
        while ids := list(each.order_by().values_list("pk", flat=True)[:BATCH_ROWS]):
            each.model._default_manager.filter(pk__in=ids).delete()
            num_done += len(ids)
            progress.show(num_done, max(num_total, num_done))
    for forget in _forgetting:
        forget(envoy)
    delete_objects(envoy_storage(envoy))
    # Of those that runs name the hashes stay; every worker's host sees that the arrays may go.
    Snapshot.objects.filter(envoy=envoy, removed_at=None).update(removed_at=timezone.now())
    with transaction.atomic():
        _end(erasure, envoy, num_done)


def _rows_to_erase(envoy: Envoy) -> list["QuerySet[Any]"]:
    """In an order in which nothing refers to what goes."""
    in_use = [
        RunParticipant.objects.filter(snapshot=OuterRef("pk")),
        RoundAssignment.objects.filter(snapshot=OuterRef("pk")),
    ]
    return [
        *(rows.of(envoy) for rows in _other_rows),
        Prediction.objects.filter(envoy=envoy),
        InferenceRun.objects.filter(envoy=envoy),
        Diagnosis.objects.filter(admission__envoy=envoy),
        Admission.objects.filter(envoy=envoy),
        Patient.objects.filter(envoy=envoy),
        Upload.objects.filter(envoy=envoy),
        Import.objects.filter(envoy=envoy),
        Distribution.objects.filter(envoy=envoy),
        ModelChoice.objects.filter(envoy=envoy),
        ModelVersion.objects.filter(envoy=envoy).exclude(
            Exists(Prediction.objects.filter(model_version=OuterRef("pk")))
        ),
        StudyMembership.objects.filter(envoy=envoy),
        CodeReport.objects.filter(envoy=envoy),
        PatientErasure.objects.filter(envoy=envoy),
        IdempotentCall.objects.filter(envoy=envoy),
        Snapshot.objects.filter(envoy=envoy).exclude(Exists(in_use[0])).exclude(Exists(in_use[1])),
    ]


def _end(erasure: Erasure, envoy: Envoy, num_done: int) -> None:
    finished = Erasure.objects.finish(
        erasure,
        status=Erasure.Status.COMPLETE,
        num_done=num_done,
        num_total=num_done,
        remains=[*(each.to_json() for each in _remains_of(erasure, envoy)), *erasure.remains],
        completed_at=timezone.now(),
    )
    if not finished:
        return
    if _is_named(envoy):
        envoy.bucket = envoy.prefix = ""  # the place is free for another
        envoy.save(update_fields=["bucket", "prefix"])
    else:
        envoy.delete()


def _remains_of(erasure: Erasure, envoy: Envoy) -> list[Remains]:
    taken_part = RunParticipant.objects.filter(envoy=envoy, sits_out_because="")
    return of_hospitals_runs(
        envoy,
        name=erasure.envoy_name,
        num_runs=taken_part.count(),
        num_versions=versions_trained_with(envoy, taken_part).count(),
    )


def _is_named(envoy: Envoy) -> bool:
    """Whether a run, a snapshot of one, or a version still names it."""
    return any(
        rows.filter(envoy=envoy).exists()
        for rows in (RunParticipant.objects, RoundAssignment.objects, ModelVersion.objects)
    )
