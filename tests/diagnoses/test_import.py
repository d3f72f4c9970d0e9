from datetime import timedelta
from pathlib import Path

import pytest
from django.core.management import CommandError, call_command
from django.utils import timezone

from diagnoses import services
from diagnoses.errors import ImportRefusedError
from diagnoses.models import Admission, Diagnosis, Import, Patient
from diagnoses.services import imports
from federated.cohorts import find_envoys, iter_diagnoses
from federated.errors import CohortError
from tests.factories import make_admission, make_diagnosis, make_envoy, make_patient, make_user

pytestmark = pytest.mark.django_db

DIAGNOSES = """subject_id,hadm_id,seq_num,icd_code,icd_version
p1,11,1,I50.9,10
p1,11,2,E11.9,10
p1,12,1,250,9
p2,13,1,0389,9
"""
OUTCOMES = """subject_id,hadm_id,age,gender,los_days,readmit_30d,risk_tier
p1,11,[50-60),Female,3,1,2
p1,12,61,,1.5,0,0
"""


def write_cohort(folder: Path, diagnoses: str = DIAGNOSES, outcomes: str = OUTCOMES):
    envoy = folder / "envoys" / "north"
    envoy.mkdir(parents=True, exist_ok=True)
    (envoy / "diagnoses_icd.csv").write_text(diagnoses)
    (envoy / "outcomes.csv").write_text(outcomes)
    (files,) = find_envoys(folder)
    return files


def num_rows() -> tuple[int, int, int]:
    return Patient.objects.count(), Admission.objects.count(), Diagnosis.objects.count()


@pytest.fixture
def envoy():
    return make_envoy(name="North General", slug="north")


@pytest.fixture
def files(tmp_path):
    return write_cohort(tmp_path)


@pytest.fixture
def small_batches(monkeypatch):
    """A batch of one row, and a report after each."""
    monkeypatch.setattr(imports, "BATCH_ROWS", 1)
    monkeypatch.setattr(imports, "REPORT_SECONDS", 0)


def test_a_cohort_becomes_patients_admissions_and_diagnoses(envoy, files):
    doctor = make_user(envoy=envoy)
    row = services.import_cohort(envoy, files, started_by=doctor)
    row.refresh_from_db()
    assert row.status == Import.Status.COMPLETE
    assert (row.num_admissions, row.num_diagnoses, row.num_done, row.num_total) == (3, 4, 7, 7)
    assert (row.started_by, row.source_name) == (doctor, "north")
    assert {warning["kind"] for warning in row.warnings} == {
        "category or other ICD code that is not a leaf",
        "admission without an outcome",
    }
    assert num_rows() == (2, 3, 4)
    admission = Admission.objects.visible_to(doctor).get(hadm_id="11")
    assert (admission.age, admission.readmit_30d, admission.risk_tier) == (55.0, True, 2)
    assert admission.patient.sex == "F"
    assert list(admission.diagnoses.values_list("seq_num", "icd_code", "icd_version")) == [
        (1, "I509", 10),
        (2, "E119", 10),
    ]


def test_nothing_is_visible_before_everything_stands(envoy, files, small_batches):
    doctor = make_user(envoy=envoy)
    seen = []

    def look(row: Import) -> None:
        seen.append((row.status, num_rows(), row.num_done))
        assert not Patient.objects.visible_to(doctor).exists()
        assert not Admission.objects.visible_to(doctor).exists()

    services.import_cohort(envoy, files, on_progress=look)
    inserting = Import.Status.INSERTING
    assert seen[0] == (inserting, (1, 1, 0), 1)
    assert seen[-1] == (inserting, (2, 3, 4), 7)
    assert Admission.objects.visible_to(doctor).count() == 3


def test_a_bad_file_is_refused_with_its_problems_and_leaves_nothing(envoy, tmp_path):
    files = write_cohort(tmp_path, DIAGNOSES.replace("E11.9", "diabetes"))
    with pytest.raises(CohortError, match="line 3: icd_code 'diabetes' is no ICD-10 code"):
        services.import_cohort(envoy, files)
    row = Import.objects.get()
    assert row.status == Import.Status.FAILED
    assert row.reason == "north/diagnoses_icd.csv line 3: icd_code 'diabetes' is no ICD-10 code"
    assert num_rows() == (0, 0, 0)
    services.import_cohort(envoy, write_cohort(tmp_path))  # nothing stands in the way


@pytest.mark.parametrize("interruption", [KeyboardInterrupt, OSError])
def test_an_import_that_breaks_off_leaves_nothing(
    envoy, files, small_batches, monkeypatch, interruption
):
    def break_off(files):
        yield from list(iter_diagnoses(files))[:2]
        raise interruption

    monkeypatch.setattr(imports, "iter_diagnoses", break_off)
    with pytest.raises(interruption):
        services.import_cohort(envoy, files)
    row = Import.objects.get()
    assert (row.status, row.reason) == (
        Import.Status.FAILED,
        f"stopped by {interruption.__name__}",
    )
    assert num_rows() == (0, 0, 0)


def abandon_import(envoy, *, seconds_ago: float) -> Import:
    """What a killed process leaves: an active import and some of its rows."""
    row = Import.objects.create(envoy=envoy, status=Import.Status.INSERTING, source_name="north")
    heartbeat_at = timezone.now() - timedelta(seconds=seconds_ago)
    Import.objects.filter(pk=row.pk).update(heartbeat_at=heartbeat_at)
    patient = make_patient(envoy=envoy, subject_id="p1", source_import=row)
    make_diagnosis(make_admission(patient, hadm_id="11", source_import=row))
    return row


def test_what_a_killed_import_left_is_removed_by_the_next(envoy, files, settings):
    killed = abandon_import(envoy, seconds_ago=settings.LEASE_SECONDS * 3 + 1)
    services.import_cohort(envoy, files)
    killed.refresh_from_db()
    assert killed.status == Import.Status.FAILED
    assert "killed" in killed.reason
    assert num_rows() == (2, 3, 4)


def test_a_second_import_waits_for_one_that_lives(envoy, files, settings):
    living = abandon_import(envoy, seconds_ago=settings.LEASE_SECONDS)
    with pytest.raises(ImportRefusedError, match="North General: another import is running"):
        services.import_cohort(envoy, files)
    living.refresh_from_db()
    assert living.status == Import.Status.INSERTING
    assert num_rows() == (1, 1, 1)


def test_an_import_given_up_as_dead_stops(envoy, files, small_batches):
    def give_up(row: Import) -> None:
        Import.objects.filter(pk=row.pk).update(status=Import.Status.FAILED, reason="given up")

    with pytest.raises(ImportRefusedError, match="no sign of life"):
        services.import_cohort(envoy, files, on_progress=give_up)
    assert Import.objects.get().reason == "given up"
    assert num_rows() == (0, 0, 0)


def test_the_same_files_again_give_the_first_import(envoy, files):
    first = services.import_cohort(envoy, files)
    assert services.import_cohort(envoy, files) == first
    assert Import.objects.count() == 1
    assert num_rows() == (2, 3, 4)


def test_the_same_files_can_go_into_another_hospital(envoy, files):
    services.import_cohort(envoy, files)
    services.import_cohort(make_envoy(), files)
    assert num_rows() == (4, 6, 8)


def test_an_admission_that_stands_already_is_refused_naming_its_line(envoy, files):
    make_admission(make_patient(envoy=envoy, subject_id="p9"), hadm_id="12")
    make_admission(hadm_id="13")  # another hospital's
    with pytest.raises(CohortError) as caught:
        services.import_cohort(envoy, files)
    assert caught.value.problems == [
        "north/outcomes.csv line 3: its hadm_id stands in North General already"
    ]
    assert Admission.objects.filter(envoy=envoy).count() == 1


def test_new_admissions_of_a_known_patient_are_added(envoy, files):
    patient = make_patient(envoy=envoy, subject_id="p1", name="Ada Example", sex="F")
    services.import_cohort(envoy, files)
    assert Patient.objects.filter(envoy=envoy).count() == 2
    assert patient.admissions.count() == 2
    patient.refresh_from_db()
    assert patient.name == "Ada Example"


def test_the_command_imports_each_hospital_into_the_envoy_of_its_name(
    envoy, files, tmp_path, capsys
):
    call_command("import_cohort", tmp_path)
    assert "North General: 3 admissions, 4 diagnoses" in capsys.readouterr().out
    assert num_rows() == (2, 3, 4)


def test_the_command_names_the_envoys_there_are(tmp_path, files):
    make_envoy(name="Kutrrh")
    with pytest.raises(CommandError, match=r"There is no envoy 'north'\. There are: Kutrrh"):
        call_command("import_cohort", tmp_path)
    call_command("import_cohort", tmp_path, "--envoy", "Kutrrh", verbosity=0)


def test_the_command_names_the_hospitals_of_the_folder(tmp_path, files):
    with pytest.raises(CommandError, match=r"holds no hospital 'south'\. It holds: north"):
        call_command("import_cohort", tmp_path, "--only", "south")


def test_the_command_says_what_is_wrong_with_a_folder(tmp_path):
    with pytest.raises(CommandError, match="no cohort"):
        call_command("import_cohort", tmp_path)
