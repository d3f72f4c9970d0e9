import hashlib
from datetime import timedelta

import pytest
from django.core.cache import cache
from django.core.management import call_command
from django.utils import timezone
from redis.exceptions import RedisError

from envoys.copying import BEING_COPIED, copying
from envoys.errors import StorageError
from envoys.models import Envoy, User
from envoys.storage import (
    delete_object,
    director_storage,
    envoy_storage,
    list_objects,
    object_size,
    write_object,
)
from inference.services.erasure import delete_envoy, erase_envoy
from tests.factories import make_user
from tests.federation import approve, assignment_of, make_hospital, object_path
from training import services
from training.models import (
    ReceivedUpdate,
    RoundAssignment,
    RunReport,
    TrainingRun,
)
from training.objects import load_base_params, params_key
from training.services import checking
from training.services.checking import Findings, check_newest_run, check_runs
from training.services.retention import Removed, remove_old_objects

pytestmark = pytest.mark.django_db

NUM_ROUNDS = 6
RETENTION = "training.services.retention"
LONG_AGO = timedelta(hours=2)


@pytest.fixture(autouse=True)
def keep_two(settings):
    settings.KEEP_ROUNDS, settings.KEEP_HOURS = 2, 0.0


@pytest.fixture
def three(db):
    return [make_hospital(f"H{number}", num_patients=30) for number in range(1, 4)]


def start_long(envoys, *, strategy="fedavg", seed=0, **values) -> TrainingRun:
    study = services.study_for("risk_tier")
    plan = services.plan_for(study, num_rounds=NUM_ROUNDS, strategy=strategy)
    for envoy in envoys:
        approve(study, envoy, plan)
    return services.start_run(study, plan, started_by=None, envoys=envoys, seed=seed, **values)


def reach(run, queue, number) -> TrainingRun:
    """Until this round is open, with everything still to be done."""
    queue.work_and_sweep(until=lambda: run.rounds.filter(number=number).exists())
    run.refresh_from_db()
    return run


def end(run, queue) -> TrainingRun:
    """Finished, and checked by beat."""
    queue.work_and_sweep()
    TrainingRun.objects.filter(pk=run.pk).update(finished_at=timezone.now() - LONG_AGO)
    assert check_newest_run() == run
    run.refresh_from_db()
    assert run.check_problems == []
    return run


def miss(run, queue, envoy, *numbers) -> None:
    """Rounds, of which the first is open, go by without an update of the hospital."""
    for number in numbers:
        RoundAssignment.objects.filter(
            training_round__run=run, training_round__number=number, envoy=envoy
        ).update(status=RoundAssignment.Status.FAILED)
        reach(run, queue, number + 1)


def stored() -> set[str]:
    """Hashes of what lies among the director's updates."""
    keys = [key for key, _ in list_objects(director_storage()) if key.startswith("updates/")]
    return {key.removeprefix("updates/").removesuffix(".safetensors") for key in keys}


def updates_of(run, *numbers) -> set[str]:
    rows = ReceivedUpdate.objects.filter(
        assignment__training_round__run=run, assignment__training_round__number__in=numbers
    )
    return set(rows.values_list("sha256", flat=True))


def states_of(envoy) -> set[str]:
    keys = [key for key, _ in list_objects(envoy_storage(envoy))]
    names = [key for key in keys if key.startswith("client_state/")]
    return {name.removeprefix("client_state/").removesuffix(".safetensors") for name in names}


def result_of(run, number) -> str:
    return run.rounds.get(number=number).result_sha256


def problems_of(run) -> list[str]:
    found = Findings()
    for _ in check_runs(found, [run.pk]):
        pass
    return found.problems


def test_a_run_under_way_keeps_its_last_rounds_and_trains_to_the_same_bits(three, queue, settings):
    settings.KEEP_ROUNDS = 0
    undisturbed = start_long(three)
    queue.work_and_sweep()
    assert remove_old_objects().num_objects == 0  # all are kept
    undisturbed.refresh_from_db()
    object_path("updates").rename(object_path("aside"))
    TrainingRun.objects.update(objects_kept_from_round=NUM_ROUNDS)  # it shares every object
    load_base_params.cache_clear()

    settings.KEEP_ROUNDS = 2
    run = reach(start_long(three), queue, 5)
    removed = remove_old_objects()
    run.refresh_from_db()
    assert (run.objects_kept_from_round, run.objects_removed_before_round) == (3, 3)
    # Three updates each of rounds 1 and 2, and what round 2 started from; round 1's base is of round 0.
    assert (removed.num_runs, removed.num_objects) == (1, 7)
    assert removed.num_bytes > 0
    assert stored().isdisjoint(updates_of(run, 1, 2) | {result_of(run, 1)})
    assert stored() >= updates_of(run, 0, 3, 4) | {result_of(run, n) for n in (0, 2, 3, 4)}
    assert remove_old_objects().num_objects == 0
    assert problems_of(run) == []

    load_base_params.cache_clear()
    queue.work_and_sweep()
    run.refresh_from_db()
    assert run.status == TrainingRun.Status.FINISHED, run.reason
    assert run.final_sha256 == undisturbed.final_sha256


def test_a_run_that_was_checked_keeps_round_0_and_its_last_and_is_found_whole_again(three, queue):
    run = end(start_long(three), queue)
    remove_old_objects()
    run.refresh_from_db()
    assert run.objects_kept_from_round == NUM_ROUNDS
    kept = updates_of(run, 0, NUM_ROUNDS)
    kept |= {result_of(run, number) for number in (0, NUM_ROUNDS - 1, NUM_ROUNDS)}
    assert stored() == kept
    assert problems_of(run) == []
    object_path(params_key(next(iter(updates_of(run, NUM_ROUNDS))))).unlink()
    assert "its counted update" in problems_of(run)[0]


def test_what_a_check_has_not_seen_or_found_wrong_stays(three, queue):
    start_long(three)
    queue.work_and_sweep()
    before = stored()
    assert remove_old_objects().num_objects == 0  # not checked
    TrainingRun.objects.update(checked_at=timezone.now(), check_problems=["something is wrong"])
    assert remove_old_objects().num_objects == 0
    TrainingRun.objects.update(check_problems=[])
    assert remove_old_objects().num_objects > 0
    assert stored() < before


def test_a_round_that_cannot_be_made_again_ends_the_letting_go_of_a_run_under_way(
    three, queue, caplog
):
    run = reach(start_long(three), queue, 6)
    object_path(params_key(sorted(updates_of(run, 2))[0])).unlink()
    remove_old_objects()
    run.refresh_from_db()
    assert run.objects_kept_from_round == 2
    assert stored().isdisjoint(updates_of(run, 1))
    assert len(stored() & updates_of(run, 2)) == 2
    assert "round 2, H" in caplog.text
    assert "round 2, H" in problems_of(run)[0]


def test_what_was_aggregated_in_the_last_hours_stays(three, queue, settings):
    settings.KEEP_HOURS = 1.0
    run = reach(start_long(three), queue, 5)
    assert remove_old_objects().num_objects == 0
    run.rounds.filter(number__lte=1).update(aggregated_at=timezone.now() - LONG_AGO)
    assert remove_old_objects().num_objects == 3
    assert stored().isdisjoint(updates_of(run, 1))
    assert stored() >= updates_of(run, 2)


def test_what_runs_share_stays_until_the_last_of_them_lets_go(three, queue):
    """Runs of one seed on the same data make the same objects."""
    first = end(start_long(three), queue)
    second = reach(start_long(three), queue, 4)
    same = updates_of(first, 2)
    assert updates_of(second, 2) == same
    removed = remove_old_objects()  # of the second; the first waits for the second's end
    (reason,) = removed.put_off
    assert f"run {first.pk}: another of its study" in reason
    assert removed.num_objects == 0
    assert stored() >= updates_of(first, 1) | same

    end(second, queue)
    call_command("remove_old_objects")
    kept = updates_of(second, 0, NUM_ROUNDS)
    kept |= {result_of(second, number) for number in (0, NUM_ROUNDS - 1, NUM_ROUNDS)}
    assert stored() == kept
    assert problems_of(first) == problems_of(second) == []


def test_of_two_runs_with_the_same_objects_the_one_that_keeps_all_decides(three, queue):
    first = end(start_long(three), queue)
    second = start_long(three)
    queue.work_and_sweep()  # not checked
    remove_old_objects()
    first.refresh_from_db()
    assert first.objects_removed_before_round == NUM_ROUNDS
    assert stored() >= updates_of(second, *range(NUM_ROUNDS + 1))
    assert problems_of(second) == []


def test_scaffold_goes_on_from_the_states_that_are_kept(three, queue):
    run = reach(start_long(three, strategy="scaffold"), queue, 5)
    before = states_of(three[0])
    remove_old_objects()
    assert len(before) == 4
    assert len(states_of(three[0])) == 2
    queue.work_and_sweep()
    run.refresh_from_db()
    assert run.status == TrainingRun.Status.FINISHED, run.reason
    end(run, queue)
    remove_old_objects()
    assert len(states_of(three[0])) == 1
    assert problems_of(run) == []


def test_what_a_hospital_sent_last_is_kept_until_it_sends_again(three, queue):
    run = start_long(three, strategy="scaffold", quorum=2)
    reach(run, queue, 2)
    (last,) = ReceivedUpdate.objects.filter(
        assignment__training_round__run=run,
        assignment__training_round__number=1,
        assignment__envoy=three[0],
    )
    miss(run, queue, three[0], 2, 3, 4)
    remove_old_objects()
    run.refresh_from_db()
    assert (run.objects_kept_from_round, run.objects_removed_before_round) == (3, 1)
    assert stored() & updates_of(run, 1) == {last.sha256}
    assert states_of(three[0]) == {last.client_state_sha256}
    reach(run, queue, 6)  # it is back in round 5
    remove_old_objects()
    run.refresh_from_db()
    assert (run.objects_kept_from_round, run.objects_removed_before_round) == (4, 4)
    assert stored().isdisjoint(updates_of(run, 1))
    assert last.client_state_sha256 not in states_of(three[0])


def test_what_a_hospital_sent_before_stays_until_its_next_has_counted(three, queue):
    run = start_long(three, strategy="scaffold", quorum=2)
    reach(run, queue, 2)
    before = ReceivedUpdate.objects.get(
        assignment__training_round__run=run,
        assignment__training_round__number=1,
        assignment__envoy=three[0],
    )
    miss(run, queue, three[0], 2, 3, 4)
    assignment = assignment_of(run.rounds.get(number=5), three[0])
    services.train_clients([assignment.pk])  # it is back, and the others are still at it
    remove_old_objects()
    assert before.sha256 in stored()
    assert before.client_state_sha256 in states_of(three[0])

    (lost,) = updates_of(run, 5)  # so that it is asked again
    object_path(params_key(lost)).unlink()
    reach(run, queue, 6)
    assignment.refresh_from_db()
    assert assignment.status == RoundAssignment.Status.SUBMITTED, assignment.reason
    assert assignment.updates.filter(verdict=ReceivedUpdate.Verdict.ACCEPTED).exists()
    assert "is missing" in assignment.updates.get(verdict=ReceivedUpdate.Verdict.REFUSED).reason
    remove_old_objects()
    assert before.sha256 not in stored()
    assert before.client_state_sha256 not in states_of(three[0])


def test_what_came_late_for_a_round_that_was_let_go_goes_after_the_run(three, queue):
    run = reach(start_long(three), queue, 5)
    remove_old_objects()
    late = hashlib.sha256(b"came late").hexdigest()
    write_object(director_storage(), params_key(late), b"came late")
    ReceivedUpdate.objects.create(
        assignment=assignment_of(run.rounds.get(number=1), three[0]),
        sha256=late,
        num_examples=1,
        verdict=ReceivedUpdate.Verdict.LATE,
    )
    end(run, queue)
    assert late in stored()
    remove_old_objects()
    assert late not in stored()


def test_a_run_that_is_started_meanwhile_keeps_the_rest_where_it_is(three, queue, monkeypatch):
    run = end(start_long(three), queue)
    deleted: list[str] = []

    def delete_and_start(storage, key):
        delete_object(storage, key)
        deleted.append(key)
        if len(deleted) == 3:
            start_long(three)

    monkeypatch.setattr(f"{RETENTION}.delete_object", delete_and_start)
    removed = remove_old_objects()
    assert removed.num_objects == len(deleted) == 3
    (reason,) = removed.put_off
    assert f"run {run.pk}: another of its study is being prepared" in reason


def test_while_a_run_is_prepared_whatever_its_seed_nothing_of_its_study_goes(three, queue):
    run = end(start_long(three), queue)
    other = start_long(three, seed=1)
    assert remove_old_objects().num_objects == 0
    reach(other, queue, 1)
    assert remove_old_objects().num_objects > 0
    run.refresh_from_db()
    assert run.objects_removed_before_round == NUM_ROUNDS


def test_while_a_backup_is_made_nothing_goes(three, queue, monkeypatch):
    run = end(start_long(three), queue)
    with copying():
        removed = remove_old_objects()
        (reason,) = removed.put_off
        assert reason.startswith(f"run {run.pk}: a backup is being made")
        assert removed.num_objects == 0
        # One that was killed leaves its sign behind: it is believed for a day.
        tomorrow = timezone.now() + timedelta(hours=25)
        with monkeypatch.context() as patch:
            patch.setattr("envoys.copying.timezone.now", lambda: tomorrow)
            assert remove_old_objects().num_objects > 0


def test_what_a_backup_that_begins_meanwhile_has_rows_of_stays(three, queue, monkeypatch):
    run = end(start_long(three), queue)
    began: list[int] = []

    def look_and_begin(storage, key):
        if not began:
            write_object(director_storage(), BEING_COPIED, b"")
            began.append(TrainingRun.objects.get(pk=run.pk).objects_kept_from_round)
        return object_size(storage, key)

    monkeypatch.setattr(f"{RETENTION}.object_size", look_and_begin)
    before = stored()
    assert remove_old_objects().num_objects == 0
    assert began == [NUM_ROUNDS]  # the copied row promises nothing of what is about to go
    assert stored() == before


def test_a_pass_does_not_start_while_another_is_under_way(three, queue, monkeypatch):
    run = end(start_long(three), queue)
    meanwhile: list[Removed] = []

    def start_another(storage, key):
        meanwhile.append(remove_old_objects())
        delete_object(storage, key)

    monkeypatch.setattr(f"{RETENTION}.delete_object", start_another)
    assert remove_old_objects().num_objects > 0
    assert {each.num_objects for each in meanwhile} == {0}
    assert "another pass is under way" in meanwhile[0].put_off[0]
    run.refresh_from_db()
    assert run.objects_removed_before_round == NUM_ROUNDS
    assert remove_old_objects().put_off == []  # it has said that it ended


def test_a_cache_that_does_not_answer_keeps_no_pass_from_starting(three, queue, monkeypatch):
    end(start_long(three), queue)

    def fail(*arguments, **values):
        raise RedisError

    monkeypatch.setattr(cache, "add", fail)
    monkeypatch.setattr(cache, "delete", fail)
    assert remove_old_objects().num_objects > 0


def test_what_another_pass_lets_go_while_it_is_checked_is_no_finding(
    three, queue, monkeypatch, caplog
):
    run = reach(start_long(three), queue, 6)
    check_round = checking.check_round
    is_other_done = False

    def check_after_another(*arguments):
        nonlocal is_other_done
        if not is_other_done:
            is_other_done = True
            cache.clear()  # processes that share none do not know of each other
            assert remove_old_objects().num_objects > 0
            load_base_params.cache_clear()
        return check_round(*arguments)

    monkeypatch.setattr(checking, "check_round", check_after_another)
    remove_old_objects()
    assert "a check has found" not in caplog.text
    run.refresh_from_db()
    assert (run.objects_kept_from_round, run.objects_removed_before_round) == (4, 4)


def test_killed_in_the_middle_nothing_is_promised_that_is_gone_and_the_rest_goes_later(
    three, queue, monkeypatch
):
    run = end(start_long(three), queue)
    deleted: list[str] = []

    def killed(storage, key):
        if len(deleted) == 4:
            raise KeyboardInterrupt
        deleted.append(key)
        delete_object(storage, key)

    monkeypatch.setattr(f"{RETENTION}.delete_object", killed)
    with pytest.raises(KeyboardInterrupt):
        remove_old_objects()
    run.refresh_from_db()
    assert (run.objects_kept_from_round, run.objects_removed_before_round) == (NUM_ROUNDS, 0)
    assert problems_of(run) == []
    monkeypatch.setattr(f"{RETENTION}.delete_object", delete_object)
    remove_old_objects()
    assert stored().isdisjoint(updates_of(run, *range(1, NUM_ROUNDS)))


def test_a_hospitals_storage_out_of_reach_puts_its_run_off_and_no_other(three, queue, monkeypatch):
    other = make_hospital("H4", num_patients=30)
    run = end(start_long([*three, other], strategy="scaffold"), queue)
    second = end(start_long([*three, other], seed=1), queue)

    def out_of_reach(storage, key):
        if other.storage_prefix in str(storage.location):
            raise StorageError(f"{key} could not be looked up")
        return object_size(storage, key)

    monkeypatch.setattr(f"{RETENTION}.object_size", out_of_reach)
    removed = remove_old_objects()
    run.refresh_from_db()
    second.refresh_from_db()
    (reason,) = removed.put_off
    assert reason.startswith(f"run {run.pk}: client_state/")
    assert (run.objects_kept_from_round, run.objects_removed_before_round) == (NUM_ROUNDS, 0)
    assert second.objects_removed_before_round == NUM_ROUNDS


def test_a_dry_run_says_what_would_go_and_changes_nothing(three, queue, capsys):
    run = end(start_long(three), queue)
    before = stored()
    call_command("remove_old_objects", dry_run=True)
    told = capsys.readouterr().out
    run.refresh_from_db()
    assert run.objects_kept_from_round == 0
    assert stored() == before
    call_command("remove_old_objects")
    assert capsys.readouterr().out == told.replace("would be removed", "were removed")
    assert "19 objects with" in told  # of rounds 1 to 5 the updates, and what 2 to 5 started from


def test_a_hospital_whose_objects_were_let_go_can_be_deleted(three, queue):
    run = end(start_long(three, strategy="scaffold"), queue)
    RunReport.objects.filter(run=run).update(status=RunReport.Status.COMPLETE)
    erasure = delete_envoy(
        three[0], confirmed_name="H1", deleted_by=make_user(User.Role.ADMINISTRATOR)
    )
    remove_old_objects()  # it has no storage to look into any more
    erase_envoy(erasure.pk)
    run.refresh_from_db()
    assert Envoy.objects.get(pk=three[0].pk).status == Envoy.Status.DELETED
    assert run.objects_removed_before_round == NUM_ROUNDS
    assert problems_of(run) == []


def test_page_and_api_say_which_rounds_were_let_go(three, queue, client):
    run = end(start_long(three), queue)
    client.force_login(make_user(User.Role.DATA_SCIENTIST))
    page, call = f"/runs/{run.pk}/", f"/api/v1/runs/{run.pk}"
    assert b"are not kept: they were checked" not in client.get(page).content
    assert client.get(call).json()["last_round_let_go"] == 0
    remove_old_objects()
    assert b"Updates and parameters of rounds 1 to 5 are not kept" in client.get(page).content
    assert client.get(call).json()["last_round_let_go"] == 5
