"""What a hospital is asked to approve: everything that decides what a run does with its data."""

import hashlib
import json
from dataclasses import asdict, dataclass, fields
from typing import Any, Self

from federated.aggregation import strategy_named
from federated.architectures import architecture_named
from federated.errors import InvalidPlanError
from federated.features import feature_schema
from federated.targets import target_named


@dataclass(frozen=True)
class LocalTrainingConfig:
    """One client's part of a round: E, B and η of the FedAvg paper."""

    local_epochs: int = 3
    batch_size: int = 128
    learning_rate: float = 0.3
    weight_decay: float = 0.0

    def __post_init__(self) -> None:
        if self.local_epochs < 1 or self.batch_size < 1:
            raise InvalidPlanError("local_epochs and batch_size start at 1")
        if not 0 < self.learning_rate < 100 or not 0 <= self.weight_decay < 1:
            raise InvalidPlanError("learning_rate lies in (0, 100), weight_decay in [0, 1)")


@dataclass(frozen=True)
class TrainingPlan:
    """A run in full, but for its seed and its data. Frozen, readable as JSON, named by its hash."""

    study: str
    dataset: str
    target: str
    target_definition: str
    network: str
    strategy: str
    num_rounds: int
    local_training: LocalTrainingConfig
    min_examples: int
    min_contributors: int
    schema_sha256: str
    vocabulary_sha256: str
    leaves_the_hospital: tuple[str, ...] = (
        "round 0: count, mean and squared deviations of each numeric input",
        "every round: the change of the model's parameters, the number of training examples,"
        " losses and AUROC on the hospital's validation patients",
    )
    stays_in_the_hospital: tuple[str, ...] = ("every row of every patient",)

    def __post_init__(self) -> None:
        target_named(self.target)
        architecture_named(self.network)
        strategy_named(self.strategy)
        if self.num_rounds < 1:
            raise InvalidPlanError(f"a run has at least one round, not {self.num_rounds}")

    def to_json(self) -> dict[str, Any]:
        """Plain values, equal after a journey through JSON."""
        plain: dict[str, Any] = json.loads(json.dumps(asdict(self)))
        return plain

    @classmethod
    def from_json(cls, plain: dict[str, Any]) -> Self:
        """Raises InvalidPlanError where a field is missing, unknown or out of range."""
        _check_fields("a plan", plain, {field.name for field in fields(cls)})
        _check_fields(
            "local_training",
            plain["local_training"],
            {field.name for field in fields(LocalTrainingConfig)},
        )
        values = dict(plain)
        values["local_training"] = LocalTrainingConfig(**plain["local_training"])
        for name in ("leaves_the_hospital", "stays_in_the_hospital"):
            values[name] = tuple(plain[name])
        return cls(**values)

    @property
    def sha256(self) -> str:
        return plan_sha256(self.to_json())


def _check_fields(what: str, plain: Any, known: set[str]) -> None:
    if not isinstance(plain, dict):
        raise InvalidPlanError(f"{what} is no JSON object")
    if set(plain) != known:
        odd = ", ".join(sorted(set(plain) ^ known))
        raise InvalidPlanError(f"{what} with missing or unknown fields: {odd}")


def plan_sha256(plain: dict[str, Any]) -> str:
    """The hash that is approved: of the plan as JSON with sorted keys and no spaces."""
    text = json.dumps(plain, sort_keys=True, separators=(",", ":"), ensure_ascii=True)
    return hashlib.sha256(text.encode()).hexdigest()


def make_plan(
    *,
    target: str,
    study: str = "diagnosis-risk",
    dataset: str = "diagnoses",
    network: str = "logistic_regression",
    strategy: str = "fedavg",
    num_rounds: int = 10,
    local_training: LocalTrainingConfig | None = None,
    min_examples: int = 20,
    min_contributors: int = 3,
) -> TrainingPlan:
    """A plan on admissions. Raises a FederatedError for a target, network or strategy unknown."""
    schema = feature_schema(target)
    return TrainingPlan(
        study=study,
        dataset=dataset,
        target=target,
        target_definition=target_named(target).definition,
        network=network,
        strategy=strategy,
        num_rounds=num_rounds,
        local_training=local_training or LocalTrainingConfig(),
        min_examples=min_examples,
        min_contributors=min_contributors,
        schema_sha256=schema.sha256,
        vocabulary_sha256=schema.vocabulary_sha256,
    )
