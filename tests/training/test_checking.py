from datetime import timedelta

import numpy as np
import pytest
from django.core.management import CommandError, call_command
from django.utils import timezone

from diagnoses.models import Snapshot
from envoys import audit
from envoys.models import AuditEvent
from envoys.storage import director_storage, envoy_storage, write_object
from federated.params import from_bytes, to_bytes
from inference.models import InferenceRun
from tests.factories import make_envoy, make_inference_run, make_round, make_run, make_snapshot
from tests.federation import (
    approve,
    approved_plan,
    assignment_of,
    break_storage,
    finish,
    make_hospital,
    object_path,
    pass_deadline,
    start,
    start_round,
)
from training import services
from training.models import (
    ModelVersion,
    ReceivedUpdate,
    RoundAssignment,
    RunReport,
    TrainingRound,
    TrainingRun,
)
from training.objects import params_key
from training.services.checking import Findings, check_newest_run, check_rows, check_runs

pytestmark = pytest.mark.django_db

LONG_AGO = timedelta(hours=2)


@pytest.fixture
def three(db):
    return [make_hospital(f"H{number}", num_patients=30) for number in range(1, 4)]


@pytest.fixture
def run(three, queue) -> TrainingRun:
    run = finish(three, queue)
    assert run.versions.filter(kind=ModelVersion.Kind.LOCAL).exists()  # its report is made
    return run


def problems_of(*run_ids: int) -> list[str]:
    found = Findings()
    for _ in check_runs(found, list(run_ids)):
        pass
    return found.problems


def overdue() -> list[str]:
    found = Findings()
    check_rows(found)
    return found.problems


def update_of(run: TrainingRun, number: int, slug: str) -> ReceivedUpdate:
    return ReceivedUpdate.objects.get(
        assignment__training_round__run=run,
        assignment__training_round__number=number,
        assignment__envoy__slug=slug,
    )


# --- Objects and lineage -----------------------------------------------------------------------


def test_of_a_run_that_ended_well_nothing_is_lost_and_counts_are_told(run, capsys):
    call_command("check_rounds")
    told = capsys.readouterr().out
    versions = run.versions.count()
    assert f"1 runs with 3 rounds, 9 counted updates and {versions} versions" in told
    assert "Nothing was lost." in told
    run.refresh_from_db()
    assert run.checked_at is not None
    assert run.check_problems == []


@pytest.mark.parametrize(
    ("strategy", "parameters"),
    [("scaffold", {}), ("fedadam", {}), ("median", {}), ("multi_krum", {"num_bad": 0})],
)
def test_whatever_a_strategy_remembers_its_models_are_made_again(
    three, queue, strategy, parameters
):
    study = services.study_for("risk_tier")
    plan = services.plan_for(study, num_rounds=3, strategy=strategy, strategy_parameters=parameters)
    for envoy in three:
        approve(study, envoy, plan)
    run = services.start_run(study, plan, started_by=None, envoys=three)
    queue.work_and_sweep()
    assert problems_of(run.pk) == []
    second = run.rounds.get(number=2)
    if second.state_sha256:
        TrainingRound.objects.filter(pk=second.pk).update(state_sha256=second.base_sha256)
        assert any("its strategy's state is" in text for text in problems_of(run.pk))


def test_an_update_that_is_gone_is_told_with_its_round_and_hospital(run):
    update = update_of(run, 1, "h2")
    object_path(params_key(update.sha256)).unlink()
    (problem,) = problems_of(run.pk)
    assert problem.startswith(f"run {run.pk}, round 1, H2: its counted update: updates/")
    assert "is missing" in problem
    with pytest.raises(CommandError, match="Something is not as it was recorded:\nrun") as error:
        call_command("check_rounds")
    assert error.value.returncode == 1


def test_a_damaged_update_is_told_and_so_is_every_other(run):
    for slug in ("h1", "h3"):
        object_path(params_key(update_of(run, 2, slug).sha256)).write_bytes(b"not it")
    first, second = problems_of(run.pk)
    assert "round 2, H1: its counted update" in first
    assert "round 2, H3: its counted update" in second
    assert "is not what was stored" in first


def test_a_model_that_its_updates_do_not_make_is_told(run):
    ReceivedUpdate.objects.filter(pk=update_of(run, 2, "h1").pk).update(num_examples=7)
    problems = problems_of(run.pk)
    assert any("round 2: its updates make" in text for text in problems)
    assert any("its lineage names other updates than those that counted" in t for t in problems)
    version = run.versions.of_federation().get()
    assert any(f"{version}: its lineage makes" in text for text in problems)


def test_an_update_that_counted_and_is_not_recorded_as_counted_is_told(run):
    update = ReceivedUpdate.objects.filter(pk=update_of(run, 1, "h1").pk)
    update.update(verdict=ReceivedUpdate.Verdict.LATE)
    assert any("round 1: its updates make" in text for text in problems_of(run.pk))


def test_a_scaling_that_the_statistics_do_not_pool_to_is_told(run):
    scaling = {"mean": run.scaling["mean"], "std": [2.0 for _ in run.scaling["std"]]}
    TrainingRun.objects.filter(pk=run.pk).update(scaling=scaling)
    assert problems_of(run.pk) == [
        f"run {run.pk}, round 0: its statistics pool to another scaling than recorded"
    ]


def test_a_round_that_did_not_start_from_the_last_ones_model_is_told(run):
    first = run.rounds.get(number=1)
    TrainingRound.objects.filter(run=run, number=2).update(base_sha256=first.base_sha256)
    assert any("round 2: it started from" in text for text in problems_of(run.pk))


def test_a_versions_file_that_is_gone_or_another_one_is_told(run, three):
    version = run.versions.of_federation().get()
    key = f"{version.storage_key}/model.safetensors"
    content = object_path(key).read_bytes()
    object_path(key).unlink()
    (problem,) = problems_of(run.pk)
    assert problem.startswith(f"run {run.pk}, {version}: {key} is missing")

    other = {name: value + np.float32(1) for name, value in from_bytes(content).items()}
    sha256 = write_object(director_storage(), key, to_bytes(other))
    ModelVersion.objects.filter(pk=version.pk).update(object_sha256=sha256)
    assert problems_of(run.pk) == [
        f"run {run.pk}, {version}: its file holds other parameters than recorded"
    ]


@pytest.mark.parametrize("kind", [ModelVersion.Kind.FINE_TUNED, ModelVersion.Kind.LOCAL])
def test_a_hospitals_own_model_that_is_gone_is_told_unless_the_hospital_is(run, three, kind):
    version = run.versions.get(envoy=three[0], kind=kind)
    envoy_storage(three[0]).delete(f"{version.storage_key}/model.safetensors")
    (problem,) = problems_of(run.pk)
    assert problem.startswith(f"run {run.pk}, {version}: trained_model/")
    three[0].mark_deleted()
    three[0].save()
    assert problems_of(run.pk) == []


def test_a_deleted_hospitals_updates_are_added_up_where_they_were(three, queue):
    """Its new slug would sort elsewhere, and floats added in another order make other bits."""
    run = finish(three, queue)
    three[0].mark_deleted()
    three[0].slug = f"zz-deleted-{three[0].pk}"  # as of one that was called zz
    three[0].save()
    moved = problems_of(run.pk)
    three[0].slug = f"h1-deleted-{three[0].pk}"
    three[0].save()
    assert problems_of(run.pk) == []
    assert moved  # the order does count: else the line above would prove nothing


def test_storage_out_of_reach_is_no_finding_and_another_exit(run, three):
    break_storage(three[1])
    with pytest.raises(CommandError, match="Storage could not be asked") as error:
        call_command("check_rounds")
    assert error.value.returncode == 2
    run.refresh_from_db()
    assert run.checked_at is None


def test_one_run_or_the_newest_are_checked_alone(three, queue, capsys):
    older, newer = finish(three, queue), finish(three, queue)
    object_path(params_key(older.rounds.get(number=1).base_sha256)).unlink()
    assert problems_of(older.pk) != []
    same = object_path(params_key(newer.rounds.get(number=1).base_sha256)).exists()
    assert not same  # the same seed makes the same object: both are told
    for options in ({"run": newer.pk}, {"newest": 1}):
        with pytest.raises(CommandError) as error:
            call_command("check_rounds", **options)
        assert f"run {newer.pk}, round" in str(error.value)
        assert f"run {older.pk}, round" not in str(error.value)
    with pytest.raises(CommandError, match="There is no run 0"):
        call_command("check_rounds", run=0)


def test_a_run_of_another_version_of_the_program_is_read_and_not_made_again(run, capsys):
    TrainingRun.objects.filter(pk=run.pk).update(plan={"strategy": "of old"})
    call_command("check_rounds")
    assert "was planned by another version of the program" in capsys.readouterr().out
    object_path(params_key(update_of(run, 1, "h2").sha256)).unlink()
    assert "H2: its counted update" in problems_of(run.pk)[0]


# --- Once each, by beat ------------------------------------------------------------------------


def test_beat_checks_each_run_once_after_its_end_the_newest_first(three, queue):
    runs = [finish(three, queue) for _ in range(2)]
    assert check_newest_run() is None  # its report may follow
    TrainingRun.objects.update(finished_at=timezone.now() - LONG_AGO)
    RunReport.objects.filter(run=runs[1]).update(status=RunReport.Status.RUNNING)
    assert check_newest_run() == runs[0]
    assert check_newest_run() is None
    RunReport.objects.update(status=RunReport.Status.COMPLETE)
    object_path(params_key(update_of(runs[1], 1, "h2").sha256)).unlink()
    checked = check_newest_run()
    assert checked == runs[1]
    assert "H2: its counted update" in checked.check_problems[0]
    assert check_newest_run() is None


def test_beat_tries_again_once_storage_is_back(run, three):
    TrainingRun.objects.update(finished_at=timezone.now() - LONG_AGO)
    break_storage(three[0])
    assert check_newest_run() is None
    run.refresh_from_db()
    assert run.checked_at is None


# --- Rows --------------------------------------------------------------------------------------


def test_a_round_past_its_deadline_that_nobody_closes_is_told(three, queue):
    training_round = start_round(three, queue)
    assert overdue() == []
    pass_deadline(training_round)
    assert overdue() == []  # the sweeper is about to
    TrainingRound.objects.update(deadline_at=timezone.now() - LONG_AGO)
    (problem,) = overdue()
    assert problem.startswith(f"run {training_round.run_id}, round 1: still collecting, past its")


def test_a_round_that_waits_for_the_missing_is_not_overdue(three, queue):
    training_round = start_round(three, queue, on_miss=TrainingRun.OnMiss.WAIT)
    RoundAssignment.objects.claim([assignment_of(training_round, three[0]).pk])
    queue.work()
    TrainingRound.objects.update(deadline_at=timezone.now() - LONG_AGO)
    services.close_round(TrainingRound.objects.get(pk=training_round.pk))
    assert overdue() == []


def test_a_closed_round_that_nobody_aggregates_and_a_run_without_a_round_are_told(three, queue):
    training_round = start_round(three, queue)
    rounds = TrainingRound.objects.filter(pk=training_round.pk)
    RoundAssignment.objects.filter(training_round=training_round).update(status="SUBMITTED")
    rounds.update(status=TrainingRound.Status.CLOSED, closed_at=timezone.now() - LONG_AGO)
    (problem,) = overdue()
    assert "round 1: closed on" in problem
    rounds.update(reason="it waits for a decision on what is in quarantine")
    assert overdue() == []
    rounds.update(status=TrainingRound.Status.AGGREGATED)
    TrainingRun.objects.update(started_at=timezone.now() - LONG_AGO)
    assert overdue() == [f"run {training_round.run_id}: training, and no round of it is open"]


def close(training_round: TrainingRound, **values) -> None:
    """As the sweeper leaves one that it hands out again and again: closed a moment ago."""
    RoundAssignment.objects.filter(training_round=training_round).update(
        status="SUBMITTED", submitted_at=timezone.now() - LONG_AGO
    )
    TrainingRound.objects.filter(pk=training_round.pk).update(
        status=TrainingRound.Status.CLOSED, closed_at=timezone.now(), **values
    )


def test_a_closed_round_past_its_deadline_that_cannot_be_aggregated_is_told(three, queue):
    training_round = start_round(three, queue)
    close(training_round)
    assert overdue() == []
    training_round.refresh_from_db()
    close(training_round, deadline_at=timezone.now() - LONG_AGO)
    training_round.refresh_from_db()
    told = f"run {training_round.run_id}, round 1: closed, past its deadline of"
    assert overdue() == [f"{told} {training_round.deadline_at}, and not aggregated"]
    # A person's decision, for which it waited that long, has just let it go on.
    audit.record(None, "went on without hospital", assignment_of(training_round, three[0]))
    assert overdue() == []
    AuditEvent.objects.update(happened_at=timezone.now() - LONG_AGO)
    assert len(overdue()) == 1
    audit.record(None, "looked at the round", training_round)
    assert len(overdue()) == 1
    RoundAssignment.objects.filter(envoy=three[0]).update(submitted_at=timezone.now())
    assert overdue() == []


def test_a_round_closed_by_hand_that_cannot_be_aggregated_is_told(three, queue):
    study = services.study_for("risk_tier")
    approved_plan(study, three)
    for envoy in three:
        services.launch_training(study, envoy, launched_by=None)
    queue.work_and_sweep()
    RoundAssignment.objects.update(submitted_at=timezone.now() - LONG_AGO)
    TrainingRound.objects.update(opened_at=timezone.now() - LONG_AGO)
    assert overdue() == []  # it waits for somebody to ask
    training_round = services.aggregate_envoys(study, three)
    assert overdue() == []  # somebody has just asked
    AuditEvent.objects.update(happened_at=timezone.now() - LONG_AGO)
    problem = f"run {training_round.run_id}, round 1: closed, by hand, and not aggregated"
    assert overdue() == [problem]
    queue.work()
    assert overdue() == []


def test_a_full_round_that_nobody_closes_is_told(three, queue):
    training_round = start_round(three, queue)
    RoundAssignment.objects.filter(training_round=training_round).update(
        status="SUBMITTED", submitted_at=timezone.now() - LONG_AGO
    )
    TrainingRound.objects.update(opened_at=timezone.now() - LONG_AGO)
    assert overdue() == [f"run {training_round.run_id}, round 1: all are in, and nobody closes it"]


def test_what_a_run_that_has_ended_leaves_open_is_told(three, queue):
    training_round = start_round(three, queue)
    TrainingRun.objects.update(status=TrainingRun.Status.FAILED)
    problems = overdue()
    assert f"run {training_round.run_id}, round 1: collecting, in a run that is failed" in problems
    assert sum("of a run that is over" in problem for problem in problems) == 3


def test_work_of_any_kind_that_nobody_has_is_told_and_what_waits_for_a_worker_is_not(db):
    envoy = make_envoy(name="Alpha")
    dropped = make_snapshot(
        envoy,
        status=Snapshot.Status.RUNNING,
        leased_until=timezone.now() - LONG_AGO,
        enqueued_at=timezone.now() - LONG_AGO,
    )
    make_inference_run(envoy=envoy, status="PENDING", enqueued_at=timezone.now())
    never = make_inference_run(envoy=envoy, status="PENDING")
    assert overdue() == [
        f"Export {dropped.pk} (Alpha): running, nobody has it, and it is not handed out"
    ]
    InferenceRun.objects.filter(pk=never.pk).update(created_at=timezone.now() - LONG_AGO)
    assert overdue()[1].startswith(f"Inference {never.pk} (Alpha): waiting, nobody has it")


def test_an_assignment_that_is_not_handed_out_is_told(three, queue):
    training_round = start_round(three, queue)
    assignment = assignment_of(training_round, three[0])
    RoundAssignment.objects.filter(pk=assignment.pk).update(
        status=RoundAssignment.Status.TRAINING,
        leased_until=timezone.now() - LONG_AGO,
        enqueued_at=timezone.now() - LONG_AGO,
    )
    (problem,) = overdue()
    assert problem.startswith(f"Training {assignment.pk} (H1): training, nobody has it")


def test_a_run_that_finished_without_a_model_is_told(db):
    run = make_run(status=TrainingRun.Status.FINISHED)
    make_round(run, status=TrainingRound.Status.FAILED)
    assert f"run {run.pk}: finished, and made no version" in problems_of(run.pk)


def test_a_run_under_way_is_read_and_nothing_is_kept_of_it(three, queue):
    run = start(three)
    queue.work_and_sweep(until=lambda: run.rounds.filter(number=2).exists())
    assert problems_of(run.pk) == []
    run.refresh_from_db()
    assert run.checked_at is None
