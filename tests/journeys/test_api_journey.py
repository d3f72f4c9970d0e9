"""From a patient who is registered to a risk that is seen, by calls alone; `docs/api.md` shows it."""

import pytest
from django.utils import timezone

from envoys.models import AuditEvent, User
from tests.api import Program
from tests.factories import make_user
from tests.federation import approved_plan, envoy_path
from training.services import study_for

pytestmark = pytest.mark.django_db


def test_the_journey_by_the_api_alone(queue, hospitals):
    envoys = hospitals[:3]
    doctors = [Program(make_user(envoy=envoy)) for envoy in envoys]
    doctor = doctors[0]
    scientist = Program(make_user(User.Role.DATA_SCIENTIST))

    # register and diagnose
    patient = doctor.post(
        "/api/v1/patients",
        {"name": "Test Patient Zero", "sex": "F", "phone": "000", "birth_year": 1960},
    )
    admission = patient["admission"]["id"]
    for icd_code in ("I50.9", "E11.9"):
        doctor.post("/api/v1/diagnoses", {"admission": admission, "icd_code": icd_code})
    doctor.get(f"/api/v1/predictions?admission={admission}", 409)  # no study, no model yet

    # discharge
    now = timezone.now()
    doctor.post(
        f"/api/v1/admissions/{admission}/discharge",
        {"discharged_at": now.isoformat(), "discharged_home": True, "died": False},
        code=200,
    )

    # export
    export = doctor.post("/api/v1/exports", code=202)
    assert doctor.headers["Location"] == export["url"]
    queue.work()
    assert doctor.get(export["url"])["status"] == "COMPLETE"
    assert patient["subject_id"] in envoy_path(envoys[0], "diagnoses.csv").read_text()

    # package
    names = [envoy.pk for envoy in envoys]
    packaged = scientist.post("/api/v1/packages", {"envoys": names, "num_rounds": 2})
    assert [package["envoy"] for package in packaged["packages"]] == names[::-1]
    assert packaged["problems"] == []
    refused = scientist.post(f"/api/v1/envoys/{names[0]}/launch", {}, code=409)
    assert "has not approved" in refused["detail"]

    # approve
    for each in doctors:
        (package,) = each.get("/api/v1/packages?answer=WAITING")["results"]
        approval = each.post(
            "/api/v1/approvals",
            {"package": package["id"], "plan_sha256": package["plan_sha256"]},
        )
        assert approval["answer"] == "APPROVED"

    # launch
    assignments = [scientist.post(f"/api/v1/envoys/{pk}/launch", {}, code=202) for pk in names]
    refused = scientist.post("/api/v1/rounds/aggregate", {"envoys": names}, code=409)
    assert "waiting" in refused["detail"]
    queue.work_and_sweep()
    for assignment in assignments:
        assert scientist.get(assignment["url"])["status"] == "SUBMITTED"

    # aggregate
    aggregated = scientist.post("/api/v1/rounds/aggregate", {"envoys": names}, code=202)
    queue.work()
    assert scientist.get(aggregated["url"])["status"] == "AGGREGATED"
    (version,) = scientist.get("/api/v1/model-versions?is_global=true")["results"]
    assert (version["number"], version["state"]) == (aggregated["model_version"], "CANDIDATE")

    # distribute
    sent = scientist.post("/api/v1/distributions", {"model_version": version["id"]}, code=202)
    queue.work()
    statuses = {row["status"] for row in scientist.get(sent["url"])["results"]}
    assert statuses == {"COMPLETE"}

    # see the risk
    AuditEvent.objects.all().delete()
    risk = doctor.get(f"/api/v1/predictions?admission={admission}")
    assert {row["model"] for row in risk["results"]} == {"global", "own"}
    assert risk["missing"] == []
    for row in risk["results"]:
        assert row["predicted_risk"] in ("Low", "Medium", "High")
        assert sum(row["probabilities"]) == pytest.approx(1)
    assert AuditEvent.objects.count() == 1
    doctors[1].get(f"/api/v1/predictions?admission={admission}", 404)
    scientist.get(f"/api/v1/predictions?admission={admission}", 404)

    # the whole hospital, as a task
    asked = scientist.post("/api/v1/inference-runs", {"envoys": names[:1]}, code=202)
    queue.work()
    run = scientist.get(asked["url"])
    assert (run["status"], run["percent"]) == ("COMPLETE", 100)
    assert set(run["counts"]) == {"Low", "Medium", "High"}


def test_the_journey_by_an_automatic_run(queue, hospitals):
    envoys = hospitals[:3]
    doctor, scientist = (
        Program(make_user(envoy=envoys[0])),
        Program(make_user(User.Role.DATA_SCIENTIST)),
    )
    approved_plan(study_for("risk_tier"), envoys)
    run = scientist.post("/api/v1/runs", {"seed": 1}, code=202)
    assert scientist.headers["Location"] == run["url"]
    queue.work_and_sweep()
    ended = scientist.get(run["url"])
    assert (ended["status"], ended["num_rounds_done"]) == ("FINISHED", 2)
    assert [row["number"] for row in ended["rounds"]] == [0, 1, 2]
    assert [row["num_in"] for row in ended["rounds"]] == [3, 3, 3]
    sat_out = next(row for row in ended["hospitals"] if row["sits_out"])
    assert "has no training package" in sat_out["sits_out_because"]
    seen = doctor.get(run["url"])
    assert [row["sits_out_because"] for row in seen["hospitals"]] == ["", "", "", ""]
    assert len(seen["curves"]["hospitals"]) == 1


def test_the_journey_by_the_published_paths_alone(queue, hospitals):
    envoys = hospitals[:3]
    approved_plan(study_for("risk_tier"), envoys)  # package and approval are given beforehand
    doctor = Program(make_user(envoy=envoys[0]), login="/api/login", token="token")
    scientist = Program(make_user(User.Role.DATA_SCIENTIST), login="/api/login", token="token")
    own, name = envoys[0].pk, envoys[0].name

    patient = doctor.post(
        "/api/patients/register",
        {"name": "Test Patient Zero", "gender": "F", "phone": "0"},
        code=200,
    )
    added = doctor.post(
        f"/envoy/{name}/add-diagnoses",
        [
            {
                "subject_id": None,
                "hadm_id": patient["hadm_id"],
                "icd_code": "I10",
                "icd_version": 10,
                "seq_num": 1,
                "diagnosis_count": 1,
                "risk_level": 2,
            }
        ],
        code=200,
    )
    assert added["subject_ids"] == [patient["subject_id"]]
    assert patient["subject_id"] in {
        row["subject_id"] for row in doctor.get("/api/patients?limit=1000")
    }
    exported = doctor.post(f"/envoy/{own}/export_diagnoses", code=200)

    assert scientist.post("/distribute-global-model", code=409)["type"] == "conflict"
    for envoy in envoys:
        launched = scientist.post(f"/envoy/{envoy.pk}/launch_training", code=202)
        assert set(launched) == {"message", "run", "assignment"}
    queue.work_and_sweep()
    aggregated = scientist.post("/aggregate", [envoy.pk for envoy in envoys], code=202)
    assert set(aggregated) == {"message", "model_version"}
    assert "being aggregated" in scientist.post("/distribute-global-model", code=409)["detail"]
    queue.work()
    sent = scientist.post("/distribute-global-model", code=202)
    assert set(sent) == {"message", "model_version", "envoys"}
    assert sent["model_version"] == aggregated["model_version"]
    assert sorted(sent["envoys"]) == sorted(envoy.name for envoy in hospitals)
    assert "has not received a model" in doctor.get(f"/envoy/{own}/inference/global", 409)["detail"]
    queue.work()

    for model in ("global", "envoy-model"):
        AuditEvent.objects.all().delete()
        page = doctor.get(f"/envoy/{own}/inference/{model}?limit=1000")
        assert set(page) == {"envoy", "model_version", "source_csv", "predictions"}
        assert (page["envoy"], page["source_csv"]) == (name, exported["csv_s3_key"])
        (seen,) = [row for row in page["predictions"] if row["hadm_id"] == patient["hadm_id"]]
        assert seen["subject_id"] == patient["subject_id"]
        assert seen["predicted_risk"] == ("Low", "Medium", "High")[seen["predicted_class"]]
        assert seen["diagnosis_count"] == 1
        assert sum(seen["probabilities"]) == pytest.approx(1)
        assert [event.target for event in AuditEvent.objects.all()] == [f"envoy:{own}"]
    assert doctor.get(f"/envoy/{envoys[1].pk}/inference/global", 404)["type"] == "not_found"
