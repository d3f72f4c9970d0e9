"""What the form for a package starts from: the plan of the study's model, or of its newest package."""

from dataclasses import asdict
from typing import Any

import pytest
from django.urls import reverse

from envoys.models import Envoy, User
from federated.plan import LocalTrainingConfig, TrainingPlan
from tests.factories import (
    make_envoy,
    make_membership,
    make_participant,
    make_round,
    make_run,
    make_user,
    make_version,
)
from training import services
from training.models import ModelVersion, Study, TrainingRound, TrainingRun

pytestmark = [pytest.mark.django_db, pytest.mark.filterwarnings("ignore:No directory at")]

CREATE = reverse("training:package-create")
LOCAL = LocalTrainingConfig(local_epochs=2, batch_size=16, learning_rate=0.1)


@pytest.fixture(autouse=True)
def scientist(client) -> User:
    user = make_user(User.Role.DATA_SCIENTIST)
    client.force_login(user)
    return user


@pytest.fixture
def other() -> Study:
    return services.study_for("risk_tier")


@pytest.fixture
def health() -> Study:
    return services.study_for("health_risk")


@pytest.fixture
def wearables() -> Envoy:
    return make_envoy(name="Wearables", kind=Envoy.Kind.WEARABLES)


@pytest.fixture
def monitors() -> Envoy:
    return make_envoy(name="Monitors", kind=Envoy.Kind.ENVIRONMENT)


def release(plan: TrainingPlan, study: Study, took_part: Envoy, sat_out: Envoy) -> ModelVersion:
    run = make_run(
        TrainingRun.Status.FINISHED, study=study, plan=plan.to_json(), plan_sha256=plan.sha256
    )
    make_participant(run, took_part)
    make_participant(run, sat_out, sits_out_because="none of its readings has an outcome")
    training_round = make_round(run, number=1, status=TrainingRound.Status.AGGREGATED)
    manifest = {"schema_sha256": "of other inputs"}
    return make_version(training_round, state=ModelVersion.State.ACTIVE, manifest=manifest)


def plan_of(study: Study, strategy: str = "fedprox", **values: Any) -> TrainingPlan:
    return services.plan_for(
        study, num_rounds=20, strategy=strategy, local_training=LOCAL, **values
    )


def values_of(response: Any) -> dict[str, Any]:
    return {field.html_name: field.value() for field in response.context["form"]}


def is_like(values: dict[str, Any], plan: TrainingPlan) -> bool:
    expected = {
        "num_rounds": plan.num_rounds,
        "strategy": plan.strategy,
        **asdict(plan.local_training),
        **{f"parameter_{name}": value for name, value in asdict(plan.strategy_parameters).items()},
    }
    return {name: values.get(name) for name in expected} == expected


def envoys_of(values: dict[str, Any]) -> set[Envoy]:
    return {
        each if isinstance(each, Envoy) else Envoy.objects.get(pk=each) for each in values["envoys"]
    }


def test_training_again_starts_from_the_plan_of_the_active_version_and_who_took_part(
    client, health, wearables, monitors
):
    plan = plan_of(health, strategy_parameters={"mu": 0.25})
    release(plan, health, wearables, monitors)
    newer = services.plan_for(health, num_rounds=3)
    make_membership(health, monitors, plan=newer.to_json(), plan_sha256=newer.sha256)
    response = client.get(CREATE, {"study": health.pk})
    values = values_of(response)
    assert is_like(values, plan)
    assert values["parameter_mu"] == 0.25
    assert envoys_of(values) == {wearables}
    html = response.content.decode()
    assert html.count(" checked") == 1


def test_what_is_offered_can_be_packaged_as_it_comes(client, health, wearables, monitors):
    plan = plan_of(health, strategy_parameters={"mu": 0.25})
    release(plan, health, wearables, monitors)
    values = values_of(client.get(CREATE, {"study": health.pk}))
    sent = {**values, "study": health.pk, "envoys": [each.pk for each in envoys_of(values)]}
    client.post(CREATE, sent)
    package = health.memberships.get()
    assert (package.envoy, package.plan_sha256) == (wearables, plan.sha256)


def test_without_a_version_it_starts_from_the_newest_package_and_else_from_the_defaults(
    client, health, wearables, monitors
):
    values = values_of(client.get(CREATE, {"study": health.pk}))
    assert is_like(values, services.plan_for(health))
    plan = plan_of(health)
    make_membership(health, monitors, plan=plan.to_json(), plan_sha256=plan.sha256)
    values = values_of(client.get(CREATE, {"study": health.pk}))
    assert is_like(values, plan)
    assert envoys_of(values) == {wearables, monitors}


def test_a_plan_of_another_program_is_no_start(client, health, wearables):
    make_membership(health, wearables, plan={"strategy": "of old"})
    values = values_of(client.get(CREATE, {"study": health.pk}))
    assert is_like(values, services.plan_for(health))


def test_choosing_a_study_gives_the_values_that_suit_it(client, other, health, wearables, monitors):
    plan = plan_of(health)
    release(plan, health, wearables, monitors)
    hospital = make_envoy(name="Hospital")
    first = client.get(CREATE, {"study": other.pk})
    values = values_of(first)
    assert envoys_of(values) == {hospital}
    html = first.content.decode()
    assert "Show what suits it" in html
    assert 'hx-target="closest form" hx-select="#package-form"' in html
    sent = {**values, "study": health.pk, "envoys": [hospital.pk], "choose": "study"}
    again = client.post(CREATE, sent)
    assert is_like(values_of(again), plan)
    assert envoys_of(values_of(again)) == {wearables}
    assert 'id="package-form"' in again.content.decode()
    # Another strategy keeps what was filled in and takes that strategy's own parameters.
    sent = {**sent, "strategy": "fedavg", "num_rounds": 7, "choose": "strategy"}
    kept = values_of(client.post(CREATE, sent))
    assert kept["num_rounds"] == "7"
    assert "parameter_mu" not in kept


@pytest.mark.parametrize(
    ("target", "place", "people"),
    [("risk_tier", "hospital", "patients"), ("health_risk", "node", "people")],
)
def test_the_plan_to_approve_speaks_of_those_whom_it_is_about(client, target, place, people):
    study = services.study_for(target)
    plan = services.plan_for(study)
    kind = Envoy.Kind.CLINIC if target == "health_risk" else Envoy.Kind.HOSPITAL
    package = make_membership(
        study, make_envoy(kind=kind), plan=plan.to_json(), plan_sha256=plan.sha256
    )
    page = client.get(reverse("training:package-detail", args=[package.pk])).content.decode()
    assert f"What leaves the {place}</h2>" in page
    assert f"20 {people} with an outcome" in page
    assert f"3 {place}s" in page
