import pytest

from envoys.models import Envoy, User
from federated.errors import UnknownNetworkError, UnknownStrategyError, UnknownTargetError
from federated.rounds import next_params
from tests.factories import make_user
from tests.federation import (
    approve,
    approved_plan,
    finish,
    make_hospital,
    object_path,
    start,
    start_round,
)
from training import services
from training.errors import ConflictError, RefusedUpdateError, TrainingError
from training.models import ReceivedUpdate, RoundAssignment, Study, TrainingRound, TrainingRun
from training.objects import params_key
from training.services.rounds import open_round

pytestmark = pytest.mark.django_db


def test_a_run_in_which_nobody_can_take_part_is_refused_with_every_reason(queue):
    study = services.study_for("risk_tier")
    few, unasked, unanswered, revoked, suspended = (
        make_hospital(name, num_patients=num_patients)
        for name, num_patients in [
            ("Few", 19),
            ("Unasked", 20),
            ("Unanswered", 20),
            ("Revoked", 20),
            ("Suspended", 20),
        ]
    )
    plan = approved_plan(study, [few, suspended])
    services.package_training(study, unanswered, plan)
    services.revoke_approval(approve(study, revoked, plan), revoked_by=make_user(envoy=revoked))
    suspended.status = Envoy.Status.SUSPENDED
    suspended.save(update_fields=["status"])

    everybody = [few, unasked, unanswered, revoked, suspended]
    with pytest.raises(TrainingError) as refusal:
        services.start_run(study, plan, started_by=None, envoys=everybody)
    assert str(refusal.value) == (
        "nobody can take part in Risk tier from diagnoses: "
        "Few: 19 of 20 patients with an outcome; "
        f"Revoked has revoked its approval of {plan.sha256[:12]}: package it again, or ask a"
        " doctor there to approve it again; "
        "Suspended is suspended: a data scientist can let it return; "
        f"Unanswered has not approved the plan {plan.sha256[:12]}: ask a doctor there; "
        "Unasked has no training package for this plan: package it first"
    )
    assert not TrainingRun.objects.exists()
    assert queue.names() == []

    ready = make_hospital("Ready", num_patients=20)
    approve(study, ready, plan)
    run = services.start_run(study, plan, started_by=None, envoys=[*everybody, ready])
    assert run.participants.filter(sits_out_because="").get().envoy == ready
    assert run.participants.count() == 6


def test_a_run_without_any_hospital_says_that_none_has_been_invited():
    study = services.study_for("risk_tier")
    with pytest.raises(TrainingError, match="no hospital has been invited"):
        services.start_run(study, services.plan_for(study), started_by=None)


def test_another_plan_than_the_approved_one_is_not_trained(hospitals):
    study = services.study_for("risk_tier")
    approved_plan(study, hospitals, num_rounds=2)
    other = services.plan_for(study, num_rounds=50)
    with pytest.raises(TrainingError, match="has no training package for this plan"):
        services.start_run(study, other, started_by=None)


def test_a_second_run_of_a_study_waits_for_the_end_of_the_first(queue, hospitals):
    run = start(hospitals)
    with pytest.raises(ConflictError, match=f"run {run.pk} of .* is still under way"):
        start(hospitals)
    assert start(hospitals, study=services.study_for("died_in_hospital")).is_active

    queue.work_and_sweep()
    assert start(hospitals).is_active


def test_a_stopped_run_keeps_what_came_and_takes_no_more(queue, hospitals):
    training_round = start_round(hospitals, queue)
    run = training_round.run
    first, second, _ = training_round.assignments.select_related("training_round__run", "envoy")
    services.train_clients([first.pk])
    content = object_path(params_key(first.updates.get().sha256)).read_bytes()
    scientist = make_user(User.Role.DATA_SCIENTIST)

    assert services.stop_run(run, stopped_by=scientist) is True
    assert services.stop_run(run, stopped_by=scientist) is False
    run.refresh_from_db()
    assert (run.status, run.reason) == (
        TrainingRun.Status.STOPPED,
        f"Stopped by {scientist.username}.",
    )
    assert run.finished_at is not None
    with pytest.raises(RefusedUpdateError, match="kept and not counted"):
        services.receive_update(second, content, num_examples=10, metrics={})
    queue.work_and_sweep()
    training_round.refresh_from_db()
    assert training_round.status == TrainingRound.Status.FAILED
    first.refresh_from_db()
    assert first.status == RoundAssignment.Status.SUBMITTED
    assert not run.versions.exists()
    assert start(hospitals).is_active


def test_a_run_that_is_stopped_while_it_aggregates_makes_no_version(queue, hospitals, monkeypatch):
    training_round = start_round(hospitals, queue)
    run = training_round.run

    def while_it_is_stopped(*args):
        services.stop_run(run, stopped_by=None)
        return next_params(*args)

    monkeypatch.setattr("training.services.rounds.next_params", while_it_is_stopped)
    queue.work_and_sweep()
    run.refresh_from_db()
    assert run.status == TrainingRun.Status.STOPPED
    assert not run.versions.exists()
    assert not run.rounds.filter(number=2).exists()


def test_a_stop_that_waited_for_an_aggregation_ends_the_round_which_that_has_opened(
    queue, hospitals, monkeypatch
):
    training_round = start_round(hospitals, queue)
    run = training_round.run
    active = TrainingRun.objects.active

    def opened_meanwhile():
        """What is there once the locked rows have been waited for."""
        if not run.rounds.filter(number=2).exists():
            open_round(run, 2, base_sha256=training_round.base_sha256)
        return active()

    with monkeypatch.context() as patched:
        patched.setattr(TrainingRun.objects, "active", opened_meanwhile)
        assert services.stop_run(run, stopped_by=None)
    statuses = RoundAssignment.objects.filter(training_round__run=run, training_round__number=2)
    assert set(statuses.values_list("status", flat=True)) == {RoundAssignment.Status.MISSED}


def test_a_diagnosis_entered_in_mid_run_changes_nothing(queue, hospitals):
    undisturbed = finish(hospitals, queue)
    training_round = start_round(hospitals, queue)
    hospitals[0].admissions.update(risk_tier=2, age=18)

    queue.work_and_sweep()
    run = training_round.run
    run.refresh_from_db()
    assert run.final_sha256 == undisturbed.final_sha256
    assert finish(hospitals, queue).final_sha256 != undisturbed.final_sha256


def test_what_came_of_a_run_names_who_sent_what(queue, hospitals):
    run = finish(hospitals, queue)
    accepted = ReceivedUpdate.objects.filter(assignment__training_round__run=run)
    lineage = run.versions.of_federation().get().manifest["lineage"]
    last = accepted.filter(assignment__training_round__number=run.num_rounds)
    assert [update["envoy"] for update in lineage["updates"]] == [e.slug for e in hospitals[:-1]]
    assert {update["sha256"] for update in lineage["updates"]} == {u.sha256 for u in last}
    assert lineage["plan_sha256"] == run.plan_sha256
    assert set(last[0].metrics) == {
        "train_loss",
        "validation_loss",
        "validation_auroc",
        "validation_accuracy",
        "num_validation",
        "seconds",
    }
    for envoy in hospitals[:-1]:
        envoy.refresh_from_db()
        assert envoy.last_seen_at is not None


def test_a_study_is_made_once_for_a_target_and_a_network():
    study = services.study_for("risk_tier")
    assert study.name == "diagnosis-risk"
    assert services.study_for("risk_tier") == study
    shallow = services.study_for("died_in_hospital", network="shallow_network")
    assert shallow.name == "diagnosis-died-in-hospital-shallow-network"
    assert Study.objects.count() == 2


def test_an_unknown_target_network_or_strategy_is_refused_with_what_there_is():
    with pytest.raises(UnknownTargetError, match="risk_tier"):
        services.study_for("fortune")
    with pytest.raises(UnknownNetworkError, match="logistic_regression"):
        services.study_for("risk_tier", network="transformer")
    assert not Study.objects.exists()
    study = services.study_for("risk_tier")
    with pytest.raises(UnknownStrategyError, match="fedavg"):
        services.plan_for(study, strategy="majority vote")


def test_a_federation_whose_outcomes_are_all_the_same_is_told_so_and_trains_nothing(queue):
    hospitals = [
        make_hospital(name, num_patients=30, risk_tiers=(2,)) for name in ("North", "South", "West")
    ]
    run = start(hospitals)
    queue.work_and_sweep()
    run.refresh_from_db()
    assert run.status == TrainingRun.Status.FAILED
    assert "every known outcome of risk_tier is 'High' at every hospital" in run.reason


def test_how_many_patients_have_an_outcome_is_noted_by_the_worker_and_not_waited_for(queue):
    envoys = [make_hospital(name, num_patients=24) for name in ("Alpha", "Beta", "Gamma")]
    run = start(envoys)
    assert set(run.participants.values_list("num_labelled_patients", flat=True)) == {0}
    queue.work_and_sweep()
    assert set(run.participants.values_list("num_labelled_patients", flat=True)) == {24}
