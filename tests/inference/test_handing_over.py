"""Everything stored of a patient, and of a hospital, as files to take away."""

import csv
import hashlib
import io
import json
import os
import zipfile
from typing import Any

import pytest
from django.urls import reverse
from django.utils import timezone

from diagnoses.models import Admission, Diagnosis, IcdCode, Patient
from diagnoses.services import export_now
from envoys.models import AuditEvent, User
from envoys.storage import FolderStorage, envoy_storage, list_objects, write_object
from inference.hospital_data import CHUNK_BYTES, INTERNAL, hospital_archive, tables
from inference.models import Prediction
from tests.api import Program
from tests.factories import (
    make_admission,
    make_diagnosis,
    make_import,
    make_patient,
    make_prediction,
    make_user,
    make_version,
)
from tests.world import make_world

pytestmark = [pytest.mark.django_db, pytest.mark.filterwarnings("ignore:No directory at")]

NAME, PHONE = "=1+1 Test Patient", "000 1"


def files_of(content: bytes) -> dict[str, str]:
    with zipfile.ZipFile(io.BytesIO(content)) as archive:
        assert archive.testzip() is None
        return {name: archive.read(name).decode(errors="replace") for name in archive.namelist()}


def rows_of(text: str) -> list[dict[str, str]]:
    return list(csv.DictReader(io.StringIO(text)))


@pytest.fixture
def doctor():
    return make_user()


@pytest.fixture
def patient(doctor):
    """Imported, and named since; with a diagnosis struck out and a prediction."""
    source = make_import(doctor.envoy, source_name="of last year")
    patient = make_patient(
        doctor.envoy, name=NAME, phone=PHONE, subject_id="subject-1", source_import=source
    )
    admission = make_admission(patient, hadm_id="stay-1", risk_tier=2, source_import=source)
    IcdCode.objects.create(code="I10", version=10, title="Essential hypertension", category="I10")
    make_diagnosis(admission, recorded_by=doctor)
    make_diagnosis(admission, icd_code="I509", struck_out_at=timezone.now(), struck_out_by=doctor)
    version = make_version(manifest={"classes": ["Low", "Medium", "High"]})
    make_prediction(version, admission, requested_by=doctor)
    return patient


def test_a_doctor_downloads_everything_stored_of_a_patient(client, doctor, patient):
    export_now(doctor.envoy)
    make_diagnosis(make_admission(make_patient(doctor.envoy, name="Test Patient Other")))
    client.force_login(doctor)
    client.get(reverse("inference:patient-detail", args=[patient.pk]))

    response = client.get(reverse("inference:patient-data", args=[patient.pk]))
    assert response.headers["Content-Disposition"] == (
        f'attachment; filename="patient-{patient.pk}.zip"'
    )
    files = files_of(b"".join(response.streaming_content))
    (facts,) = rows_of(files["patient.csv"])
    assert (facts["name"], facts["phone"]) == (f"'{NAME}", PHONE)
    assert json.loads(files["patient.json"])["patient"][0]["name"] == NAME
    (stay,) = rows_of(files["admissions.csv"])
    assert (stay["hadm_id"], stay["risk_given_by_source"]) == ("stay-1", "High")
    standing, struck_out = rows_of(files["diagnoses.csv"])
    assert standing["title"] == "Essential hypertension"
    assert (struck_out["icd_code"], struck_out["struck_out_by"]) == ("I509", doctor.username)
    (prediction,) = rows_of(files["predictions.csv"])
    assert prediction["predicted_risk"] == "High"
    assert prediction["model"].endswith("v1")
    assert json.loads(prediction["probabilities"]) == {"Low": 0.1, "Medium": 0.2, "High": 0.7}
    assert [row["files"] for row in rows_of(files["imports.csv"])] == ["of last year"]
    assert len(rows_of(files["exports.csv"])) == 1
    assert "saw patient" in [row["action"] for row in rows_of(files["audit.csv"])]
    assert not any("Other" in text for text in files.values())
    assert "patient.csv       name, phone number" in files["README.txt"]
    event = AuditEvent.objects.get(action="exported patient")
    assert (event.user, event.target) == (doctor, f"patient:{patient.pk}")


def test_a_program_reads_everything_stored_of_a_patient(doctor, patient):
    data = Program(doctor).get(reverse("api:patient-data", args=[patient.pk]))
    assert data["patient"][0]["name"] == NAME
    assert {row["icd_code"] for row in data["diagnoses"]} == {"I10", "I509"}
    assert data["predictions"][0]["asked_for_by"] == doctor.username
    assert AuditEvent.objects.filter(action="exported patient").count() == 1


@pytest.mark.parametrize("model", [Patient, Admission, Diagnosis, Prediction])
def test_every_field_of_a_patients_rows_is_handed_over_or_known_to_be_none_of_theirs(
    model, doctor, patient
):
    """A field that is added later needs a place in the archive, or a word here."""
    left_out: dict[Any, set[str]] = {
        Patient: {"envoy", "name_index"},
        Admission: {"envoy", "patient"},
        Diagnosis: {"admission"},  # by its hadm_id
        Prediction: {"admission", "envoy", "model_version", "inference_run", "predicted_class"},
    }
    called = {
        "id": "number",
        "sex": "gender",
        "created_at": {Prediction: "made_at"}.get(model, "recorded_at"),
        "requested_by": "asked_for_by",
        "source_import": "from_import",
        "risk_tier": "risk_given_by_source",
        "clinician_risk_level": "risk_given_by_doctor",
        "seq_num": "place",
    }
    kind = {Patient: "patient"}.get(model, str(model._meta.verbose_name_plural))
    data = Program(doctor).get(reverse("api:patient-data", args=[patient.pk]))
    names = {field.name for field in model._meta.concrete_fields} - left_out[model]
    assert {called.get(name, name) for name in names} <= set(data[kind][0])


def test_a_hospital_is_handed_over_whole_and_no_other(client):
    world = make_world()
    own, other = world.hospitals["own"], world.hospitals["other"]
    export_now(own.envoy)
    client.force_login(own.doctor)
    response = client.get(reverse("inference:hospital-data"))
    assert response.headers["Content-Disposition"] == 'attachment; filename="own.zip"'
    files = files_of(b"".join(response.streaming_content))

    assert {row["name"] for row in rows_of(files["patients.csv"])} == {
        "Test Patient Own",
        "Test Patient Gone Own",
    }
    for table in tables():
        rows = rows_of(files[table.file_name])
        assert len(rows) == table.rows(own.envoy).count(), table.file_name
        assert INTERNAL.isdisjoint(rows[0] if rows else ()), table.file_name
    for name in ("admissions.csv", "diagnoses.csv", "predictions.csv", "readings.csv"):
        assert rows_of(files[name]), name
    assert not any("Test Patient Other" in text for text in files.values())
    assert not any(other.doctor.username in text for text in files.values())
    assert own.doctor.password not in files["users.csv"]

    storage = envoy_storage(own.envoy)
    assert isinstance(storage, FolderStorage)
    objects = {row["key"]: row for row in rows_of(files["objects.csv"])}
    with storage.open("outcomes.csv") as file:
        content = file.read()
    assert objects["outcomes.csv"]["sha256"] == hashlib.sha256(content).hexdigest()
    assert int(objects["outcomes.csv"]["num_bytes"]) == len(content)
    contents = json.loads(files["contents.json"])
    tables_told = {name for name in files if not name.startswith("objects/")}
    assert set(contents) == tables_told - {"README.txt", "contents.json"}
    for name, told in contents.items():
        assert told["sha256"] == hashlib.sha256(files[name].encode()).hexdigest()
        assert told["num_rows"] == len(rows_of(files[name]))
    event = AuditEvent.objects.get(action="exported hospital")
    assert (event.user, event.target) == (own.doctor, f"envoy:{own.envoy.pk}")


def test_a_program_of_the_hospital_reads_the_archive_and_nobody_else_does(doctor, patient):
    program = Program(doctor)
    response: Any = program.client.get(reverse("api:hospital-data"))
    assert response.headers["Content-Type"] == "application/zip"
    assert NAME in files_of(b"".join(response.streaming_content))["patients.csv"]
    for role in (User.Role.DATA_SCIENTIST, User.Role.ADMINISTRATOR, User.Role.PUBLIC_HEALTH):
        Program(make_user(role)).get(reverse("api:hospital-data"), code=404)


def test_an_archive_is_sent_in_pieces(doctor):
    """No piece grows with the hospital: thousands of rows, and no piece has more than its share."""
    Patient.objects.bulk_create(Patient(envoy=doctor.envoy) for _ in range(5000))
    pieces = list(hospital_archive(doctor.envoy))
    assert len(rows_of(files_of(b"".join(pieces))["patients.csv"])) == 5000
    assert min(map(len, pieces)) > 0
    assert max(map(len, pieces)) < sum(map(len, pieces)) / 3


def test_what_lies_in_the_hospitals_storage_is_in_the_archive_but_for_what_its_rows_say(doctor):
    """A model as it is, byte for byte, larger than what is read at once; an upload that waits."""
    storage = envoy_storage(doctor.envoy)
    make_patient(doctor.envoy, subject_id="subject-1")
    export_now(doctor.envoy)
    model = os.urandom(3 * CHUNK_BYTES + 1)
    write_object(storage, "trained_model/1/model.safetensors", model)
    write_object(storage, "uploads/abc/diagnoses.csv", b"subject_id\nsubject-2\n")
    pieces = list(hospital_archive(doctor.envoy))
    with zipfile.ZipFile(io.BytesIO(b"".join(pieces))) as archive:
        contents = {
            name: archive.read(name) for name in archive.namelist() if name.startswith("objects/")
        }
        objects = {row["key"]: row for row in rows_of(archive.read("objects.csv").decode())}
    assert contents == {
        "objects/trained_model/1/model.safetensors": model,
        "objects/uploads/abc/diagnoses.csv": b"subject_id\nsubject-2\n",
    }
    assert {key: row["num_bytes"] for key, row in objects.items()} == {
        key: str(size) for key, size in list_objects(storage)
    }
    told = objects["trained_model/1/model.safetensors"]["sha256"]
    assert told == hashlib.sha256(model).hexdigest()
    assert max(map(len, pieces)) < 2 * CHUNK_BYTES


def test_an_object_that_cannot_be_read_is_said_so_and_the_rest_is_sent(doctor, monkeypatch):
    export_now(doctor.envoy)

    def unreadable(storage: Any, key: str, **values: Any) -> Any:
        from envoys.errors import StorageError

        raise StorageError("out of reach")

    monkeypatch.setattr("inference.hospital_data.open_object", unreadable)
    files = files_of(b"".join(hospital_archive(doctor.envoy)))
    assert {row["trouble"] for row in rows_of(files["objects.csv"])} == {"it could not be read"}
