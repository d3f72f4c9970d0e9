import json

import pytest

from envoys.models import AuditEvent, Envoy, User
from inference.models import InferenceRun
from tests.api import Program
from tests.factories import (
    make_admission,
    make_distribution,
    make_envoy,
    make_inference_run,
    make_patient,
    make_prediction,
    make_user,
    make_version,
)
from tests.federation import release

pytestmark = pytest.mark.django_db

MANIFEST = {"classes": ["Low", "Medium", "High"]}


@pytest.fixture
def doctor_user():
    return make_user()


@pytest.fixture
def doctor(doctor_user):
    return Program(doctor_user)


@pytest.fixture
def prediction(doctor_user):
    admission = make_admission(make_patient(envoy=doctor_user.envoy))
    return make_prediction(make_version(manifest=MANIFEST), admission)


def test_predictions_of_ones_own_hospital_are_listed_and_looked_at(doctor, prediction):
    make_prediction(prediction.model_version)
    AuditEvent.objects.all().delete()
    (row,) = doctor.get("/api/v1/predictions")["results"]
    assert row["id"] == prediction.pk
    assert row["classes"] == MANIFEST["classes"]
    assert (row["model"], row["hadm_id"]) == ("global", prediction.admission.hadm_id)
    doctor.get(row["url"])
    targets = AuditEvent.objects.order_by("pk").values_list("target", flat=True)
    assert list(targets) == [
        f"envoy:{prediction.envoy_id}",
        f"admission:{prediction.admission_id}",
    ]


def test_a_risk_that_no_model_can_tell_is_a_conflict_that_says_why(doctor, prediction):
    admission = prediction.admission_id
    refused = doctor.get(f"/api/v1/predictions?admission={admission}", 409)
    assert "distributes" in refused["detail"]
    doctor.get("/api/v1/predictions?admission=x", 400)


def test_small_counts_of_an_inference_run_are_hidden(doctor, doctor_user):
    version = make_version(manifest=MANIFEST)
    run = make_inference_run(
        version,
        doctor_user.envoy,
        status=InferenceRun.Status.COMPLETE,
        counts={"Low": 400, "Medium": 30, "High": 7},
        num_done=437,
        num_total=437,
    )
    seen = doctor.get(f"/api/v1/inference-runs/{run.pk}")
    assert seen["counts"] == {"Low": 400, "Medium": None, "High": None}
    assert "437" not in json.dumps(seen)
    make_inference_run(version)
    assert doctor.get("/api/v1/inference-runs")["count"] == 1


def test_inference_without_a_model_says_what_to_do(doctor, doctor_user):
    refused = doctor.post("/api/v1/inference-runs", {}, code=409)
    assert refused["type"] == "conflict"
    other = make_user().envoy
    assert other is not None
    doctor.post("/api/v1/inference-runs", {"envoys": [other.pk]}, code=404)
    doctor.post("/api/v1/inference-runs", {"model": "best"}, code=400)


def test_a_hospital_at_a_glance(doctor, prediction):
    summary = doctor.get("/api/v1/hospital")
    assert (summary["num_patients"], summary["num_admissions"]) == (1, 1)
    assert summary["model_version"] is None


def test_the_published_inference_walks_through_the_export_a_page_at_a_time(queue, hospitals):
    envoy = hospitals[0]
    doctor = Program(make_user(envoy=envoy))
    assert "no study" in doctor.get(f"/envoy/{envoy.pk}/inference/global", 409)["detail"]
    version = release(hospitals[:3], queue)
    everything = doctor.get(f"/envoy/{envoy.pk}/inference/global?limit=1000")
    assert everything["model_version"] == version.number
    assert everything["source_csv"] == f"{envoy.storage_prefix}/diagnoses.csv"
    rows = everything["predictions"]
    assert len(rows) == envoy.admissions.count()
    assert set(rows[0]) == {
        "subject_id",
        "hadm_id",
        "diagnosis_count",
        "predicted_class",
        "predicted_risk",
        "probabilities",
    }
    assert len(doctor.get(f"/envoy/{envoy.name}/inference/global")["predictions"]) == min(
        100, len(rows)
    )
    page = doctor.get(f"/envoy/{envoy.name}/inference/global?limit=5&offset=3")["predictions"]
    assert page == rows[3:8]
    assert doctor.get(f"/envoy/{envoy.pk}/inference/global?offset=100000")["predictions"] == []
    doctor.get(f"/envoy/{envoy.pk}/inference/global?limit=0", 400)
    doctor.get(f"/envoy/{envoy.pk}/inference/global?limit=1001", 400)

    # As the task that scores the whole hospital does.
    Program(make_user(User.Role.DATA_SCIENTIST)).post(
        "/api/v1/inference-runs", {"envoys": [envoy.pk]}, code=202
    )
    queue.work()
    stored = {
        row["hadm_id"]: row["probabilities"]
        for row in doctor.get("/api/v1/predictions?limit=1000")["results"]
    }
    for row in rows:
        assert row["probabilities"] == pytest.approx(stored[row["hadm_id"]])

    # Who came after the export is not part of it.
    new = doctor.post("/api/v1/patients", {"name": "Test Patient Zero", "sex": "F"})
    again = doctor.get(f"/envoy/{envoy.pk}/inference/envoy-model?limit=1000")["predictions"]
    assert new["subject_id"] not in {row["subject_id"] for row in again}
    assert len(again) == len(rows)


def test_of_several_hospitals_each_ones_scoring_is_audited(queue):
    version = make_version(state="ACTIVE", manifest=MANIFEST)
    envoys = [make_envoy(), make_envoy()]
    for envoy in envoys:
        make_distribution(version, envoy)
    scientist = Program(make_user(User.Role.DATA_SCIENTIST))
    AuditEvent.objects.all().delete()
    made = scientist.post(
        "/api/v1/inference-runs", {"envoys": [each.pk for each in (*envoys, envoys[0])]}, code=202
    )
    targets = AuditEvent.objects.filter(action="requested inference").values_list("target")
    assert {target for (target,) in targets} == {
        f"inferencerun:{row['id']}" for row in made["inference_runs"]
    }
    assert InferenceRun.objects.count() == 2


def test_a_suspended_hospital_is_scored_where_it_is_named_or_its_doctor_asks(
    queue, doctor, doctor_user
):
    version = make_version(state="ACTIVE", manifest=MANIFEST)
    Envoy.objects.update(status=Envoy.Status.SUSPENDED)
    make_distribution(version, doctor_user.envoy)
    (run,) = doctor.post("/api/v1/inference-runs", {}, code=202)["inference_runs"]
    assert run["envoy"] == doctor_user.envoy_id
    InferenceRun.objects.update(status=InferenceRun.Status.COMPLETE)
    scientist = Program(make_user(User.Role.DATA_SCIENTIST, envoy=None))
    scientist.post("/api/v1/inference-runs", {"envoys": [doctor_user.envoy_id]}, code=202)
    InferenceRun.objects.update(status=InferenceRun.Status.COMPLETE)
    scientist.post("/api/v1/inference-runs", {}, code=409)  # of its own accord, active ones only
