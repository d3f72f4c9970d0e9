"""What the page of the manual rounds shows: who can be launched, who has trained, what came of it."""

from dataclasses import dataclass
from datetime import datetime
from typing import Any

from envoys.models import Envoy
from training.models import (
    ModelVersion,
    RoundAssignment,
    Study,
    StudyMembership,
    TrainingRound,
    TrainingRun,
)
from training.progress import with_counts


@dataclass(frozen=True)
class ManualRound:
    """A study's newest manual run, and who may join it."""

    study: Study
    run: TrainingRun | None
    training_round: TrainingRound | None
    assignments: list[RoundAssignment]
    version: ModelVersion | None  # what was made of it
    launchable: list[Envoy]  # approved, and not yet in the open round

    @property
    def is_open(self) -> bool:
        return bool(
            self.run
            and self.run.is_active
            and self.training_round
            and self.training_round.status == TrainingRound.Status.COLLECTING
        )

    @property
    def is_changing(self) -> bool:
        """Somebody trains, or a worker makes the version."""
        if not (self.run and self.run.is_active):
            return False
        return not self.is_open or any(each.is_active for each in self.assignments)

    @property
    def missing(self) -> list[tuple[Envoy, datetime]]:
        """Who has not sent, and since when it is waited for: its data is frozen as it is launched."""
        return [
            (each.envoy, each.snapshot.created_at)
            for each in self.assignments
            if each.status != RoundAssignment.Status.SUBMITTED
        ]

    @property
    def num_in(self) -> int:
        return sum(each.status == RoundAssignment.Status.SUBMITTED for each in self.assignments)


def manual_rounds() -> list[ManualRound]:
    """Of every study, in a number of queries that does not grow with studies or hospitals."""
    runs = {run.study_id: run for run in _newest_runs()}
    run_ids = [run.pk for run in runs.values()]
    rounds = {each.run_id: each for each in TrainingRound.objects.filter(run__in=run_ids)}
    assignments: dict[int, list[RoundAssignment]] = {}
    for assignment in RoundAssignment.objects.filter(
        training_round__in=rounds.values()
    ).select_related("envoy", "snapshot"):
        assignments.setdefault(assignment.training_round_id, []).append(assignment)
    versions = ModelVersion.objects.of_federation().filter(run__in=run_ids).defer("manifest")
    version_of = {version.run_id: version for version in versions.select_related("study")}
    approved = _approved()
    found = []
    for study in Study.objects.all():
        run = runs.get(study.pk)
        training_round = rounds.get(run.pk) if run else None
        launched = assignments.get(training_round.pk, []) if training_round else []
        taken = {each.envoy_id for each in launched} if run and run.is_active else set()
        found.append(
            ManualRound(
                study=study,
                run=run,
                training_round=training_round,
                assignments=launched,
                version=version_of.get(run.pk) if run else None,
                launchable=[e for e in approved.get(study.pk, []) if e.pk not in taken],
            )
        )
    return found


def _newest_runs() -> Any:
    newest = (
        TrainingRun.objects.filter(mode=TrainingRun.Mode.MANUAL)
        .order_by("study", "-pk")
        .values_list("study_id", "pk")
    )
    by_study: dict[int, int] = {}
    for study_id, pk in newest:
        by_study.setdefault(study_id, pk)
    return with_counts(TrainingRun.objects.filter(pk__in=by_study.values())).defer("plan", "report")


def _approved() -> dict[int, list[Envoy]]:
    """By study, the hospitals whose newest package is approved, by name."""
    memberships = StudyMembership.objects.filter(envoy__in=Envoy.objects.active()).with_answer()
    in_time = memberships.select_related("envoy").defer("plan").order_by("packaged_at", "pk")
    newest: dict[Any, Any] = {(each.study_id, each.envoy_id): each for each in in_time}
    approved: dict[int, list[Envoy]] = {}
    for (study_id, _), membership in newest.items():
        if membership.answer == StudyMembership.Answer.APPROVED:
            approved.setdefault(study_id, []).append(membership.envoy)
    return {pk: sorted(envoys, key=lambda envoy: envoy.name) for pk, envoys in approved.items()}
