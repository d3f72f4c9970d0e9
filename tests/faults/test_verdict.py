from collections.abc import Iterator
from dataclasses import replace

import pytest
from django.core.files.storage import Storage
from django.db.models import Q

from diagnoses.models import Snapshot
from envoys.storage import (
    delete_object,
    director_storage,
    envoy_storage,
    read_object,
    write_object,
)
from tests.faults.verdict import Ended, Verdict, look_at
from tests.federation import approve, make_hospital
from training import services
from training.models import ModelVersion, ReceivedUpdate, TrainingRun
from training.objects import params_key
from training.services.updates import client_state_key

HOSPITALS = ("one", "two")
VERSIONS = (
    ("FINE_TUNED", "one", "1" * 64),
    ("FINE_TUNED", "two", "2" * 64),
    ("GLOBAL", "", "3" * 64),
    ("LOCAL", "one", "4" * 64),
)
WHOLE = Ended(
    1,
    10.0,
    "FINISHED",
    "",
    "f" * 64,
    ((0, "AGGREGATED", "a" * 64, HOSPITALS), (1, "AGGREGATED", "b" * 64, HOSPITALS)),
    VERSIONS,
    (),
)


def verdict_on(run: Ended, *, reference: Ended = WHOLE) -> Verdict:
    verdict = Verdict(reference, num_rounds=1, hospitals=HOSPITALS)
    verdict.judge(run)
    return verdict


def test_the_same_run_again_has_lost_nothing():
    verdict = verdict_on(replace(WHOLE, pk=2, seconds=30.0))
    assert (verdict.rounds_lost, verdict.identical, verdict.problems) == (0, True, [])
    assert verdict.seconds == [30.0]


@pytest.mark.parametrize(
    ("last", "num_lost"),
    [
        ((1, "FAILED", "", ()), 1),
        ((1, "AGGREGATED", "b" * 64, ("one",)), 1),  # went on without somebody
        ((1, "AGGREGATED", "c" * 64, HOSPITALS), 0),  # other bytes of the same hospitals
        (None, 1),
    ],
)
def test_a_round_that_is_another_one_is_told(last, num_lost):
    rounds = (WHOLE.rounds[0], *([last] if last else []))
    verdict = verdict_on(replace(WHOLE, pk=2, rounds=rounds))
    assert verdict.rounds_lost == num_lost
    assert not verdict.identical
    assert len(verdict.problems) == num_lost + 1


@pytest.mark.parametrize(
    ("values", "words"),
    [
        ({"status": "FAILED"}, "run 2: failed"),
        ({"status": "STOPPED"}, "run 2: stopped"),
        ({"notes": "One's own model was not stored"}, "One's own model was not stored"),
        ({"final_sha256": "0" * 64}, "other bytes than run 1"),
        ({"versions": VERSIONS[1:]}, "no FINE_TUNED version one"),
        ({"versions": VERSIONS[:2]}, "no GLOBAL version"),
        ({"versions": VERSIONS[:3]}, "no LOCAL version one"),
        ({"versions": (*VERSIONS[:3], ("LOCAL", "one", "5" * 64))}, "other bytes than run 1"),
        ({"lost": ("an update is missing",)}, "an update is missing"),
    ],
)
def test_whatever_else_is_not_as_it_was_undisturbed_is_a_problem(values, words):
    verdict = verdict_on(replace(WHOLE, pk=2, **values))
    assert any(words in problem for problem in verdict.problems), verdict.problems


@pytest.mark.parametrize(
    ("values", "num_lost"),
    [
        ({"status": "FAILED", "rounds": ((0, "FAILED", "", ()),)}, 2),
        ({"rounds": WHOLE.rounds[:1]}, 1),
        ({"rounds": ()}, 2),
        ({"rounds": tuple((*each[:3], ("one",)) for each in WHOLE.rounds)}, 2),
        ({"versions": (VERSIONS[2],)}, 0),
    ],
)
def test_a_run_is_no_better_because_the_undisturbed_one_was_as_bad(values, num_lost):
    bad = replace(WHOLE, **values)
    verdict = verdict_on(replace(bad, pk=2), reference=bad)
    assert verdict.identical
    assert verdict.rounds_lost == num_lost
    assert verdict.problems


# --- What is read of a run ---------------------------------------------------------------------


@pytest.fixture
def run(db, queue) -> TrainingRun:
    """Of SCAFFOLD, which has something to remember on either side."""
    study = services.study_for("risk_tier")
    envoys = [make_hospital(f"H{number}", num_patients=30) for number in range(1, 4)]
    plan = services.plan_for(study, num_rounds=2, strategy="scaffold")
    for envoy in envoys:
        approve(study, envoy, plan)
    run = services.start_run(study, plan, started_by=None, envoys=envoys)
    queue.work_and_sweep()
    return run


def counted(run: TrainingRun, number: int) -> ReceivedUpdate:
    """The second hospital's update."""
    return ReceivedUpdate.objects.get(
        assignment__training_round__run=run,
        assignment__training_round__number=number,
        assignment__envoy__slug="h2",
    )


def verdict_of(run: TrainingRun, reference: Ended) -> Verdict:
    verdict = Verdict(reference, num_rounds=2, hospitals=("h1", "h2", "h3"))
    verdict.judge(look_at(run.pk, 1.0))
    verdict.judge_rows()
    return verdict


def objects_of(run: TrainingRun) -> Iterator[tuple[Storage, str]]:
    """One of each kind that a run's rows name."""
    director = director_storage()
    yield director, params_key(counted(run, 0).sha256)
    yield director, params_key(counted(run, 1).sha256)
    last_round = run.rounds.get(number=2)
    yield director, params_key(last_round.result_sha256)
    yield director, params_key(last_round.state_sha256)
    # Of the last round: nobody goes on from it, so that nobody else would miss it.
    last = counted(run, 2)
    hospital = envoy_storage(last.assignment.envoy)
    yield hospital, client_state_key(last.client_state_sha256)
    for version in run.versions.filter(Q(envoy=None) | Q(envoy=last.assignment.envoy)):
        storage = hospital if version.envoy else director
        yield storage, f"{version.storage_key}/model.safetensors"


def test_what_is_recorded_and_was_never_stored_is_a_lost_round(run):
    whole = look_at(run.pk, 1.0)
    num_objects = 0
    for storage, key in objects_of(run):
        content = read_object(storage, key, sha256=None)
        delete_object(storage, key)
        verdict = verdict_of(run, whole)
        assert verdict.rounds_lost > 0, key
        assert f"{key} is missing" in verdict.problems[0]
        assert verdict.identical  # which the rows alone would tell
        write_object(storage, key, content)
        assert verdict_of(run, whole).problems == []
        num_objects += 1
    assert num_objects == 8  # three versions among them


def test_a_hospital_without_its_own_version_is_told(run):
    whole = look_at(run.pk, 1.0)
    run.versions.get(kind=ModelVersion.Kind.FINE_TUNED, envoy__slug="h2").delete()
    assert f"run {run.pk}: no FINE_TUNED version h2" in verdict_of(run, whole).problems


def test_rows_that_are_open_or_were_given_up_are_stuck(run):
    whole = look_at(run.pk, 1.0)
    assert verdict_of(run, whole).stuck_rows == 0
    run.rounds.filter(number=1).update(status="COLLECTING")
    Snapshot.objects.filter(envoy__slug="h1").update(status="FAILED", reason="why")
    verdict = verdict_of(run, whole)
    assert verdict.stuck_rows > 1
    assert "1 rows are still open" in verdict.problems
    assert any(problem.endswith("has failed: why") for problem in verdict.problems)
