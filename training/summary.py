"""The federation in figures: dashboard, list of hospitals and the call that answers the same.

Patients are told as counts, and a count that is small, or would give a small one away, not at all.
"""

from collections.abc import Iterable
from dataclasses import dataclass
from datetime import datetime
from typing import Any

import numpy as np
from django.db.models import Max, OuterRef, Subquery

from envoys.access import Capability, may
from envoys.models import Envoy, User
from envoys.work_list import Work, failed_work
from federated.suppression import suppress
from training.models import (
    ModelVersion,
    RoundAssignment,
    RunParticipant,
    Study,
    StudyMembership,
    TrainingRun,
)
from training.progress import with_counts
from training.services.checking import standing_problems

MOST_LISTED = 5


@dataclass(frozen=True)
class LabelledPatients:
    """Patients with an outcome, as each hospital's newest run counted them."""

    by_envoy: dict[int, int | None]  # those that have been counted; None: not shown
    total: int | None

    def of(self, envoy: Envoy) -> int | None:
        return self.by_envoy.get(envoy.pk)

    def in_words(self, envoy: Envoy) -> str:
        if envoy.pk not in self.by_envoy:
            return "not counted yet"
        return in_words(self.by_envoy[envoy.pk])

    @property
    def total_in_words(self) -> str:
        return in_words(self.total) if self.by_envoy else "not counted yet"


@dataclass(frozen=True)
class EnvoyLine:
    """A hospital in the list."""

    envoy: Envoy
    num_labelled_patients: int | None
    labelled_patients: str  # the same in words
    approval: str
    newest_update_at: datetime | None


@dataclass(frozen=True)
class StudyModel:
    """The model that a study has released, and since when."""

    study: Study
    version: ModelVersion | None
    since: datetime | None


@dataclass(frozen=True)
class FederationSummary:
    envoys: list[EnvoyLine]
    num_labelled_patients: int | None  # of all of them; None: not shown
    labelled_patients: str
    active_runs: list[TrainingRun]  # with num_rounds_done and num_hospitals
    models: list[StudyModel]
    num_approvals_waiting: int
    approvals_waiting: list[StudyMembership]  # the newest of them
    failed: list[Work]  # only for who runs the federation
    lost: list[str]  # what a check has found, in words; likewise

    @property
    def num_active_envoys(self) -> int:
        return sum(line.envoy.status == Envoy.Status.ACTIVE for line in self.envoys)


def in_words(count: int | None) -> str:
    return "–" if count is None else f"{count:,}"


def federation_summary(user: User) -> FederationSummary:
    """What somebody may know of the federation at a glance; a doctor, of their own hospital."""
    envoys = list(Envoy.objects.standing().visible_to(user))
    labelled = labelled_patients(envoys)
    waiting = StudyMembership.objects.waiting().visible_to(user)
    waiting = waiting.filter(envoy__in=Envoy.objects.active())
    runs = with_counts(TrainingRun.objects.active().visible_to(user))
    return FederationSummary(
        envoys=envoy_lines(envoys, labelled),
        num_labelled_patients=labelled.total,
        labelled_patients=labelled.total_in_words,
        active_runs=list(runs.select_related("study", "started_by")),
        models=study_models(),
        num_approvals_waiting=waiting.count(),
        approvals_waiting=list(
            waiting.select_related("study", "envoy").order_by("-packaged_at")[:MOST_LISTED]
        ),
        failed=failed_work() if may(user, Capability.FEDERATION) else [],
        lost=standing_problems() if may(user, Capability.FEDERATION) else [],
    )


def labelled_patients(envoys: Iterable[Envoy]) -> LabelledPatients:
    """Counts of these hospitals, from the newest run of each: no patient is read for a page."""
    envoys = list(envoys)
    newest = (
        RunParticipant.objects.filter(envoy=OuterRef("pk"), num_labelled_patients__gt=0)
        .order_by("-pk")
        .values("num_labelled_patients")[:1]
    )
    rows = Envoy.objects.filter(pk__in=[envoy.pk for envoy in envoys]).annotate(
        count=Subquery(newest)
    )
    counted = [(pk, count) for pk, count in rows.values_list("pk", "count") if count is not None]
    table = suppress(np.array([count for _, count in counted], np.int64))
    shown = zip((pk for pk, _ in counted), table.cells, strict=True)
    return LabelledPatients(dict(shown), table.total)


def envoy_lines(envoys: list[Envoy], labelled: LabelledPatients) -> list[EnvoyLine]:
    answers = newest_answers(envoys)
    submitted = RoundAssignment.objects.filter(envoy__in=envoys).order_by()
    updates = dict(submitted.values_list("envoy").annotate(Max("submitted_at")))
    return [
        EnvoyLine(
            envoy=envoy,
            num_labelled_patients=labelled.of(envoy),
            labelled_patients=labelled.in_words(envoy),
            approval=answers.get(envoy.pk, "No package yet"),
            newest_update_at=updates.get(envoy.pk),
        )
        for envoy in envoys
    ]


def newest_answers(envoys: Iterable[Envoy]) -> dict[int, str]:
    """What each hospital has answered to its newest package of each study, in words."""
    memberships = StudyMembership.objects.filter(envoy__in=envoys).with_answer()
    in_time = memberships.select_related("study").defer("plan").order_by("packaged_at", "pk")
    newest: dict[Any, Any] = {(each.envoy_id, each.study_id): each for each in in_time}
    answers: dict[int, list[str]] = {}
    several = len({study_id for _, study_id in newest}) > 1
    for (envoy_id, _), membership in newest.items():
        answer = StudyMembership.Answer(membership.answer).label
        text = f"{membership.study}: {answer.lower()}" if several else answer
        answers.setdefault(envoy_id, []).append(text)
    return {pk: "; ".join(sorted(texts)) for pk, texts in answers.items()}


def study_models() -> list[StudyModel]:
    active = {
        version.study_id: version
        for version in ModelVersion.objects.of_federation().active().defer("manifest")
    }
    models = []
    for study in Study.objects.all():
        version = active.get(study.pk)
        since = version.approved_at or version.created_at if version else None
        models.append(StudyModel(study, version, since))
    return models
