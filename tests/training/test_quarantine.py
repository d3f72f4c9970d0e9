from datetime import timedelta

import numpy as np
import pytest
from django.utils import timezone

from envoys.models import AuditEvent, User
from federated.attacks import attack_by
from federated.params import to_bytes
from federated.rounds import client_update
from federated.screening import Screening
from federated.simulation import simulate
from tests.factories import make_user
from tests.federation import (
    approve,
    approved_plan,
    assignment_of,
    make_hospital,
    start,
    start_round,
)
from training import services
from training.arrays import open_snapshot
from training.errors import ConflictError
from training.models import ReceivedUpdate, TrainingRound, TrainingRun
from training.objects import load_params
from training.progress import progress_of
from training.services import clients, rounds

pytestmark = pytest.mark.django_db

Verdict = ReceivedUpdate.Verdict


@pytest.fixture
def five(db):
    return [make_hospital(f"H{number}", num_patients=30) for number in range(1, 6)]


@pytest.fixture
def data_scientist(db):
    return make_user(User.Role.DATA_SCIENTIST, username="dana")


@pytest.fixture
def attackers(monkeypatch):
    """The slugs of hospitals whose updates are altered where they are made; fill it in."""
    bad: dict[str, str] = {}

    def altered(*args, **kwargs):
        update = client_update(*args, **kwargs)
        if update.client_id not in bad:
            return update
        return attack_by(bad[update.client_id], {update.client_id}, seed=0)(
            update, kwargs["round_number"]
        )

    monkeypatch.setattr(clients, "client_update", altered)
    return bad


def held_in(run, **filters):
    return ReceivedUpdate.objects.filter(assignment__training_round__run=run, **filters).order_by(
        "assignment__training_round__number", "assignment__envoy__slug"
    )


def verdicts(run):
    rows = held_in(run, assignment__training_round__number__gte=1)
    return [
        (u.assignment.training_round.number, u.assignment.envoy.slug, u.verdict)
        for u in rows
        if u.verdict != Verdict.ACCEPTED
    ]


def datasets_of(run, plan):
    """What each hospital's data was when the run was started."""
    participants = run.participants.exclude(snapshot=None).select_related("envoy", "snapshot")
    return {each.envoy.slug: open_snapshot(each.snapshot, plan) for each in participants}


def lineage(run):
    version = run.versions.of_federation().get()
    return [update["envoy"] for update in version.manifest["lineage"]["updates"]]


def waiting_run(five, queue, attackers, attack="scale_100"):
    """Round 1 waits: five updates are needed, and one is odd."""
    attackers["h3"] = attack
    run = start(five, quorum=5)
    queue.work_and_sweep()
    return run, held_in(run, verdict=Verdict.QUARANTINED).get()


# --- A run with an attacker --------------------------------------------------------------------


@pytest.mark.parametrize("copies", [1, 2])
@pytest.mark.parametrize("attack", ["sign_flip", "scale_100", "random"])
def test_a_run_goes_on_without_the_odd_one_and_ends_in_the_bits_of_its_simulation(
    five, queue, attackers, attack, copies
):
    attackers["h3"] = attack
    run = start(five, seed=3)
    queue.work_and_sweep(copies=copies)

    run.refresh_from_db()
    assert run.status == TrainingRun.Status.FINISHED, run.reason
    assert verdicts(run) == [(1, "h3", "QUARANTINED"), (2, "h3", "QUARANTINED")]
    assert lineage(run) == ["h1", "h2", "h4", "h5"]
    datasets = datasets_of(run, approved_plan(run.study, []))
    simulated = simulate(
        datasets,
        approved_plan(run.study, []),
        seed=3,
        on_update=attack_by(attack, {"h3"}, seed=0),
    )
    assert run.final_sha256 == simulated.final_sha256
    fine_tuned = run.versions.filter(kind="FINE_TUNED").values_list("envoy__slug", flat=True)
    assert sorted(fine_tuned) == sorted(simulated.local_params) == ["h1", "h2", "h4", "h5"]


@pytest.mark.parametrize("strategy", ["scaffold", "fedadam", "median"])
def test_what_strategies_remember_leaves_the_odd_one_out_too(five, queue, attackers, strategy):
    attackers["h3"] = "sign_flip"
    study = services.study_for("risk_tier")
    plan = services.plan_for(study, num_rounds=3, strategy=strategy)
    for envoy in five:
        approve(study, envoy, plan)
    run = services.start_run(study, plan, started_by=None, envoys=five, seed=3)
    queue.work_and_sweep(copies=2)

    run.refresh_from_db()
    assert run.status == TrainingRun.Status.FINISHED, run.reason
    assert len(verdicts(run)) == 3
    datasets = datasets_of(run, plan)
    on_update = attack_by("sign_flip", {"h3"}, seed=0)
    assert run.final_sha256 == simulate(datasets, plan, seed=3, on_update=on_update).final_sha256


def test_the_reason_names_figures_and_every_update_is_kept_with_its_own(five, queue, attackers):
    attackers["h3"] = "scale_100"
    run = start(five)
    queue.work_and_sweep()
    first, second = held_in(run, verdict=Verdict.QUARANTINED)
    assert first.reason.startswith("its change is ")
    assert first.screening["norm_ratio"] > 50
    assert second.reason.startswith("its update of round 1 waits for a decision")
    for update in held_in(run, verdict=Verdict.ACCEPTED, assignment__training_round__number=2):
        assert update.screening["own_cosine"] > 0
        assert update.screening["norm_ratio"] < 5


def test_an_honest_run_is_screened_and_nothing_is_held(five, queue):
    run = start(five)
    queue.work_and_sweep()
    run.refresh_from_db()
    assert run.status == TrainingRun.Status.FINISHED
    assert verdicts(run) == []
    assert all(
        held_in(run, assignment__training_round__number=1).values_list("screening", flat=True)
    )


def test_of_three_hospitals_none_is_screened(five, queue, attackers):
    attackers["h3"] = "scale_100"
    run = start(five[:3])
    queue.work_and_sweep()
    assert verdicts(run) == []


def test_a_manual_round_is_screened_when_somebody_asks_to_aggregate(five, queue, attackers):
    attackers["h3"] = "scale_100"
    study = services.study_for("risk_tier")
    approved_plan(study, five)
    for envoy in five:
        services.launch_training(study, envoy, launched_by=None)
    queue.work_and_sweep()
    training_round = services.aggregate_envoys(study, five)
    queue.work()
    training_round.run.refresh_from_db()
    assert training_round.run.status == TrainingRun.Status.FINISHED, training_round.run.reason
    assert verdicts(training_round.run) == [(1, "h3", "QUARANTINED")]
    assert lineage(training_round.run) == ["h1", "h2", "h4", "h5"]


def test_what_is_sent_from_outside_is_screened_when_the_round_closes(five, queue):
    training_round = start_round(five, queue)
    queue.lose()
    base = load_params(training_round.base_sha256)
    for number, envoy in enumerate(five):
        length = 1.0 if number else 80.0
        content = to_bytes({name: np.full_like(value, length) for name, value in base.items()})
        assignment = assignment_of(training_round, envoy)
        services.receive_update(assignment, content, num_examples=10, metrics={})
        if number == 0:
            first, first_content = assignment, content
    run = training_round.run
    assert verdicts(run) == [(1, "h1", "QUARANTINED")]
    # The same again gets the same answer, also after it has been held.
    again = services.receive_update(first, first_content, num_examples=10, metrics={})
    assert again.verdict == Verdict.QUARANTINED
    assert held_in(run, assignment=first).count() == 1


# --- Waiting for a decision --------------------------------------------------------------------


def test_with_too_few_left_the_round_waits_and_says_so_and_the_sweeper_lets_it(
    five, queue, attackers
):
    run, update = waiting_run(five, queue, attackers)
    training_round = run.rounds.get(number=1)
    assert training_round.is_waiting
    assert training_round.reason == (
        "4 of 5 needed updates count: the round waits for a decision on what is in quarantine, of H3"
    )
    long_ago = timezone.now() - timedelta(hours=1)
    TrainingRound.objects.filter(pk=training_round.pk).update(closed_at=long_ago)
    assert queue.sweep() == []
    assert not services.aggregate_round(training_round)
    training_round.refresh_from_db()
    assert (training_round.status, training_round.closed_at) == ("CLOSED", long_ago)
    run.refresh_from_db()
    assert run.is_active
    assert update.decided_at is None


def test_released_in_time_it_counts_and_its_hospital_is_trusted(
    five, queue, attackers, data_scientist
):
    run, update = waiting_run(five, queue, attackers)
    services.release_update(update, decided_by=data_scientist)
    assert (update.verdict, update.decided_by) == (Verdict.ACCEPTED, data_scientist)
    assert queue.names() == ["aggregate_round_task"]
    queue.work_and_sweep()

    run.refresh_from_db()
    assert run.status == TrainingRun.Status.FINISHED, run.reason
    assert verdicts(run) == []  # as odd in round 2, and not held
    assert lineage(run) == ["h1", "h2", "h3", "h4", "h5"]
    assert update.reason.startswith("its change is ")  # why it was held is kept
    event = AuditEvent.objects.get(action="released update")
    assert (event.user, event.target) == (data_scientist, f"receivedupdate:{update.pk}")


def test_rejected_where_no_quorum_is_left_the_run_fails_in_words(
    five, queue, attackers, data_scientist
):
    run, update = waiting_run(five, queue, attackers)
    services.reject_update(update, decided_by=data_scientist)
    run.refresh_from_db()
    assert update.verdict == Verdict.REJECTED
    assert run.status == TrainingRun.Status.FAILED
    assert run.reason.startswith(
        "Round 1: 4 of 5 needed updates are left. H3: rejected, its change"
    )
    assert AuditEvent.objects.filter(action="rejected update").count() == 1


def test_a_round_waits_for_the_others_in_quarantine_after_one_is_decided(
    five, queue, attackers, data_scientist
):
    six = [*five, make_hospital("H6", num_patients=30)]
    attackers.update({"h2": "scale_100", "h3": "scale_100"})
    run = start(six, quorum=5)
    queue.work_and_sweep()
    h2, h3 = held_in(run, verdict=Verdict.QUARANTINED)
    services.reject_update(h2, decided_by=data_scientist)
    training_round = run.rounds.get(number=1)
    assert training_round.is_waiting
    assert training_round.reason.endswith("of H3")
    services.release_update(h3, decided_by=data_scientist)
    queue.work(until=lambda: run.rounds.filter(number=2).exists())
    assert run.rounds.get(number=1).status == TrainingRound.Status.AGGREGATED
    queue.work_and_sweep()
    # What the rejected hospital sends later is refused, without asking anybody again.
    later = held_in(run, assignment__envoy__slug="h2", assignment__training_round__number=2).get()
    assert later.verdict == Verdict.REFUSED
    assert later.reason.startswith("its update of round 1 was rejected")


def test_released_after_its_round_it_is_kept_as_late_and_what_follows_counts(
    five, queue, attackers, data_scientist
):
    attackers["h3"] = "scale_100"
    run = start(five)
    queue.work_and_sweep(until=lambda: run.rounds.filter(number=2).exists())
    update = held_in(run, verdict=Verdict.QUARANTINED).get()
    services.release_update(update, decided_by=data_scientist)
    assert update.verdict == Verdict.LATE
    queue.work_and_sweep()
    run.refresh_from_db()
    assert run.status == TrainingRun.Status.FINISHED
    assert verdicts(run) == [(1, "h3", "LATE")]
    assert lineage(run) == ["h1", "h2", "h3", "h4", "h5"]


def test_a_decision_after_the_run_is_kept_for_all_its_updates_and_changes_no_model(
    five, queue, attackers, data_scientist
):
    attackers["h3"] = "sign_flip"
    run = start(five)
    queue.work_and_sweep()
    run.refresh_from_db()
    before = run.final_sha256, lineage(run)
    update = held_in(run, verdict=Verdict.QUARANTINED).first()
    services.release_update(update, decided_by=data_scientist)
    run.refresh_from_db()
    assert verdicts(run) == [(1, "h3", "LATE"), (2, "h3", "LATE")]
    assert (run.final_sha256, lineage(run)) == before
    assert queue.names() == []


def test_a_second_decision_is_refused_in_words(five, queue, attackers, data_scientist):
    run, update = waiting_run(five, queue, attackers)
    services.release_update(update, decided_by=data_scientist)
    stale = ReceivedUpdate.objects.get(pk=update.pk)
    with pytest.raises(ConflictError, match="has been released already by dana"):
        services.reject_update(stale, decided_by=None)
    stale.refresh_from_db()
    assert stale.verdict == Verdict.ACCEPTED
    other = held_in(run, assignment__envoy__slug="h1", verdict=Verdict.ACCEPTED).first()
    with pytest.raises(ConflictError, match="is not in quarantine: accepted"):
        services.release_update(other, decided_by=data_scientist)


def test_a_worker_that_comes_late_does_not_hold_again_what_was_released(
    five, queue, attackers, data_scientist, monkeypatch
):
    """It has compared the updates, and writes only after somebody else did and decided."""
    run, update = waiting_run(five, queue, attackers)
    training_round = run.rounds.get(number=1)
    found = {"h3": Screening(norm_ratio=100.0, reason="far too long")}
    services.release_update(update, decided_by=data_scientist)
    assert rounds.settle_round(training_round, found)
    update.refresh_from_db()
    assert update.verdict == Verdict.ACCEPTED


@pytest.mark.parametrize("step", ["screen_updates", "settle_round", "_finish_training"])
def test_a_worker_killed_at_any_step_costs_time_alone(five, queue, attackers, monkeypatch, step):
    attackers["h3"] = "sign_flip"
    undisturbed = start(five, seed=3)
    queue.work_and_sweep()
    run = start(five, seed=3, study=undisturbed.study)
    queue.work_and_sweep(until=lambda: run.rounds.filter(number=1).exists())

    def killed(*args):
        raise KeyboardInterrupt

    with monkeypatch.context() as patched:
        patched.setattr(rounds, step, killed)
        with pytest.raises(KeyboardInterrupt):
            queue.work()
    queue.lose()
    run.rounds.filter(number=1).update(closed_at=timezone.now() - timedelta(hours=1))
    queue.work_and_sweep()
    for each in (run, undisturbed):
        each.refresh_from_db()
    assert run.final_sha256 == undisturbed.final_sha256 != ""
    assert verdicts(run) == verdicts(undisturbed) != []


def test_a_stopped_runs_quarantine_can_be_judged_and_stays_stopped(
    five, queue, attackers, data_scientist
):
    run, update = waiting_run(five, queue, attackers)
    services.stop_run(run, stopped_by=None)
    services.release_update(update, decided_by=data_scientist)
    run.refresh_from_db()
    assert (update.verdict, run.status) == (Verdict.LATE, TrainingRun.Status.STOPPED)


# --- What people see ---------------------------------------------------------------------------


def test_a_doctor_reads_why_their_own_update_is_held_and_nobody_elses_reason(
    five, queue, attackers, data_scientist
):
    run, update = waiting_run(five, queue, attackers)
    own = progress_of(run, make_user(envoy=five[2]))
    other = progress_of(run, make_user(envoy=five[0]))
    everything = progress_of(run, data_scientist)
    reason = "its change is "
    assert any(reason in words for words in own.problems)
    assert other.problems == ["Round 1, H3: In quarantine"]
    assert own.waits_because == other.waits_because != ""
    assert "of H3" in everything.waits_because
    assert everything.in_quarantine == ["H3"]
    services.release_update(update, decided_by=data_scientist)
    assert progress_of(run, data_scientist).in_quarantine == []
