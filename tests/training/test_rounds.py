import re
from datetime import timedelta

import numpy as np
import pytest
from django.test import override_settings
from django.utils import timezone

from diagnoses.models import Snapshot
from diagnoses.services import export_now
from envoys.errors import StorageError
from federated.__main__ import read_datasets
from federated.params import Params, to_bytes
from federated.simulation import simulate
from tests.federation import (
    approve,
    approved_plan,
    assignment_of,
    break_storage,
    expire_lease,
    finish,
    make_hospital,
    object_path,
    pass_deadline,
    start,
    start_round,
)
from training import services
from training.arrays import _open, open_snapshot
from training.errors import ConflictError, RefusedUpdateError, TrainingError
from training.models import (
    ModelVersion,
    ReceivedUpdate,
    RoundAssignment,
    TrainingRound,
    TrainingRun,
)
from training.objects import load_base_params, load_params, params_key
from training.services import clients
from training.services.versions import create_versions

pytestmark = pytest.mark.django_db

Status, Verdict = RoundAssignment.Status, ReceivedUpdate.Verdict


def delta_of(training_round: TrainingRound, value: float = 0.5) -> Params:
    base_params = load_params(training_round.base_sha256)
    return {name: np.full_like(array, value) for name, array in base_params.items()}


def state_of(run: TrainingRun) -> dict[str, object]:
    """All that a second delivery could change, without what tells the time."""
    run.refresh_from_db()
    rounds = run.rounds.values_list("number", "status", "base_sha256", "result_sha256")
    updates = ReceivedUpdate.objects.filter(assignment__training_round__run=run)
    assignments = RoundAssignment.objects.filter(training_round__run=run)
    return {
        "run": (run.status, run.reason, run.params_sha256, run.final_sha256, run.finished_at),
        "rounds": list(rounds),
        "assignments": list(assignments.values_list("pk", "status", "attempt", "submitted_at")),
        "updates": list(updates.values_list("pk", "sha256", "verdict")),
        "versions": list(run.versions.values_list("pk", "envoy", "number", "params_sha256")),
    }


# --- The whole run -----------------------------------------------------------------------------


@pytest.mark.parametrize("network", ["logistic_regression", "shallow_network"])
def test_a_served_run_ends_in_the_bits_of_a_simulation_on_the_same_exports(
    queue, hospitals, network
):
    study = services.study_for("risk_tier", network=network)
    run = finish(hospitals, queue, study=study, seed=3)

    export_now(hospitals[-1])  # sat out, so that nothing was exported
    datasets = read_datasets(object_path(""), "risk_tier")
    assert sorted(datasets) == [envoy.slug for envoy in hospitals]
    simulated = simulate(datasets, approved_plan(study, []), seed=3)
    assert run.final_sha256 == simulated.final_sha256
    assert list(simulated.client_ids) == [envoy.slug for envoy in hospitals[:-1]]
    assert run.scaling is not None
    assert run.scaling["mean"] == list(simulated.scaling.mean)


@pytest.mark.parametrize(
    ("strategy", "parameters"),
    [
        ("fedprox", {}),
        ("scaffold", {}),
        ("fedadam", {}),
        ("fedyogi", {}),
        ("fedadagrad", {}),
        ("median", {}),
        ("trimmed_mean", {}),
        ("multi_krum", {"num_bad": 0}),
    ],
)
def test_every_strategy_served_twice_over_ends_in_the_bits_of_its_simulation(
    queue, hospitals, strategy, parameters
):
    """Three rounds: what server and hospitals remember has to come back twice."""
    study = services.study_for("risk_tier")
    plan = services.plan_for(study, num_rounds=3, strategy=strategy, strategy_parameters=parameters)
    trained = hospitals[:-1]
    for envoy in trained:
        approve(study, envoy, plan)
    run = services.start_run(study, plan, started_by=None, envoys=trained, seed=3)
    queue.work_and_sweep(copies=2)

    run.refresh_from_db()
    assert run.status == TrainingRun.Status.FINISHED, run.reason
    datasets = {
        participant.envoy.slug: open_snapshot(participant.snapshot, plan)
        for participant in run.participants.all()
        if participant.snapshot
    }
    assert run.final_sha256 == simulate(datasets, plan, seed=3).final_sha256


def test_a_strategy_that_needs_more_hospitals_than_can_take_part_is_refused(hospitals):
    study = services.study_for("risk_tier")
    plan = services.plan_for(study, strategy="multi_krum")
    for envoy in hospitals[:-1]:
        approve(study, envoy, plan)
    with pytest.raises(TrainingError, match="multi_krum needs the updates of 5 hospitals, 3 can"):
        services.start_run(study, plan, started_by=None, envoys=hospitals[:-1])


def test_another_seed_ends_in_other_bits_and_the_same_seed_in_the_same(queue, hospitals):
    study = services.study_for("risk_tier", network="shallow_network")
    first, again, other = (finish(hospitals, queue, study=study, seed=seed) for seed in (1, 1, 2))
    assert first.final_sha256 == again.final_sha256 != other.final_sha256


def test_every_message_delivered_twice_ends_in_the_same_bits_and_rows(queue, hospitals):
    once = finish(hospitals, queue)
    twice = start(hospitals)
    queue.work_and_sweep(copies=2)

    twice.refresh_from_db()
    assert twice.final_sha256 == once.final_sha256
    assert not queue.refusals
    for run in (once, twice):
        assert run.rounds.count() == 3
        updates = ReceivedUpdate.objects.filter(assignment__training_round__run=run)
        assert updates.count() == 3 * 3
        assert run.versions.of_federation().count() == 1
        for kind in ("FINE_TUNED", "LOCAL"):
            assert run.versions.filter(kind=kind).count() == 3
        attempts = RoundAssignment.objects.filter(training_round__run=run)
        assert set(attempts.values_list("attempt", flat=True)) == {1}


def test_round_0_waits_until_every_hospital_has_frozen_its_data(queue, hospitals):
    run = start(hospitals)
    exports = queue.names()
    assert exports == ["export_snapshot_task"] * 3
    queue.work(until=lambda: Snapshot.objects.filter(status="COMPLETE").count() == 2)
    assert "train_clients_task" not in queue.sweep()

    queue.work_and_sweep()
    run.refresh_from_db()
    assert run.status == TrainingRun.Status.FINISHED


def test_a_pinned_hospital_gets_a_message_of_its_own_on_its_own_queue(queue, hospitals):
    pinned = hospitals[1]
    pinned.queue = "its-own-host"
    pinned.save(update_fields=["queue"])
    training_round = start_round(hospitals, queue)

    queue.commit()
    chunks = [args[0] for _, args in queue.messages]
    assert queue.queues[-3:] == [None, None, "its-own-host"]
    assert chunks[-1] == [assignment_of(training_round, pinned).pk]
    assert sorted(pk for chunk in chunks for pk in chunk) == sorted(
        training_round.assignments.values_list("pk", flat=True)
    )


# --- Going on without a message ----------------------------------------------------------------


def test_a_worker_with_time_left_takes_its_part_of_the_rounds_it_opens_at_once(
    transactional_db, queue, hospitals, settings
):
    once = finish(hospitals, queue)
    settings.GO_ON_SECONDS = 60.0
    settings.WORKER_PROCESSES = 1
    run = start(hospitals)
    queue.work_and_sweep(
        until=lambda: bool(queue.messages) and run.rounds.exists() and all_frozen()
    )
    handed_out = [task.name for task, _ in queue.messages]
    assert handed_out == ["training.tasks.train_clients_task"]  # of round 0
    task, args = queue.messages.popleft()
    task(*args)
    assert run.rounds.filter(status=TrainingRound.Status.AGGREGATED).count() == 3
    assert "train_clients_task" not in queue.names()
    queue.work_and_sweep()
    run.refresh_from_db()
    assert run.final_sha256 == once.final_sha256 != ""


def all_frozen() -> bool:
    return not Snapshot.objects.exclude(status=Snapshot.Status.COMPLETE).exists()


def test_what_a_worker_took_at_once_and_died_with_is_taken_over_after_a_lease(
    transactional_db, queue, hospitals, settings, monkeypatch
):
    once = finish(hospitals, queue)
    run = start(hospitals)
    queue.work_and_sweep(until=lambda: run.rounds.filter(number=1).exists())
    settings.GO_ON_SECONDS = 60.0
    train_chunk = clients._train_chunk

    def killed_in_round_2(assignments, going_on):
        if assignments[0].training_round.number == 2:
            raise KeyboardInterrupt
        return train_chunk(assignments, going_on)

    with monkeypatch.context() as patched:
        patched.setattr(clients, "_train_chunk", killed_in_round_2)
        with pytest.raises(KeyboardInterrupt):
            queue.work()
    taken = RoundAssignment.objects.filter(training_round__run=run, status=Status.TRAINING)
    assert taken.exists()
    settings.GO_ON_SECONDS = 0
    queue.work_and_sweep()
    assert taken.exists()  # its lease lives
    for assignment in taken:
        expire_lease(assignment)
    queue.work_and_sweep()
    run.refresh_from_db()
    assert run.final_sha256 == once.final_sha256 != ""


def test_a_hospitals_own_host_takes_nothing_of_the_others(transactional_db, queue, hospitals):
    pinned, shared = hospitals[0], hospitals[1:3]
    type(pinned).objects.filter(pk=pinned.pk).update(queue="its-own-host")
    run = start(hospitals)
    queue.work_and_sweep(until=lambda: run.rounds.filter(number=1).exists())
    training_round = run.rounds.get(number=1)
    shared_ids = training_round.assignments.filter(envoy__in=shared).values_list("pk", flat=True)
    services.train_clients(list(shared_ids))
    queue.messages.clear()
    with override_settings(GO_ON_SECONDS=60.0):
        services.train_clients([assignment_of(training_round, pinned).pk])  # closes the round
    following = run.rounds.get(number=2)
    assert set(following.assignments.values_list("status", flat=True)) == {Status.PENDING}
    queue.commit()
    handed_out = [
        pk for task, args in queue.messages if task.name.endswith("s_task") for pk in args[0]
    ]
    assert sorted(handed_out) == sorted(following.assignments.values_list("pk", flat=True))


# --- Twice -------------------------------------------------------------------------------------


def test_training_clients_closing_and_aggregating_again_change_nothing(queue, hospitals):
    training_round = start_round(hospitals, queue)
    run = training_round.run
    for _, (assignment_ids,) in list(queue.messages):
        services.train_clients(assignment_ids)
    training_round.refresh_from_db()
    assert training_round.status == TrainingRound.Status.AGGREGATED
    before = state_of(run)

    for _, (assignment_ids,) in list(queue.messages):
        services.train_clients(assignment_ids)
    assert services.close_round(training_round) is False
    assert services.aggregate_round(training_round) is False
    assert state_of(run) == before

    queue.work_and_sweep()
    assert state_of(run)["run"][0] == TrainingRun.Status.FINISHED  # type: ignore[index]


def test_two_workers_that_aggregate_the_same_round_make_one_version(queue, hospitals, monkeypatch):
    training_round = start_round(hospitals, queue)
    run = training_round.run

    def while_another_worker_aggregates(training_round, *args):
        monkeypatch.setattr("training.services.rounds.create_versions", create_versions)
        assert services.aggregate_round(training_round) is True
        return create_versions(training_round, *args)

    monkeypatch.setattr("training.services.rounds.create_versions", while_another_worker_aggregates)
    queue.work_and_sweep()

    assert run.versions.of_federation().count() == 1
    assert ModelVersion.objects.filter(kind="FINE_TUNED").count() == 3


def test_the_same_update_again_gets_the_same_answer_and_another_is_a_conflict(queue, hospitals):
    training_round = start_round(hospitals, queue)
    assignment = assignment_of(training_round, hospitals[0])
    content = to_bytes(delta_of(training_round))

    first = services.receive_update(assignment, content, num_examples=10, metrics={})
    again = services.receive_update(assignment, content, num_examples=10, metrics={})
    assert again == first
    assert first.verdict == Verdict.ACCEPTED
    other = to_bytes(delta_of(training_round, 0.25))
    with pytest.raises(ConflictError, match=f"{hospitals[0]}: the update {first.sha256[:12]} has"):
        services.receive_update(assignment, other, num_examples=10, metrics={})
    verdicts = list(assignment.updates.values_list("verdict", flat=True))
    assert verdicts == [Verdict.ACCEPTED, Verdict.REFUSED]  # kept, and not counted


# --- Leases ------------------------------------------------------------------------------------


def test_an_assignment_whose_lease_ran_out_is_taken_over_and_one_whose_lease_lives_is_not(
    queue, hospitals
):
    training_round = start_round(hospitals, queue)
    lost, living = (assignment_of(training_round, envoy) for envoy in hospitals[:2])
    for assignment in (lost, living):  # two workers claim, and are not heard of again
        assert RoundAssignment.objects.claim([assignment.pk])
    expire_lease(lost)

    services.train_clients([lost.pk, living.pk])
    lost.refresh_from_db()
    living.refresh_from_db()
    assert (lost.status, lost.attempt) == (Status.SUBMITTED, 2)
    assert (living.status, living.attempt) == (Status.TRAINING, 1)
    assert lost.leased_until is None
    assert living.leased_until is not None
    assert living.leased_until > timezone.now()


def test_a_worker_that_was_given_up_and_comes_back_counts_once(queue, hospitals, monkeypatch):
    training_round = start_round(hospitals, queue)
    slow = assignment_of(training_round, hospitals[0])
    train_client = clients._train_client

    def while_another_worker_takes_over(assignment, plan, heartbeat):
        monkeypatch.setattr(clients, "_train_client", train_client)
        expire_lease(assignment)
        services.train_clients([assignment.pk])
        return train_client(assignment, plan, heartbeat)

    monkeypatch.setattr(clients, "_train_client", while_another_worker_takes_over)
    services.train_clients([slow.pk])

    slow.refresh_from_db()
    assert (slow.status, slow.attempt) == (Status.SUBMITTED, 2)
    assert slow.updates.count() == 1


def test_a_heartbeat_renews_the_leases_of_its_holder_only(queue, hospitals, settings):
    training_round = start_round(hospitals, queue)
    mine, other = (assignment_of(training_round, envoy) for envoy in hospitals[:2])
    (mine,) = RoundAssignment.objects.claim([mine.pk])
    (other,) = RoundAssignment.objects.claim([other.pk])
    settings.LEASE_SECONDS = 600
    heartbeat = clients.Heartbeat(mine.holder)
    heartbeat()  # too soon after the claim: no write
    heartbeat._renewed_at -= 600
    heartbeat()
    leases = {
        assignment.pk: assignment.leased_until
        for assignment in RoundAssignment.objects.filter(pk__in=[mine.pk, other.pk])
    }
    assert leases[mine.pk] > mine.leased_until
    assert leases[other.pk] == other.leased_until


# --- Updates that must not count ---------------------------------------------------------------


def test_updates_that_must_not_count_are_refused_and_kept_with_the_reason(queue, hospitals):
    undisturbed = finish(hospitals, queue)
    training_round = start_round(hospitals, queue)
    assignment = assignment_of(training_round, hospitals[0])
    delta = delta_of(training_round)
    whole = to_bytes(delta)
    spoilt = [
        (to_bytes(delta | {"bias": delta["bias"][:2]}), 10, "'bias' is float32(2,)"),
        (to_bytes(delta | {"bias": delta["bias"] * np.nan}), 10, "'bias' is not finite"),
        (to_bytes({"bias": delta["bias"]}), 10, "'codes' is missing"),
        (whole, 0, "holds no example"),
        (whole, 10**9, "its frozen data has"),
        (b"a picture of a cat", 10, "not a readable parameter file"),
        (whole[:1000], 10, "not a readable parameter file"),
    ]
    for content, num_examples, reason in spoilt:
        with pytest.raises(RefusedUpdateError, match=re.escape(reason)) as refusal:
            services.receive_update(assignment, content, num_examples=num_examples, metrics={})
        assert str(refusal.value).startswith(f"{hospitals[0]}: ")

    refused = assignment.updates.order_by("pk").values_list("verdict", "reason")
    for (verdict, reason), (_, _, expected) in zip(refused, spoilt, strict=True):
        assert verdict == Verdict.REFUSED
        assert expected in reason
    assignment.refresh_from_db()
    assert assignment.status == Status.PENDING
    queue.work_and_sweep()
    training_round.run.refresh_from_db()
    assert training_round.run.final_sha256 == undisturbed.final_sha256


def run_status(training_round: TrainingRound) -> str:
    return TrainingRun.objects.get(pk=training_round.run_id).status


def test_a_late_update_is_kept_and_not_counted(queue, hospitals):
    training_round = start_round(hospitals, queue, quorum=2)
    late = assignment_of(training_round, hospitals[0])
    content = to_bytes(delta_of(training_round, 100.0))
    others = training_round.assignments.exclude(pk=late.pk)
    services.train_clients(list(others.values_list("pk", flat=True)))
    pass_deadline(training_round)
    assert services.close_round(training_round) is True
    before = TrainingRound.objects.get(pk=training_round.pk).result_sha256

    with pytest.raises(RefusedUpdateError, match="came after the round was closed"):
        services.receive_update(late, content, num_examples=10, metrics={})
    kept = late.updates.get()
    assert (kept.verdict, kept.num_examples) == (Verdict.LATE, 10)
    assert object_path(params_key(kept.sha256)).exists()
    late.refresh_from_db()
    assert late.status == Status.MISSED
    assert TrainingRound.objects.get(pk=training_round.pk).result_sha256 == before


@pytest.mark.parametrize("trouble", ["deleted", "damaged"])
def test_an_update_lost_before_the_aggregation_is_asked_for_again_and_ends_in_the_same_bits(
    queue, hospitals, trouble
):
    undisturbed = finish(hospitals, queue)
    training_round = start_round(hospitals, queue)
    victim = assignment_of(training_round, hospitals[2])
    services.train_clients([victim.pk])
    path = object_path(params_key(victim.updates.get().sha256))
    if trouble == "deleted":
        path.unlink()
    else:
        path.write_bytes(b"\0" + path.read_bytes()[1:])

    queue.work()
    training_round.refresh_from_db()
    assert training_round.status == TrainingRound.Status.COLLECTING
    victim.refresh_from_db()
    assert victim.status == Status.PENDING
    assert path.name in victim.reason

    queue.work_and_sweep()
    run = training_round.run
    run.refresh_from_db()
    assert run.final_sha256 == undisturbed.final_sha256
    verdicts = victim.updates.order_by("pk").values_list("verdict", flat=True)
    assert list(verdicts) == [Verdict.REFUSED, Verdict.ACCEPTED]


def test_a_lost_update_of_a_round_past_its_deadline_gets_its_time_again(queue, hospitals):
    undisturbed = finish(hospitals, queue)
    training_round = start_round(hospitals, queue)
    victim = assignment_of(training_round, hospitals[2])
    services.train_clients([victim.pk])
    object_path(params_key(victim.updates.get().sha256)).unlink()
    pass_deadline(training_round)
    services.train_clients(list(training_round.assignments.values_list("pk", flat=True)))
    training_round.refresh_from_db()
    assert training_round.status == TrainingRound.Status.COLLECTING

    assert services.close_round(training_round) is False
    queue.work_and_sweep()
    run = training_round.run
    run.refresh_from_db()
    assert run.final_sha256 == undisturbed.final_sha256


def test_base_parameters_lost_before_the_aggregation_fail_the_run_at_its_deadline_in_words(
    queue, hospitals
):
    training_round = start_round(hospitals, queue)
    load_base_params(training_round.base_sha256)  # the worker that trains has them in memory
    path = object_path(params_key(training_round.base_sha256))
    path.unlink()

    queue.work_and_sweep()
    run = training_round.run
    run.refresh_from_db()
    assert run.status == TrainingRun.Status.TRAINING  # it may be brought back

    pass_deadline(training_round)
    services.aggregate_round(training_round)
    run.refresh_from_db()
    assert run.status == TrainingRun.Status.FAILED
    assert path.name in run.reason
    assert "missing" in run.reason


def test_an_update_that_would_make_the_next_model_infinite_fails_the_run_and_stores_nothing(
    queue, hospitals
):
    study = services.study_for("risk_tier")
    plan = services.plan_for(study, num_rounds=2, strategy="fedadagrad")
    trained = hospitals[:-1]
    for envoy in trained:
        approve(study, envoy, plan)
    run = services.start_run(study, plan, started_by=None, envoys=trained)
    queue.work_and_sweep(until=lambda: run.rounds.filter(number=1).exists())
    training_round = run.rounds.get(number=1)
    content = to_bytes(delta_of(training_round, 1e20))  # finite; its square is not, in float32
    for envoy in trained:
        services.receive_update(
            assignment_of(training_round, envoy), content, num_examples=10, metrics={}
        )

    queue.work_and_sweep()
    run.refresh_from_db()
    assert run.status == TrainingRun.Status.FAILED
    assert run.reason == (
        "Round 1: the next global model cannot be made, parameter 'v/bias' is not finite: choose a"
        " lower learning_rate or server_learning_rate, or a higher tau"
    )
    assert run.params_sha256 == training_round.base_sha256
    assert not run.versions.exists()
    training_round.refresh_from_db()
    assert (training_round.status, training_round.result_sha256) == (
        TrainingRound.Status.FAILED,
        "",
    )


# --- Deadline and quorum -----------------------------------------------------------------------


def test_a_deadline_with_a_quorum_goes_on_and_marks_who_was_missed(queue, hospitals):
    training_round = start_round(hospitals, queue, quorum=2)
    missed = assignment_of(training_round, hospitals[0])
    RoundAssignment.objects.claim([missed.pk])  # a worker that hangs
    queue.work()
    training_round.refresh_from_db()
    assert training_round.status == TrainingRound.Status.COLLECTING

    pass_deadline(training_round)
    queue.work_and_sweep()
    training_round.refresh_from_db()
    assert training_round.status == TrainingRound.Status.AGGREGATED
    missed.refresh_from_db()
    assert (missed.status, missed.reason) == (Status.MISSED, "no update before the deadline")
    assert run_status(training_round) == TrainingRun.Status.FINISHED  # it was there in round 2
    version = training_round.run.versions.of_federation().get()
    assert len(version.manifest["lineage"]["updates"]) == 3


def test_a_deadline_without_a_quorum_fails_round_and_run_and_names_the_hospitals(queue, hospitals):
    training_round = start_round(hospitals, queue, quorum=3)
    for envoy in hospitals[:2]:
        RoundAssignment.objects.claim([assignment_of(training_round, envoy).pk])
    queue.work()

    pass_deadline(training_round)
    queue.work_and_sweep()
    training_round.refresh_from_db()
    assert training_round.status == TrainingRound.Status.FAILED
    run = training_round.run
    run.refresh_from_db()
    assert run.status == TrainingRun.Status.FAILED
    assert run.reason.startswith("Round 1: 1 of 3 needed updates came in. ")
    for envoy in hospitals[:2]:
        assert f"{envoy}: no update before the deadline" in run.reason
    assert hospitals[2].name not in run.reason
    assert run.finished_at is not None


def test_a_round_before_its_deadline_waits_for_the_last_hospital_even_with_a_quorum(
    queue, hospitals
):
    training_round = start_round(hospitals, queue, quorum=1)
    last = assignment_of(training_round, hospitals[0])
    others = training_round.assignments.exclude(pk=last.pk)
    services.train_clients(list(others.values_list("pk", flat=True)))
    assert services.close_round(training_round) is False

    services.train_clients([last.pk])
    training_round.refresh_from_db()
    assert training_round.status == TrainingRound.Status.AGGREGATED


# --- Hospitals in trouble ----------------------------------------------------------------------


def test_a_hospital_whose_storage_cannot_be_written_sits_out_and_the_others_finish(
    queue, hospitals, settings
):
    run = start(hospitals, quorum=2)
    broken = hospitals[1]
    break_storage(broken)
    queue.work_and_sweep()
    snapshot = Snapshot.objects.get(envoy=broken)
    assert snapshot.status == Snapshot.Status.PENDING  # the storage may come back
    assert snapshot.reason.startswith("Attempt 1: ")
    settings.LEASE_SECONDS = 0
    queue.work_and_sweep()

    run.refresh_from_db()
    assert run.status == TrainingRun.Status.FINISHED
    participant = run.participants.get(envoy=broken)
    assert participant.snapshot is not None
    assert participant.snapshot.status == Snapshot.Status.FAILED
    assert "could not be written" in participant.snapshot.reason
    assert participant.sits_out_because.startswith("Its data could not be frozen: ")
    assert "could not be written" in participant.sits_out_because
    assert not run.rounds.get(number=1).assignments.filter(envoy=broken).exists()
    lineage = run.versions.of_federation().get().manifest["lineage"]["updates"]
    assert [update["envoy"] for update in lineage] == [
        envoy.slug for envoy in hospitals[:-1] if envoy != broken
    ]


def test_a_hospital_whose_own_model_cannot_be_stored_is_noted_and_the_run_finishes(
    queue, hospitals, settings
):
    training_round = start_round(hospitals, queue)
    broken = hospitals[1]
    break_storage(broken)
    queue.work_and_sweep()
    run = training_round.run
    run.refresh_from_db()
    assert run.is_active  # it may come back
    assert isinstance(queue.refusals[-1], StorageError)
    run.rounds.filter(number=2).update(closed_at=timezone.now() - timedelta(hours=1))
    settings.LEASE_SECONDS = 0
    queue.work_and_sweep()

    run.refresh_from_db()
    assert run.status == TrainingRun.Status.FINISHED
    assert run.reason.startswith(f"{broken}'s own model was not stored: ")
    assert not run.versions.filter(envoy=broken).exists()
    assert run.versions.filter(kind="FINE_TUNED").count() == 2


def test_storage_that_comes_back_is_tried_again_after_a_lease(queue, hospitals):
    training_round = start_round(hospitals, queue)
    updates = object_path("updates")
    load_base_params(training_round.base_sha256)
    updates.rename(updates.with_name("aside"))
    updates.write_bytes(b"")  # the director's storage is out of reach
    queue.work()
    waiting = training_round.assignments.filter(status=Status.PENDING)
    assert waiting.count() == 3
    assert all("could not be written" in assignment.reason for assignment in waiting)

    updates.unlink()
    updates.with_name("aside").rename(updates)
    assert queue.sweep() == []  # a moment ago it was tried
    for assignment in waiting:
        expire_lease(assignment)
    queue.work_and_sweep()
    assert run_status(training_round) == TrainingRun.Status.FINISHED
    # That storage was out of reach counts as no attempt.
    assert set(training_round.assignments.values_list("attempt", "reason")) == {(1, "")}


def test_storage_that_hangs_for_longer_than_a_lease_uses_up_no_attempts(
    queue, hospitals, settings, monkeypatch
):
    training_round = start_round(hospitals, queue)
    assignment = assignment_of(training_round, hospitals[0])
    others: list[RoundAssignment] = []

    def hang(*args):
        """Until another worker has taken the assignment over, to which the same happens."""
        if not others:
            others.append(assignment)
            expire_lease(assignment)
            services.train_clients([assignment.pk])
            others.clear()
        raise StorageError("it was silent")

    with monkeypatch.context() as patched:
        patched.setattr(clients, "_train_client", hang)
        for _ in range(15):
            services.train_clients([assignment.pk])
    assignment.refresh_from_db()
    assert (assignment.status, assignment.attempt) == (Status.PENDING, 1)
    RoundAssignment.objects.give_up()
    queue.work_and_sweep()
    training_round.run.refresh_from_db()
    assert training_round.run.status == TrainingRun.Status.FINISHED


def test_an_empty_hospital_and_one_with_too_few_patients_sit_out_and_the_others_train(
    queue, hospitals
):
    empty = make_hospital("Empty", num_patients=0)
    few = make_hospital("Few", num_patients=12)
    run = finish([*hospitals, empty, few], queue)

    reasons = dict(run.participants.values_list("envoy__name", "sits_out_because"))
    assert reasons["Empty"] == "Empty: 0 of 20 patients with an outcome"
    assert reasons["Few"] == "Few: 12 of 20 patients with an outcome"
    assert reasons[hospitals[0].name] == ""
    assert set(run.rounds.get(number=1).assignments.values_list("envoy__name", flat=True)) == {
        envoy.name for envoy in hospitals[:-1]
    }


def test_a_hospital_with_one_class_trains(queue, hospitals):
    low_only = make_hospital("Low only", num_patients=120, risk_tiers=(0,))
    run = finish([*hospitals[:2], low_only], queue)

    update = ReceivedUpdate.objects.get(
        assignment__envoy=low_only, assignment__training_round__number=2
    )
    assert update.verdict == Verdict.ACCEPTED
    assert update.metrics["validation_auroc"] is None
    assert update.metrics["validation_loss"] is not None
    assert run.versions.filter(envoy=low_only).exists()


def test_a_plan_of_another_vocabulary_refuses_the_round_in_words(queue, hospitals):
    run = start(hospitals[:1])
    queue.work()
    TrainingRun.objects.filter(pk=run.pk).update(plan=run.plan | {"schema_sha256": "0" * 64})
    queue.sweep()
    queue.work()

    run.refresh_from_db()
    assert run.status == TrainingRun.Status.FAILED
    assert f"{hospitals[0]}: the plan was made with the inputs" in run.reason
    assert "vocabulary" in run.reason
    assert "make a new package" in run.reason
    assert run.rounds.get().status == TrainingRound.Status.FAILED


def test_arrays_that_were_damaged_on_disk_are_built_again(queue, hospitals, settings):
    training_round = start_round(hospitals, queue)
    for path in (settings.DATA_DIR / "arrays").glob("*/labels.npy"):
        path.write_bytes(b"")
    _open.cache_clear()
    queue.work_and_sweep()
    training_round.run.refresh_from_db()
    assert training_round.run.status == TrainingRun.Status.FINISHED
