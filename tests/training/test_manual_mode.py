import json
import tarfile

import numpy as np
import pytest

from envoys.models import Envoy, User
from federated.aggregation import fedavg
from federated.params import from_bytes, params_sha256
from federated.rounds import client_update
from tests.factories import make_user
from tests.federation import (
    approve,
    approved_plan,
    envoy_path,
    expire_lease,
    make_hospital,
    object_path,
)
from training import services
from training.arrays import open_snapshot
from training.errors import ConflictError, NotApprovedError, NotReadyError, TooFewPatientsError
from training.models import (
    ModelVersion,
    ReceivedUpdate,
    RoundAssignment,
    Study,
    TrainingRound,
    TrainingRun,
)
from training.objects import params_key
from training.services.rounds import run_scaling

pytestmark = pytest.mark.django_db

Status, Verdict = RoundAssignment.Status, ReceivedUpdate.Verdict


@pytest.fixture
def study() -> Study:
    return services.study_for("risk_tier")


@pytest.fixture
def ready(study, hospitals) -> list[Envoy]:
    """Three hospitals with enough patients that have approved their packages."""
    approved_plan(study, hospitals[:3])
    return hospitals[:3]


def launch(study, envoys, queue) -> TrainingRound:
    assignments = [services.launch_training(study, envoy, launched_by=None) for envoy in envoys]
    queue.work_and_sweep()
    (pk,) = {assignment.training_round_id for assignment in assignments}
    return TrainingRound.objects.select_related("run").get(pk=pk)


def aggregate(study, envoys, queue) -> ModelVersion:
    training_round = services.aggregate_envoys(study, envoys)
    queue.work()
    return training_round.versions.of_federation().get()


def test_launching_without_a_standing_approval_is_refused_in_words(queue, study, hospitals):
    envoy = hospitals[0]
    with pytest.raises(NotApprovedError, match=f"{envoy} has no training package .* package it"):
        services.launch_training(study, envoy, launched_by=None)
    plan = services.plan_for(study)
    membership = services.package_training(study, envoy, plan)
    with pytest.raises(NotApprovedError, match=f"{envoy} has not approved .* ask a doctor there"):
        services.launch_training(study, envoy, launched_by=None)
    doctor = make_user(envoy=envoy)
    services.approve_package(membership, approved_by=doctor, plan_hash=plan.sha256)
    services.revoke_approval(membership, revoked_by=doctor)
    with pytest.raises(NotApprovedError, match=f"{envoy} has revoked its approval"):
        services.launch_training(study, envoy, launched_by=None)
    assert queue.names() == []
    assert not TrainingRun.objects.exists()

    services.approve_package(membership, approved_by=doctor, plan_hash=plan.sha256)
    assignment = services.launch_training(study, envoy, launched_by=None)
    assert assignment.status == Status.PENDING


def test_launching_with_too_few_patients_is_refused_in_words(queue, study):
    few = make_hospital("kutrrh", num_patients=12)
    approve(study, few, services.plan_for(study))
    with pytest.raises(TooFewPatientsError, match=r"^kutrrh: 12 of 20 patients with an outcome$"):
        services.launch_training(study, few, launched_by=None)
    assert not TrainingRun.objects.exists()


def test_a_launched_hospital_trains_from_its_package_and_its_round_stays_open(queue, study, ready):
    scientist = make_user(User.Role.DATA_SCIENTIST)
    assignment = services.launch_training(study, ready[0], launched_by=scientist)
    queue.work_and_sweep()
    assignment.refresh_from_db()
    assert assignment.status == Status.SUBMITTED

    training_round = assignment.training_round
    run = training_round.run
    assert (run.mode, run.started_by) == (TrainingRun.Mode.MANUAL, scientist)
    with tarfile.open(envoy_path(ready[0], "training_package.tar.gz")) as package:
        base = package.extractfile("base_params.safetensors")
        scaling = package.extractfile("scaling.json")
        assert base is not None
        assert scaling is not None
        assert object_path(params_key(training_round.base_sha256)).read_bytes() == base.read()
        assert run.scaling == json.load(scaling)
    assert services.close_round(training_round) is False
    assert queue.sweep() == []
    training_round.refresh_from_db()
    assert training_round.status == TrainingRound.Status.COLLECTING
    assert training_round.deadline_at is None


def test_hospitals_launched_one_after_another_share_the_open_round(queue, study, ready):
    first = launch(study, ready[:1], queue)
    second = launch(study, ready[1:], queue)
    assert first == second
    assert set(first.assignments.values_list("status", flat=True)) == {Status.SUBMITTED}
    assert first.run.participants.count() == 3


def test_a_hospital_is_launched_once_in_a_round(queue, study, ready):
    services.launch_training(study, ready[0], launched_by=None)
    with pytest.raises(ConflictError, match=f"{ready[0]} is training already"):
        services.launch_training(study, ready[0], launched_by=None)
    queue.work_and_sweep()
    with pytest.raises(ConflictError, match="has trained in the open round: aggregate it"):
        services.launch_training(study, ready[0], launched_by=None)

    aggregate(study, ready[:1], queue)
    assert launch(study, ready[:1], queue).run.participants.count() == 1


def test_an_open_round_takes_no_hospital_with_another_plan(queue, study, ready, hospitals):
    launch(study, ready[:1], queue)
    approve(study, ready[1], services.plan_for(study, num_rounds=7))
    with pytest.raises(ConflictError, match="aggregate or stop that one first"):
        services.launch_training(study, ready[1], launched_by=None)


def test_the_chosen_hospitals_become_a_version_and_the_others_do_not_count(queue, study, ready):
    training_round = launch(study, ready, queue)
    run = training_round.run
    chosen, left_out = ready[:2], ready[2]
    version = aggregate(study, chosen, queue)

    training_round.refresh_from_db()
    assert training_round.status == TrainingRound.Status.AGGREGATED
    run.refresh_from_db()
    assert run.status == TrainingRun.Status.FINISHED
    assert version.state == ModelVersion.State.CANDIDATE
    lineage = version.manifest["lineage"]["updates"]
    assert [update["envoy"] for update in lineage] == [envoy.slug for envoy in chosen]
    kept = ReceivedUpdate.objects.get(assignment__envoy=left_out)
    assert (kept.verdict, kept.reason) == (
        Verdict.REFUSED,
        "not among the hospitals to aggregate",
    )
    own = {own.envoy for own in run.versions.exclude(envoy=None)}
    assert own == set(chosen)

    plan = approved_plan(study, [])
    base = services.base_model(study, plan)
    snapshots = {a.envoy: a.snapshot for a in training_round.assignments.all()}
    updates = [
        client_update(
            plan,
            base.params,
            open_snapshot(snapshots[envoy], plan),
            run_scaling(run),
            seed=0,
            round_number=1,
            client_id=envoy.slug,
        )
        for envoy in chosen
    ]
    assert version.params_sha256 == params_sha256(fedavg(base.params, updates))


def test_aggregating_who_has_not_finished_is_refused_by_name_and_changes_nothing(
    queue, study, ready, hospitals
):
    with pytest.raises(NotReadyError, match="no hospital has been launched for"):
        services.aggregate_envoys(study, ready)
    finished = launch(study, ready[:1], queue)
    services.launch_training(study, ready[1], launched_by=None)
    with pytest.raises(NotReadyError) as refusal:
        services.aggregate_envoys(study, [*ready])
    assert str(refusal.value) == (
        f"{ready[1]}: waiting: wait for it, or leave it out; "
        f"{ready[2]} has not been launched: launch it, or leave it out"
    )
    second = RoundAssignment.objects.filter(envoy=ready[1])
    second.update(status=RoundAssignment.Status.FAILED)
    with pytest.raises(NotReadyError, match="failed: retry it, or leave it out"):
        services.aggregate_envoys(study, ready[:2])
    second.update(status=RoundAssignment.Status.PENDING)
    with pytest.raises(NotReadyError, match="choose at least one hospital"):
        services.aggregate_envoys(study, [])
    finished.refresh_from_db()
    assert finished.status == TrainingRound.Status.COLLECTING

    queue.work_and_sweep()
    aggregate(study, ready[:2], queue)


def test_a_round_is_aggregated_once(queue, study, ready):
    launch(study, ready[:2], queue)
    services.aggregate_envoys(study, ready[:2])
    with pytest.raises(NotReadyError, match="no hospital has been launched"):
        services.aggregate_envoys(study, ready[:2])
    queue.work(copies=2)
    assert ModelVersion.objects.of_federation().count() == 1


def test_an_update_lost_before_it_was_aggregated_by_hand_is_trained_again(queue, study, ready):
    training_round = launch(study, ready[:2], queue)
    update = ReceivedUpdate.objects.get(assignment__envoy=ready[0])
    object_path(params_key(update.sha256)).unlink()
    services.aggregate_envoys(study, ready[:2])
    queue.work()
    training_round.refresh_from_db()
    assert training_round.status == TrainingRound.Status.COLLECTING
    with pytest.raises(NotReadyError, match=f"{ready[0]}: waiting"):
        services.aggregate_envoys(study, ready[:2])

    queue.work_and_sweep()
    version = aggregate(study, ready[:2], queue)
    sha256s = [update["sha256"] for update in version.manifest["lineage"]["updates"]]
    assert update.sha256 in sha256s


def test_a_killed_worker_costs_a_manual_launch_no_more_than_time(queue, study, ready):
    assignment = services.launch_training(study, ready[0], launched_by=None)
    queue.work()
    assert queue.sweep() == ["train_clients_task"]
    queue.lose()
    RoundAssignment.objects.claim([assignment.pk])
    assert queue.sweep() == []
    expire_lease(assignment)
    queue.work_and_sweep()
    assignment.refresh_from_db()
    assert (assignment.status, assignment.attempt) == (Status.SUBMITTED, 2)


def test_the_next_package_starts_from_the_version_that_was_distributed(queue, study, ready):
    launch(study, ready, queue)
    version = aggregate(study, ready, queue)
    plan = services.plan_for(study, num_rounds=2)
    candidate = services.base_model(study, plan).params
    assert not any(np.any(value) for value in candidate.values())  # not released: the first again

    services.distribute_version(version, distributed_by=None, envoys=ready)
    services.package_training(study, ready[0], plan)
    with tarfile.open(envoy_path(ready[0], "training_package.tar.gz")) as package:
        base = package.extractfile("base_params.safetensors")
        assert base is not None
        assert params_sha256(from_bytes(base.read())) == version.params_sha256
    again = launch(study, ready[:1], queue)
    base_params = from_bytes(object_path(params_key(again.base_sha256)).read_bytes())
    assert params_sha256(base_params) == version.params_sha256
    assert again.run.scaling == version.manifest["scaling"]


def test_an_open_manual_round_and_an_automatic_run_of_a_study_wait_for_each_other(
    queue, study, ready
):
    training_round = launch(study, ready[:1], queue)
    plan = services.plan_for(study, num_rounds=2)
    with pytest.raises(ConflictError, match="still under way: wait for its end, or stop it"):
        services.start_run(study, plan, started_by=None, envoys=ready)

    services.stop_run(training_round.run, stopped_by=None)
    services.start_run(study, plan, started_by=None, envoys=ready)
    with pytest.raises(ConflictError, match="still under way: wait for its end, or stop it"):
        services.launch_training(study, ready[0], launched_by=None)
