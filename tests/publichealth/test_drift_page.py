import re

import pytest
from django.urls import reverse
from django.utils import timezone

from envoys.models import AuditEvent, User
from publichealth.models import DriftCheck, RetrainingProposal, Serving
from tests.api import Program
from tests.drifting import HOUR, make_node, make_readings, make_trained_serving
from tests.factories import make_envoy, make_user
from tests.training.test_run_pages import text_of

pytestmark = [pytest.mark.django_db, pytest.mark.filterwarnings("ignore:No directory at")]

PAGE, CHECK = reverse("publichealth:drift"), reverse("publichealth:drift-check-create")
LIVE, PROPOSE = reverse("publichealth:drift-live"), reverse("publichealth:proposal-create")


@pytest.fixture
def officer(client):
    user = make_user(User.Role.PUBLIC_HEALTH)
    client.force_login(user)
    return user


@pytest.fixture
def node():
    return make_node()


@pytest.fixture
def drifted(node, queue, officer, client):
    """A node that has been found to have drifted."""
    make_trained_serving(node)
    make_readings(node, 500, aqi=90)
    client.post(CHECK)
    queue.work()
    return DriftCheck.objects.get()


def propose(client, check, reason="the air is worse"):
    return client.post(PROPOSE, {"drift_check": check.pk, "reason": reason}, follow=True)


def test_without_a_node_the_page_says_what_will_be_here(officer, client):
    text = text_of(client.get(PAGE))
    assert "No node with readings yet" in text
    assert "Check now" not in text
    assert "Nobody has proposed a training yet" in text


def test_a_node_that_was_not_checked_says_so_and_why_not(officer, client, node):
    why = "Not checked yet. No model of readings is served yet: there is nothing to compare with."
    assert why in text_of(client.get(PAGE))
    make_trained_serving(make_node("Other", slug="other"))
    make_readings(node, 20)
    why = f"Not enough to compare: {node} took no part in training"
    for page in (PAGE, reverse("publichealth:dashboard")):
        assert why in text_of(client.get(page))
    make_readings(node, 980)
    assert "the first check is made within a minute" in text_of(client.get(PAGE))
    Serving.objects.all().delete()
    text = text_of(client.post(CHECK, follow=True))
    assert "No model of readings is being served" in text
    assert not DriftCheck.objects.exists()


def test_check_now_shows_progress_and_then_the_figures(officer, client, node, queue):
    make_trained_serving(node)
    make_readings(node, 500, aqi=90)
    page = client.post(CHECK, follow=True)
    assert "1 node is being checked" in text_of(page)
    assert "Waiting" in text_of(page)
    assert f'hx-get="{LIVE}"' in page.content.decode()
    assert client.get(LIVE, headers={"HX-Request": "true"}).headers.get("HX-Refresh") is None
    queue.work()
    # What stands outside the polled part changes too, so the whole page is asked for again.
    assert client.get(LIVE, headers={"HX-Request": "true"}).headers["HX-Refresh"] == "true"

    page = client.get(PAGE)
    figures = DriftCheck.objects.get().figures[0]
    text = text_of(page)
    assert "hx-get" not in page.content.decode()
    assert "Drifted: Air quality index" in text
    assert "Higher than before" in text
    assert f"{figures['psi']:.3f} of {figures['psi_limit']:.2f}" in text
    assert f"+{figures['shift']:.2f} of ±{figures['shift_limit']:.2f}" in text
    assert "As before" not in text


def test_alerts_stay_in_the_history_after_they_have_passed(drifted, node, client, queue):
    drifted_at = timezone.now() - HOUR
    DriftCheck.objects.update(created_at=drifted_at, completed_at=drifted_at)
    make_readings(node, 500, aqi=70)
    client.post(CHECK)
    queue.work()
    page = client.get(PAGE)
    assert [check.pk for check in page.context["alerts"]] == [drifted.pk]
    (shown,) = page.context["nodes"]
    assert shown["check"].is_alert is False
    detail = client.get(reverse("publichealth:drift-check-detail", args=[drifted.pk]))
    assert "Higher than before" in text_of(detail)


def test_a_proposal_is_made_withdrawn_and_made_again(drifted, officer, client):
    text = text_of(propose(client, drifted))
    assert "Proposed. Who runs the federation answers" in text
    proposal = RetrainingProposal.objects.get()
    assert (proposal.reason, proposal.proposed_by) == ("the air is worse", officer)
    assert "waits for an answer already" in text_of(propose(client, drifted))
    assert "Accept" not in text_of(client.get(PAGE)).partition("State Answer")[2]

    client.post(reverse("publichealth:proposal-withdraw", args=[proposal.pk]))
    proposal.refresh_from_db()
    assert proposal.answer == "WITHDRAWN"
    propose(client, drifted)
    assert RetrainingProposal.objects.count() == 2


def test_a_proposal_needs_a_reason_and_a_check(drifted, client):
    assert "This field is required" in text_of(propose(client, drifted, reason=" "))
    assert "Select a valid choice" in text_of(
        client.post(PROPOSE, {"drift_check": 0, "reason": "x"})
    )
    assert not RetrainingProposal.objects.exists()


def test_who_runs_the_federation_accepts_and_packages_that_study(drifted, client):
    propose(client, drifted)
    proposal = RetrainingProposal.objects.get()
    scientist = make_user(User.Role.DATA_SCIENTIST)
    client.force_login(scientist)
    assert "Accept" in text_of(client.get(PAGE))
    page = client.post(reverse("publichealth:proposal-accept", args=[proposal.pk]), follow=True)
    assert page.redirect_chain[-1][0].startswith(reverse("training:package-create"))
    assert re.search(rf'<option value="{proposal.study_id}"[^>]*selected', page.content.decode())
    proposal.refresh_from_db()
    assert (proposal.answer, proposal.answered_by) == ("ACCEPTED", scientist)
    answered_again = client.post(
        reverse("publichealth:proposal-decline", args=[proposal.pk]), follow=True
    )
    assert "no longer waiting" in text_of(answered_again)


def test_an_officer_cannot_answer(drifted, client):
    propose(client, drifted)
    proposal = RetrainingProposal.objects.get()
    for name in ("accept", "decline"):
        url = reverse(f"publichealth:proposal-{name}", args=[proposal.pk])
        assert client.post(url).status_code == 404
    proposal.refresh_from_db()
    assert proposal.is_waiting


# The same by the API


@pytest.fixture
def program():
    return Program(make_user(User.Role.PUBLIC_HEALTH))


def test_a_program_has_nodes_checked_and_reads_the_figures(program, node, queue):
    make_trained_serving(node)
    make_readings(node, 500, aqi=50)
    empty = make_node("Empty", slug="empty")
    answer = program.post("/api/v1/drift-checks", {}, code=202, key="k")
    (asked,) = answer["drift_checks"]
    assert (asked["envoy"], asked["status"]) == (node.pk, "PENDING")
    assert empty.name in answer["problems"][0]
    assert program.headers["Location"] == answer["url"] == asked["url"]
    assert program.post("/api/v1/drift-checks", {}, code=202, key="k") == answer
    queue.work()
    found = program.get(answer["url"])
    assert (found["status"], found["is_alert"]) == ("COMPLETE", True)
    (figures,) = found["figures"]
    assert (figures["input"], figures["verdict"]) == ("aqi", "Lower than before")
    assert figures["shift"] < -figures["shift_limit"]
    assert program.get(f"/api/v1/drift-checks?envoy={empty.pk}")["count"] == 0
    assert program.get("/api/v1/drift-checks?is_alert=true")["count"] == 1


def test_a_program_cannot_check_what_is_no_node(program, node):
    refused = program.post("/api/v1/drift-checks", {"envoys": [node.pk]}, code=409)
    assert "No model of readings" in refused["detail"]
    program.post("/api/v1/drift-checks", {"envoys": [10**6]}, code=404)
    refused = program.post("/api/v1/drift-checks", {"envoys": [make_envoy().pk]}, code=409)
    assert refused["detail"] == "None of these is a node of readings that is active"
    refused = program.post("/api/v1/drift-checks", {"envoys": []}, code=400)
    assert refused["errors"] == {"envoys": ["This list may not be empty."]}


def test_a_proposal_goes_its_way_by_calls(drifted, program):
    body = {"drift_check": drifted.pk, "reason": "the air is worse"}
    proposal = program.post("/api/v1/retraining-proposals", body)
    assert (proposal["answer"], proposal["study_name"]) == ("WAITING", "health-risk")
    program.post("/api/v1/retraining-proposals", body, code=409)
    program.post("/api/v1/retraining-proposals", {**body, "reason": ""}, code=400)
    program.post(f"{proposal['url']}/accept", code=404)
    withdrawn = program.post(f"{proposal['url']}/withdraw", code=200)
    assert withdrawn["answer"] == "WITHDRAWN"
    program.post(f"{proposal['url']}/withdraw", code=409)

    scientist = Program(make_user(User.Role.DATA_SCIENTIST))
    for answer, word in (("accept", "ACCEPTED"), ("decline", "DECLINED")):
        url = program.post("/api/v1/retraining-proposals", body)["url"]
        assert scientist.post(f"{url}/{answer}", code=200)["answer"] == word
    assert scientist.get("/api/v1/retraining-proposals?answer=ACCEPTED")["count"] == 1
    actions = list(AuditEvent.objects.order_by("pk").values_list("action", flat=True))
    assert actions.count("proposed retraining") == 3
    assert "accepted retraining proposal" in actions
    assert "declined retraining proposal" in actions
    assert "withdrew retraining proposal" in actions
