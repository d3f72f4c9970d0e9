from typing import Any

import pytest
from rest_framework.test import APIClient

from diagnoses.models import Admission, Diagnosis, Import, Patient, Snapshot
from envoys.models import AuditEvent
from envoys.storage import envoy_storage, read_object
from tests.factories import (
    PASSWORD,
    make_admission,
    make_diagnosis,
    make_envoy,
    make_patient,
    make_user,
)

pytestmark = pytest.mark.django_db


@pytest.fixture
def envoy():
    return make_envoy(name="North General", slug="north")


@pytest.fixture
def api(envoy) -> APIClient:
    api = APIClient()
    api.force_authenticate(make_user(envoy=envoy))
    return api


def row(**values: Any) -> dict[str, Any]:
    """As the contract shows it."""
    return {
        "subject_id": None,
        "hadm_id": "H123456",
        "icd_code": "I10",
        "icd_version": 10,
        "seq_num": 1,
        "diagnosis_count": 2,
        "risk_level": 2,
    } | values


def add(api: APIClient, *rows: dict[str, Any], envoy: object = "north") -> Any:
    return api.post(f"/envoy/{envoy}/add-diagnoses", list(rows))


def refusals(answer: Any) -> list[str]:
    assert answer.status_code == 400, answer.data
    return answer.data["errors"]["rows"]


def test_a_patient_is_registered_diagnosed_listed_and_exported_with_a_token(envoy):
    api = APIClient()
    doctor = make_user(envoy=envoy)
    body = {"username": doctor.username, "password": PASSWORD}
    token = api.post("/api/login", body).data["token"]
    api.credentials(HTTP_AUTHORIZATION=f"Bearer {token}")
    body = {"name": "Ada Example", "gender": "Female", "phone": "000"}
    registered = api.post("/api/patients/register", body)
    assert registered.status_code == 200
    assert list(registered.data) == ["message", "subject_id", "hadm_id"]
    added = add(api, row(hadm_id=registered.data["hadm_id"]))
    assert added.status_code == 200
    assert list(added.data) == ["message", "subject_ids"]
    assert added.data["subject_ids"] == [registered.data["subject_id"]]
    patient = Patient.objects.get()
    assert api.get("/api/patients").data == [
        {
            "id": patient.pk,
            "name": "Ada Example",
            "gender": "F",
            "phone": "000",
            "hadm_id": registered.data["hadm_id"],
            "subject_id": registered.data["subject_id"],
        }
    ]
    exported = api.post(f"/envoy/{envoy.pk}/export_diagnoses")
    assert exported.status_code == 200
    assert list(exported.data) == ["message", "csv_s3_key", "sha256"]
    assert exported.data["csv_s3_key"] == "envoys/north/diagnoses.csv"
    stored = read_object(envoy_storage(envoy), "diagnoses.csv", sha256=exported.data["sha256"])
    assert stored.decode().splitlines()[1].startswith(patient.subject_id)


def test_what_a_row_says_becomes_rows(api, envoy):
    added = add(api, row(), row(icd_code="E11.9", seq_num=2), row(hadm_id="H7", icd_code="250"))
    assert added.status_code == 400  # 250 is a code of ICD-9
    added = add(api, row(), row(icd_code="E11.9", seq_num=None))
    (patient,) = Patient.objects.all()
    assert added.data["subject_ids"] == [patient.subject_id] * 2
    (admission,) = Admission.objects.all()
    assert (admission.hadm_id, admission.patient) == ("H123456", patient)
    assert (admission.number_diagnoses, admission.clinician_risk_level) == (2, 2)
    assert admission.is_open  # and so can be discharged
    codes = Diagnosis.objects.order_by("seq_num").values_list("seq_num", "icd_code", "icd_version")
    assert list(codes) == [(1, "I10", 10), (2, "E119", 10)]
    assert Diagnosis.objects.filter(recorded_by__isnull=False).count() == 2
    (event,) = AuditEvent.objects.all()
    assert (event.action, event.target) == ("added diagnoses", f"envoy:{envoy.pk}")


def test_whose_a_row_is(api, envoy):
    ada = make_patient(envoy=envoy, subject_id="ada")
    make_admission(ada, hadm_id="H1")
    added = add(
        api,
        row(hadm_id="H1", diagnosis_count=None),  # that admission's patient
        row(hadm_id="H2", subject_id="ada"),  # another stay of a patient named
        row(hadm_id="H3"),  # a new patient
        row(hadm_id="H3", icd_code="E11.9", seq_num=2),  # the same new one
        row(hadm_id="H4", subject_id="bob"),  # a new one, called as given
        row(hadm_id="H5", subject_id="bob"),
    )
    assert added.status_code == 200, added.data
    new = added.data["subject_ids"][2]
    assert added.data["subject_ids"] == ["ada", "ada", new, new, "bob", "bob"]
    assert new not in ("ada", "bob")
    assert Patient.objects.count() == 3
    assert Admission.objects.count() == 5
    stays = Admission.objects.filter(patient=ada).values_list("hadm_id", flat=True)
    assert set(stays) == {"H1", "H2"}


def test_the_same_rows_may_be_sent_twice(api):
    rows = [row(), row(icd_code="E11.9", seq_num=None)]
    first, second = add(api, *rows), add(api, *rows)
    assert first.data["subject_ids"] == second.data["subject_ids"]
    assert Diagnosis.objects.count() == 2


def test_a_count_that_was_given_grows_with_what_is_added(api, envoy):
    admission = make_admission(make_patient(envoy=envoy), hadm_id="H1", number_diagnoses=4)
    make_diagnosis(admission)
    answer = add(api, row(hadm_id="H1", icd_code="E11.9", seq_num=2, diagnosis_count=None))
    assert answer.status_code == 200, answer.data
    admission.refresh_from_db()
    assert admission.number_diagnoses == 5


def test_all_problems_are_told_by_row_and_nothing_is_written(api, envoy):
    make_admission(make_patient(envoy=envoy, subject_id="ada"), hadm_id="H1")
    answer = add(
        api,
        row(),
        row(icd_code="nonsense", seq_num=2),
        row(hadm_id="H1", subject_id="bob"),
        row(icd_code="E11.9"),
        row(icd_code="E11.9", seq_num=3, diagnosis_count=5),
        row(icd_code="E11.9", seq_num=3, risk_level=7),
        row(icd_code="E11.9", seq_num=0),
    )
    assert refusals(answer) == [
        "row 2: 'nonsense' is no ICD-10 code",
        "row 3: its hadm_id belongs to another subject_id",
        "row 4: seq_num 1 of its hadm_id is taken by another code",
        "row 5: diagnosis_count 5 differs from an earlier row of its hadm_id",
        "row 6: risk_level 7 is no whole number from 0 to 2",
        "row 7: seq_num 0 is no whole number from 1 to 65535",
    ]
    assert (Patient.objects.count(), Diagnosis.objects.count()) == (1, 0)
    assert not AuditEvent.objects.exists()


def test_what_is_no_list_of_rows_is_refused(api):
    assert add(api).status_code == 400
    assert api.post("/envoy/north/add-diagnoses", {"rows": []}).status_code == 400
    assert "hadm_id" in str(add(api, {"icd_code": "I10"}).data["errors"])


def test_an_admission_that_an_import_is_writing_waits(api, envoy):
    importing = Import.objects.create(envoy=envoy, status="INSERTING", source_name="north")
    patient = make_patient(envoy=envoy, source_import=importing)
    make_admission(patient, hadm_id="H123456", source_import=importing)
    assert add(api, row()).status_code == 409


@pytest.mark.parametrize("called", ["North General", "north", "number"])
def test_an_envoy_is_called_by_number_or_name(api, envoy, called):
    assert add(api, row(), envoy=envoy.pk if called == "number" else called).status_code == 200


def test_a_foreign_or_unknown_envoy_is_not_there(api):
    foreign = make_envoy(name="South")
    for called in (foreign.pk, foreign.name, "Nowhere", 987654):
        assert add(api, row(), envoy=called).status_code == 404
        assert api.post(f"/envoy/{called}/export_diagnoses").status_code == 404
    assert not Snapshot.objects.exists()
    assert not Patient.objects.exists()


def test_patients_are_paged_by_headers(api, envoy):
    for number in range(5):
        make_patient(envoy=envoy, subject_id=f"p{number}")
    make_patient()
    answer = api.get("/api/patients", {"limit": 2, "offset": 2})
    assert [row["subject_id"] for row in answer.data] == ["p2", "p3"]
    assert answer.data[0]["hadm_id"] is None
    assert answer.headers["X-Total-Count"] == "5"
    assert 'offset=4>; rel="next"' in answer.headers["Link"]
    assert 'rel="prev"' in answer.headers["Link"]
    assert "Link" not in api.get("/api/patients").headers
    assert AuditEvent.objects.filter(action="listed patients").count() == 2


def test_a_gender_that_is_none_is_refused(api):
    body: dict[str, str | None] = {"name": "Ada Example", "gender": "x1", "phone": ""}
    answer = api.post("/api/patients/register", body)
    assert answer.status_code == 400
    assert "gender" in answer.data["detail"]
    body["gender"] = None
    assert api.post("/api/patients/register", body).status_code == 200
