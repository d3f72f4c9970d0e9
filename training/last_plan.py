"""What a study was last trained with: where its next training starts from."""

from dataclasses import dataclass
from typing import Any

from envoys.models import Envoy
from federated.errors import FederatedError
from federated.plan import TrainingPlan
from training.models import Study, StudyMembership, TrainingRun


@dataclass(frozen=True)
class LastPlan:
    """A plan and, of those who took part in its run, whoever still can."""

    plan: TrainingPlan
    envoys: list[Envoy]


def last_plan_of(study: Study) -> LastPlan | None:
    """The plan of the study's active version, else of its newest package; None without either."""
    active = study.versions.of_federation().active().select_related("run").first()
    if active is not None and (plan := _read(active.run.plan)):
        return LastPlan(plan, _took_part(study, active.run))
    newest = StudyMembership.objects.filter(study=study).order_by("-packaged_at", "-pk").first()
    if newest is not None and (plan := _read(newest.plan)):
        return LastPlan(plan, [])
    return None


def _took_part(study: Study, run: TrainingRun) -> list[Envoy]:
    joined = run.participants.filter(sits_out_because="").values("envoy")
    return list(study.envoys.filter(pk__in=joined))


def _read(plain: dict[str, Any]) -> TrainingPlan | None:
    """None for the plan of another version of the program."""
    try:
        return TrainingPlan.from_json(plain)
    except FederatedError:
        return None
