"""Who is missing from a round, and what the run was started to do about it."""

from datetime import timedelta

import pytest
from django.core.management import CommandError, call_command
from django.urls import reverse
from django.utils import timezone

from diagnoses.models import Snapshot
from envoys.models import AuditEvent, User
from federated.params import to_bytes
from federated.simulation import simulate
from tests.api import Program
from tests.factories import make_envoy, make_user
from tests.federation import (
    approve,
    approved_plan,
    assignment_of,
    make_hospital,
    pass_deadline,
    start,
    start_round,
)
from tests.training.test_quarantine import attackers as attackers  # a fixture
from tests.training.test_quarantine import five as five
from tests.training.test_quarantine import held_in
from tests.training.test_rounds import delta_of
from tests.training.test_run_pages import text_of
from training import services
from training.arrays import open_snapshot
from training.errors import NotReadyError, RefusedUpdateError, TrainingError
from training.models import ReceivedUpdate, RoundAssignment, TrainingRound, TrainingRun
from training.services import clients
from training.services.updates import FinishedUpdate, record_updates

pytestmark = [pytest.mark.django_db, pytest.mark.filterwarnings("ignore:No directory at")]

GO_ON, WAIT, STOP = TrainingRun.OnMiss.GO_ON, TrainingRun.OnMiss.WAIT, TrainingRun.OnMiss.STOP
Status = RoundAssignment.Status


@pytest.fixture
def dana(db):
    return make_user(User.Role.DATA_SCIENTIST, username="dana")


def round_without(envoys, missing, queue, **values) -> TrainingRound:
    """Round 1, its deadline passed, with the updates of all but the missing, who hang."""
    training_round = start_round(envoys, queue, **values)
    RoundAssignment.objects.claim([assignment_of(training_round, each).pk for each in missing])
    queue.work()
    pass_deadline(training_round)
    queue.work_and_sweep()
    training_round.refresh_from_db()
    training_round.run.refresh_from_db()
    return training_round


def simulated(run: TrainingRun, *, without: tuple[str, ...] = ()) -> str:
    plan = services.plan_for(run.study, num_rounds=2)
    datasets = {
        each.envoy.slug: open_snapshot(each.snapshot, plan)
        for each in run.participants.select_related("envoy", "snapshot")
        if each.snapshot is not None and each.envoy.slug not in without
    }
    return simulate(datasets, plan, seed=run.seed).final_sha256


def finished(run: TrainingRun) -> TrainingRun:
    run.refresh_from_db()
    assert run.status == TrainingRun.Status.FINISHED, run.reason
    return run


# --- Go on, or fail ----------------------------------------------------------------------------


def test_a_run_goes_on_with_a_quorum_and_says_that_it_is_partial(five, queue):
    training_round = round_without(five, five[:1], queue, quorum=3, mandatory=five[1:3])
    run = finished(training_round.run)
    assert run.is_partial
    assert training_round.status == TrainingRound.Status.AGGREGATED
    assert list(run.rounds.partial()) == [training_round]  # it was there in round 2


def test_without_one_that_must_take_part_a_quorum_does_not_help(five, queue):
    training_round = round_without(five, five[:1], queue, quorum=3, mandatory=five[:1])
    run = training_round.run
    assert (training_round.status, run.status) == ("FAILED", "FAILED")
    assert run.reason == (
        "Round 1: H1 must take part and brought no update. H1: no update before the deadline"
    )
    assert not run.versions.exists()


def test_one_that_must_take_part_and_fails_ends_the_run_before_the_deadline(five, queue):
    training_round = start_round(five, queue, quorum=3, mandatory=five[:1])
    failed = assignment_of(training_round, five[0])
    RoundAssignment.objects.filter(pk=failed.pk).update(status=Status.FAILED, reason="not finite")
    queue.work_and_sweep()
    training_round.run.refresh_from_db()
    assert training_round.run.reason == (
        "Round 1: H1 must take part and brought no update. H1: not finite"
    )


def test_a_run_that_is_to_stop_fails_and_names_who_is_missing(five, queue):
    training_round = round_without(five, five[3:], queue, quorum=2, on_miss=STOP)
    assert training_round.run.status == TrainingRun.Status.FAILED
    assert training_round.run.reason == (
        "Round 1: 3 of 5 came in, and this run stops there."
        " H4: no update before the deadline; H5: no update before the deadline"
    )


# --- Wait --------------------------------------------------------------------------------------


def test_a_round_waits_for_the_missing_and_ends_in_the_bits_of_all_of_them(five, queue):
    training_round = round_without(five, five[:2], queue, on_miss=WAIT)
    assert training_round.lacks_hospitals
    assert training_round.reason == "3 of 5 are in: the round waits for H1 and H2"
    assert training_round.run.is_active
    assert queue.sweep() == []  # it is left to them, and to whoever decides

    held = RoundAssignment.objects.filter(training_round=training_round, status=Status.TRAINING)
    long_ago = timezone.now() - timedelta(hours=1)
    held.update(leased_until=long_ago, enqueued_at=long_ago)  # their workers were killed
    queue.work_and_sweep(copies=2)
    run = finished(training_round.run)
    assert not run.is_partial
    assert run.final_sha256 == simulated(run)
    training_round.refresh_from_db()
    assert training_round.reason == ""


def test_a_last_update_whose_worker_is_killed_is_seen_by_the_sweeper(five, queue, monkeypatch):
    training_round = round_without(five, five[:1], queue, on_miss=WAIT)
    assignment = assignment_of(training_round, five[0])
    RoundAssignment.objects.filter(pk=assignment.pk).update(status=Status.PENDING)
    with monkeypatch.context() as patched:  # the worker is killed right after recording
        patched.setattr(clients, "close_round", lambda *args, **kwargs: False)
        services.train_clients([assignment.pk])
    assert queue.sweep() == ["close_round_task"]
    queue.work_and_sweep()
    assert not finished(training_round.run).is_partial


def test_one_that_failed_is_asked_again_while_the_round_waits(five, queue, dana):
    training_round = start_round(five, queue, on_miss=WAIT)
    failed = assignment_of(training_round, five[0])
    RoundAssignment.objects.filter(pk=failed.pk).update(status=Status.FAILED, reason="no memory")
    queue.work_and_sweep()
    training_round.refresh_from_db()
    assert (
        training_round.reason == "4 of 5 are in: the round waits for H1"
    )  # nobody else to wait for
    services.retry_assignment(failed, retried_by=dana)
    training_round.refresh_from_db()
    assert not training_round.lacks_hospitals
    queue.work_and_sweep()
    assert finished(training_round.run).final_sha256 == simulated(training_round.run)


def test_a_round_goes_on_without_a_hospital_as_a_person_decided(five, queue, dana):
    training_round = round_without(five, five[:2], queue, on_miss=WAIT, mandatory=five[:1])
    first, second = (assignment_of(training_round, envoy) for envoy in five[:2])
    services.drop_assignment(first, dropped_by=dana)
    queue.work()
    training_round.refresh_from_db()
    assert training_round.reason == "3 of 4 are in: the round waits for H2"
    services.drop_assignment(second, dropped_by=dana)
    queue.work_and_sweep()
    training_round.refresh_from_db()
    assert training_round.status == TrainingRound.Status.AGGREGATED
    assert list(finished(training_round.run).rounds.partial()) == [training_round]
    events = AuditEvent.objects.filter(action="went on without hospital")
    assert [(event.user, event.target) for event in events.order_by("pk")] == [
        (dana, f"roundassignment:{each.pk}") for each in (first, second)
    ]


def test_one_that_is_left_out_of_round_0_sits_out_and_the_others_end_in_their_bits(
    five, queue, dana
):
    run = start(five, on_miss=WAIT)
    training_round = run.rounds.get(number=0)
    first = assignment_of(training_round, five[0])
    queue.work(until=lambda: "train_clients_task" in queue.names())
    RoundAssignment.objects.claim([first.pk])
    queue.work()
    pass_deadline(training_round)
    queue.work_and_sweep()
    services.drop_assignment(first, dropped_by=dana)
    queue.work_and_sweep(copies=2)
    run = finished(run)
    assert run.final_sha256 == simulated(run, without=("h1",))
    assert run.is_partial
    assert run.rounds.partial().count() == 3  # each lacks one that the run was started with
    assert run.participants.get(envoy=five[0]).sits_out_because == (
        "somebody decided to go on without it"
    )


def test_a_decision_is_taken_back_as_long_as_others_are_missing(five, queue, dana):
    training_round = round_without(five, five[:2], queue, on_miss=WAIT)
    first = assignment_of(training_round, five[0])
    services.drop_assignment(first, dropped_by=dana)
    assert first in services.retryable_assignments(training_round.run)
    services.retry_assignment(first, retried_by=dana)
    first.refresh_from_db()
    assert first.status == Status.PENDING
    RoundAssignment.objects.filter(training_round=training_round, status=Status.TRAINING).update(
        leased_until=timezone.now() - timedelta(hours=1), enqueued_at=None
    )
    queue.work_and_sweep()
    assert finished(training_round.run).final_sha256 == simulated(training_round.run)


def test_what_comes_after_the_decision_is_late_and_kept(five, queue, dana):
    training_round = round_without(five, five[:2], queue, on_miss=WAIT)
    first = assignment_of(training_round, five[0])
    content_round = TrainingRound.objects.get(pk=training_round.pk)
    services.drop_assignment(first, dropped_by=dana)
    content = to_bytes(delta_of(content_round))
    with pytest.raises(RefusedUpdateError, match="it came after somebody had decided to go on"):
        services.receive_update(first, content, num_examples=10, metrics={})
    update = ReceivedUpdate.objects.get(assignment=first)
    assert update.verdict == ReceivedUpdate.Verdict.LATE
    first.refresh_from_db()
    assert first.status == Status.DROPPED


def test_what_cannot_be_decided_is_refused_in_words(five, queue, dana):
    training_round = round_without(five, five[:2], queue, on_miss=WAIT, quorum=4)
    first, second, third = (assignment_of(training_round, envoy) for envoy in five[:3])
    with pytest.raises(NotReadyError, match="the update of H3 is in"):
        services.drop_assignment(third, dropped_by=dana)
    services.drop_assignment(first, dropped_by=dana)
    with pytest.raises(NotReadyError, match="without H2 3 would be left of 4 needed: ask it again"):
        services.drop_assignment(second, dropped_by=dana)
    services.stop_run(training_round.run, stopped_by=dana)
    with pytest.raises(NotReadyError, match="is over: there is nothing to decide"):
        services.drop_assignment(second, dropped_by=dana)
    assert AuditEvent.objects.filter(action="went on without hospital").count() == 1


def test_a_run_that_does_not_wait_asks_nobody(five, queue, dana):
    training_round = start_round(five, queue)
    with pytest.raises(NotReadyError, match="does not wait for who is missing"):
        services.drop_assignment(assignment_of(training_round, five[0]), dropped_by=dana)


def test_a_decision_whose_message_is_lost_is_followed_by_the_sweeper(five, queue, dana):
    training_round = round_without(five, five[:1], queue, on_miss=WAIT)
    services.drop_assignment(assignment_of(training_round, five[0]), dropped_by=dana)
    assert queue.lose() == ["close_round_task"]
    assert queue.sweep() == ["close_round_task"]
    queue.work_and_sweep()
    assert finished(training_round.run).is_partial


def test_two_who_decide_at_once_decide_once(five, queue, dana):
    training_round = round_without(five, five[:1], queue, on_miss=WAIT)
    first, stale = (assignment_of(training_round, five[0]) for _ in range(2))
    services.drop_assignment(first, dropped_by=dana)
    queue.work_and_sweep(copies=2)
    with pytest.raises(NotReadyError, match="is over"):
        services.drop_assignment(stale, dropped_by=None)
    assert finished(training_round.run).rounds.partial().count() == 1


# --- Must take part, and in quarantine ---------------------------------------------------------


def test_where_one_must_take_part_its_quarantine_is_waited_for(five, queue, attackers, dana):
    attackers["h3"] = "scale_100"
    run = start(five, mandatory=[five[2]], quorum=3)
    queue.work_and_sweep()
    training_round = run.rounds.get(number=1)
    assert training_round.reason == (
        "H3 must take part: the round waits for a decision on what is in quarantine, of H3"
    )
    update = held_in(run).get(verdict=ReceivedUpdate.Verdict.QUARANTINED)
    services.reject_update(update, decided_by=dana)
    run.refresh_from_db()
    assert run.reason.startswith(
        "Round 1: H3 must take part, and what it sent does not count. H3: rejected, its change"
    )


def test_where_a_run_stops_the_quarantine_of_one_that_must_take_part_stops_it(
    five, queue, attackers
):
    attackers["h3"] = "scale_100"
    run = start(five, mandatory=[five[2]], on_miss=STOP)
    queue.work_and_sweep()
    run.refresh_from_db()
    assert run.status == TrainingRun.Status.FAILED
    assert "H3: in quarantine, its change is" in run.reason


def test_where_a_run_waits_a_person_goes_on_without_what_was_rejected(five, queue, attackers, dana):
    attackers["h3"] = "scale_100"
    run = start(five, mandatory=[five[2]], on_miss=WAIT)
    queue.work_and_sweep()
    update = held_in(run).get(verdict=ReceivedUpdate.Verdict.QUARANTINED)
    assignment = assignment_of(run.rounds.get(number=1), five[2])
    with pytest.raises(NotReadyError, match="if it is in quarantine, release or reject it"):
        services.drop_assignment(assignment, dropped_by=dana)
    services.reject_update(update, decided_by=dana)
    training_round = run.rounds.get(number=1)
    assert training_round.reason == (
        "H3 must take part, and what it sent does not count: the round waits for somebody who goes"
        " on without it, or stops the run"
    )
    assert list(services.droppable_assignments(run)) == [assignment]
    services.drop_assignment(assignment, dropped_by=dana)
    queue.work(until=lambda: run.rounds.filter(number=2).exists())
    training_round.refresh_from_db()
    assert training_round.status == TrainingRound.Status.AGGREGATED


# --- Chosen at the start -----------------------------------------------------------------------


def test_a_run_that_could_never_have_its_rounds_is_refused_in_words(five):
    study = services.study_for("risk_tier")
    plan = approved_plan(study, five)
    few = make_hospital("Few", num_patients=3)
    approve(study, few, plan)
    other = make_envoy(name="Other")
    for values, words in (
        ({"quorum": 6}, "a quorum of 6 cannot be: 5 hospitals can take part"),
        ({"quorum": 0}, "a quorum of 0 cannot be"),
        ({"mandatory": [other]}, "Other must take part, and is not among those chosen"),
        ({"mandatory": [few]}, "Few must take part, and cannot: Few: under 10 of 20"),
        ({"deadline_seconds": 0}, "a deadline of 0 seconds cannot be: choose 1 second to 30 days"),
        ({"deadline_seconds": 2_592_001}, "choose 1 second to 30 days"),
        ({"on_miss": "SHRUG"}, "a round cannot do 'SHRUG' where somebody is missing; it can GO_ON"),
    ):
        with pytest.raises(TrainingError, match=words):
            services.start_run(study, plan, started_by=None, envoys=[*five, few], **values)
    assert not TrainingRun.objects.exists()


# --- What people see ---------------------------------------------------------------------------


def test_the_page_of_a_waiting_round_names_the_missing_and_offers_to_go_on(
    client, five, queue, dana
):
    training_round = round_without(five, five[:2], queue, on_miss=WAIT, mandatory=five[:1])
    failed = assignment_of(training_round, five[1])
    RoundAssignment.objects.filter(pk=failed.pk).update(status=Status.FAILED, reason="no memory")
    detail = reverse("training:run-detail", args=[training_round.run_id])
    client.force_login(dana)
    text = text_of(client.get(detail))
    since = training_round.opened_at.strftime("%H:%M:%S")
    assert (
        f"Round 1: 3 of 5 in , missing: H1 since {since} UTC (training);"
        f" H2 since {since} UTC (failed: no memory)." in text
    )
    assert "It waits for them." in text
    for page in (detail, reverse("training:run-list"), reverse("training:federation-dashboard")):
        assert "Training, waits for a decision" in text_of(client.get(page))
    assert "3 of 5, among them H1; it waits for the missing" in text
    drop = reverse("training:assignment-drop", args=[failed.pk])
    assert drop in client.get(detail).content.decode()
    assert "Go on without H2" in text
    assert client.get(drop).status_code == 405
    text = text_of(client.post(drop, follow=True))
    assert "The round goes on without H2 as soon as nobody else is missing" in text
    assert "Go on without H1" in text
    assert "Go on without H2" not in text

    client.force_login(make_user(envoy=five[2]))
    text = text_of(client.get(detail))
    assert f"H2 since {since} UTC (left out)." in text  # no reason of another hospital
    assert "Go on without" not in text
    assert client.post(drop).status_code == 404


def test_a_partial_round_is_never_green_and_says_how_many_counted(client, five, queue, dana):
    run = round_without(five, five[:1], queue, quorum=3).run
    client.force_login(dana)
    for page in ("training:run-list", "training:run-detail"):
        arguments = [run.pk] if page.endswith("detail") else []
        response = client.get(reverse(page, args=arguments))
        assert "Finished, partial" in text_of(response)
        assert "status-green" not in response.content.decode()
    text = text_of(response)
    assert "Counted 5/5 4/5 partial 5/5" in text
    assert "1 round partial: made without all 5 hospitals that the run was started with" in text


def test_a_whole_run_is_green(client, five, queue, dana):
    run = start(five)
    queue.work_and_sweep()
    client.force_login(dana)
    response = client.get(reverse("training:run-detail", args=[run.pk]))
    assert "status-green" in response.content.decode()
    assert "partial" not in text_of(response)


def test_a_late_update_stands_in_its_hospitals_row_with_time_and_reason(client, five, queue, dana):
    training_round = round_without(five, five[:1], queue, quorum=3)
    late = assignment_of(training_round, five[0])
    RoundAssignment.objects.filter(pk=late.pk).update(status=Status.MISSED)
    record_updates([FinishedUpdate(late, "ab" * 32, 10, {})])
    came = ReceivedUpdate.objects.get(assignment=late).received_at.strftime("%-d %b at %H:%M:%S")
    told = f"Round 1, H1: Late, not counted: an update came on {came} UTC"
    reason = "; it came after the round was closed; it is kept and not counted"
    detail = reverse("training:run-detail", args=[training_round.run_id])
    client.force_login(dana)
    response = client.get(detail)
    assert f"{told}{reason}. Missed: no update before the deadline" in text_of(response)
    assert "sign-late" in response.content.decode()
    client.force_login(make_user(envoy=five[1]))
    text = text_of(client.get(detail))
    assert told in text
    assert reason not in text


def test_a_call_says_how_many_count_who_is_missing_and_goes_on_without_them(five, queue, dana):
    training_round = round_without(five, five[:2], queue, on_miss=WAIT, mandatory=five[:1])
    program = Program(dana)
    found = program.get(f"/api/v1/rounds/{training_round.pk}")
    assert (found["num_counted"], found["num_expected"]) == (3, 5)
    assert found["missing"] == ["H1", "H2"]
    assert found["reason"] == "3 of 5 are in: the round waits for H1 and H2"
    for envoy in five[:2]:
        path = f"/api/v1/assignments/{assignment_of(training_round, envoy).pk}/drop"
        assert program.post(path, code=202)["status"] == "DROPPED"
    queue.work_and_sweep()
    run = program.get(f"/api/v1/runs/{training_round.run_id}")
    assert (run["status"], run["is_partial"], run["on_miss"]) == ("FINISHED", True, "WAIT")
    assert [each["num_counted"] for each in run["rounds"]] == [5, 3, 5]
    assert [each["missing"] for each in run["rounds"]] == [[], ["H1", "H2"], []]
    assert [each["is_mandatory"] for each in run["hospitals"]] == [True, False, False, False, False]
    assert "is over" in program.post(path, code=409)["detail"]


def test_a_call_that_starts_a_run_says_who_must_take_part_and_what_a_miss_does(five, queue, dana):
    approved_plan(services.study_for("risk_tier"), five)
    program = Program(dana)
    body = {"quorum": 4, "mandatory": [five[0].pk], "on_miss": "STOP", "deadline_seconds": 90}
    run = program.post("/api/v1/runs", body, code=202)
    assert (run["quorum"], run["on_miss"], run["deadline_seconds"]) == (4, "STOP", 90)
    started = TrainingRun.objects.get()
    assert [each.envoy for each in started.participants.filter(is_mandatory=True)] == [five[0]]
    services.stop_run(started, stopped_by=dana)
    assert "6 cannot be" in program.post("/api/v1/runs", {"quorum": 6}, code=409)["detail"]
    assert "on_miss" in program.post("/api/v1/runs", {"on_miss": "SHRUG"}, code=400)["errors"]


def test_the_form_that_starts_a_run_says_who_must_take_part_and_what_a_miss_does(
    client, five, queue, dana
):
    study = services.study_for("risk_tier")
    plan = approved_plan(study, five)
    client.force_login(dana)
    create = reverse("training:run-create")
    values = {
        "study": study.pk,
        "plan": plan.sha256,
        "envoys": [envoy.pk for envoy in five[:4]],
        "mandatory": [five[4].pk],
        "seed": 0,
        "quorum": 3,
        "deadline_minutes": 30,
        "on_miss": "WAIT",
    }
    refused = client.post(create, values)
    assert "H5 must take part, and is not among those chosen" in text_of(refused)
    assert f'name="mandatory" value="{five[4].pk}" aria-label="H5 must take part" checked' in (
        refused.content.decode()
    )
    client.post(create, values | {"mandatory": [five[0].pk]})
    run = TrainingRun.objects.get()
    assert (run.quorum, run.on_miss) == (3, "WAIT")
    assert [each.envoy for each in run.participants.filter(is_mandatory=True)] == [five[0]]


def test_the_command_that_starts_a_run_says_the_same(five, queue, dana, capsys):
    approved_plan(services.study_for("risk_tier"), five)
    names = [envoy.slug for envoy in five[:4]]
    arguments = [
        "--quorum",
        "3",
        "--deadline-minutes",
        "2",
        "--on-miss",
        "wait",
        "--mandatory",
        "h1",
    ]
    call_command("start_run", *names, "--user", "dana", *arguments)
    run = TrainingRun.objects.get()
    assert f"{run}: started" in capsys.readouterr().out
    assert (run.quorum, run.deadline_seconds, run.on_miss) == (3, 120, "WAIT")
    assert run.started_by == dana
    assert run.participants.count() == 4
    assert run.participants.get(is_mandatory=True).envoy == five[0]
    with pytest.raises(CommandError, match="is still under way"):
        call_command("start_run")


def test_what_a_check_has_found_stands_on_the_federations_page_and_the_runs(
    client, five, queue, dana
):
    run = start(five)
    queue.work_and_sweep()
    problem = "run 1, round 1, H2: its counted update is missing"
    TrainingRun.objects.update(checked_at=timezone.now(), check_problems=[problem])
    pages = [
        reverse("training:federation-dashboard"),
        reverse("training:run-detail", args=[run.pk]),
    ]
    for page in pages:
        client.force_login(dana)
        assert problem in text_of(client.get(page))
        client.force_login(make_user(envoy=five[2]))
        assert problem not in text_of(client.get(page))
    assert Program(dana).get("/api/v1/federation")["lost"] == [problem]


def test_the_page_of_round_0_names_who_has_not_sent_statistics(client, five, queue, dana):
    run = start(five)
    frozen = Snapshot.objects.filter(status=Snapshot.Status.COMPLETE)
    queue.work(until=lambda: frozen.count() == 5)
    queue.lose()
    client.force_login(dana)
    text = text_of(client.get(reverse("training:run-detail", args=[run.pk])))
    assert "Round 0 collects pooled statistics: 0 of 5 in , missing: H1 since" in text
