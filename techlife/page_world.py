"""What pages are timed on and pictured with: a trained federation, made small first and then grown.

Everything that is computed is made by the services, worked off in this process: import, run,
release, inference. Rows that only make lists long are written as rows.
"""

from collections.abc import Iterator
from dataclasses import dataclass, replace
from datetime import datetime, timedelta
from io import BytesIO
from itertools import count, islice
from pathlib import Path
from typing import Any

import numpy as np
from celery import current_app
from django.utils import timezone

from diagnoses.models import Admission, CodeReport, Patient, PatientErasure, Snapshot, Upload
from diagnoses.services import (
    export_now,
    import_cohort,
    load_icd_codes,
    register_patient,
    upload_files,
)
from envoys.models import AuditEvent, Envoy, User
from envoys.services import create_envoy
from federated.code_report import MOST_SHOWN, CodeKind
from federated.cohorts import AdmissionRecord, canonical_time, find_envoys, read_admissions
from federated.cohorts.snapshots import write_records
from federated.synthetic import write_synthetic_cohort
from federated.targets import DIAGNOSES
from inference.models import Erasure, InferenceRun
from inference.services import (
    delete_envoy,
    erase_patient,
    global_version,
    own_version,
    request_inference,
)
from publichealth.models import DriftCheck
from techlife import demonstration
from techlife.page_nodes import make_small_nodes
from training import services
from training.models import (
    Distribution,
    ModelChoice,
    ModelVersion,
    ReceivedUpdate,
    RoundAssignment,
    RunParticipant,
    Study,
    StudyMembership,
    TrainingRound,
    TrainingRun,
)

SMALL_SCALE = 0.05  # about 480 patients in five hospitals
SMALL_ROUNDS = 3
OPEN_SHARE = 0.01  # of the admissions: who lies there now
MANY_HOSPITALS, MANY_ROUNDS, MANY_VERSIONS = 30, 30, 200
MANY_ROWS = 500  # of each kind that is listed
AT_ONCE = 1000


@dataclass
class PageWorld:
    """Who looks, and whose rows there are to look at."""

    study: Study
    run: TrainingRun
    envoy: Envoy  # the hospital that grows
    doctor: User
    scientist: User
    keeper: User  # of a node of readings

    def arguments(self, parameter: str, index: int) -> int:
        """The number of a row for a parameter of a URL; another patient for another index."""
        match parameter:
            case "patient_id":
                return self._at(Patient, index, envoy=self.envoy)
            case "admission_id":
                return self._at(Admission, index, envoy=self.envoy, discharged_at=None)
            case "upload_id":
                return self._at(Upload, 0, envoy=self.envoy)
            case "envoy_id":
                return self.envoy.pk
            case "study_id":
                return self.study.pk
            case "package_id":
                newest = StudyMembership.objects.filter(envoy=self.envoy).order_by("-packaged_at")
                return newest[0].pk
            case "run_id":
                return self.run.pk
            case "version_id":
                return self._at(ModelVersion, 0, envoy=None)
            case "choice_id":
                return self._at(ModelChoice, 0, envoy=self.envoy)
            case "patient_erasure_id":
                return self._at(PatientErasure, 0, envoy=self.envoy)
            case "erasure_id":
                return self._at(Erasure, 0)
            case "check_id":
                return self._at(DriftCheck, 0, status=DriftCheck.Status.COMPLETE)
        raise KeyError(f"techlife/page_world.py knows no row for {parameter} in a URL")

    def _at(self, model: Any, index: int, **values: Any) -> int:
        """One of a kind's rows, the next for the next index; spread over all there are."""
        rows = model.objects.filter(**values).order_by("pk")
        num_rows = rows.count()
        place = index * 7919 % num_rows  # a prime: steps through all of them
        return int(rows.values_list("pk", flat=True)[place])


def make_small_world(
    folder: Path, *, scale: float = SMALL_SCALE, num_rounds: int = SMALL_ROUNDS
) -> PageWorld:
    """Five small hospitals that have trained, received and used a model together.

    Args:
        scale: of the synthetic hospitals' sizes.
    """
    from federated.local_training import use_one_thread

    use_one_thread()
    current_app.conf.task_always_eager = True  # no broker, no worker: a task is done on commit
    load_icd_codes()
    write_synthetic_cohort(folder / "small", seed=0, scale=scale)
    envoys = []
    for files in find_envoys(folder / "small"):
        envoy = Envoy.objects.create(name=files.name, slug=files.client_id)
        import_cohort(envoy, files)
        envoys.append(envoy)
    study = services.study_for("risk_tier")
    plan = services.plan_for(study, num_rounds=num_rounds)
    doctors = demonstration.make_accounts(envoys)
    demonstration.approve_for_all(study, plan, envoys, doctors)
    scientist = User.objects.get(username=demonstration.SCIENTIST)
    run = services.start_run(study, plan, started_by=scientist, envoys=envoys)
    while run.is_active:
        services.advance_runs()
        run.refresh_from_db()
    assert run.status == TrainingRun.Status.FINISHED, run.reason
    services.request_report(run)
    run.refresh_from_db()
    version = run.versions.of_federation().get()
    services.distribute_version(version, distributed_by=scientist, envoys=envoys)
    for envoy in envoys:
        export_now(envoy, requested_by=doctors[envoy.pk])
        request_inference(envoy, global_version(study, envoy), requested_by=scientist)
    for own in ModelVersion.objects.filter(run=run, envoy__isnull=False).select_related("envoy"):
        assert own.envoy is not None
        request_inference(own.envoy, own, requested_by=scientist)
    doctor = User.objects.get(username=demonstration.DOCTOR)
    assert doctor.envoy is not None
    keeper = make_small_nodes(scientist)
    world = PageWorld(study, run, doctor.envoy, doctor, scientist, keeper)
    _name_patients(world.envoy)
    _upload(world)
    _erase(world)
    return world


def _upload(world: PageWorld) -> None:
    """Files that wait to be confirmed, with a preview to show."""
    lines = [f"new-{place},new-stay-{place},1,I10,10" for place in range(100)]
    content = "\n".join(["subject_id,hadm_id,seq_num,icd_code,icd_version", *lines, ""])
    upload_files(
        world.envoy,
        diagnoses=BytesIO(content.encode()),
        outcomes=None,
        uploaded_by=world.doctor,
    )


def _erase(world: PageWorld) -> None:
    """A patient and a hospital that are gone, for the pages that say what remains."""
    patient = register_patient(
        world.envoy, name="Test Patient Gone", sex="", phone="", registered_by=world.doctor
    ).patient
    erase_patient(patient, confirmed_subject_id=patient.subject_id, erased_by=world.doctor)
    gone = create_envoy(name="Test hospital gone", created_by=world.scientist)
    delete_envoy(gone, confirmed_name=gone.name, deleted_by=world.scientist)


def add_some_rows(world: PageWorld) -> None:
    """A few rows of each kind that pages list, so that a list that grows is not empty before."""
    _add_rows(world, num_rows=3)


def grow(world: PageWorld, folder: Path, *, num_patients: int) -> None:
    """Fill the hospital up to this many patients, and every list with some hundred rows."""
    missing = num_patients - world.envoy.patients.count()
    if missing > 0:
        _import_copies(world, folder, missing)
    _name_patients(world.envoy)
    for version in (
        global_version(world.study, world.envoy),
        own_version(world.study, world.envoy),
    ):
        with demonstration.progress_bar("Predicting", unit="admissions"):
            request_inference(world.envoy, version, requested_by=world.scientist)
    with demonstration.progress_bar("Adding rows to the lists", unit="rows"):
        _add_federation(world)
        _add_rows(world, num_rows=MANY_ROWS)


def _import_copies(world: PageWorld, folder: Path, num_patients: int) -> None:
    """Patients of the synthetic hospitals again and again, under other identifiers and dates."""
    write_synthetic_cohort(folder / "whole", seed=1)
    records = [
        record for files in find_envoys(folder / "whole") for record in read_admissions(files)
    ]
    hospital = folder / "large" / "envoys" / world.envoy.slug
    hospital.mkdir(parents=True)
    with (
        (hospital / "diagnoses_icd.csv").open("w", newline="") as diagnoses,
        (hospital / "outcomes.csv").open("w", newline="") as outcomes,
    ):
        write_records(_copies(records, num_patients), diagnoses, outcomes)
    (files,) = find_envoys(folder / "large")
    with demonstration.progress_bar(f"Importing {num_patients:,} patients", unit="rows") as bar:
        import_cohort(
            world.envoy,
            files,
            on_progress=lambda row: demonstration.show(bar, row.num_done, row.num_total),
        )


def _copies(records: list[AdmissionRecord], num_patients: int) -> Iterator[AdmissionRecord]:
    """A stay each, within the last two years; some are not over yet."""
    rng = np.random.default_rng(0)
    now = timezone.now()
    subjects: set[str] = set()
    for copy in count():
        for record in records:
            subject_id = f"copy-{copy}-{record.subject_id}"
            if subject_id not in subjects and len(subjects) == num_patients:
                return
            subjects.add(subject_id)
            yield _dated(
                replace(record, subject_id=subject_id, hadm_id=f"copy-{copy}-{record.hadm_id}"),
                now=now,
                share=rng.random(),
                is_open=rng.random() < OPEN_SHARE,
            )


def _dated(
    record: AdmissionRecord, *, now: datetime, share: float, is_open: bool
) -> AdmissionRecord:
    stay = timedelta(days=record.los_days or 1)
    if is_open:
        return replace(
            record,
            admitted_at=canonical_time(now - share * stay),
            los_days=None,
            discharged_home=None,
            died_in_hospital=None,
            readmit_30d=None,
            risk_tier=None,
        )
    admitted_at = now - stay - share * timedelta(days=730)
    return replace(
        record,
        admitted_at=canonical_time(admitted_at),
        discharged_at=canonical_time(admitted_at + stay),
    )


def _name_patients(envoy: Envoy) -> None:
    """Imported patients have no name; a list of patients shows, and decrypts, some."""
    nameless = Patient.objects.filter(envoy=envoy, name_index="").order_by("pk")
    with demonstration.progress_bar("Naming patients", unit="patients") as bar:
        while patients := list(nameless[:AT_ONCE]):
            for patient in patients:
                patient.set_name(f"Test Patient {patient.pk:06d}")
                patient.phone = f"000 {patient.pk:06d}"
            Patient.objects.bulk_create(
                patients,
                update_conflicts=True,
                unique_fields=["id"],
                update_fields=["name", "phone", "name_index"],
            )
            bar.update(len(patients))


def _add_federation(world: PageWorld) -> None:
    """More hospitals, and a run of all of them for many rounds, whose page is the largest."""
    now = timezone.now()
    envoys = Envoy.objects.bulk_create(
        Envoy(name=f"Test hospital {number:02d}", slug=f"test-{number:02d}")
        for number in range(MANY_HOSPITALS)
    )
    snapshots = Snapshot.objects.bulk_create(
        Snapshot(envoy=envoy, status=Snapshot.Status.COMPLETE, completed_at=now) for envoy in envoys
    )
    like = world.run
    run = TrainingRun.objects.create(
        study=world.study,
        plan=like.plan,
        plan_sha256=like.plan_sha256,
        num_rounds=MANY_ROUNDS,
        status=TrainingRun.Status.FINISHED,
        scaling=like.scaling,
        report=_report_of_many(like.report or {}, [envoy.name for envoy in envoys]),
        params_sha256=like.params_sha256,
        final_sha256=like.final_sha256,
        started_by=world.scientist,
        training_at=now,
        finished_at=now,
    )
    RunParticipant.objects.create(
        run=run, envoy=world.envoy, sits_out_because="it was not asked", num_labelled_patients=0
    )
    RunParticipant.objects.bulk_create(
        RunParticipant(run=run, envoy=envoy, snapshot=snapshot, num_labelled_patients=500)
        for envoy, snapshot in zip(envoys, snapshots, strict=True)
    )
    rounds = TrainingRound.objects.bulk_create(
        TrainingRound(
            run=run,
            number=number,
            status=TrainingRound.Status.AGGREGATED,
            base_sha256=like.params_sha256,
            closed_at=now,
            aggregated_at=now,
        )
        for number in range(MANY_ROUNDS + 1)
    )
    assignments = RoundAssignment.objects.bulk_create(
        RoundAssignment(
            training_round=training_round,
            envoy=envoy,
            snapshot=snapshot,
            status=RoundAssignment.Status.SUBMITTED,
            attempt=1,
            submitted_at=now,
        )
        for training_round in rounds
        for envoy, snapshot in zip(envoys, snapshots, strict=True)
    )
    ReceivedUpdate.objects.bulk_create(
        ReceivedUpdate(
            assignment=assignment,
            sha256=f"{number:064x}",
            num_examples=350,
            verdict=ReceivedUpdate.Verdict.ACCEPTED,
            metrics={
                "train_loss": 0.6,
                "validation_loss": 0.65,
                "validation_auroc": 0.8,
                "num_validation": 75,
                "seconds": 1.5,
            },
        )
        for number, assignment in enumerate(assignments)
    )
    StudyMembership.objects.bulk_create(
        StudyMembership(
            study=world.study,
            envoy=envoy,
            plan=like.plan,
            plan_sha256=like.plan_sha256,
            package_sha256="0" * 64,
            packaged_at=now,
        )
        for envoy in envoys
    )
    world.run = run


def _report_of_many(report: dict[str, Any], names: list[str]) -> dict[str, Any]:
    """The small run's report, as if so many hospitals stood in it."""

    def many(rows: list[dict[str, Any]]) -> list[dict[str, Any]]:
        return [{**rows[place % len(rows)], "name": name} for place, name in enumerate(names)]

    grown = {**report, "envoys": many(report["envoys"])}
    if report.get("benefit"):
        grown["benefit"] = {**report["benefit"], "envoys": many(report["benefit"]["envoys"])}
    if report.get("by_hospital"):
        grown["by_hospital"] = many(report["by_hospital"])
    return grown


def _add_rows(world: PageWorld, *, num_rows: int) -> None:
    """Rows of each kind that pages list: versions, deliveries, scorings, exports, uploads, runs."""
    now = timezone.now()
    envoys = list(Envoy.objects.with_dataset(DIAGNOSES))
    like = global_version(world.study, world.envoy)
    first = ModelVersion.objects.filter(study=world.study, envoy=None).count() + 1
    runs = TrainingRun.objects.bulk_create(
        TrainingRun(
            study=world.study,
            plan=world.run.plan,
            plan_sha256=world.run.plan_sha256,
            num_rounds=1,
            status=TrainingRun.Status.FINISHED,
            finished_at=now,
        )
        for _ in range(min(num_rows, MANY_VERSIONS))
    )
    RunParticipant.objects.bulk_create(
        RunParticipant(run=run, envoy=envoy, num_labelled_patients=100)
        for run in runs
        for envoy in envoys[:5]
    )
    rounds = TrainingRound.objects.bulk_create(
        TrainingRound(run=run, number=1, status=TrainingRound.Status.AGGREGATED) for run in runs
    )
    versions = ModelVersion.objects.bulk_create(
        ModelVersion(
            study=world.study,
            number=first + place,
            run=training_round.run,
            training_round=training_round,
            storage_key=f"global_model/versions/{first + place}",
            params_sha256=like.params_sha256,
            object_sha256=like.object_sha256,
            manifest=like.manifest,
            created_at=now,
        )
        for place, training_round in enumerate(rounds)
    )
    long_ago = now - timedelta(days=365)
    some = list(islice(_pairs(versions, envoys), num_rows))
    Distribution.objects.bulk_create(
        Distribution(
            version=version,
            envoy=envoy,
            status=Distribution.Status.COMPLETE if place % 5 else Distribution.Status.FAILED,
            reason="" if place % 5 else "the storage did not answer",
            seen_sha256=like.object_sha256,
            delivered_at=long_ago,
        )
        for place, (version, envoy) in enumerate(some)
    )
    InferenceRun.objects.bulk_create(
        InferenceRun(
            envoy=envoy,
            model_version=version,
            status=InferenceRun.Status.COMPLETE,
            counts={"Low": 700, "Medium": 200, "High": 100},
            num_done=1000,
            num_total=1000,
            completed_at=long_ago,
        )
        for version, envoy in some
    )
    Snapshot.objects.bulk_create(
        Snapshot(
            envoy=world.envoy,
            status=Snapshot.Status.COMPLETE,
            sha256=f"{place:064x}",
            num_admissions=1000,
            num_diagnoses=7000,
            completed_at=now,
        )
        for place in range(num_rows)
    )
    odd = {
        "code": "I50",
        "icd_version": 10,
        "title": "Heart failure",
        "is_listed": True,
        "num_patients": 1000,
    }
    CodeReport.objects.update_or_create(
        envoy=world.envoy,
        defaults={
            "num_codes": 900,
            "kinds": [
                {
                    "kind": kind.name.lower(),
                    "group": kind.group,
                    "title": kind.title,
                    "num_codes": 100,
                    "codes": [odd] * MOST_SHOWN,
                }
                for kind in CodeKind
            ],
            "made_at": now,
        },
    )
    Upload.objects.bulk_create(
        Upload(
            envoy=world.envoy,
            status=Upload.Status.COMPLETE,
            num_problems=20,
            problems=[f"diagnoses.csv line {line}: icd_code is empty" for line in range(2, 22)],
            uploaded_by=world.doctor,
        )
        for _ in range(num_rows)
    )
    AuditEvent.objects.bulk_create(
        AuditEvent(user=world.doctor, action="saw patient", target=f"patient:{number}")
        for number in range(num_rows * 20)
    )


def _pairs(
    versions: list[ModelVersion], envoys: list[Envoy]
) -> Iterator[tuple[ModelVersion, Envoy]]:
    for version in versions:
        for envoy in envoys:
            yield version, envoy
