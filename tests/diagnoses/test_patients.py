from datetime import UTC, datetime, timedelta
from typing import Any

import pytest
from django.utils import timezone

from diagnoses import services
from diagnoses.models import Admission, Diagnosis, Patient
from envoys.errors import NotNowError
from envoys.models import AuditEvent, Envoy
from federated.errors import InvalidCodeError, InvalidValueError
from tests.factories import make_admission, make_diagnosis, make_envoy, make_patient, make_user

pytestmark = pytest.mark.django_db

AN_HOUR = timedelta(hours=1)


@pytest.fixture
def doctor():
    return make_user(envoy=make_envoy(name="Alpha"))


@pytest.fixture
def admission(doctor):
    """A patient registered here a moment ago, and their first admission."""
    return services.register_patient(
        doctor.envoy, name=" Made-Up  Person ", sex="F", phone="000 1", registered_by=doctor
    )


def audited(action):
    event = AuditEvent.objects.get(action=action)
    return event.user, event.target


def facts(**values):
    return {"name": "Other Person", "sex": "M", "phone": "", "birth_year": 1950} | values


def test_registering_gives_a_random_subject_id_and_an_open_admission(doctor, admission):
    patient = admission.patient
    assert (patient.name, patient.phone, patient.sex) == ("Made-Up Person", "000 1", "F")
    assert Patient.objects.named("made-up person").get() == patient
    assert len(patient.subject_id) == 32
    assert admission.hadm_id.startswith("H")
    assert len(admission.hadm_id) == 13
    assert admission.is_open
    assert Admission.objects.open().get() == admission
    assert audited("registered patient") == (doctor, f"patient:{patient.pk}")


@pytest.mark.parametrize(
    ("values", "problem"),
    [
        ({"name": "  "}, "needs a name"),
        ({"name": "x" * 201}, "200 characters"),
        ({"phone": "0" * 41}, "40 characters"),
        ({"sex": "X"}, "'X' is none of"),
        ({"birth_year": 1700}, "1700 is no year"),
        ({"birth_year": 2999}, "2999 is no year"),
    ],
)
def test_facts_that_cannot_be_are_refused(doctor, admission, values, problem):
    with pytest.raises(InvalidValueError, match=problem):
        services.register_patient(doctor.envoy, **facts(**values), registered_by=doctor)
    with pytest.raises(InvalidValueError, match=problem):
        services.edit_patient(admission.patient, **facts(**values), edited_by=doctor)
    assert Patient.objects.get().name == "Made-Up Person"


def test_a_deleted_hospital_takes_no_patient(doctor):
    Envoy.objects.update(status=Envoy.Status.DELETED)
    with pytest.raises(NotNowError, match="Alpha has been deleted"):
        services.register_patient(doctor.envoy, **facts(), registered_by=doctor)
    assert not Patient.objects.exists()


def test_an_edited_patient_is_found_by_the_new_name_alone(doctor, admission):
    services.edit_patient(admission.patient, **facts(), edited_by=doctor)
    assert Patient.objects.named("other person").get().birth_year == 1950
    assert not Patient.objects.named("Made-Up Person").exists()
    assert audited("edited patient") == (doctor, f"patient:{admission.patient.pk}")


def test_an_imported_patient_needs_no_name(doctor):
    patient = make_patient(doctor.envoy)
    services.edit_patient(patient, **facts(name=""), edited_by=doctor)
    assert Patient.objects.get().name_index == ""


def test_a_patient_has_one_open_admission_at_a_time(doctor, admission):
    with pytest.raises(NotNowError, match="has an open admission"):
        services.admit_patient(admission.patient, admitted_by=doctor)
    discharge(admission, doctor)
    again = services.admit_patient(admission.patient, admitted_by=doctor, hadm_id=" 4711 ")
    assert (again.hadm_id, again.is_open) == ("4711", True)
    assert audited("admitted patient") == (doctor, f"admission:{again.pk}")


def test_an_admission_is_neither_in_the_future_nor_called_like_another(doctor):
    patient = make_patient(doctor.envoy)
    make_admission(make_patient(doctor.envoy), hadm_id="4711")
    with pytest.raises(InvalidValueError, match="in the future"):
        services.admit_patient(patient, admitted_by=doctor, admitted_at=timezone.now() + AN_HOUR)
    with pytest.raises(NotNowError, match="this hadm_id already"):
        services.admit_patient(patient, admitted_by=doctor, hadm_id="4711")
    with pytest.raises(InvalidValueError, match="hadm_id is empty"):
        services.admit_patient(patient, admitted_by=doctor, hadm_id=" ")
    assert not patient.admissions.exists()


def discharge(admission, doctor, *, discharged_at=None, discharged_home=True, died=False):
    return services.discharge_patient(
        admission,
        discharged_at=discharged_at or timezone.now(),
        discharged_home=discharged_home,
        died=died,
        discharged_by=doctor,
    )


def test_an_admission_is_neither_before_the_patients_birth_nor_within_another_stay(doctor):
    now = timezone.now()
    patient = make_patient(doctor.envoy, birth_year=1950)
    make_admission(patient, admitted_at=now - 9 * AN_HOUR, discharged_at=now - 5 * AN_HOUR)

    def admit(patient, moment):
        return services.admit_patient(patient, admitted_by=doctor, admitted_at=moment)

    with pytest.raises(InvalidValueError, match="before 1950, the patient's year of birth"):
        admit(patient, datetime(1949, 12, 31, 23, tzinfo=UTC))
    with pytest.raises(InvalidValueError, match=r"before 1900$"):
        admit(make_patient(doctor.envoy), datetime(199, 5, 1, tzinfo=UTC))
    with pytest.raises(InvalidValueError, match=r"within another stay, .* UTC: give a later time"):
        admit(patient, now - 7 * AN_HOUR)
    assert admit(patient, now - 5 * AN_HOUR).is_open


def test_a_discharge_is_written_down_once_and_can_be_taken_back(doctor, admission):
    discharge(admission, doctor)
    assert (admission.is_open, admission.is_reopenable) == (False, True)
    assert (admission.discharged_home, admission.died_in_hospital) == (True, False)
    assert audited("discharged patient") == (doctor, f"admission:{admission.pk}")
    with pytest.raises(NotNowError, match="is not open"):
        discharge(admission, doctor, died=True, discharged_home=None)

    services.reopen_admission(admission, reopened_by=doctor)
    assert admission.is_open
    assert (admission.discharged_home, admission.died_in_hospital) == (None, None)
    assert audited("reopened admission") == (doctor, f"admission:{admission.pk}")
    with pytest.raises(NotNowError, match="no discharge to take back"):
        services.reopen_admission(admission, reopened_by=doctor)


def test_an_impossible_discharge_is_refused(doctor, admission):
    refused = [
        ({"discharged_at": timezone.now() + AN_HOUR}, "in the future"),
        ({"discharged_at": admission.admitted_at - AN_HOUR}, "before the admission"),
        ({"died": True}, "not discharged to anywhere"),
    ]
    for values, problem in refused:
        with pytest.raises(InvalidValueError, match=problem):
            discharge(admission, doctor, **values)
    admission.refresh_from_db()
    assert admission.is_open


def test_who_died_is_not_admitted_again_until_that_is_taken_back(doctor, admission):
    discharge(admission, doctor, died=True, discharged_home=None)
    with pytest.raises(NotNowError, match="recorded as having died"):
        services.admit_patient(admission.patient, admitted_by=doctor)
    services.reopen_admission(admission, reopened_by=doctor)
    discharge(admission, doctor)
    services.admit_patient(admission.patient, admitted_by=doctor)
    with pytest.raises(NotNowError, match="has been admitted again"):
        services.reopen_admission(admission, reopened_by=doctor)


def test_what_a_source_says_of_a_stays_end_is_not_taken_back(doctor):
    now = timezone.now()
    imported = make_admission(
        make_patient(doctor.envoy), admitted_at=now - AN_HOUR, discharged_at=now, risk_tier=2
    )
    undated = make_admission(imported.patient)
    assert not imported.is_reopenable
    for admission in (imported, undated):
        with pytest.raises(NotNowError, match="no discharge to take back"):
            services.reopen_admission(admission, reopened_by=doctor)
    with pytest.raises(NotNowError, match="is not open"):
        discharge(imported, doctor)
    # Nobody knows whether it lasts still.
    with pytest.raises(NotNowError, match=r"came with no date.*: admit the patient again"):
        discharge(undated, doctor)
    assert not Admission.objects.open().exists()


def test_the_doctors_own_risk_level_is_set_and_taken_back(doctor, admission):
    for level in (2, 0, None):
        services.set_risk_level(admission, level, set_by=doctor)
        admission.refresh_from_db()
        assert admission.clinician_risk_level == level
    with pytest.raises(InvalidValueError, match="risk level 3"):
        services.set_risk_level(admission, 3, set_by=doctor)
    assert AuditEvent.objects.filter(action="set risk level", user=doctor).count() == 3


def record(admission, doctor, icd_code, icd_version=10, **values):
    return services.record_diagnosis(
        admission, icd_code=icd_code, icd_version=icd_version, recorded_by=doctor, **values
    )


def test_diagnoses_are_normalised_and_take_the_next_place(doctor, admission):
    assert str(record(admission, doctor, "i50.9")) == "I509 (ICD-10)"
    assert str(record(admission, doctor, "8", 9, seq_num=7)) == "008 (ICD-9)"
    assert record(admission, doctor, "E119").seq_num == 8
    assert [d.seq_num for d in admission.diagnoses.order_by("seq_num")] == [1, 7, 8]
    events = AuditEvent.objects.filter(action="recorded diagnosis", user=doctor)
    assert events.count() == 3


@pytest.mark.parametrize(
    ("icd_code", "icd_version", "values", "error", "problem"),
    [
        ("not a code", 10, {}, InvalidCodeError, "is no ICD-10 code"),
        ("X999", 11, {}, InvalidCodeError, "takes 9 or 10"),
        ("U999", 10, {}, InvalidCodeError, "in no list of ICD-10"),
        ("i10", 10, {}, NotNowError, "I10 has been recorded"),
        ("E119", 10, {"seq_num": 1}, NotNowError, "place 1 is taken by I10"),
        ("E119", 10, {"seq_num": 0}, InvalidValueError, "place 0"),
    ],
)
def test_a_diagnosis_that_cannot_be_is_refused(
    doctor, admission, icd_code, icd_version, values, error, problem
):
    record(admission, doctor, "I10")
    with pytest.raises(error, match=problem):
        record(admission, doctor, icd_code, icd_version, **values)
    assert admission.diagnoses.count() == 1


def test_a_diagnosis_struck_out_leaves_its_place_and_can_be_restored(doctor, admission):
    wrong = record(admission, doctor, "I10")
    services.strike_out_diagnosis(wrong, struck_out_by=doctor)
    assert wrong.struck_out_by == doctor
    with pytest.raises(NotNowError, match="struck out already"):
        services.strike_out_diagnosis(wrong, struck_out_by=doctor)
    assert record(admission, doctor, "E119").seq_num == 1

    services.restore_diagnosis(wrong, restored_by=doctor)
    assert (wrong.seq_num, wrong.struck_out_at, wrong.struck_out_by) == (2, None, None)
    with pytest.raises(NotNowError, match="I10 stands in this admission already"):
        services.restore_diagnosis(wrong, restored_by=doctor)
    assert Diagnosis.objects.standing().count() == 2
    assert audited("struck out diagnosis") == (doctor, f"diagnosis:{wrong.pk}")
    assert audited("restored diagnosis") == (doctor, f"diagnosis:{wrong.pk}")


def test_a_count_that_the_source_gave_follows_what_is_recorded_here(doctor):
    admission = make_admission(make_patient(doctor.envoy), number_diagnoses=9)
    imported = make_diagnosis(admission)

    def counted():
        admission.refresh_from_db()
        return admission.number_diagnoses

    record(admission, doctor, "E119")
    assert counted() == 10
    services.strike_out_diagnosis(imported, struck_out_by=doctor)
    assert counted() == 9
    services.restore_diagnosis(imported, restored_by=doctor)
    assert counted() == 10


def test_codes_are_found_by_code_and_by_words(django_assert_num_queries):
    services.load_icd_codes()
    with django_assert_num_queries(1):
        found = [code.code for code in services.search_icd_codes("i50.9")]
    assert found[0] == "I509"
    assert {code.code[:3] for code in services.search_icd_codes("I50", version=10)} == {"I50"}

    by_words = list(services.search_icd_codes("failure heart", version=10))
    assert by_words
    assert all("heart" in c.title.lower() and "failure" in c.title.lower() for c in by_words)
    assert {code.version for code in services.search_icd_codes("heart failure", version=9)} == {9}
    assert len(services.search_icd_codes("a", limit=5)) == 5
    assert not services.search_icd_codes("  ")
    assert not services.search_icd_codes("no such illness at all")


@pytest.mark.parametrize("field", ["name", "phone"])
@pytest.mark.parametrize("character", ["\0", "\u202e", "\u2066"])
def test_hidden_characters_in_a_name_are_refused_and_the_name_is_not_told(field, character):
    values: dict[str, Any] = {
        "name": "Ada Lovelace",
        "sex": "F",
        "phone": "555",
        "registered_by": None,
    }
    values[field] = f"Ada{character}Lovelace"
    with pytest.raises(InvalidValueError, match=f"{ord(character):04X}") as refused:
        services.register_patient(make_envoy(), **values)
    assert "Ada" not in str(refused.value)
    assert not Patient.objects.exists()
