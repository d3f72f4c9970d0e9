from datetime import timedelta

import pytest
from django.urls import reverse
from django.utils import timezone

from diagnoses import services
from diagnoses.models import Admission, Diagnosis, Patient
from envoys.models import AuditEvent, User
from tests.factories import make_admission, make_diagnosis, make_envoy, make_patient, make_user

pytestmark = [
    pytest.mark.django_db,
    pytest.mark.filterwarnings("ignore:No directory at"),
]

MINUTES = "%Y-%m-%dT%H:%M"


@pytest.fixture
def doctor(client):
    user = make_user(envoy=make_envoy(name="Alpha"))
    client.force_login(user)
    return user


@pytest.fixture
def admission(doctor):
    admission = services.register_patient(
        doctor.envoy, name="Made-Up Person", sex="F", phone="", registered_by=doctor
    )
    AuditEvent.objects.all().delete()
    return admission


def page(name, *args):
    return reverse(f"diagnoses:{name}", args=args)


def of_patient(admission):
    patient = reverse("inference:patient-detail", args=[admission.patient_id])
    return f"{patient}?admission={admission.pk}"


def actions():
    return list(AuditEvent.objects.order_by("pk").values_list("action", flat=True))


def test_a_registered_patient_is_admitted_and_shown(client, doctor):
    assert client.get(page("patient-register")).status_code == 200
    facts = {"name": "Made-Up Person", "sex": "F", "birth_year": "1950", "phone": "000"}
    response = client.post(page("patient-register"), facts)
    patient = Patient.objects.get()
    assert (patient.name, patient.birth_year, patient.envoy) == (
        "Made-Up Person",
        1950,
        doctor.envoy,
    )
    assert response.url == of_patient(patient.admissions.get())
    assert actions() == ["registered patient"]


def test_what_is_refused_stands_on_the_form_with_what_was_typed(client, doctor):
    facts = {"name": "Made-Up Person", "sex": "", "birth_year": "1700", "phone": ""}
    response = client.post(page("patient-register"), facts)
    assert response.status_code == 200
    assert "1700 is no year of birth" in response.text
    assert "Made-Up Person" in response.text
    assert "This field is required" in client.post(page("patient-register"), {}).text
    assert not Patient.objects.exists()


def test_a_patient_is_edited_and_each_request_is_audited_once(client, admission):
    edit = page("patient-edit", admission.patient_id)
    assert "Made-Up Person" in client.get(edit).text
    refused = client.post(edit, {"name": "", "sex": "F"})
    assert "This field is required" in refused.text
    client.post(edit, {"name": "Other Person", "sex": "M", "phone": "", "birth_year": ""})
    admission.patient.refresh_from_db()
    assert (admission.patient.name, admission.patient.sex) == ("Other Person", "M")
    assert actions() == ["saw patient", "saw patient", "edited patient"]


def test_discharge_taking_it_back_and_admitting_again(client, admission):
    discharge = page("admission-discharge", admission.pk)
    assert admission.hadm_id in client.get(discharge).text
    now = timezone.now().strftime(MINUTES)
    assert "This field is required" in client.post(discharge, {"discharged_at": now}).text
    answer = client.post(discharge, {"discharged_at": now, "outcome": "elsewhere"})
    assert answer.url == of_patient(admission)
    admission.refresh_from_db()
    assert (admission.discharged_home, admission.died_in_hospital) == (False, False)

    client.post(page("admission-reopen", admission.pk))
    admission.refresh_from_db()
    assert admission.is_open
    admit = page("admission-create", admission.patient_id)
    refused = client.post(admit, {"admitted_at": now, "hadm_id": ""})
    assert "has an open admission" in refused.text

    client.post(discharge, {"discharged_at": now, "outcome": "home"})
    client.post(admit, {"admitted_at": now, "hadm_id": "4711"})
    assert Admission.objects.get(hadm_id="4711").is_open
    again = client.post(page("admission-reopen", admission.pk), follow=True)
    assert "has been admitted again" in again.text


@pytest.mark.parametrize(
    ("outcome", "home", "died"),
    [("home", True, False), ("unknown", None, False), ("died", None, True)],
)
def test_each_outcome_is_written_down(client, admission, outcome, home, died):
    now = timezone.now().strftime(MINUTES)
    client.post(
        page("admission-discharge", admission.pk), {"discharged_at": now, "outcome": outcome}
    )
    admission.refresh_from_db()
    assert (admission.discharged_home, admission.died_in_hospital) == (home, died)


def test_a_discharge_in_the_future_is_refused_on_the_form(client, admission):
    tomorrow = (timezone.now() + timedelta(days=1)).strftime(MINUTES)
    values = {"discharged_at": tomorrow, "outcome": "home"}
    response = client.post(page("admission-discharge", admission.pk), values)
    assert "would be in the future" in response.text
    assert tomorrow in response.text


def test_the_doctors_judgement_is_saved(client, admission):
    url = page("admission-risk-level", admission.pk)
    for sent, level in (("2", 2), ("", None), ("9", None)):
        client.post(url, {"level": sent})
        admission.refresh_from_db()
        assert admission.clinician_risk_level == level
    assert "Not saved" in client.get(of_patient(admission)).text


def diagnose(client, admission, code, version="10", place=""):
    values = {"icd_code": code, "icd_version": version, "seq_num": place}
    return client.post(page("diagnosis-create", admission.pk), values)


def test_a_diagnosis_is_recorded_struck_out_and_restored(client, admission):
    assert diagnose(client, admission, "i50.9").url == of_patient(admission)
    diagnosis = Diagnosis.objects.get()
    assert diagnosis.icd_code == "I509"
    client.post(page("diagnosis-strike-out", diagnosis.pk))
    diagnosis.refresh_from_db()
    assert diagnosis.struck_out_at is not None
    client.post(page("diagnosis-restore", diagnosis.pk))
    diagnosis.refresh_from_db()
    assert diagnosis.struck_out_at is None
    assert actions() == ["recorded diagnosis", "struck out diagnosis", "restored diagnosis"]


def test_a_refused_diagnosis_keeps_what_was_typed(client, admission):
    diagnose(client, admission, "I10")
    response = diagnose(client, admission, "I10")
    assert "has been recorded for this admission already" in response.text
    assert 'value="I10"' in response.text
    assert "is no ICD-10 code" in diagnose(client, admission, "99999999").text
    assert "is in no list of ICD-10" in diagnose(client, admission, "U999").text
    assert Diagnosis.objects.count() == 1


def test_words_are_answered_with_codes_to_choose_from(client, admission):
    services.load_icd_codes()
    response = diagnose(client, admission, "heart failure", place="3")
    assert response.status_code == 200  # no address that says what a patient may have
    assert 'name="icd_code" value="I50' in response.text
    assert 'name="seq_num" value="3"' in response.text
    assert not Diagnosis.objects.exists()
    assert "No code for" in diagnose(client, admission, "no such illness").text


def test_codes_are_suggested_while_typing_and_found_on_a_page_of_their_own(
    client, doctor, django_assert_num_queries
):
    services.load_icd_codes()
    search = page("icd-code-search")
    with django_assert_num_queries(4):  # session, user, hospital in the bar, codes
        whole = client.get(search, {"icd_code": "heart failure", "icd_version": "10"})
    assert "I50" in whole.text
    assert "<html" in whole.text
    part = client.post(search, {"icd_code": "i50.9", "icd_version": "10"})
    assert "<html" not in part.text
    assert 'data-icd-code="I509" data-icd-version="10"' in part.text
    nothing = client.post(search, {"icd_code": "zzz zzz"})
    assert "No code begins so" in nothing.text
    assert not actions()


def test_what_is_typed_beside_a_patient_stands_in_no_address(client, admission):
    text = client.get(reverse("inference:patient-detail", args=[admission.patient_id])).text
    assert f'hx-post="{page("icd-code-search")}"' in text
    assert f'hx-get="{page("icd-code-search")}"' not in text
    client.handler.enforce_csrf_checks = True
    token = client.cookies["csrftoken"].value  # as the form around the field sends it
    words = {"icd_code": "heart", "csrfmiddlewaretoken": token}
    assert client.post(page("icd-code-search"), words).status_code == 200
    assert client.post(page("icd-code-search"), {"icd_code": "heart"}).status_code == 403


PATIENT_PAGES = ["patient-edit", "admission-create"]
ADMISSION_PAGES = [
    "admission-discharge",
    "admission-reopen",
    "admission-risk-level",
    "diagnosis-create",
]
DIAGNOSIS_PAGES = ["diagnosis-strike-out", "diagnosis-restore"]


def test_another_hospitals_rows_are_not_there(client, doctor):
    stranger = make_diagnosis(make_admission(make_patient(make_envoy())))
    rows = [
        *((name, stranger.admission.patient_id) for name in PATIENT_PAGES),
        *((name, stranger.admission_id) for name in ADMISSION_PAGES),
        *((name, stranger.pk) for name in DIAGNOSIS_PAGES),
    ]
    for name, pk in rows:
        assert client.post(page(name, pk)).status_code == 404
    assert [each.partition(":")[0] for each in actions()] == ["refused"] * len(rows)


def test_who_runs_the_federation_sees_no_patient(client, admission):
    client.force_login(make_user(User.Role.DATA_SCIENTIST))
    assert client.get(page("patient-register")).status_code == 404
    assert client.get(page("patient-edit", admission.patient_id)).status_code == 404
    assert client.get(page("icd-code-search")).status_code == 200
