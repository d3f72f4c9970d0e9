import pytest
from django.db import connection
from django.test.utils import CaptureQueriesContext

from envoys.models import AuditEvent, Envoy, User
from federated.plan import MAX_SEED
from tests.api import Program
from tests.factories import (
    make_assignment,
    make_distribution,
    make_envoy,
    make_participant,
    make_round,
    make_run,
    make_user,
    make_version,
)
from tests.federation import approved_plan
from training import services
from training.models import ModelVersion, RoundAssignment, Study, StudyMembership, TrainingRun

pytestmark = pytest.mark.django_db


@pytest.fixture
def scientist():
    return Program(make_user(User.Role.DATA_SCIENTIST))


@pytest.fixture
def doctor_user():
    return make_user()


@pytest.fixture
def doctor(doctor_user):
    return Program(doctor_user)


def ids(answer):
    return [row["id"] for row in answer["results"]]


def test_a_study_is_made_once_and_found_by_what_it_predicts(scientist):
    study = scientist.post("/api/v1/studies", {"target": "died_in_hospital"})
    assert scientist.get(study["url"])["network"] == "logistic_regression"
    assert scientist.post("/api/v1/studies", {"target": "died_in_hospital"}, code=409)
    unknown = scientist.post("/api/v1/studies", {"target": "weather"}, code=400)
    assert "weather" in unknown["detail"]
    assert ids(scientist.get("/api/v1/studies?target=died_in_hospital")) == [study["id"]]
    assert Study.objects.count() == 1


def test_a_package_holds_the_plan_that_was_asked_for(scientist):
    envoy, other = make_envoy(), make_envoy()
    made = scientist.post(
        "/api/v1/packages",
        {
            "envoys": [envoy.pk],
            "strategy": "fedprox",
            "strategy_parameters": {"mu": 0.1},
            "num_rounds": 4,
            "local_training": {"local_epochs": 1},
        },
    )
    (package,) = made["packages"]
    assert package["plan"]["strategy_parameters"] == {"mu": 0.1}
    assert package["plan"]["num_rounds"] == 4
    assert package["plan"]["local_training"]["local_epochs"] == 1
    assert (package["envoy"], package["answer"]) == (envoy.pk, "WAITING")
    everybody = scientist.post("/api/v1/packages", {"num_rounds": 4})
    assert {row["envoy"] for row in everybody["packages"]} == {envoy.pk, other.pk}


@pytest.mark.parametrize(
    "values",
    [
        {"strategy": "magic"},
        {"strategy_parameters": {"magic": 1}},
        {"num_rounds": 0},
        {"local_training": {"local_epochs": 0}},
        {"local_training": {"local_epochs": "many"}},
        {"study": 999},
        {"envoys": [999]},
    ],
)
def test_a_plan_that_cannot_be_is_refused_in_words(scientist, values):
    make_envoy()
    refused = scientist.post("/api/v1/packages", values, code=400)
    assert refused["type"] == "invalid"
    assert not StudyMembership.objects.exists()


LOCAL_NAMES = "local_epochs, batch_size, learning_rate, weight_decay"


@pytest.mark.parametrize(
    ("path", "values", "field", "words"),
    [
        (
            "packages",
            {"local_training": {"learning_rte": 0.1}},
            "local_training.learning_rte",
            f"No parameter is called 'learning_rte'; there are {LOCAL_NAMES}.",
        ),
        (
            "packages",
            {"stratgy": "median"},
            "stratgy",
            "No parameter is called 'stratgy'; there are study, envoys, strategy,"
            " strategy_parameters, num_rounds, local_training.",
        ),
        ("runs", {"sead": 1}, "sead", "No parameter is called 'sead'; there are "),
        ("studies", {"target": "risk_tier", "net": "x"}, "net", "No parameter is called 'net'"),
        (
            "packages",
            {"local_training": {"learning_rate": True}},
            "local_training.learning_rate",
            "A valid number is required.",
        ),
        (
            "packages",
            {"strategy": "fedprox", "strategy_parameters": {"nu": 1}},
            None,
            "fedprox has no parameter nu; its parameters: mu",
        ),
        (
            "packages",
            {"strategy": "fedprox", "strategy_parameters": {"mu": True}},
            None,
            "mu is a number, not True",
        ),
        (
            "packages",
            {"strategy": "scaffold", "strategy_parameters": {"weighted_by_examples": "no"}},
            None,
            "weighted_by_examples is true or false, not 'no'",
        ),
        (
            "packages",
            {"local_training": {"learning_rate": "nan"}},
            "local_training.learning_rate",
            "A valid number is required.",
        ),
        (
            "packages",
            {"local_training": {"learning_rate": 2, "weight_decay": 0.5}},
            None,
            "learning_rate times weight_decay is below 1, not 2 times 0.5, which is 1",
        ),
    ],
)
def test_a_wrong_parameter_is_refused_by_name(scientist, path, values, field, words):
    make_envoy()
    refused = scientist.post(f"/api/v1/{path}", values, code=400)
    text = refused["errors"][field][0] if field else refused["detail"]
    assert text.startswith(words)
    assert not StudyMembership.objects.exists()


def test_a_package_is_approved_by_its_hash_revoked_and_refused(scientist, doctor, doctor_user):
    other = make_envoy()
    scientist.post("/api/v1/packages", {"envoys": [doctor_user.envoy_id, other.pk]})
    (package,) = doctor.get("/api/v1/packages")["results"]
    assert package["envoy"] == doctor_user.envoy_id
    body = {"package": package["id"], "plan_sha256": package["plan_sha256"]}
    wrong = doctor.post("/api/v1/approvals", {**body, "plan_sha256": "0" * 64}, code=409)
    assert "read it again" in wrong["detail"]
    scientist.post("/api/v1/approvals", body, code=404)

    approval = doctor.post("/api/v1/approvals", body)
    assert (approval["answer"], approval["approved_by"]) == ("APPROVED", doctor_user.username)
    assert doctor.headers["Location"] == approval["url"]
    assert doctor.post(f"{approval['url']}/revoke", code=200)["answer"] == "REVOKED"
    doctor.post(f"{approval['url']}/revoke", code=409)
    doctor.post(f"{approval['url']}/refuse", {}, code=400)
    refused = doctor.post(f"{approval['url']}/refuse", {"reason": "too many rounds"}, code=200)
    assert (refused["answer"], refused["refusal_reason"]) == ("REFUSED", "too many rounds")

    theirs = StudyMembership.objects.get(envoy=other)
    doctor.get(f"/api/v1/packages/{theirs.pk}", 404)
    doctor.post("/api/v1/approvals", {**body, "package": theirs.pk}, code=404)
    doctor.post(f"/api/v1/approvals/{theirs.pk}/refuse", {"reason": "no"}, code=404)
    waiting = scientist.get("/api/v1/approvals?answer=WAITING")
    assert ids(waiting) == [theirs.pk]


def test_a_run_without_packages_says_what_to_do_first(scientist):
    refused = scientist.post("/api/v1/runs", {}, code=409)
    assert "package it first" in refused["detail"]
    make_envoy()
    scientist.post("/api/v1/packages", {})
    refused = scientist.post("/api/v1/runs", {}, code=409)
    assert "nobody can take part" in refused["detail"]
    refused = scientist.post("/api/v1/runs", {"plan_sha256": "0" * 64}, code=409)
    assert "000000000000" in refused["detail"]


def test_a_run_is_stopped_once(scientist):
    run = make_run()
    make_participant(run)
    stopped = scientist.post(f"/api/v1/runs/{run.pk}/stop", code=200)
    assert stopped["status"] == TrainingRun.Status.STOPPED
    assert "stopped" in scientist.post(f"/api/v1/runs/{run.pk}/stop", code=409)["detail"]
    assert AuditEvent.objects.filter(action="stopped run").count() == 1


def test_a_doctor_sees_runs_of_their_hospital_without_what_speaks_of_others(
    scientist, doctor, doctor_user
):
    reason = "Hospital Y: 12 of 20 patients"
    mine = make_run(status=TrainingRun.Status.FAILED, reason=reason)
    make_participant(mine, doctor_user.envoy)
    make_participant(mine, make_envoy(name="Hospital Y"))
    training_round = make_round(mine, status="FAILED", reason=reason)
    theirs = make_participant().run
    assert ids(doctor.get("/api/v1/runs")) == [mine.pk]
    assert ids(doctor.get("/api/v1/rounds")) == [training_round.pk]
    doctor.get(f"/api/v1/runs/{theirs.pk}", 404)
    for answer in (
        doctor.get("/api/v1/runs"),
        doctor.get(f"/api/v1/runs/{mine.pk}"),
        doctor.get(f"/api/v1/rounds/{training_round.pk}"),
    ):
        assert "12 of 20" not in str(answer)
    assert reason in scientist.get(f"/api/v1/runs/{mine.pk}")["reason"]
    assert set(ids(scientist.get("/api/v1/runs"))) == {mine.pk, theirs.pk}


def test_rows_are_filtered_by_study_envoy_and_status(scientist):
    participant = make_participant(make_run(status=TrainingRun.Status.FINISHED))
    run = participant.run
    make_participant()
    training_round = make_round(run)
    assignment = make_assignment(training_round, participant.envoy)
    make_assignment()
    for query in (f"study={run.study_id}", f"envoy={participant.envoy_id}", "status=FINISHED"):
        assert ids(scientist.get(f"/api/v1/runs?{query}")) == [run.pk]
    assert ids(scientist.get(f"/api/v1/rounds?study={run.study_id}")) == [training_round.pk]
    for query in (f"run={run.pk}", f"study={run.study_id}", f"envoy={participant.envoy_id}"):
        assert ids(scientist.get(f"/api/v1/assignments?{query}")) == [assignment.pk]
    assert scientist.get("/api/v1/assignments?status=PENDING")["count"] == 2
    assert scientist.get("/api/v1/assignments?limit=1")["next"].endswith("limit=1&offset=1")


def test_a_failed_assignment_is_retried_while_its_round_collects(queue, scientist):
    run = make_run()
    participant = make_participant(run)
    training_round = make_round(run)
    assignment = make_assignment(training_round, participant.envoy, status="FAILED", reason="disk")
    retried = scientist.post(f"/api/v1/assignments/{assignment.pk}/retry", code=202)
    assert (retried["status"], retried["reason"]) == (RoundAssignment.Status.PENDING, "")
    assert queue.names() == ["train_clients_task"]
    scientist.post(f"/api/v1/assignments/{assignment.pk}/retry", code=409)


def test_a_doctor_sees_global_versions_and_their_own_without_others_counts(
    scientist, doctor, doctor_user
):
    other = make_envoy()
    updates = [
        {"envoy": envoy.slug, "sha256": "0" * 64, "num_examples": 123}
        for envoy in (doctor_user.envoy, other)
    ]
    manifest = {"classes": ["Low", "High"], "lineage": {"updates": updates}}
    version = make_version(manifest=manifest)
    own = make_version(envoy=doctor_user.envoy)
    theirs = make_version(envoy=other)
    assert set(ids(doctor.get("/api/v1/model-versions"))) == {version.pk, own.pk}
    doctor.get(f"/api/v1/model-versions/{theirs.pk}", 404)
    seen = doctor.get(f"/api/v1/model-versions/{version.pk}")["manifest"]
    assert seen["lineage"]["updates"] == [updates[0], {"envoy": other.slug}]
    seen = scientist.get(f"/api/v1/model-versions/{version.pk}")["manifest"]
    assert seen["lineage"]["updates"] == updates
    assert ids(scientist.get("/api/v1/model-versions?is_global=true")) == [version.pk]
    assert ids(scientist.get(f"/api/v1/model-versions?envoy={other.pk}")) == [theirs.pk]

    delivered = make_distribution(version=version, envoy=doctor_user.envoy)
    make_distribution(version=version, envoy=other)
    assert ids(doctor.get("/api/v1/distributions")) == [delivered.pk]
    assert scientist.get(f"/api/v1/distributions?model_version={version.pk}")["count"] == 2


def test_a_count_under_ten_in_a_version_is_told_to_a_doctor_of_the_hospital_alone(
    scientist, doctor, doctor_user
):
    update = {"envoy": doctor_user.envoy.slug, "sha256": "0" * 64, "num_examples": 9}
    metrics = {"validation_auroc": 0.7, "num_validation": 3}
    version = make_version(
        envoy=doctor_user.envoy, metrics=metrics, manifest={"lineage": {"updates": [update]}}
    )
    url = f"/api/v1/model-versions/{version.pk}"
    own = doctor.get(url)
    assert own["metrics"] == metrics
    assert own["manifest"]["lineage"]["updates"] == [update]
    seen = scientist.get(url)
    assert seen["metrics"] == {**metrics, "num_validation": None}
    assert seen["manifest"]["lineage"]["updates"] == [{**update, "num_examples": None}]


def test_a_version_of_too_few_hospitals_and_a_hospitals_own_are_not_distributed(scientist):
    version = make_version(manifest={"lineage": {"updates": []}})
    refused = scientist.post("/api/v1/distributions", {"model_version": version.pk}, code=409)
    assert "could give one of them away" in refused["detail"]
    own = make_version(envoy=make_envoy())
    refused = scientist.post("/api/v1/distributions", {"model_version": own.pk}, code=400)
    assert list(refused["errors"]) == ["model_version"]


def test_the_federation_at_a_glance_is_everybodys_own_view(scientist, doctor, doctor_user):
    make_envoy()
    services.study_for("risk_tier")
    seen = scientist.get("/api/v1/federation")
    assert (len(seen["envoys"]), seen["num_active_envoys"]) == (2, 2)
    assert seen["models"][0]["model_version"] is None
    own = doctor.get("/api/v1/federation")
    assert [line["envoy"]["id"] for line in own["envoys"]] == [doctor_user.envoy_id]


TOO_LARGE = 10**30


def test_a_hospital_that_is_named_twice_takes_part_once(queue, scientist, hospitals):
    ids = [envoy.pk for envoy in hospitals[:3]]
    twice = [ids[0], *ids]
    plan = approved_plan(services.study_for("risk_tier"), hospitals[:3])
    assert len(scientist.post("/api/v1/packages", {"envoys": twice})["packages"]) == 3
    body = {"envoys": twice, "plan_sha256": plan.sha256}
    run = scientist.post("/api/v1/runs", body, code=202)
    assert run["num_hospitals"] == 3
    queue.work_and_sweep()
    version = ModelVersion.objects.of_federation().get()
    asked = {"envoys": twice, "model_version": version.pk}
    sent = scientist.post("/api/v1/distributions", asked, code=202)["distributions"]
    assert sorted(row["envoy"] for row in sent) == sorted(ids)


@pytest.mark.parametrize("path", ["distributions", "runs", "packages"])
def test_a_list_without_an_active_hospital_is_refused_in_words(scientist, path):
    version = make_version()
    suspended = make_envoy(status=Envoy.Status.SUSPENDED)
    body = {"model_version": version.pk} if path == "distributions" else {}
    empty = scientist.post(f"/api/v1/{path}", {**body, "envoys": []}, code=400)
    assert empty["errors"]["envoys"] == ["Choose at least one hospital."]
    for pk in (suspended.pk, 999):
        refused = scientist.post(f"/api/v1/{path}", {**body, "envoys": [pk]}, code=400)
        assert f"no active hospital {pk}" in str(refused["errors"])
    version.refresh_from_db()
    assert version.state == ModelVersion.State.CANDIDATE


@pytest.mark.parametrize("number", [TOO_LARGE, -1, 1.5, True, "x", None, [1]])
def test_what_is_no_number_of_a_row_is_refused_in_a_body(scientist, number):
    make_version(envoy=make_envoy(pk=1), pk=1)  # 1.5 and true are not 1
    for path, name, value in (
        ("packages", "envoys", [number]),
        ("packages", "study", number),
        ("runs", "envoys", [number]),
        ("rounds/aggregate", "envoys", [number]),
        ("inference-runs", "envoys", [number]),
        ("distributions", "model_version", number),
    ):
        refused = scientist.post(f"/api/v1/{path}", {name: value}, code=400)
        assert any(field.startswith(name) for field in refused["errors"]), (path, refused)


@pytest.mark.parametrize(
    "values",
    [
        {"quorum": TOO_LARGE},
        {"deadline_seconds": TOO_LARGE},
        {"seed": MAX_SEED + 1},
        {"seed": -1},
    ],
)
def test_a_number_that_no_run_can_have_is_refused(scientist, values):
    assert list(scientist.post("/api/v1/runs", values, code=400)["errors"]) == list(values)


@pytest.mark.parametrize(
    ("path", "values", "words"),
    [
        ("runs", {"study": 999}, "There is no study 999."),
        ("packages", {"study": 999}, "There is no study 999."),
        ("packages", {"envoys": [999]}, "There is no active hospital 999."),
        ("distributions", {"model_version": 999}, "There is no model version 999."),
    ],
)
def test_a_row_that_there_is_not_is_refused_in_words(scientist, path, values, words):
    refused = scientist.post(f"/api/v1/{path}", values, code=400)
    assert words in str(refused["errors"])


def test_a_number_too_large_in_a_path_is_not_found(scientist):
    for path in ("runs", "envoys", "model-versions", "packages", "inference-runs"):
        scientist.get(f"/api/v1/{path}/{TOO_LARGE}", 404)
    scientist.get(f"/api/v1/tasks/distribution-{TOO_LARGE}", 404)
    scientist.post(f"/envoy/{TOO_LARGE}/launch_training", code=404)


def test_the_federation_at_a_glance_needs_no_more_queries_for_more_runs(scientist):
    envoy, counts = make_envoy(), []
    for num_runs in (3, 6):
        for _ in range(3):
            run = make_run(started_by=make_user(User.Role.DATA_SCIENTIST))
            make_participant(run, envoy)
        with CaptureQueriesContext(connection) as queries:
            seen = scientist.get("/api/v1/federation")
        assert len(seen["active_runs"]) == num_runs
        counts.append(len(queries))
    assert counts[0] == counts[1]
