from datetime import timedelta

import pytest
from django.utils import timezone

from envoys.models import AuditEvent, Envoy, User
from publichealth.models import DriftCheck, Reading, RetrainingProposal, Serving
from publichealth.services import drift, retraining
from publichealth.tasks import check_drift_task
from tests.drifting import HOUR, make_node, make_readings, make_trained_serving
from tests.factories import make_envoy, make_user
from tests.health import make_health_version, make_serving
from training.errors import NotReadyError

pytestmark = pytest.mark.django_db


@pytest.fixture
def node():
    return make_node()


@pytest.fixture
def serving(node):
    return make_trained_serving(node)


@pytest.fixture
def officer():
    return make_user(User.Role.PUBLIC_HEALTH)


def checked(node, queue):
    drift.request_check(node)
    queue.work()
    return DriftCheck.objects.filter(envoy=node).first()


def test_a_node_like_its_training_readings_gives_no_alert(node, serving, queue):
    make_readings(node, 500)
    check = checked(node, queue)
    assert (check.status, check.is_alert, check.num_readings) == ("COMPLETE", False, 500)
    assert check.version == serving.version
    (figures,) = check.figures
    assert (figures["input"], figures["num_readings"], figures["alerts"]) == ("aqi", 500, [])
    assert figures["psi"] < figures["psi_limit"]


def test_half_a_standard_deviation_more_is_an_alert(node, serving, queue):
    make_readings(node, 500, aqi=80)
    check = checked(node, queue)
    assert (check.is_alert, check.alert_titles) == (True, ["Air quality index"])
    assert check.figures[0]["shift"] == pytest.approx(0.5, abs=0.15)
    assert "shift" in check.figures[0]["alerts"]


def test_only_readings_since_the_training_are_checked(node, serving, queue):
    make_readings(node, 600, aqi=200, received_at=timezone.now() - 3 * HOUR)
    make_readings(node, 120)
    check = checked(node, queue)
    assert (check.num_readings, check.is_alert) == (120, False)


def test_only_the_newest_are_checked(node, serving, queue):
    make_readings(node, 300, aqi=200, received_at=timezone.now() - HOUR)
    make_readings(node, drift.NEWEST)
    assert checked(node, queue).is_alert is False


def test_a_node_that_trained_nothing_is_held_against_its_own_earlier_readings(node, serving, queue):
    other = make_node("Another", slug="another")
    make_readings(other, 600, aqi=150, received_at=timezone.now() - HOUR)
    make_readings(other, 500, aqi=150)
    assert checked(other, queue).is_alert is False  # unlike what `node` trained on, like itself
    make_readings(other, 500, aqi=165)
    assert checked(other, queue).is_alert is True


def test_the_newest_model_that_the_node_has_trained_is_compared_with(node, serving, queue):
    of_another_study = make_health_version(target="health_tier")
    newer = make_serving(of_another_study, training_distribution={})
    assert newer.created_at > serving.created_at
    make_readings(node, 200)
    assert checked(node, queue).version == serving.version


def test_what_cannot_be_compared_is_refused_in_words(node, serving, queue):
    make_readings(node, drift.LEAST_NEW - 1)
    with pytest.raises(NotReadyError, match="fewer than 100 readings since"):
        drift.request_check(node)
    other = make_node("Another", slug="another")
    make_readings(other, 2 * drift.NEWEST - 1)
    with pytest.raises(NotReadyError, match=r"took no part .* fewer than 1,000"):
        drift.request_check(other)
    assert not DriftCheck.objects.exists()
    make_readings(node, 1)
    drift.request_check(node)
    with pytest.raises(NotReadyError, match="being checked already"):
        drift.request_check(node)


@pytest.mark.parametrize("status", [Serving.Status.PENDING, Serving.Status.FAILED])
def test_nothing_is_checked_before_a_model_is_served(node, serving, queue, status):
    make_readings(node, 500)
    Serving.objects.update(status=status)
    with pytest.raises(NotReadyError, match="No model of readings"):
        drift.request_check(node)
    drift.request_due_checks()
    assert not DriftCheck.objects.exists()


def test_readings_that_are_gone_when_the_worker_comes_fail_the_check(node, serving, queue):
    make_readings(node, 200)
    check = drift.request_check(node)
    Reading.objects.all().delete()
    queue.work()
    check.refresh_from_db()
    assert (check.status, "Not enough to compare" in check.reason) == ("FAILED", True)


def test_a_check_that_is_delivered_twice_is_made_once(node, serving, queue):
    make_readings(node, 500)
    check = drift.request_check(node)
    queue.work(copies=2)
    check.refresh_from_db()
    completed_at = check.completed_at
    check_drift_task(check.pk)
    check.refresh_from_db()
    assert (check.attempt, check.completed_at) == (1, completed_at)


def test_nodes_with_new_readings_are_checked_by_themselves_once_an_hour(
    node, serving, queue, settings
):
    settings.DRIFT_HOURS = 1
    make_readings(node, 300)
    hospital = make_envoy(name="Hospital")
    suspended = make_node("Suspended", slug="suspended", status=Envoy.Status.SUSPENDED)
    make_readings(suspended, 1200)
    for _ in range(2):
        drift.request_due_checks()
    assert [check.envoy for check in DriftCheck.objects.all()] == [node]
    assert hospital != node
    queue.work()
    drift.request_due_checks()
    assert DriftCheck.objects.count() == 1  # within the hour

    long_ago = timezone.now() - timedelta(minutes=61)
    DriftCheck.objects.update(created_at=long_ago)
    Reading.objects.update(received_at=long_ago - timedelta(minutes=1))
    drift.request_due_checks()
    assert DriftCheck.objects.count() == 1  # nothing new
    make_readings(node, drift.LEAST_NEW)
    drift.request_due_checks()
    assert DriftCheck.objects.count() == 2


def test_a_persons_check_is_audited_and_the_beats_is_not(node, serving, officer, queue):
    make_readings(node, 200)
    drift.request_due_checks()
    assert not AuditEvent.objects.exists()
    queue.work()
    drift.request_checks([node], requested_by=officer)
    event = AuditEvent.objects.get()
    assert (event.user, event.action) == (officer, "requested drift check")


def test_one_node_that_cannot_be_checked_does_not_stop_the_others(node, serving, officer, queue):
    make_readings(node, 200)
    empty = make_node("Empty", slug="empty")
    requested = drift.request_checks([empty, node], requested_by=officer)
    assert [check.envoy for check in requested.checks] == [node]
    (problem,) = requested.problems
    assert "Empty" in problem
    with pytest.raises(NotReadyError, match="Empty"):
        drift.request_checks([empty], requested_by=officer)


def test_the_summary_has_the_last_complete_check_and_what_came_after(node, serving, officer, queue):
    (found,) = drift.summary(officer)
    assert (found.envoy, found.check, found.newest) == (node, None, None)
    make_readings(node, 500, aqi=90)
    first = checked(node, queue)
    second = drift.request_check(node)
    (found,) = drift.summary(officer)
    assert (found.check, found.newest) == (first, second)
    queue.work()
    (found,) = drift.summary(officer)
    assert (found.check, found.newest) == (second, None)
    assert drift.summary(make_user()) == []  # another hospital's doctor


# Proposals


@pytest.fixture
def check(node, serving):
    return DriftCheck.objects.create(
        envoy=node, version=serving.version, status=DriftCheck.Status.COMPLETE, is_alert=True
    )


@pytest.fixture
def scientist():
    return make_user(User.Role.DATA_SCIENTIST)


def propose(check, officer):
    return retraining.propose_retraining(check, reason="the air is worse", proposed_by=officer)


def test_a_proposal_is_of_the_study_that_was_checked_and_waits(check, officer):
    proposal = propose(check, officer)
    assert (proposal.study, proposal.drift_check) == (check.version.study, check)
    assert proposal.is_waiting
    with pytest.raises(NotReadyError, match="waits for an answer already"):
        propose(check, officer)
    assert RetrainingProposal.objects.count() == 1
    assert AuditEvent.objects.get().action == "proposed retraining"


def test_an_unfinished_check_is_no_reason(check, officer):
    DriftCheck.objects.update(status=DriftCheck.Status.RUNNING)
    check.refresh_from_db()
    with pytest.raises(NotReadyError, match="not complete"):
        propose(check, officer)


@pytest.mark.parametrize("answer", ["accept", "decline", "withdraw"])
def test_a_proposal_is_answered_once(check, officer, scientist, answer):
    proposal = propose(check, officer)
    answers = {
        "accept": lambda: retraining.accept_proposal(proposal, accepted_by=scientist),
        "decline": lambda: retraining.decline_proposal(proposal, declined_by=scientist),
        "withdraw": lambda: retraining.withdraw_proposal(proposal, withdrawn_by=officer),
    }
    answers[answer]()
    kinds = {"accept": "ACCEPTED", "decline": "DECLINED", "withdraw": "WITHDRAWN"}
    assert proposal.answer == kinds[answer]
    assert proposal.answered_by == (officer if answer == "withdraw" else scientist)
    for again in answers.values():
        with pytest.raises(NotReadyError, match="no longer waiting"):
            again()
    assert AuditEvent.objects.count() == 2
    propose(check, officer)  # and another can be made


def test_only_who_proposed_withdraws(check, officer, scientist):
    proposal = propose(check, officer)
    with pytest.raises(NotReadyError, match="Only who has made"):
        retraining.withdraw_proposal(proposal, withdrawn_by=scientist)
    proposal.refresh_from_db()
    assert proposal.is_waiting
