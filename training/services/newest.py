"""What somebody means who names no plan and no version: the newest."""

from federated.plan import TrainingPlan
from training.errors import NotReadyError
from training.models import ModelVersion, Study, StudyMembership, TrainingRound, TrainingRun


def packaged_plan(study: Study, plan_sha256: str | None = None) -> TrainingPlan:
    """The plan of a study's packages, by its hash; without one, of the newest package.

    Raises:
        NotReadyError: nothing has been packaged, or nothing with this plan.
    """
    packages = StudyMembership.objects.filter(study=study)
    if plan_sha256 is not None:
        packages = packages.filter(plan_sha256=plan_sha256)
    newest = packages.order_by("-packaged_at", "-pk").first()
    if newest is None:
        which = f"the plan {plan_sha256[:12]}" if plan_sha256 else "a plan"
        raise NotReadyError(
            f"no {study.words.place} has a package with {which} of {study}: package it first"
        )
    return TrainingPlan.from_json(newest.plan)


def newest_version(study: Study) -> ModelVersion:
    """The federation's version that was made last.

    Raises:
        NotReadyError: none has been made, or a newer one is being made this moment.
    """
    closed = TrainingRound.objects.closed().filter(
        run__in=TrainingRun.objects.active().filter(study=study, mode=TrainingRun.Mode.MANUAL)
    )
    if closed.exists():
        raise NotReadyError(
            "the updates are being aggregated: ask again in a moment, then the new version is there"
        )
    version = study.versions.of_federation().order_by("-number").first()
    if version is None:
        raise NotReadyError(
            f"there is no model of {study} yet: train {study.words.places}, then aggregate"
        )
    return version


def number_to_come(study: Study) -> int:
    """What the federation's next version will be called: a study makes one at a time."""
    newest = study.versions.of_federation().order_by("-number").first()
    return newest.number + 1 if newest else 1
