"""A plan as a person reads it: what is predicted, from what, by which means."""

from dataclasses import dataclass, fields
from typing import Any

from federated.architectures import Architecture, architecture_named
from federated.errors import FederatedError
from federated.plan import LocalTrainingConfig, TrainingPlan
from federated.readings import INPUTS
from federated.schemas import feature_schema
from federated.strategies import Strategy, strategy_named
from federated.targets import READINGS, Target, target_named
from federated.words import words_of

STRATEGIES = {
    "fedavg": "The mean of what the hospitals have learned, each weighted by its examples.",
    "fedprox": "As FedAvg, and each hospital is held near the global model while it trains.",
    "scaffold": "Hospitals correct their steps for how they differ from the others.",
    "fedadagrad": "The server takes smaller steps where earlier rounds have changed much.",
    "fedadam": "The server keeps a direction over the rounds and adapts its steps to it.",
    "fedyogi": "As FedAdam, and the size of the steps changes more slowly.",
    "median": "The median of the updates: a few wrong ones cannot move it far.",
    "trimmed_mean": "The mean without the largest and smallest changes, against wrong updates.",
    "multi_krum": "The mean of the updates that agree most with each other, against wrong ones.",
}
LOCAL_TRAINING = {one.name: one.metadata["meaning"] for one in fields(LocalTrainingConfig)}
NUMBERS = {
    "age": "age",
    "diagnosis_count": "number of diagnoses",
    "earlier_admissions": "earlier admissions here",
    "number_inpatient": "inpatient stays in the year before",
    "number_emergency": "emergency visits in the year before",
    "number_outpatient": "outpatient visits in the year before",
}


@dataclass(frozen=True)
class Setting:
    name: str
    value: str
    meaning: str


@dataclass(frozen=True)
class PlanWords:
    plan: TrainingPlan
    target: Target
    network: Architecture
    strategy: Strategy
    strategy_words: str
    strategy_settings: list[Setting]
    local_settings: list[Setting]
    inputs: list[str]

    @property
    def place(self) -> str:
        """Where it trains; `people` are those whose rows are there."""
        return words_of([self.plan.dataset]).place

    @property
    def people(self) -> str:
        return words_of([self.plan.dataset]).people


def label_of(name: str) -> str:
    """ "server_learning_rate" as a form or a table says it."""
    return name.replace("_", " ").capitalize()


def inputs_in_words(target_name: str) -> list[str]:
    schema = feature_schema(target_name)
    if target_named(target_name).dataset == READINGS:
        return [
            *(f"{each.title} ({each.unit})" if each.unit else each.title for each in INPUTS),
            "which of them were not measured",
        ]
    without_death = target_named(target_name).drops_death_codes
    return [
        "ICD codes as 3-character ICD-10 categories and their chapters, the primary one apart"
        + (", without the codes that say “dead or dying”" if without_death else ""),
        "whether they were recorded as ICD-9 or ICD-10",
        "sex",
        *(NUMBERS[name] for name in schema.numeric_inputs),
    ]


def plan_in_words(plain: dict[str, Any]) -> PlanWords | None:
    """None for a plan that this version of the program cannot carry out."""
    try:
        plan = TrainingPlan.from_json(plain)
    except FederatedError:
        return None
    strategy = strategy_named(plan.strategy)
    return PlanWords(
        plan=plan,
        target=target_named(plan.target),
        network=architecture_named(plan.network),
        strategy=strategy,
        strategy_words=STRATEGIES[strategy.name],
        strategy_settings=[
            Setting(
                label_of(one.name),
                value_in_words(getattr(plan.strategy_parameters, one.name)),
                one.metadata["meaning"],
            )
            for one in fields(plan.strategy_parameters)
        ],
        local_settings=[
            Setting(label_of(name), value_in_words(getattr(plan.local_training, name)), meaning)
            for name, meaning in LOCAL_TRAINING.items()
        ],
        inputs=inputs_in_words(plan.target),
    )


def value_in_words(value: object) -> str:
    if value is None:
        return "not set"
    if isinstance(value, bool):
        return "yes" if value else "no"
    return f"{value:g}" if isinstance(value, float) else str(value)
