import io
from datetime import timedelta
from typing import Any

import pytest
from django.urls import reverse
from django.utils import timezone
from rest_framework.test import APIClient

from diagnoses.models import Admission, Diagnosis, IcdCode, Patient, Snapshot, Upload
from envoys.models import AuditEvent, User
from tests.diagnoses.test_uploads import DIAGNOSES, OUTCOMES
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
def doctor():
    return make_user(envoy=make_envoy(name="North General", slug="north"))


@pytest.fixture
def api(doctor) -> APIClient:
    api = APIClient()
    api.force_authenticate(doctor)
    return api


@pytest.fixture
def admission(doctor) -> Admission:
    patient = make_patient(envoy=doctor.envoy, name="Ada Example", sex="F")
    return make_admission(patient, admitted_at=timezone.now() - timedelta(days=3))


def url_of(name: str, *args: object) -> str:
    return reverse(f"api:{name}", args=args)


def ok(answer: Any, status: int = 200) -> Any:
    assert answer.status_code == status, answer.data
    return answer.data


def refused(answer: Any, status: int) -> str:
    assert answer.status_code == status, answer.data
    assert set(answer.data) == {"type", "detail", "errors"}
    return str(answer.data["detail"])


def test_a_stay_from_registration_to_discharge(api, doctor):
    answer = api.post(
        url_of("patient-list"), {"name": "Ada Example", "sex": "F", "birth_year": 1950}
    )
    patient = ok(answer, 201)
    assert answer.headers["Location"] == patient["url"] == url_of("patient-detail", patient["id"])
    admission = patient["admission"]
    assert (admission["is_open"], admission["subject_id"]) == (True, patient["subject_id"])
    body = {"admission": admission["id"], "icd_code": "I50.9"}
    diagnosis = ok(api.post(url_of("diagnosis-list"), body), 201)
    assert (diagnosis["icd_code"], diagnosis["seq_num"]) == ("I509", 1)
    assert diagnosis["recorded_by"] == doctor.username
    body = {"clinician_risk_level": 2}
    assert ok(api.patch(admission["url"], body))["clinician_risk_level"] == 2
    discharged = ok(api.post(url_of("admission-discharge", admission["id"]), {"died": False}))
    assert discharged["is_open"] is False
    again = api.post(url_of("admission-discharge", admission["id"]), {})
    assert "not open" in refused(again, 409)
    assert ok(api.post(url_of("admission-reopen", admission["id"])))["is_open"] is True
    refusal = refused(api.post(url_of("admission-list"), {"patient": patient["id"]}), 409)
    assert "discharge them from it first" in refusal


def test_a_patient_who_left_is_admitted_again(api, admission):
    api.post(url_of("admission-discharge", admission.pk), {"discharged_home": True})
    body = {"patient": admission.patient_id, "hadm_id": "H-again"}
    answer = api.post(url_of("admission-list"), body)
    assert ok(answer, 201)["hadm_id"] == "H-again"
    assert answer.headers["Location"] == answer.data["url"]
    page = ok(api.get(url_of("admission-list"), {"patient": admission.patient_id}))
    assert [row["hadm_id"] for row in page["results"]] == ["H-again", admission.hadm_id]
    assert ok(api.get(url_of("admission-list"), {"is_open": True}))["count"] == 1


def test_a_wrong_diagnosis_is_struck_out_and_restored(api, admission):
    diagnosis = make_diagnosis(admission, icd_code="I10")
    make_diagnosis(admission, icd_code="E119")
    struck_out = ok(api.post(url_of("diagnosis-strike-out", diagnosis.pk)))
    assert struck_out["struck_out_by"] is not None
    wanted = {"admission": admission.pk, "is_struck_out": True}
    assert ok(api.get(url_of("diagnosis-list"), wanted))["count"] == 1
    refused(api.post(url_of("diagnosis-strike-out", diagnosis.pk)), 409)
    restored = ok(api.post(url_of("diagnosis-restore", diagnosis.pk)))
    assert restored["struck_out_at"] is None
    page = ok(api.get(url_of("diagnosis-list"), {"admission": admission.pk}))
    assert [row["icd_code"] for row in page["results"]] == ["I10", "E119"]


def test_what_is_left_out_of_a_change_stays(api, admission):
    url = url_of("patient-detail", admission.patient_id)
    assert ok(api.patch(url, {"phone": "00 000"}))["phone"] == "00 000"
    patient = Patient.objects.get()
    assert (patient.name, patient.sex, patient.phone) == ("Ada Example", "F", "00 000")
    assert "birth_year" in refused(api.patch(url, {"birth_year": "long ago"}), 400)


def test_patients_are_paged_and_filtered(api, doctor, admission):
    for number in range(3):
        make_patient(envoy=doctor.envoy, subject_id=f"p{number}", sex="M")
    page = ok(api.get(url_of("patient-list"), {"limit": 2}))
    assert (page["count"], len(page["results"])) == (4, 2)
    for wanted, count in (
        ({"subject_id": "p1"}, 1),
        ({"sex": "M"}, 3),
        ({"is_in_hospital": True}, 1),
        ({"is_in_hospital": False}, 3),
        ({"hadm_id": admission.hadm_id}, 1),
    ):
        assert ok(api.get(url_of("patient-list"), wanted))["count"] == count


def test_each_call_that_shows_or_changes_a_patient_makes_one_audit_event(api, admission, queue):
    diagnosis = make_diagnosis(admission)
    patient = admission.patient_id
    for method, url, body in (
        ("get", url_of("patient-list"), None),
        ("get", url_of("patient-detail", patient), None),
        ("patch", url_of("patient-detail", patient), {"phone": "1"}),
        ("post", url_of("patient-list"), {"name": "Max Example"}),
        ("get", url_of("admission-list"), None),
        ("get", url_of("admission-detail", admission.pk), None),
        ("patch", url_of("admission-detail", admission.pk), {"clinician_risk_level": None}),
        ("get", url_of("diagnosis-list"), None),
        ("get", url_of("diagnosis-detail", diagnosis.pk), None),
        ("post", url_of("diagnosis-strike-out", diagnosis.pk), {}),
        ("post", url_of("export-list"), {}),
    ):
        AuditEvent.objects.all().delete()
        assert getattr(api, method)(url, body).status_code < 300
        assert AuditEvent.objects.count() == 1, (method, url)


def test_another_hospitals_rows_are_not_there(api):
    diagnosis = make_diagnosis()
    admission = diagnosis.admission
    snapshot = Snapshot.objects.create(envoy=admission.envoy)
    upload = Upload.objects.create(envoy=admission.envoy)
    for name, row in (
        ("patient-detail", admission.patient),
        ("admission-detail", admission),
        ("diagnosis-detail", diagnosis),
        ("export-detail", snapshot),
        ("import-detail", upload),
    ):
        refused(api.get(url_of(name, row.pk)), 404)
        assert ok(api.get(url_of(name.replace("detail", "list"))))["count"] == 0
    for name, row in (
        ("admission-discharge", admission),
        ("admission-reopen", admission),
        ("diagnosis-strike-out", diagnosis),
        ("diagnosis-restore", diagnosis),
        ("import-confirm", upload),
        ("import-discard", upload),
    ):
        refused(api.post(url_of(name, row.pk), {}), 404)
    refused(api.post(url_of("admission-list"), {"patient": admission.patient_id}), 404)
    body = {"admission": admission.pk, "icd_code": "I10"}
    refused(api.post(url_of("diagnosis-list"), body), 404)
    refused(api.patch(url_of("patient-detail", admission.patient_id), {"name": "X"}), 404)


def test_a_data_scientist_sees_no_patient_and_may_search_the_icd():
    api = APIClient()
    api.force_authenticate(make_user(role=User.Role.DATA_SCIENTIST))
    for name in ("patient-list", "admission-list", "diagnosis-list", "import-list", "export-list"):
        refused(api.get(url_of(name)), 404)
    ok(api.get(url_of("icd-code-list")))


def test_the_icd_is_searched_by_code_and_by_words(api):
    for code, title in (
        ("I509", "Heart failure, unspecified"),
        ("I500", "Failure of the left heart"),
        ("I10", "Essential (primary) hypertension"),
    ):
        IcdCode.objects.create(code=code, version=10, title=title)
    found = ok(api.get(url_of("icd-code-list"), {"search": "I50.9", "version": 10}))
    assert found["results"][0]["code"] == "I509"
    found = ok(api.get(url_of("icd-code-list"), {"search": "heart failure", "limit": 1}))
    assert (found["count"], len(found["results"])) == (2, 1)
    assert found["results"][0]["code"] == "I509"
    code = found["results"][0]
    assert ok(api.get(code["url"])) == code
    assert ok(api.get(url_of("icd-code-list"), {"code": "I10", "version": 10}))["count"] == 1


def send_files(api: APIClient, **headers: str) -> Any:
    files = {"diagnoses": io.BytesIO(DIAGNOSES), "outcomes": io.BytesIO(OUTCOMES)}
    return api.post(url_of("import-list"), files, format="multipart", headers=headers)


def test_files_are_uploaded_watched_and_confirmed(api, queue):
    answer = send_files(api)
    upload = ok(answer, 202)
    assert answer.headers["Location"] == upload["url"]
    assert (upload["stage"], upload["status"]) == ("CHECK", "PENDING")
    assert "still being checked" in refused(api.post(url_of("import-confirm", upload["id"])), 409)
    queue.work()
    upload = ok(api.get(upload["url"]))
    assert upload["is_importable"]
    assert upload["preview"][0]["rows"][0] == ["p1", "11", "1", "I50.9", "10"]
    answer = api.post(url_of("import-confirm", upload["id"]))
    assert ok(answer, 202)["stage"] == "IMPORT"
    assert answer.headers["Location"] == upload["url"]
    queue.work()
    assert ok(api.get(upload["url"]))["status"] == "COMPLETE"
    assert Diagnosis.objects.count() == 3


def test_an_upload_sent_twice_with_one_key_is_one_upload(api, queue):
    first = ok(send_files(api, **{"Idempotency-Key": "k1"}), 202)
    assert ok(send_files(api, **{"Idempotency-Key": "k1"}), 202)["id"] == first["id"]
    assert Upload.objects.count() == 1


def test_what_is_no_upload_is_refused_in_words(api):
    answer = api.post(url_of("import-list"), {}, format="multipart")
    assert "diagnoses" in refused(answer, 400)
    files = {"diagnoses": io.BytesIO(b"\x1f\x8b\x08")}
    answer = api.post(url_of("import-list"), files, format="multipart")
    assert "damaged gzip" in refused(answer, 400)


def test_an_upload_is_discarded(api, queue):
    upload = ok(send_files(api), 202)
    assert ok(api.post(url_of("import-discard", upload["id"])), 202)["stage"] == "DISCARDED"
    queue.work()
    assert ok(api.get(upload["url"]))["preview"] == []


def test_an_export_is_asked_for_and_watched(api, admission, queue):
    answer = api.post(url_of("export-list"))
    export = ok(answer, 202)
    assert answer.headers["Location"] == export["url"]
    queue.work()
    export = ok(api.get(export["url"]))
    assert (export["status"], export["num_admissions"]) == ("COMPLETE", 1)
    assert export["sha256"]


def test_a_token_opens_the_calls_and_nothing_else_does(doctor, admission):
    api = APIClient()
    url = url_of("patient-detail", admission.patient_id)
    refused(api.get(url), 401)
    token = ok(api.post("/api/login", {"username": doctor.username, "password": PASSWORD}))
    api.credentials(HTTP_AUTHORIZATION=f"Bearer {token['token']}")
    assert ok(api.get(url))["name"] == "Ada Example"


def test_patients_are_searched_by_what_stands_in_the_body_alone(api, doctor, admission):
    other = make_patient(envoy=doctor.envoy, name="Max Example", sex="M", subject_id="p1")
    make_patient(envoy=make_envoy(), name="Ada Example", sex="F")
    AuditEvent.objects.all().delete()
    url = url_of("patient-search")
    for number, (wanted, found) in enumerate(
        (
            ({"name": "Ada Example"}, [admission.patient_id]),
            ({"subject_id": "p1"}, [other.pk]),
            ({"hadm_id": admission.hadm_id}, [admission.patient_id]),
            ({"name": "Ada Example", "sex": "M"}, []),
            ({"is_in_hospital": False}, [other.pk]),
            ({}, [other.pk, admission.patient_id]),
        ),
        start=1,
    ):
        page = ok(api.post(url, wanted))
        assert [row["id"] for row in page["results"]] == found, wanted
        assert AuditEvent.objects.filter(action="listed patients").count() == number
    page = ok(api.post(f"{url}?limit=1", {}))
    assert (page["count"], len(page["results"])) == (2, 1)
    refused(api.post(url, {"sex": "X"}), 400)
    assert ok(api.get(url_of("patient-list"), {"name": "Ada Example"}))["count"] == 2


def test_a_list_of_imports_tells_no_line_of_a_file(api, doctor, queue):
    warning = {"kind": "code that no list has", "count": 3, "example": "diagnoses.csv, line 7"}
    upload = Upload.objects.create(
        envoy=doctor.envoy,
        num_problems=1,
        problems=["diagnoses.csv, line 2: no hadm_id"],
        warnings=[warning],
    )
    (row,) = ok(api.get(url_of("import-list")))["results"]
    assert row["num_problems"] == 1
    assert row["warnings"] == [{"kind": "code that no list has", "count": 3}]
    assert "line" not in str(row)
    assert AuditEvent.objects.get().row is None
    detail = ok(api.get(url_of("import-detail", upload.pk)))
    assert (detail["problems"], detail["warnings"]) == (upload.problems, [warning])
    assert AuditEvent.objects.latest("pk").action == "saw upload"


def test_what_is_odd_in_a_hospitals_files_is_its_own_doctors_to_read(doctor):
    """Counts under ten, and the lines of patients' rows, stand there."""
    warning = {"kind": "code that no list has", "count": 3, "example": "diagnoses.csv, line 7"}
    upload = Upload.objects.create(envoy=doctor.envoy, warnings=[warning])
    others = [make_user()] + [make_user(role) for role in User.Role if role != User.Role.DOCTOR]
    for user in (doctor, *others):
        api = APIClient()
        api.force_authenticate(user)
        listed = api.get(url_of("import-list"))
        is_listed = listed.status_code == 200 and listed.data["count"] == 1
        detail = api.get(url_of("import-detail", upload.pk))
        assert is_listed == (user == doctor), user.role
        assert detail.status_code in ((200,) if user == doctor else (403, 404)), user.role
