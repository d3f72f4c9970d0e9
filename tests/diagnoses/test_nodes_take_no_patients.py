"""A node of readings keeps no patients, whichever way they would come in."""

from io import BytesIO

import pytest
from django.urls import reverse
from django.utils import timezone

from diagnoses.models import Admission, Import, Patient, Upload
from diagnoses.services import (
    DiagnosisRow,
    add_diagnoses,
    admit_patient,
    import_cohort,
    register_patient,
    upload_files,
)
from envoys.errors import NotNowError
from envoys.models import Envoy
from federated.cohorts import EnvoyFiles
from tests.api import Program
from tests.factories import make_envoy, make_patient, make_user

pytestmark = [pytest.mark.django_db, pytest.mark.filterwarnings("ignore:No directory at")]

CSV = b"subject_id,hadm_id,seq_num,icd_code,icd_version\nnew-1,new-11,1,I50.9,10\n"
FACTS = {"name": "Test Patient New", "sex": "F", "phone": "000"}
WORDS = "is a node of readings: patients belong to a hospital"


@pytest.fixture
def files(tmp_path) -> EnvoyFiles:
    path = tmp_path / "diagnoses.csv"
    path.write_bytes(CSV)
    return EnvoyFiles("some", path, None)


def ways_in(envoy, patient, files):
    doctor = make_user(envoy=envoy)
    row = DiagnosisRow(hadm_id="H1", icd_code="I10", icd_version=10)
    return {
        "register": lambda: register_patient(
            envoy, name="Test Patient New", sex="F", phone="000", registered_by=doctor
        ),
        "admit": lambda: admit_patient(patient, admitted_by=doctor, admitted_at=timezone.now()),
        "add": lambda: add_diagnoses(envoy, [row], recorded_by=doctor),
        "import": lambda: import_cohort(envoy, files, started_by=doctor),
        "upload": lambda: upload_files(
            envoy, diagnoses=BytesIO(CSV), outcomes=None, uploaded_by=doctor
        ),
    }


@pytest.mark.parametrize("way", ["register", "admit", "add", "import", "upload"])
def test_a_node_refuses_what_a_hospital_takes(way, files):
    hospital, node = make_envoy(), make_envoy(kind=Envoy.Kind.CLINIC)
    ways_in(hospital, make_patient(hospital), files)[way]()
    before = num_rows(node)
    patient = make_patient(node) if way == "admit" else None
    with pytest.raises(NotNowError, match=WORDS):
        ways_in(node, patient, files)[way]()
    assert num_rows(node) == before + (patient is not None)


def num_rows(envoy) -> int:
    return sum(
        model.objects.filter(envoy=envoy).count() for model in (Patient, Admission, Import, Upload)
    )


def test_pages_and_calls_about_patients_are_not_there_for_a_nodes_keeper(client):
    keeper = make_user(envoy=make_envoy(name="Clinic node", kind=Envoy.Kind.CLINIC))
    client.force_login(keeper)
    assert client.post(reverse("diagnoses:patient-register"), FACTS).status_code == 404
    Program(keeper).post("/api/v1/patients", FACTS, code=404)
    assert not Patient.objects.exists()
