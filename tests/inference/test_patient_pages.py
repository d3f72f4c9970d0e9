from datetime import timedelta

import pytest
from django.urls import reverse
from django.utils import timezone

from diagnoses import services as diagnoses
from diagnoses.models import Import, Patient
from envoys.models import AuditEvent, User
from inference.models import Prediction
from tests.factories import (
    make_admission,
    make_diagnosis,
    make_distribution,
    make_envoy,
    make_patient,
    make_prediction,
    make_user,
    make_version,
)
from tests.federation import approve, release
from training.services import package_training, plan_for, study_for

pytestmark = [
    pytest.mark.django_db,
    pytest.mark.filterwarnings("ignore:No directory at"),
]

LIST = "/patients/"
DASHBOARD = "/hospital/"
MANIFEST = {"classes": ["Low", "Medium", "High"]}


@pytest.fixture
def alpha():
    return make_envoy(name="Alpha")


@pytest.fixture
def doctor(client, alpha):
    user = make_user(envoy=alpha)
    client.force_login(user)
    return user


@pytest.fixture
def version(alpha):
    """A version delivered to Alpha, of which there is a row and no object."""
    version = make_version(manifest=MANIFEST)
    make_distribution(version, alpha)
    return version


def patient_page(patient):
    return reverse("inference:patient-detail", args=[patient.pk])


def actions():
    return list(AuditEvent.objects.values_list("action", flat=True))


def names(response):
    return [row.patient.name for row in response.context["page"].rows]


def test_patients_are_listed_a_page_at_a_time_in_both_directions(client, doctor, alpha):
    for number in range(60):
        make_patient(alpha, name=f"Person {number}")
    make_patient(make_envoy(), name="A stranger")
    first = client.get(LIST)
    assert names(first) == [f"Person {number}" for number in range(59, 34, -1)]
    assert actions() == ["listed patients"]
    second = client.get(LIST, {"older": first.context["page"].older_than})
    assert names(second) == [f"Person {number}" for number in range(34, 9, -1)]
    third = client.get(LIST, {"older": second.context["page"].older_than})
    assert names(third) == [f"Person {number}" for number in range(9, -1, -1)]
    assert third.context["page"].older_than is None
    back = client.get(LIST, {"newer": third.context["page"].newer_than})
    assert names(back) == names(second)
    newest = client.get(LIST, {"newer": back.context["page"].newer_than})
    assert names(newest) == names(first)
    assert newest.context["page"].newer_than is None


def test_a_name_is_searched_for_without_standing_in_an_address(client, doctor, alpha):
    make_patient(alpha, name="Made-Up Person")
    make_patient(alpha, name="Other Person")
    answer = client.post(LIST, {"text": " made-up  PERSON"})
    assert answer.url == LIST
    assert names(client.get(LIST)) == ["Made-Up Person"]
    assert "PERSON" not in str(dict(client.session))  # sessions are stored as they are
    client.post(LIST, {"text": ""})
    assert len(names(client.get(LIST))) == 2


@pytest.mark.parametrize("text", ["s-123", "s-1234", "H77", "H771"])
def test_a_patient_is_found_by_the_beginning_of_an_identifier(client, doctor, alpha, text):
    make_admission(make_patient(alpha, name="Wanted", subject_id="s-1234"), hadm_id="H771")
    make_admission(make_patient(alpha, name="Other", subject_id="x-s-1234"), hadm_id="H661")
    make_admission(make_patient(make_envoy(), subject_id="s-1234"), hadm_id="H771")
    client.post(LIST, {"text": text})
    assert names(client.get(LIST)) == ["Wanted"]


def test_patients_are_filtered_by_gender_stay_and_risk(client, doctor, alpha, version, monkeypatch):
    here = make_patient(alpha, name="Here", sex="F")
    open_admission = make_admission(here, admitted_at=timezone.now())
    gone = make_patient(alpha, name="Gone", sex="M")
    make_prediction(version, open_admission, predicted_class=0)
    make_prediction(version, make_admission(gone), predicted_class=2)
    make_prediction(make_version(manifest=MANIFEST), open_admission, predicted_class=2)

    assert names(client.get(LIST, {"sex": "F"})) == ["Here"]
    assert names(client.get(LIST, {"open": "on"})) == ["Here"]
    for few in (2_000, 1):  # looked up from the predictions, and from the patients
        monkeypatch.setattr("inference.patients.FEW_PREDICTIONS", few)
        assert names(client.get(LIST, {"risk": "2"})) == ["Gone"]
        assert names(client.get(LIST, {"risk": "0"})) == ["Here"]
    assert names(client.get(LIST, {"risk": "0", "sex": "M"})) == []
    assert "Nobody found" in client.get(LIST, {"risk": "1"}).text
    assert len(names(client.get(LIST, {"risk": "nonsense", "older": "x"}))) == 2


def test_the_list_asks_as_much_of_many_patients_as_of_one(
    client, doctor, alpha, version, django_assert_num_queries
):
    def add():
        admission = make_admission(make_patient(alpha, name="Person"))
        make_prediction(version, admission)

    add()
    client.get(LIST)
    with django_assert_num_queries(9):
        client.get(LIST)
    for _ in range(30):
        add()
    with django_assert_num_queries(9):
        client.get(LIST)


def test_patients_of_an_unfinished_import_are_not_there_yet(client, doctor, alpha):
    unfinished = Import.objects.create(envoy=alpha, status=Import.Status.INSERTING)
    patient = make_patient(alpha, name="Not yet", source_import=unfinished)
    assert names(client.get(LIST)) == []
    assert client.get(patient_page(patient)).status_code == 404


def test_a_patients_page_shows_facts_diagnoses_and_the_reasons_for_missing_models(
    client, doctor, alpha
):
    diagnoses.load_icd_codes()
    study_for("risk_tier")
    patient = make_patient(alpha, name="Made-Up Person", sex="F", phone="000 12")
    make_diagnosis(make_admission(patient), icd_code="I10")
    response = client.get(patient_page(patient))
    for text in ("Made-Up Person", "000 12", "Essential (primary) hypertension", "imported"):
        assert text in response.text
    assert "a data scientist distributes one" in response.text
    assert "train there first" in response.text
    event = AuditEvent.objects.get()
    assert (event.user, event.action, event.target) == (
        doctor,
        "saw patient",
        f"patient:{patient.pk}",
    )


def test_a_patient_without_an_admission_can_be_admitted(client, doctor, alpha):
    patient = make_patient(alpha)
    response = client.get(patient_page(patient))
    assert "No admission yet" in response.text
    assert reverse("diagnoses:admission-create", args=[patient.pk]) in response.text


def test_another_patients_admission_is_not_shown(client, doctor, alpha):
    patient = make_patient(alpha)
    mine, other = make_admission(patient), make_admission(make_patient(alpha))
    assert client.get(patient_page(patient), {"admission": mine.pk}).status_code == 200
    assert client.get(patient_page(patient), {"admission": other.pk}).status_code == 404
    stranger = make_patient(make_envoy())
    assert client.get(patient_page(stranger)).status_code == 404
    assert client.get(reverse("inference:patient-risk", args=[stranger.pk])).status_code == 404


def test_who_runs_the_federation_sees_no_patient(client, alpha):
    patient = make_patient(alpha)
    client.force_login(make_user(User.Role.DATA_SCIENTIST))
    for url in (LIST, DASHBOARD, patient_page(patient)):
        assert client.get(url).status_code == 404
    assert client.post(LIST, {"text": "x"}).status_code == 404


def test_the_risk_is_shown_by_both_models_with_its_reasons(
    client, queue, hospitals, django_assert_num_queries
):
    diagnoses.load_icd_codes()
    version = release(hospitals, queue)
    envoy = hospitals[0]
    client.force_login(make_user(envoy=envoy))
    patient = make_patient(envoy, name="Made-Up Person", sex="F")
    admission = make_admission(patient, age=81, admitted_at=timezone.now())
    make_diagnosis(admission, icd_code="I509")
    make_diagnosis(admission, icd_code="J9601")

    client.get(patient_page(patient))
    with django_assert_num_queries(27):
        response = client.get(patient_page(patient))
    text = response.text
    assert f"Version {version.number} of" in text
    assert text.count("What drives it") == 2
    assert "points</span>" in text
    assert "The patient is still here" in text
    assert "hospitals." in text
    assert Prediction.objects.filter(admission=admission).count() == 2

    for _ in range(5):
        make_diagnosis(make_admission(patient))
    with django_assert_num_queries(27):
        client.get(patient_page(patient), {"admission": admission.pk})

    AuditEvent.objects.all().delete()
    risk = reverse("inference:patient-risk", args=[patient.pk])
    assert "<html" not in client.get(risk, headers={"HX-Request": "true"}).text
    assert "<html" in client.get(risk).text
    assert actions() == ["saw risk", "saw risk"]


def test_the_dashboard_of_a_new_hospital_says_what_to_do(client, doctor, alpha):
    text = client.get(DASHBOARD).text
    assert "There is no patient yet" in text
    assert "No model has been delivered to Alpha" in text
    assert reverse("diagnoses:import-create") in text
    assert actions() == ["see the hospital at a glance"]  # counts, no patient


def test_the_dashboard_counts_by_risk_and_names_what_waits(
    client, doctor, alpha, queue, django_assert_max_num_queries
):
    study = study_for("risk_tier")
    package_training(study, alpha, plan_for(study))
    version = make_version(manifest=MANIFEST)
    make_distribution(version, alpha)
    for predicted_class in (0, 2, 2):
        admission = make_admission(make_patient(alpha))
        make_prediction(version, admission, predicted_class=predicted_class)
    make_admission(make_patient(alpha), admitted_at=timezone.now())

    with django_assert_max_num_queries(20):
        response = client.get(DASHBOARD)
    summary = response.context["summary"]
    assert [risk.num_admissions for risk in summary.risks] == [1, 0, 2]
    assert (summary.num_patients, summary.num_admissions, summary.num_open) == (4, 4, 1)
    assert (summary.num_waiting, summary.num_unscored) == (1, 1)
    assert summary.model_version == version
    for text in (
        "A training package waits for an answer",
        "1 of 4 admissions have no risk",
        "never been exported",
        "0 days",
    ):
        assert text in response.text


def test_an_answered_package_no_longer_waits(client, doctor, alpha, queue):
    study = study_for("risk_tier")
    approve(study, alpha, plan_for(study))
    assert client.get(DASHBOARD).context["summary"].num_waiting == 0
    assert Patient.objects.count() == 0


def test_after_a_strike_out_the_next_diagnosis_is_marked_as_the_main_one(client, doctor, alpha):
    admission = make_admission(make_patient(alpha))
    first, second = (make_diagnosis(admission, icd_code=code) for code in ("I10", "E119"))
    page = patient_page(admission.patient)
    assert client.get(page).context["main_diagnosis"] == first
    diagnoses.strike_out_diagnosis(first, struck_out_by=doctor)
    response = client.get(page)
    assert response.context["main_diagnosis"] == second
    assert "2, main" in response.content.decode()


def test_the_open_stay_is_shown_first_whenever_it_began(client, doctor, alpha):
    patient = make_patient(alpha)
    now = timezone.now()
    still_here = make_admission(patient, admitted_at=now - timedelta(days=3))
    make_admission(
        patient, admitted_at=now - timedelta(days=2), discharged_at=now - timedelta(days=1)
    )
    assert client.get(patient_page(patient)).context["admission"] == still_here
