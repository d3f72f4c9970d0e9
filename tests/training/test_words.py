"""Pages of a study of readings speak of nodes and people, and name things by their titles."""

import pytest
from django.urls import reverse

from envoys.models import Envoy, User
from federated.targets import DIAGNOSES, READINGS
from federated.words import OF_BOTH, OF_HOSPITALS, OF_NODES, words_of
from tests.factories import make_choice, make_envoy, make_participant, make_run, make_user
from tests.health import make_health_version
from tests.training.test_run_pages import text_of
from training import services
from training.models import ModelVersion, TrainingRun

pytestmark = [pytest.mark.django_db, pytest.mark.filterwarnings("ignore:No directory at")]


@pytest.fixture
def run():
    run = make_run(TrainingRun.Status.FINISHED, study=services.study_for("health_risk"))
    make_participant(run, make_envoy(name="Wearables", kind=Envoy.Kind.WEARABLES))
    return run


@pytest.fixture
def scientist(client):
    client.force_login(make_user(User.Role.DATA_SCIENTIST))


def test_the_words_follow_what_is_trained_on():
    assert words_of([]) == words_of([DIAGNOSES]) == OF_HOSPITALS
    assert words_of([READINGS]) == OF_NODES
    assert words_of([READINGS, DIAGNOSES]) == OF_BOTH


def test_a_sentence_on_hospitals_is_said_of_nodes():
    said = "The global model beats this hospital's own; too few patients, the hospitals' admissions"
    assert OF_HOSPITALS.instead(said) == said
    assert OF_NODES.instead(said) == (
        "The global model beats this node's own; too few people, the nodes' readings"
    )


def test_pages_of_readings_say_node_and_people(client, scientist, run):
    version = make_health_version()
    pages = [
        reverse("training:run-list"),
        reverse("training:run-detail", args=[run.pk]),
        reverse("training:run-benefit", args=[run.pk]),
        reverse("training:study-list"),
        reverse("training:study-detail", args=[run.study_id]),
        reverse("training:envoy-list"),
        reverse("training:envoy-detail", args=[run.participants.get().envoy_id]),
        reverse("training:model-version-list"),
        reverse("training:model-version-detail", args=[version.pk]),
        reverse("training:package-list"),
        reverse("training:model-choice-list"),
        reverse("training:federation-dashboard"),
    ]
    for page in pages:
        text = text_of(client.get(page))
        assert "hospital" not in text.lower(), page
        assert "patient" not in text.lower(), page
        for identifier in ("health_risk", "logistic_regression", "fedavg"):
            assert identifier not in text, page
    assert "nodes" in text_of(client.get(pages[0])).lower()


def test_beside_nodes_hospitals_are_named_too(client, scientist, run):
    make_envoy(name="General")
    assert "Hospitals and nodes" in text_of(client.get(reverse("training:envoy-list")))


def test_an_overruled_choice_says_who_decided(run):
    envoy = run.participants.get().envoy
    choice = make_choice(run, envoy, kind=ModelVersion.Kind.LOCAL)
    assert choice.model_in_use == "Trained at the node alone"
    choice.overruled_to, choice.overrule_reason = ModelVersion.Kind.GLOBAL, "It is newer."
    assert choice.in_words == "It is newer (a keeper of the node decided)."
