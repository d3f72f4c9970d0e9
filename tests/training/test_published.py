import pytest

from envoys.models import User
from tests.api import Program
from tests.factories import make_membership, make_user
from tests.federation import approved_plan
from training.models import ModelVersion, RoundAssignment, TrainingRound
from training.services import study_for

pytestmark = pytest.mark.django_db


@pytest.fixture
def scientist(queue):
    user = make_user(User.Role.DATA_SCIENTIST)
    return Program(user, login="/api/login", token="token")


def test_a_launch_names_the_envoy_by_number_or_name_and_says_what_to_watch(
    queue, scientist, hospitals
):
    first, second = hospitals[:2]
    refused = scientist.post(f"/envoy/{first.pk}/launch_training", code=409)
    assert "package it first" in refused["detail"]
    approved_plan(study_for("risk_tier"), [first, second])
    by_number = scientist.post(f"/envoy/{first.pk}/launch_training", code=202)
    assert scientist.get(scientist.headers["Location"])["envoy"] == first.pk
    by_name = scientist.post(f"/envoy/{second.name}/launch_training", code=202)
    assert by_number["run"] == by_name["run"]
    assert RoundAssignment.objects.get(pk=by_name["assignment"]).envoy == second
    scientist.post(f"/envoy/{first.pk}/launch_training", code=409)
    scientist.post("/envoy/nowhere/launch_training", code=404)


def test_a_call_sent_twice_says_again_where_to_look(queue, scientist, hospitals):
    approved_plan(study_for("risk_tier"), hospitals[:1])
    path = f"/envoy/{hospitals[0].pk}/launch_training"
    first = scientist.post(path, code=202, key="one")
    location = scientist.headers["Location"]
    assert scientist.post(path, code=202, key="one") == first
    assert scientist.headers["Idempotency-Replayed"] == "true"
    assert scientist.headers["Location"] == location
    assert RoundAssignment.objects.count() == 1


def test_aggregating_says_who_is_not_ready_and_which_version_will_come(queue, scientist, hospitals):
    envoys = hospitals[:3]
    assert "launch some first" in scientist.post("/aggregate", [envoys[0].pk], code=409)["detail"]
    approved_plan(study_for("risk_tier"), envoys)
    for envoy in envoys[:2]:
        scientist.post(f"/envoy/{envoy.pk}/launch_training", code=202)
    queue.work_and_sweep()
    refused = scientist.post("/aggregate", [envoy.pk for envoy in envoys], code=409)
    assert refused["detail"] == (f"{envoys[2]} has not been launched: launch it, or leave it out")
    answer = scientist.post("/aggregate", [envoys[0].pk, envoys[1].name], code=202)
    assert answer["model_version"] == 1
    watched = scientist.headers["Location"]
    assert scientist.get(watched)["status"] == TrainingRound.Status.CLOSED
    queue.work()
    assert scientist.get(watched)["status"] == TrainingRound.Status.AGGREGATED
    assert ModelVersion.objects.of_federation().get().number == 1
    too_few = scientist.post("/distribute-global-model", code=409)
    assert "comes from 2 of 3 hospitals needed" in too_few["detail"]


@pytest.mark.parametrize("body", [{}, {"envoys": [1]}, [True], [[1]], "1", [None]])
def test_aggregating_takes_a_list_of_numbers_and_names(scientist, body):
    assert scientist.post("/aggregate", body, code=400)["type"] == "invalid"


def test_aggregating_an_envoy_that_is_not_there_is_not_found(scientist):
    scientist.post("/aggregate", ["nowhere"], code=404)


def test_distributing_before_there_is_a_model_says_what_to_do(scientist):
    refused = scientist.post("/distribute-global-model", code=409)
    assert "train hospitals, then aggregate" in refused["detail"]


def test_a_doctor_finds_no_federation_to_run(queue):
    doctor = Program(make_user())
    membership = make_membership()
    for path, body in (
        (f"/envoy/{membership.envoy.pk}/launch_training", None),
        ("/aggregate", []),
        ("/distribute-global-model", None),
    ):
        doctor.post(path, body, code=404)
