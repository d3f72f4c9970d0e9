"""What is predicted, by which network; and the plans that come of it."""

from typing import Any

from django.db import IntegrityError, transaction

from envoys import audit
from envoys.models import User
from federated.architectures import architecture_named
from federated.errors import SchemaMismatchError
from federated.plan import LocalTrainingConfig, TrainingPlan, make_plan
from federated.schemas import feature_schema
from federated.targets import DIAGNOSES, target_named
from training.errors import ConflictError
from training.models import MAIN_STUDY, Study


def _study(target: str, network: str) -> Study:
    predicted = target_named(target)
    architecture_named(network)
    name = target.replace("_", "-")
    if predicted.dataset == DIAGNOSES:
        name = MAIN_STUDY if target == "risk_tier" else f"diagnosis-{name}"
    if network != "logistic_regression":
        name += f"-{network.replace('_', '-')}"
    return Study(
        name=name,
        title=f"{predicted.title} from {predicted.dataset}",
        dataset=predicted.dataset,
        target=target,
        target_definition=predicted.definition,
        network=network,
        schema_sha256=feature_schema(target).sha256,
    )


def create_study(
    target: str, *, created_by: User | None, network: str = "logistic_regression"
) -> Study:
    """A study that predicts a target with a network, from the rows that the target is about.

    Raises:
        ConflictError: there is one already.
        UnknownTargetError, UnknownNetworkError: there is no such target or network.
    """
    study = _study(target, network)
    try:
        with transaction.atomic():
            study.save(force_insert=True)
            audit.record(created_by, "made study", study)
    except IntegrityError:
        raise ConflictError(
            f"there is a study of this target and network already: {study.name}"
        ) from None
    return study


def study_for(target: str, *, network: str = "logistic_regression") -> Study:
    """The study that predicts a target with a network, made where it is new.

    Raises:
        UnknownTargetError, UnknownNetworkError: there is no such.
    """
    new = _study(target, network)
    study, _ = Study.objects.get_or_create(
        name=new.name,
        defaults={
            "title": new.title,
            "dataset": new.dataset,
            "target": new.target,
            "target_definition": new.target_definition,
            "network": new.network,
            "schema_sha256": new.schema_sha256,
        },
    )
    return study


def plan_for(
    study: Study,
    *,
    num_rounds: int = 10,
    strategy: str = "fedavg",
    strategy_parameters: dict[str, Any] | None = None,
    local_training: LocalTrainingConfig | None = None,
) -> TrainingPlan:
    """The plan of a study's next run: what hospitals are asked to approve.

    Raises:
        UnknownStrategyError, InvalidPlanError: what is wrong, in words.
        SchemaMismatchError: the study was made with another vocabulary or other inputs.
    """
    plan = make_plan(
        study=study.name,
        dataset=study.dataset,
        target=study.target,
        network=study.network,
        strategy=strategy,
        strategy_parameters=strategy_parameters,
        num_rounds=num_rounds,
        local_training=local_training,
        min_examples=study.min_examples,
        min_contributors=study.min_contributors,
    )
    if plan.schema_sha256 != study.schema_sha256:
        raise SchemaMismatchError(
            f"{study} was made with the inputs {study.schema_sha256[:12]}, here they are"
            f" {plan.schema_sha256[:12]}: another vocabulary or other inputs. Make a new study"
        )
    return plan
