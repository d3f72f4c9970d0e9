from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest
from django.core.management import CommandError, call_command
from django.utils import timezone

from diagnoses import services
from diagnoses.models import Admission, CodeReport, Import, Snapshot
from diagnoses.services import records as record_services
from diagnoses.tasks import export_snapshot_task
from envoys.errors import StorageError
from envoys.storage import envoy_storage, open_object, read_object
from federated.cohorts import (
    AdmissionRecord,
    CodedDiagnosis,
    check_envoy,
    find_envoys,
    iter_snapshot,
    read_admissions,
)
from tests.factories import make_admission, make_diagnosis, make_envoy, make_patient, make_user
from tests.shared_data import shared_data

pytestmark = pytest.mark.django_db


@pytest.fixture(autouse=True)
def objects(settings, tmp_path) -> Path:
    settings.DIRECTOR_S3_BUCKET_NAME = ""
    settings.ENVOY_S3_BUCKET_NAME = ""
    settings.OBJECT_FOLDER = tmp_path / "objects"
    return settings.OBJECT_FOLDER / "director"


def write_cohort(folder: Path) -> Path:
    """Two layouts' worth of gaps: undated admissions, no outcome, no diagnosis, no sex."""
    north = folder / "envoys" / "north"
    north.mkdir(parents=True)
    (north / "diagnoses_icd.csv").write_text(
        "subject_id,hadm_id,seq_num,icd_code,icd_version\n"
        "b,9,2,E11.9,10\nb,9,1,I50.9,10\nb,10,1,250,9\nZ,1,1,0389,9\na,3,1,I10,10\n"
    )
    (north / "outcomes.csv").write_text(
        "subject_id,hadm_id,age,gender,los_days,readmit_30d,risk_tier,number_diagnoses\n"
        "b,10,[50-60),,3,1,2,9\nb,9,61.25,F,0.1,0,0,\na,4,,M,,,,\na,3,,,,,1,\n"
    )
    return folder


def test_an_import_comes_out_as_it_went_in(tmp_path, objects):
    (files,) = find_envoys(write_cohort(tmp_path / "in"))
    envoy = make_envoy(slug="north")
    services.import_cohort(envoy, files)
    services.export_now(envoy)
    (exported,) = find_envoys(objects)
    check_envoy(exported)
    records = read_admissions(exported)
    assert records == read_admissions(files)
    assert [record.hadm_id for record in records] == ["1", "3", "4", "9", "10"]


def test_the_mimic_demo_comes_out_as_it_went_in(objects):
    for files in find_envoys(shared_data("mimic_iv_demo")):
        envoy = make_envoy(slug=files.name)
        services.import_cohort(envoy, files)
        snapshot = services.export_now(envoy)
        (exported,) = find_envoys(objects / "envoys" / files.name)
        records = read_admissions(files)
        assert read_admissions(exported) == records
        storage, folder = envoy_storage(envoy), f"snapshots/{snapshot.sha256}"
        with (
            open_object(
                storage, f"{folder}/diagnoses.csv", sha256=snapshot.diagnoses_sha256
            ) as diagnoses,
            open_object(
                storage, f"{folder}/outcomes.csv", sha256=snapshot.outcomes_sha256
            ) as outcomes,
        ):
            assert list(iter_snapshot(diagnoses, outcomes)) == records


def test_an_export_goes_through_a_worker_and_is_done_once(
    monkeypatch, django_capture_on_commit_callbacks
):
    envoy = make_envoy()
    doctor = make_user(envoy=envoy)
    make_diagnosis(make_admission(make_patient(envoy=envoy)))
    enqueued: list[int] = []
    monkeypatch.setattr(export_snapshot_task, "delay", enqueued.append)
    with django_capture_on_commit_callbacks(execute=True):
        snapshot = services.request_export(envoy, requested_by=doctor)
    assert enqueued == [snapshot.pk]
    assert snapshot.status == Snapshot.Status.PENDING
    assert snapshot.enqueued_at is not None
    for _ in range(2):  # Celery may deliver a message again
        export_snapshot_task(snapshot.pk)
    snapshot.refresh_from_db()
    assert (snapshot.status, snapshot.attempt) == (Snapshot.Status.COMPLETE, 1)
    assert (snapshot.num_admissions, snapshot.num_diagnoses) == (1, 1)
    assert snapshot.requested_by == doctor
    assert snapshot.completed_at is not None
    content = read_object(envoy_storage(envoy), "diagnoses.csv", sha256=snapshot.diagnoses_sha256)
    assert snapshot.num_bytes > len(content) > 0
    assert snapshot.sha256 == services.snapshot_sha256(
        snapshot.diagnoses_sha256, snapshot.outcomes_sha256
    )


def test_a_snapshot_stays_when_the_hospital_goes_on():
    envoy = make_envoy()
    admission = make_admission(make_patient(envoy=envoy))
    make_diagnosis(admission)
    first = services.export_now(envoy)
    again = services.export_now(envoy)
    make_diagnosis(admission, icd_code="E119")
    second = services.export_now(envoy)
    assert first.sha256 == again.sha256 != second.sha256
    storage = envoy_storage(envoy)
    for snapshot in (first, second):
        key = f"snapshots/{snapshot.sha256}/diagnoses.csv"
        read_object(storage, key, sha256=snapshot.diagnoses_sha256)
    read_object(storage, "diagnoses.csv", sha256=second.diagnoses_sha256)


def test_struck_out_diagnoses_and_incomplete_imports_are_left_out():
    envoy = make_envoy()
    admission = make_admission(make_patient(envoy=envoy, subject_id="p"), hadm_id="1")
    make_diagnosis(admission, seq_num=1, icd_code="I10", struck_out_at=timezone.now())
    make_diagnosis(admission, seq_num=1, icd_code="I11")
    make_admission()  # another hospital's
    running = Import.objects.create(
        envoy=envoy, status=Import.Status.INSERTING, source_name="north"
    )
    make_admission(make_patient(envoy=envoy, source_import=running), source_import=running)
    (record,) = services.admission_records(envoy)
    assert record == AdmissionRecord("p", "1", diagnoses=(CodedDiagnosis(1, "I11", 10),))


def test_no_name_or_phone_leaves_the_hospital():
    envoy = make_envoy()
    make_diagnosis(make_admission(make_patient(envoy=envoy, name="Ada Example", phone="555-0100")))
    services.export_now(envoy)
    for key in ("diagnoses.csv", "outcomes.csv"):
        content = read_object(envoy_storage(envoy), key, sha256=None)
        assert b"Ada Example" not in content
        assert b"555-0100" not in content


def days_ago(days: float) -> datetime:
    return timezone.now() - timedelta(days=days)


@pytest.mark.parametrize(
    ("first", "second", "readmitted"),
    [
        ({"discharged_at": 100}, {"admitted_at": 80}, True),
        ({"discharged_at": 100}, {"admitted_at": 60}, False),
        ({"discharged_at": 100}, {}, False),
        ({"discharged_at": 20}, {}, None),  # might come back yet
        ({"discharged_at": 20}, {"admitted_at": 10}, True),
        ({}, {"admitted_at": 80}, None),  # still open
        ({"discharged_at": 100, "died_in_hospital": True}, {}, None),
        ({"discharged_at": 100, "readmit_30d": False}, {"admitted_at": 80}, False),  # as given
    ],
)
def test_readmission_follows_from_the_dates_where_it_is_not_given(first, second, readmitted):
    patient = make_patient()
    for values in ({"admitted_at": 110, **first}, second):
        times = {name: days_ago(value) for name, value in values.items() if name.endswith("_at")}
        make_admission(patient, **{**values, **times})
    record, _ = services.admission_records(patient.envoy, patient=patient)
    assert record.readmit_30d is readmitted


def test_age_and_length_of_stay_follow_from_the_dates_where_they_are_not_given():
    patient = make_patient(birth_year=1950)
    dates = {
        "admitted_at": datetime(2020, 1, 1, 12, tzinfo=UTC),
        "discharged_at": datetime(2020, 1, 3, tzinfo=UTC),
    }
    make_admission(patient, hadm_id="1", **dates)
    make_admission(patient, hadm_id="2", age=50.5, los_days=9, **dates)
    make_admission(patient, hadm_id="3")
    derived, given, unknown = services.admission_records(patient.envoy)
    assert (derived.age, derived.los_days) == (70.0, 1.5)
    assert (given.age, given.los_days) == (50.5, 9.0)
    assert (unknown.age, unknown.los_days) == (None, None)
    assert derived.admitted_at == "2020-01-01T12:00:00"


def test_one_patient_is_read_with_all_admissions():
    envoy = make_envoy()
    patient = make_patient(envoy=envoy)
    for _ in range(3):
        make_admission(patient)
    make_admission(make_patient(envoy=envoy))
    assert len(list(services.admission_records(envoy))) == 4
    assert len(list(services.admission_records(envoy, patient=patient))) == 3
    assert not list(services.admission_records(make_envoy(), patient=patient))


def test_records_are_read_in_chunks_of_patients(monkeypatch):
    envoy = make_envoy()
    for number in (2, 10, 1):
        make_diagnosis(make_admission(make_patient(envoy=envoy, subject_id=f"p{number}")))
    monkeypatch.setattr(record_services, "PATIENTS_PER_CHUNK", 2)
    records = list(services.admission_records(envoy))
    assert [record.subject_id for record in records] == ["p1", "p10", "p2"]


def test_storage_that_cannot_be_written_fails_the_snapshot_in_words(settings, tmp_path):
    settings.OBJECT_FOLDER = tmp_path / "file"
    settings.OBJECT_FOLDER.write_text("not a folder")
    envoy = make_envoy()
    with pytest.raises(StorageError, match="could not be written"):
        services.export_now(envoy)
    snapshot = Snapshot.objects.get()
    assert snapshot.status == Snapshot.Status.FAILED
    assert "could not be written" in snapshot.reason
    with pytest.raises(CommandError, match="could not be written"):
        call_command("export_diagnoses", envoy.slug)
    settings.OBJECT_FOLDER = tmp_path / "folder"
    assert services.export_now(envoy).status == Snapshot.Status.COMPLETE


def test_an_empty_hospital_is_exported_as_headers():
    envoy = make_envoy()
    assert not Admission.objects.filter(envoy=envoy).exists()
    snapshot = services.export_now(envoy)
    assert snapshot.num_admissions == 0
    content = read_object(envoy_storage(envoy), "diagnoses.csv", sha256=None)
    assert content == b"subject_id,hadm_id,seq_num,icd_code,icd_version\n"


def test_the_command_exports_and_names_the_envoys_there_are(capsys):
    envoy = make_envoy(name="Kutrrh")
    call_command("export_diagnoses", "Kutrrh")
    assert f"snapshot {Snapshot.objects.get().sha256}" in capsys.readouterr().out
    with pytest.raises(CommandError, match=r"There is no envoy 'x'\. There are: Kutrrh"):
        call_command("export_diagnoses", "x")
    assert envoy.snapshots.count() == 1


def test_an_export_finds_what_is_odd_about_the_codes_and_replaces_the_last_report():
    envoy = make_envoy()
    for number in range(10):
        admission = make_admission(make_patient(envoy=envoy, sex="M"), age=50)
        make_diagnosis(admission, icd_code="I50", icd_version=10)
        if number == 0:
            make_diagnosis(admission, icd_code="O80", icd_version=10, seq_num=2)
    struck_out = make_diagnosis(admission, icd_code="U999", icd_version=10, seq_num=3)
    struck_out.struck_out_at = timezone.now()
    struck_out.save(update_fields=["struck_out_at"])
    snapshot = services.export_now(envoy)
    report = CodeReport.objects.get(envoy=envoy)
    assert (report.num_codes, report.made_at) == (2, snapshot.completed_at)
    found = {
        odd["kind"]: [(code["code"], code["num_patients"]) for code in odd["codes"]]
        for odd in report.kinds
    }
    assert found["unspecific"] == [("I50", 10)]
    assert found["other_sex"] == [("O80", 1)]
    assert found["unknown"] == []

    make_diagnosis(admission, icd_code="U999", icd_version=10, seq_num=4)
    services.export_now(envoy)
    report = CodeReport.objects.get(envoy=envoy)
    assert report.num_codes == 3
