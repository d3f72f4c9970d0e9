"""A patient is erased, here and in storage; models, and the record of what was done, stay."""

import csv
import io
import os
from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest
from django.conf import settings as django_settings
from django.db import connection
from django.test import Client
from django.urls import reverse
from django.utils import timezone

from diagnoses.models import Admission, Diagnosis, Import, Patient, PatientErasure, Snapshot, Upload
from diagnoses.services import (
    DiagnosisRow,
    add_diagnoses,
    export_now,
    import_cohort,
    let_return,
    remove_export,
    upload_files,
)
from envoys import work
from envoys.errors import NotNowError, StorageError
from envoys.models import AuditEvent, Envoy, IdempotentCall, User
from envoys.storage import FolderStorage, envoy_storage, list_objects, write_object
from federated.cohorts import EnvoyFiles
from federated.errors import CohortError
from federated.plan import TrainingPlan
from inference import services
from inference.models import Erasure, Prediction
from inference.services.patient_erasure import NotThisPatientError
from tests.api import Program
from tests.factories import (
    make_admission,
    make_diagnosis,
    make_envoy,
    make_import,
    make_participant,
    make_patient,
    make_round,
    make_run,
    make_user,
    make_version,
)
from tests.federation import release, start
from training import services as training_services
from training.arrays import open_snapshot, remove_unneeded_arrays
from training.errors import NotReadyError
from training.models import ModelVersion, RunParticipant, RunReport, TrainingRun

pytestmark = [pytest.mark.django_db, pytest.mark.filterwarnings("ignore:No directory at")]

NAME, PHONE = "Test Patient One", "000 1"


@pytest.fixture
def doctor():
    return make_user()


@pytest.fixture
def patient(doctor):
    return patient_of(doctor.envoy)


def patient_of(envoy: Envoy, subject_id: str = "subject-1") -> Patient:
    patient = make_patient(envoy, name=NAME, phone=PHONE, subject_id=subject_id)
    admission = make_admission(patient, hadm_id=f"stay-of-{subject_id}", age=60, risk_tier=2)
    make_diagnosis(admission)
    make_diagnosis(admission, icd_code="I509", struck_out_at=timezone.now())
    return patient


def erase(patient: Patient, by: User | None = None) -> PatientErasure:
    return services.erase_patient(patient, confirmed_subject_id=patient.subject_id, erased_by=by)


def count_of(erasure: PatientErasure, what: str) -> int:
    return {each["what"]: each["count"] for each in erasure.counts}[what]


def folder_of(envoy: Envoy) -> Path:
    storage = envoy_storage(envoy)
    assert isinstance(storage, FolderStorage)
    return Path(storage.location)


def all_stored_text(envoy: Envoy) -> str:
    return "".join(
        path.read_bytes().decode(errors="replace")
        for path in folder_of(envoy).rglob("*")
        if path.is_file()
    )


def diagnoses_file(*subject_ids: str) -> io.BytesIO:
    rows = [f"{each},new-stay-of-{each},1,I50.9,10\n" for each in subject_ids]
    header = "subject_id,hadm_id,seq_num,icd_code,icd_version\n"
    return io.BytesIO("".join([header, *rows]).encode())


def test_rows_go_at_once_and_those_of_others_stay(queue, doctor, patient):
    other = patient_of(doctor.envoy, "subject-2")
    namesake = patient_of(make_envoy())
    erasure = erase(patient, doctor)
    assert set(Patient.objects.all()) == {other, namesake}
    assert set(Admission.objects.values_list("patient", flat=True)) == {other.pk, namesake.pk}
    assert Diagnosis.objects.count() == 4
    assert count_of(erasure, "Admissions") == 1
    assert count_of(erasure, "Diagnoses") == 2
    queue.work()
    erasure.refresh_from_db()
    assert erasure.status == PatientErasure.Status.COMPLETE
    event = AuditEvent.objects.get(action="erased patient")
    assert (event.user, event.target) == (doctor, f"patient:{patient.pk}")


def test_the_subject_id_has_to_be_given_exactly(queue, patient):
    for text in ("", "subject", "SUBJECT-1"):
        with pytest.raises(NotThisPatientError, match="exactly as it is written"):
            services.erase_patient(patient, confirmed_subject_id=text, erased_by=None)
    assert Patient.objects.filter(pk=patient.pk).exists()
    services.erase_patient(patient, confirmed_subject_id=" subject-1 ", erased_by=None)
    with pytest.raises(NotNowError, match="erased already"):
        erase(patient)


def test_nothing_of_the_patient_is_left_in_any_table(queue, doctor, patient):
    """Name and phone are encrypted, so whatever kept a row would keep its subject_id or its number."""
    client = Client()
    client.force_login(doctor)
    client.post(reverse("inference:patient-list"), {"text": NAME})
    Program(doctor).post(reverse("api:patient-search"), {"name": NAME}, code=200, key="search")
    assert NAME in IdempotentCall.objects.get().answer
    export_now(doctor.envoy)
    erase(patient, doctor)
    queue.work()
    assert not IdempotentCall.objects.exists()
    assert NAME not in client.get(reverse("inference:patient-list")).content.decode()
    with connection.cursor() as cursor:
        for table in connection.introspection.table_names():
            cursor.execute(f'SELECT * FROM "{table}"')
            text = repr(cursor.fetchall())
            assert "subject-1" not in text, table
    assert "subject-1" not in all_stored_text(doctor.envoy)


def test_exports_with_the_patient_go_and_the_newest_is_written_anew(queue, doctor, patient):
    envoy = doctor.envoy
    with_patient = export_now(envoy)
    (folder_of(envoy) / f"snapshots/{with_patient.sha256}").stat()
    Patient.objects.filter(pk=patient.pk).update(subject_id="elsewhere")
    without = export_now(envoy)
    Patient.objects.filter(pk=patient.pk).update(subject_id="subject-1")
    patient.refresh_from_db()
    patient_of(envoy, "subject-2")
    newest = export_now(envoy)

    erasure = erase(patient, doctor)
    queue.work()

    erasure.refresh_from_db()
    assert count_of(erasure, "Frozen exports") == 2
    for gone in (with_patient, newest):
        gone.refresh_from_db()
        assert gone.removed_at is not None
        assert gone.sha256
        assert not (folder_of(envoy) / f"snapshots/{gone.sha256}").exists()
    without.refresh_from_db()
    assert without.removed_at is None
    current = Snapshot.objects.order_by("-completed_at")[0]
    top = (folder_of(envoy) / "outcomes.csv").read_text()
    assert [row["subject_id"] for row in csv.DictReader(io.StringIO(top))] == ["subject-2"]
    assert top == (folder_of(envoy) / f"snapshots/{current.sha256}/outcomes.csv").read_text()
    assert any("Checksums of 2 removed exports" in each["what"] for each in erasure.remains)


def test_an_export_is_not_written_anew_where_none_held_the_patient(queue, doctor, patient):
    erase(patient, doctor)
    queue.work()
    assert not Snapshot.objects.exists()


def test_a_damaged_export_counts_as_holding_the_patient(queue, doctor, patient):
    snapshot = export_now(doctor.envoy)
    path = folder_of(doctor.envoy) / f"snapshots/{snapshot.sha256}/outcomes.csv"
    path.write_text("damaged")
    erase(patient)
    queue.work()
    assert not path.exists()


def test_uploads_that_wait_go_only_if_the_patient_is_in_them(queue, doctor, patient):
    envoy = doctor.envoy
    held, other = (
        upload_files(envoy, diagnoses=diagnoses_file(each), outcomes=None, uploaded_by=doctor)
        for each in ("subject-1", "subject-9")
    )
    queue.work()
    erasure = erase(patient, doctor)
    queue.work()
    held.refresh_from_db()
    other.refresh_from_db()
    assert (held.stage, other.stage) == (Upload.Stage.DISCARDED, Upload.Stage.CHECK)
    assert "subject-1" not in all_stored_text(envoy)
    assert "subject-9" in all_stored_text(envoy)
    erasure.refresh_from_db()
    assert count_of(erasure, "Uploads that waited") == 1


def test_an_upload_that_is_being_checked_is_waited_for(queue, doctor, patient):
    upload = upload_files(
        doctor.envoy, diagnoses=diagnoses_file("subject-1"), outcomes=None, uploaded_by=doctor
    )
    queue.lose()
    Upload.objects.claim([upload.pk])
    erasure = erase(patient)
    queue.work()
    erasure.refresh_from_db()
    assert erasure.status == PatientErasure.Status.PENDING
    assert "being checked or imported" in erasure.reason
    Upload.objects.filter(pk=upload.pk).update(status=Upload.Status.COMPLETE)
    finish(erasure, queue)
    assert "subject-1" not in all_stored_text(doctor.envoy)


def finish(erasure: PatientErasure, queue: Any) -> None:
    """As the sweeper, after a lease."""
    long_ago = timezone.now() - timedelta(hours=1)
    PatientErasure.objects.filter(pk=erasure.pk).update(enqueued_at=long_ago)
    work.enqueue_due()
    queue.work()
    erasure.refresh_from_db()
    assert erasure.status == PatientErasure.Status.COMPLETE, erasure.reason


def test_an_import_does_not_bring_an_erased_patient_back(queue, doctor, patient, tmp_path):
    envoy = doctor.envoy
    erasure = erase(patient, doctor)
    queue.work()
    path = tmp_path / "diagnoses.csv"
    path.write_bytes(diagnoses_file("subject-2", "subject-1").getvalue())
    files = EnvoyFiles("made-up", path)

    with pytest.raises(CohortError, match=r"line 3: its patient was erased here") as refused:
        import_cohort(envoy, files)
    assert "subject-1" not in str(refused.value)
    upload = upload_files(
        envoy,
        diagnoses=diagnoses_file("subject-2", "subject-1"),
        outcomes=None,
        uploaded_by=doctor,
    )
    queue.work()
    upload.refresh_from_db()
    assert upload.is_refused
    assert "the diagnoses file, line 3: its patient was erased here" in upload.problems[0]
    with pytest.raises(CohortError, match="row 1: its patient was erased here"):
        add_diagnoses(
            envoy, [DiagnosisRow("h1", "I10", 10, subject_id="subject-1")], recorded_by=None
        )
    assert not Patient.objects.exists()

    import_cohort(make_envoy(), files)  # another hospital's patients are its own
    let_return(PatientErasure.objects.get(), allowed_by=doctor)
    import_cohort(envoy, files)
    assert Patient.objects.filter(envoy=envoy, subject_id="subject-1").exists()
    erasure.refresh_from_db()
    with pytest.raises(NotNowError, match="may return already"):
        let_return(erasure, allowed_by=doctor)


def test_an_import_that_runs_is_waited_for(queue, doctor, patient):
    running = make_import(doctor.envoy, status=Import.Status.INSERTING)
    with pytest.raises(NotNowError, match=r"an import into .* is running"):
        erase(patient)
    assert Patient.objects.exists()
    running.delete()
    erase(patient)


def test_an_export_that_is_being_written_is_waited_for(queue, doctor, patient):
    snapshot = Snapshot.objects.create(envoy=doctor.envoy, enqueued_at=timezone.now())
    Snapshot.objects.claim([snapshot.pk])
    erasure = erase(patient)
    queue.work()
    erasure.refresh_from_db()
    assert (erasure.status, erasure.reason[:30]) == ("PENDING", "an export is being written tha")
    Snapshot.objects.filter(pk=snapshot.pk).update(status="FAILED")
    finish(erasure, queue)


def test_models_go_on_and_a_run_that_trains_on_the_patient_ends_first(queue, hospitals):
    """The whole way: trained, served, erased while another run trains, retried, trained anew."""
    taking_part = hospitals[:3]
    version = release(taking_part, queue)
    queue.work_and_sweep()
    envoy = taking_part[0]
    services.request_inference(envoy, version, requested_by=None)
    queue.work()
    patient, other = Patient.objects.filter(envoy=envoy).order_by("pk")[:2]
    subject_id = patient.subject_id
    run = start(taking_part, study=version.study)
    queue.work_and_sweep(until=lambda: run.rounds.filter(number=1).exists())
    arrays = django_settings.DATA_DIR / "arrays"
    used = RunParticipant.objects.get(run=run, envoy=envoy).snapshot
    assert used is not None
    assert any(arrays.glob(f"{used.sha256}-*"))

    erasure = erase(patient)
    services.finish_patient_erasure(erasure.pk)
    erasure.refresh_from_db()
    assert erasure.status == PatientErasure.Status.PENDING
    assert f"run {run.pk} of" in erasure.reason
    assert "is removed when it has ended" in erasure.reason
    assert any(arrays.glob(f"{used.sha256}-*"))

    queue.work_and_sweep()
    run.refresh_from_db()
    assert run.status == TrainingRun.Status.FINISHED
    assert run.report
    finish(erasure, queue)
    used.refresh_from_db()
    assert used.removed_at is not None
    assert not any(arrays.glob(f"{used.sha256}-*"))
    assert subject_id not in all_stored_text(envoy)
    models = next(each["what"] for each in erasure.remains if "learned" in each["what"])
    assert str(version) in models

    # What was trained works, for who is left, and its lineage can be checked.
    admission = Admission.objects.filter(patient=other)[0]
    assert services.predict_admission(admission, version, requested_by=None).probabilities
    inference = services.request_inference(envoy, version, requested_by=None)
    queue.work()
    inference.refresh_from_db()
    assert inference.status == "COMPLETE"
    scientist = make_user(User.Role.DATA_SCIENTIST)
    distributions = training_services.distribute_version(
        version, envoys=taking_part, distributed_by=scientist
    )
    queue.work()
    for each in distributions:
        each.refresh_from_db()
        assert each.status == "COMPLETE"
    client = Client()
    client.force_login(scientist)
    for page, row in (
        ("training:run-detail", run.pk),
        ("training:run-benefit", run.pk),
        ("training:model-version-detail", version.pk),
        ("training:envoy-detail", envoy.pk),
    ):
        assert client.get(reverse(page, args=[row])).status_code == 200
    assert [update["sha256"] for update in version.manifest["lineage"]["updates"]]
    assert RunParticipant.objects.filter(run=run, snapshot__sha256=used.sha256).exists()

    # What would train on it once more says what to do instead.
    with pytest.raises(NotReadyError, match="start another run, which freezes them as they are"):
        open_snapshot(used, TrainingPlan.from_json(run.plan))
    RunReport.objects.filter(run=run).update(status="FAILED")
    training_services.request_report(run)
    queue.work()
    report = RunReport.objects.get(run=run)
    assert (report.status, "were removed" in report.reason) == ("FAILED", True)
    again = start(taking_part, study=version.study)
    queue.work_and_sweep()
    again.refresh_from_db()
    assert again.status == TrainingRun.Status.FINISHED
    assert subject_id not in all_stored_text(envoy)
    assert ModelVersion.objects.filter(run=again, envoy=None).exists()


def test_only_models_that_can_have_seen_the_patient_are_named(queue, doctor):
    """One run before the patient came, on an export removed since; one with the patient."""
    envoy, other = doctor.envoy, make_envoy(name="Elsewhere")
    patient_of(envoy, "subject-0")
    before = export_now(envoy)
    remove_export(envoy, before.sha256)
    earlier = make_run(status=TrainingRun.Status.FINISHED)
    make_participant(earlier, envoy, snapshot=before)
    never_saw = make_version(make_round(earlier))

    patient = patient_of(envoy)
    snapshot = export_now(envoy)
    run = make_run(status=TrainingRun.Status.FINISHED, report={"envoys": []})
    make_participant(run, envoy, snapshot=snapshot)
    of_run, alone = make_round(run), ModelVersion.Kind.LOCAL
    perhaps = [
        make_version(of_run),
        make_version(of_run, envoy=envoy),
        make_version(of_run, envoy=other),
        make_version(of_run, envoy=envoy, kind=alone),
    ]
    cannot = make_version(of_run, envoy=other, kind=alone)
    sat_out = make_participant(envoy=envoy, snapshot=snapshot, sits_out_because="too few").run
    TrainingRun.objects.filter(pk=sat_out.pk).update(status=TrainingRun.Status.FINISHED)
    without_it = make_version(make_round(sat_out))

    erasure = erase(patient, doctor)
    queue.work()
    erasure.refresh_from_db()
    assert erasure.status == PatientErasure.Status.COMPLETE, erasure.reason
    models = next(each["what"] for each in erasure.remains if "learned" in each["what"])
    named = ", ".join(str(version) for version in perhaps)
    assert models == f"What 4 models learned, perhaps also from this patient: {named}"
    for version in (never_saw, cannot, without_it):
        assert str(version) not in models.split(": ")[1].split(", ")
    assert any("Checksums of 1 removed export," in each["what"] for each in erasure.remains)
    assert erasure.held == []

    # Deleting the hospital counts alike; its own models go with it.
    services.delete_envoy(envoy, confirmed_name=envoy.name, deleted_by=None)
    queue.work()
    assert any(
        # of the run before the patient came one too
        each["what"] == "What 3 models learned with it, and copies at other hospitals"
        for each in Erasure.objects.get().remains
    )


def test_an_export_removed_for_another_patient_counts_for_this_one_too(queue, doctor, patient):
    other = patient_of(doctor.envoy, "subject-2")
    run = make_run(status=TrainingRun.Status.FINISHED, report={"envoys": []})
    make_participant(run, doctor.envoy, snapshot=export_now(doctor.envoy))
    version = make_version(make_round(run))
    for each in (other, patient):
        erasure = erase(each, doctor)
        queue.work()
        erasure.refresh_from_db()
        assert any(str(version) in remains["what"] for remains in erasure.remains)


def test_erasing_goes_on_where_a_killed_worker_left_it(queue, doctor, patient, monkeypatch):
    envoy = doctor.envoy
    export_now(envoy)
    patient_of(envoy, "subject-2")
    export_now(envoy)

    class Killed(BaseException):
        pass

    removed: list[Any] = []

    def remove_one(*args: Any) -> None:
        if removed:
            raise Killed
        removed.append(args)
        remove_export(*args)

    erasure = erase(patient)
    queue.lose()
    with monkeypatch.context() as patch:
        patch.setattr("inference.services.patient_erasure.remove_export", remove_one)
        with pytest.raises(Killed):
            services.finish_patient_erasure(erasure.pk)
    assert "subject-1" in all_stored_text(envoy)
    long_ago = timezone.now() - timedelta(hours=1)
    PatientErasure.objects.filter(pk=erasure.pk).update(leased_until=long_ago)
    finish(erasure, queue)
    assert "subject-1" not in all_stored_text(envoy)


def test_storage_out_of_reach_is_told_and_can_be_retried(queue, doctor, patient, monkeypatch):
    export_now(doctor.envoy)

    def unreachable(*args: Any) -> None:
        raise StorageError("the bucket does not answer")

    with monkeypatch.context() as patch:
        patch.setattr("inference.services.patient_erasure.remove_export", unreachable)
        erasure = erase(patient)
        queue.work()
    erasure.refresh_from_db()
    assert (erasure.status, erasure.reason) == ("FAILED", "the bucket does not answer")
    work.retry(erasure, retried_by=None)
    queue.work()
    erasure.refresh_from_db()
    assert erasure.status == "COMPLETE"
    assert "subject-1" not in all_stored_text(doctor.envoy)


def test_an_upload_whose_files_could_not_be_removed_is_found_again(
    queue, doctor, patient, monkeypatch
):
    upload_files(
        doctor.envoy, diagnoses=diagnoses_file("subject-1"), outcomes=None, uploaded_by=doctor
    )
    queue.work()

    def unreachable(*args: Any) -> None:
        raise StorageError("the bucket does not answer")

    with monkeypatch.context() as patch:
        patch.setattr("diagnoses.services.uploads.delete_folder", unreachable)
        erasure = erase(patient)
        queue.work()
    erasure.refresh_from_db()
    assert erasure.status == "FAILED"
    assert "subject-1" in all_stored_text(doctor.envoy)
    work.retry(erasure, retried_by=None)
    queue.work()
    assert "subject-1" not in all_stored_text(doctor.envoy)
    assert Upload.objects.get().status == Upload.Status.COMPLETE


class Killed(BaseException):
    pass


def killed(*args: Any, **kwargs: Any) -> None:
    raise Killed


def stored_keys(envoy: Envoy) -> set[str]:
    return {key for key, _ in list_objects(envoy_storage(envoy))}


def keys_of(snapshot: Snapshot) -> set[str]:
    top = {"diagnoses.csv", "outcomes.csv"}
    return top | {f"snapshots/{snapshot.sha256}/{name}" for name in top}


@pytest.mark.parametrize("num_stored", [1, 2, 3])
def test_what_a_failed_export_had_stored_goes(queue, doctor, patient, monkeypatch, num_stored):
    """Its row has no hash, so that nobody finds its files by it."""
    envoy = doctor.envoy
    patient_of(envoy, "subject-2")
    stored: list[str] = []

    def full_disk(storage: Any, key: str, content: Any) -> str:
        if len(stored) == num_stored:
            raise StorageError("no space is left")
        stored.append(key)
        return write_object(storage, key, content)

    with monkeypatch.context() as patch:
        patch.setattr("diagnoses.services.exports.write_object", full_disk)
        with pytest.raises(StorageError):
            export_now(envoy)
    assert "subject-1" in all_stored_text(envoy)
    erasure = erase(patient, doctor)
    queue.work()
    erasure.refresh_from_db()
    assert erasure.status == "COMPLETE", erasure.reason
    assert count_of(erasure, "Files that killed exports and uploads had left") == 1
    assert "subject-1" not in all_stored_text(envoy)
    written_anew = Snapshot.objects.filter(status="COMPLETE").first()
    assert stored_keys(envoy) == (keys_of(written_anew) if written_anew else set())
    assert (written_anew is not None) == (num_stored == 3)  # a file lay on top


def test_what_a_killed_export_had_stored_goes_and_the_top_is_written_anew(
    queue, doctor, patient, monkeypatch
):
    envoy = doctor.envoy
    patient_of(envoy, "subject-2")
    with monkeypatch.context() as patch:
        patch.setattr("diagnoses.services.exports.Snapshot.objects.finish", killed)
        with pytest.raises(Killed):
            export_now(envoy)
    erasure = erase(patient, doctor)
    queue.work()
    erasure.refresh_from_db()
    assert erasure.status == "PENDING"  # nobody knows yet that it was killed
    assert "subject-1" in all_stored_text(envoy)

    Snapshot.objects.update(leased_until=timezone.now() - timedelta(minutes=5))
    finish(erasure, queue)
    assert "subject-1" not in all_stored_text(envoy)
    assert "subject-2" in (folder_of(envoy) / "outcomes.csv").read_text()
    assert {"diagnoses.csv", "outcomes.csv"} < stored_keys(envoy)


def test_the_top_is_written_anew_where_a_killed_export_came_after_a_newest_without_the_patient(
    queue, doctor, monkeypatch
):
    envoy = doctor.envoy
    patient_of(envoy, "subject-2")
    without = export_now(envoy)
    patient = patient_of(envoy, "subject-1")
    with monkeypatch.context() as patch:
        patch.setattr("diagnoses.services.exports.Snapshot.objects.finish", killed)
        with pytest.raises(Killed):
            export_now(envoy)
    Snapshot.objects.filter(status="RUNNING").update(status="FAILED")
    erasure = erase(patient, doctor)
    queue.work()
    erasure.refresh_from_db()
    assert erasure.status == "COMPLETE", erasure.reason
    assert stored_keys(envoy) == keys_of(without)
    assert "subject-1" not in all_stored_text(envoy)


def test_what_a_killed_upload_had_stored_goes_once_none_can_be_under_way(
    queue, doctor, patient, monkeypatch
):
    envoy = doctor.envoy
    waiting = upload_files(
        envoy, diagnoses=diagnoses_file("subject-9"), outcomes=None, uploaded_by=doctor
    )
    with monkeypatch.context() as patch:
        patch.setattr("diagnoses.services.uploads._remove_files", lambda upload: None)
        patch.setattr(Upload, "save", killed)
        with pytest.raises(Killed):
            upload_files(
                envoy, diagnoses=diagnoses_file("subject-1"), outcomes=None, uploaded_by=doctor
            )
    queue.work()
    erasure = erase(patient, doctor)
    queue.work()
    erasure.refresh_from_db()
    assert (erasure.status, "are being uploaded" in erasure.reason) == ("PENDING", True)
    assert "subject-1" in all_stored_text(envoy)

    before_last_hour = (timezone.now() - timedelta(minutes=61)).timestamp()
    for path in (folder_of(envoy) / "uploads").rglob("*"):
        os.utime(path, (before_last_hour, before_last_hour))
    finish(erasure, queue)
    assert "subject-1" not in all_stored_text(envoy)
    assert stored_keys(envoy) == {
        file[key] for file in waiting.files.values() for key in ("key", "head_key")
    }


def test_half_written_files_go_and_do_not_keep_a_folder(queue, doctor, patient):
    """What a process leaves that is killed while it writes a file."""
    envoy = doctor.envoy
    patient_of(envoy, "subject-2")
    with_patient = export_now(envoy)
    Patient.objects.filter(pk=patient.pk).update(subject_id="elsewhere")
    without = export_now(envoy)
    Patient.objects.filter(pk=patient.pk).update(subject_id="subject-1")
    patient.refresh_from_db()
    for name in ("", f"snapshots/{with_patient.sha256}", f"snapshots/{without.sha256}"):
        (folder_of(envoy) / name / ".diagnoses.csv.a1b2c3d4").write_text("subject-1,half")
    erasure = erase(patient, doctor)
    queue.work()
    erasure.refresh_from_db()
    assert erasure.status == "COMPLETE", erasure.reason
    assert not (folder_of(envoy) / f"snapshots/{with_patient.sha256}").exists()
    assert stored_keys(envoy) == keys_of(without)


def test_what_is_written_at_this_moment_stays(queue, doctor, patient):
    """An export for somebody else, begun after the erasure: its files have no row yet."""
    envoy = doctor.envoy
    erasure = erase(patient, doctor)
    later = timezone.now() + timedelta(minutes=10)
    running = Snapshot.objects.create(envoy=envoy, enqueued_at=timezone.now())
    Snapshot.objects.filter(pk=running.pk).update(created_at=later)
    Snapshot.objects.claim([running.pk])
    write_object(envoy_storage(envoy), f"snapshots/{'a' * 64}/diagnoses.csv", b"being written")
    queue.work()
    erasure.refresh_from_db()
    assert (erasure.status, "export is being written" in erasure.reason) == ("PENDING", True)
    assert len(stored_keys(envoy)) == 1
    Snapshot.objects.filter(pk=running.pk).update(status="FAILED")
    finish(erasure, queue)
    assert not stored_keys(envoy)


def test_every_host_removes_the_arrays_of_what_is_gone(queue, hospitals):
    """What another host's worker does every minute."""
    envoy = hospitals[0]
    arrays = django_settings.DATA_DIR / "arrays"
    kept, gone = export_now(envoy), "f" * 64
    for name in (f"{kept.sha256}-0123", f"{gone}-0123", ".building-xyz"):
        (arrays / name).mkdir(parents=True)
    assert remove_unneeded_arrays() == 1
    assert {path.name for path in arrays.iterdir()} == {f"{kept.sha256}-0123", ".building-xyz"}
    Snapshot.objects.update(removed_at=timezone.now())
    assert remove_unneeded_arrays() == 1


def test_whoever_runs_the_federation_sees_that_it_is_done_and_not_to_whom(queue, doctor, patient):
    erasure = erase(patient, doctor)
    client = Client()
    client.force_login(make_user(User.Role.DATA_SCIENTIST))
    page = client.get(reverse("envoys:task-list")).content.decode()
    assert "Erasure of a patient" in page
    assert patient.subject_id not in page
    assert (
        client.get(reverse("inference:patient-erasure-detail", args=[erasure.pk])).status_code
        == 404
    )


def test_the_page_says_what_goes_asks_for_the_subject_id_and_then_what_remains(
    client, queue, doctor, patient
):
    client.force_login(doctor)
    export_now(doctor.envoy)
    url = reverse("inference:patient-erase", args=[patient.pk])
    page = client.get(url).content.decode()
    assert "1 frozen export in" in " ".join(page.split())
    refused = client.post(url, {"subject_id": "another"})
    assert refused.status_code == 400
    assert "give the subject ID exactly as it is written" in refused.content.decode()
    response = client.post(url, {"subject_id": "subject-1"}, follow=True)
    report = reverse("inference:patient-erasure-detail", args=[PatientErasure.objects.get().pk])
    assert response.redirect_chain == [(report, 302)]
    assert 'hx-trigger="every 2s"' in response.content.decode()
    assert client.get(url).status_code == 404
    queue.work()
    page = client.get(report).content.decode()
    assert "hx-trigger" not in page
    assert "Backups of the database" in page
    assert NAME not in page
    client.post(reverse("inference:patient-erasure-return", args=[PatientErasure.objects.get().pk]))
    assert "Imports may bring this patient again." in client.get(report).content.decode()


def test_a_program_erases_a_patient_and_reads_what_remains(queue, doctor, patient):
    program = Program(doctor)
    url = reverse("api:patient-detail", args=[patient.pk])
    program.delete(url, {"subject_id": "another"}, code=400)
    answer = program.delete(url, {"subject_id": "subject-1"})
    queue.work()
    erasure = program.get(answer["url"])
    assert erasure["status"] == "COMPLETE"
    assert erasure["counts"][0] == {"what": "Patients", "count": "1"}
    assert {"what", "why"} == set(erasure["remains"][0])
    program.delete(url, {"subject_id": "subject-1"}, code=404)
    assert not Prediction.objects.exists()
