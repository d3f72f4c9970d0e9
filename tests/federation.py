"""A small federation for tests: hospitals with patients, their approvals, and runs."""

from collections.abc import Iterable
from datetime import timedelta
from pathlib import Path
from typing import Any

from django.conf import settings
from django.utils import timezone

from diagnoses.services import import_cohort
from envoys.models import Envoy
from federated.cohorts import find_envoys
from federated.plan import TrainingPlan
from tests.conftest import WorkQueue
from tests.factories import make_admission, make_diagnosis, make_envoy, make_patient, make_user
from training import services
from training.models import (
    ModelVersion,
    RoundAssignment,
    Study,
    StudyMembership,
    TrainingRound,
    TrainingRun,
)

NUM_ROUNDS = 2
FILES = ("model.safetensors", "model.pt", "manifest.json")


def import_hospitals(cohort: Path) -> list[Envoy]:
    """An envoy for each hospital of a cohort folder, sorted by name."""
    envoys = []
    for files in find_envoys(cohort):
        envoy = make_envoy(name=files.name)
        import_cohort(envoy, files)
        envoys.append(envoy)
    return sorted(envoys, key=lambda envoy: envoy.slug)


def make_hospital(name: str, *, num_patients: int, risk_tiers: tuple[int, ...] = (0, 2)) -> Envoy:
    """A hospital whose patients have one admission each, with these outcomes in turn."""
    envoy = make_envoy(name=name)
    for number in range(num_patients):
        patient = make_patient(envoy=envoy, subject_id=f"{envoy.slug}-{number}")
        admission = make_admission(patient, age=60, risk_tier=risk_tiers[number % len(risk_tiers)])
        make_diagnosis(admission)
    return envoy


def approve(study: Study, envoy: Envoy, plan: TrainingPlan) -> StudyMembership:
    membership = services.package_training(study, envoy, plan)
    return services.approve_package(
        membership, approved_by=make_user(envoy=envoy), plan_hash=plan.sha256
    )


def approved_plan(
    study: Study, envoys: Iterable[Envoy], num_rounds: int = NUM_ROUNDS
) -> TrainingPlan:
    plan = services.plan_for(study, num_rounds=num_rounds)
    for envoy in envoys:
        approve(study, envoy, plan)
    return plan


def start(envoys: Iterable[Envoy], **values: Any) -> TrainingRun:
    """A run that every hospital has approved, of a study of its own where none is given."""
    envoys = list(envoys)
    study = values.pop("study", None) or services.study_for("risk_tier")
    plan = approved_plan(study, envoys)
    return services.start_run(study, plan, started_by=None, envoys=envoys, **values)


def start_round(envoys: Iterable[Envoy], queue: WorkQueue, **values: Any) -> TrainingRound:
    """Round 1 of a new run, open, with everything still to be done."""
    run = start(envoys, **values)
    queue.work_and_sweep(until=lambda: run.rounds.filter(number=1).exists())
    return run.rounds.get(number=1)


def finish(envoys: Iterable[Envoy], queue: WorkQueue, **values: Any) -> TrainingRun:
    """A run that has finished."""
    run = start(envoys, **values)
    queue.work_and_sweep()
    run.refresh_from_db()
    assert run.status == TrainingRun.Status.FINISHED, run.reason
    return run


def release(envoys: Iterable[Envoy], queue: WorkQueue) -> ModelVersion:
    """The version of a finished run, delivered to the hospitals."""
    envoys = list(envoys)
    version = finish(envoys, queue).versions.of_federation().get()
    services.distribute_version(version, distributed_by=None, envoys=envoys)
    queue.work()
    version.refresh_from_db()
    return version


def assignment_of(training_round: TrainingRound, envoy: Envoy) -> RoundAssignment:
    assignment: RoundAssignment = training_round.assignments.select_related(
        "training_round__run", "envoy"
    ).get(envoy=envoy)
    return assignment


def expire_lease(assignment: RoundAssignment) -> None:
    """As if its worker had been silent for a lease, and the message had gone as long ago."""
    long_ago = timezone.now() - timedelta(seconds=settings.LEASE_SECONDS + 1)
    RoundAssignment.objects.filter(pk=assignment.pk).update(
        leased_until=long_ago, enqueued_at=long_ago
    )


def pass_deadline(training_round: TrainingRound) -> None:
    TrainingRound.objects.filter(pk=training_round.pk).update(
        deadline_at=timezone.now() - timedelta(seconds=1)
    )
    training_round.refresh_from_db()


def object_path(key: str) -> Path:
    """An object in the director's folder."""
    return Path(settings.OBJECT_FOLDER, "director", key)


def envoy_path(envoy: Envoy, key: str = "") -> Path:
    """An object in a hospital's folder."""
    return object_path(f"{envoy.storage_prefix}/{key}".rstrip("/"))


def break_storage(envoy: Envoy) -> None:
    """Nothing can be written below a file; a folder without rights would not stop root."""
    folder = envoy_path(envoy)
    if folder.exists():
        folder.rename(folder.with_name(f"{folder.name}-aside"))
    folder.parent.mkdir(parents=True, exist_ok=True)
    folder.write_bytes(b"")
