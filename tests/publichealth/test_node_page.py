from datetime import UTC, datetime

import pytest
from django.urls import reverse

from envoys.models import Envoy
from publichealth.models import DriftCheck
from tests.api import Program
from tests.factories import (
    make_distribution,
    make_envoy,
    make_membership,
    make_reading,
    make_snapshot,
    make_user,
)
from tests.health import make_health_version
from training import services

pytestmark = [pytest.mark.django_db, pytest.mark.filterwarnings("ignore:No directory at")]

PAGE, HOME = reverse("publichealth:node-dashboard"), reverse("home")
NEWEST = datetime(2026, 3, 4, 5, 6, tzinfo=UTC)


@pytest.fixture
def node() -> Envoy:
    return make_envoy(name="Clinic node", kind=Envoy.Kind.CLINIC)


@pytest.fixture
def keeper(node):
    return make_user(envoy=node)


@pytest.fixture
def busy(node) -> Envoy:
    """A node with something of everything; another has other figures."""
    make_reading(node, measured_at=NEWEST)
    make_reading(node, measured_at=datetime(2026, 1, 1, tzinfo=UTC), outcome=0)
    make_reading(node, measured_at=datetime(2026, 1, 2, tzinfo=UTC), tier=2)
    for _ in range(5):
        make_reading()
    version = make_health_version()
    make_distribution(version, node)
    make_distribution(version, make_envoy())
    make_membership(version.study, node)
    make_membership(version.study, make_envoy())
    make_snapshot(node, completed_at=NEWEST)
    DriftCheck.objects.create(
        envoy=node,
        version=version,
        status=DriftCheck.Status.COMPLETE,
        num_readings=500,
        is_alert=True,
        figures=[{"input": "spo2", "alerts": ["shift"]}, {"input": "age", "alerts": []}],
        completed_at=NEWEST,
    )
    return node


def words_of(response) -> str:
    return " ".join(response.content.decode().split())


def test_a_keepers_home_is_the_nodes_page(client, keeper):
    client.force_login(keeper)
    response = client.get(HOME, follow=True)
    assert response.redirect_chain == [(PAGE, 302)]
    page = words_of(response)
    assert "There is no reading yet" in page
    assert "None yet. A data scientist trains one with the nodes that approve" in page
    assert "Not checked yet" in page
    for word in ("hospital's diagnoses", "Register a patient", "Admissions"):
        assert word not in page


def test_the_page_shows_what_the_node_has_and_what_waits(client, keeper, busy):
    client.force_login(keeper)
    page = words_of(client.get(PAGE))
    for said in (
        "<dt>Readings</dt><dd>3</dd>",
        "<dt>With a known outcome</dt><dd>2</dd>",
        "<dt>Without</dt><dd>1</dd>",
        "4 Mar 2026, 05:06 UTC",
        "version 1</a>",
        "Drifted: Oxygen saturation",
        reverse("training:package-detail", args=[busy.memberships.get().pk]),
        reverse("training:package-list"),
        reverse("training:run-list"),
    ):
        assert said in page
    assert page.count("Read it</a>") == 1


def test_the_call_answers_what_the_page_shows(keeper, busy):
    answer = Program(keeper).get("/api/v1/node")
    assert answer["envoy"] == {"id": busy.pk, "name": "Clinic node"}
    counts = ("num_readings", "num_labelled", "num_unlabelled")
    assert [answer[name] for name in counts] == [3, 2, 1]
    assert answer["newest_at"] == answer["last_export_at"] == "2026-03-04T05:06:00Z"
    assert [each["number"] for each in answer["models"]] == [1]
    assert [each["id"] for each in answer["waiting"]] == [busy.memberships.get().pk]
    assert (answer["has_drifted"], answer["drifted_inputs"]) == (True, ["Oxygen saturation"])


def test_of_a_node_without_anything_the_call_answers_nulls_and_noughts(keeper):
    answer = Program(keeper).get("/api/v1/node")
    assert (answer["num_readings"], answer["num_unlabelled"]) == (0, 0)
    for name in ("newest_at", "last_export_at", "has_drifted", "drift_checked_at"):
        assert answer[name] is None
    assert (answer["models"], answer["waiting"], answer["drifted_inputs"]) == ([], [], [])


def test_a_keeper_is_offered_no_pages_about_patients_and_a_doctor_is(client, keeper):
    client.force_login(keeper)
    titles = [entry.title for entry in client.get(PAGE).context["navigation"]]
    assert {"Patients", "Imports", "Exports", "Inference"}.isdisjoint(titles)
    assert {"Dashboard", "Approvals", "Runs", "Models"} <= set(titles)
    client.force_login(make_user(envoy=make_envoy()))
    response = client.get(PAGE, follow=True)
    assert response.redirect_chain == [(reverse("inference:hospital-dashboard"), 302)]
    titles = [entry.title for entry in response.context["navigation"]]
    assert {"Patients", "Imports", "Exports", "Inference"} <= set(titles)


@pytest.mark.parametrize(
    "page",
    [
        "inference:hospital-dashboard",
        "inference:patient-list",
        "diagnoses:patient-register",
        "diagnoses:import-list",
        "diagnoses:export-list",
        "diagnoses:code-report",
    ],
)
def test_what_is_about_patients_is_no_page_of_a_node(client, keeper, page):
    client.force_login(keeper)
    assert client.get(reverse(page)).status_code == 404
    client.force_login(make_user(envoy=make_envoy()))
    assert client.get(reverse(page)).status_code == 200


def test_a_keeper_has_no_calls_about_patients_and_answers_for_the_node(client, keeper, node):
    program = Program(keeper)
    for path in ("patients", "exports", "imports", "hospital"):
        program.get(f"/api/v1/{path}", code=404)
    assert program.get("/api/v1/readings")["count"] == 0
    study = services.study_for("health_risk")
    package = services.package_training(study, node, services.plan_for(study))
    client.force_login(keeper)
    approval = {"plan_sha256": package.plan_sha256}
    page = reverse("training:package-approve", args=[package.pk])
    assert client.post(page, approval).status_code == 302
    package.refresh_from_db()
    assert package.approved_by == keeper
