"""What a hospital is asked to approve: everything that decides what a run does with its data."""

import hashlib
import json
from argparse import ArgumentParser, ArgumentTypeError
from collections.abc import Mapping
from dataclasses import asdict, dataclass, fields
from typing import Any, Self

from federated.architectures import architecture_named
from federated.errors import InvalidPlanError
from federated.schemas import feature_schema
from federated.strategies import FedProxParameters, StrategyParameters, strategy_named
from federated.strategies.averaging import MU_RANGE
from federated.strategies.parameters import Parameters, real, whole
from federated.targets import READINGS, target_named

MAX_SEED = 2**31 - 1


def check_seed(seed: int) -> None:
    """Raises InvalidPlanError: a run's seed, wherever it comes from, is not in its range."""
    if not 0 <= seed <= MAX_SEED:
        raise InvalidPlanError(f"a seed lies between 0 and {MAX_SEED}, not {seed}")


def seed_from(text: str) -> int:
    """A command line's seed. Raises ArgumentTypeError, which argparse prints with the option."""
    try:
        seed = int(text)
    except ValueError:
        raise ArgumentTypeError(f"a seed is a whole number, not {text[:40]!r}") from None
    try:
        check_seed(seed)
    except InvalidPlanError as error:
        raise ArgumentTypeError(str(error)) from error
    return seed


@dataclass(frozen=True)
class LocalTrainingConfig(Parameters):
    """One client's part of a round: E, B and η of the FedAvg paper.

    Raises:
        InvalidPlanError: a value of another type or out of range, or a step by which the weights
            would not shrink towards zero but change their sign.
    """

    local_epochs: int = whole(
        3, low=1, meaning="How often a hospital goes through its examples in one round"
    )
    batch_size: int = whole(
        128, low=1, high=2**31, meaning="How many examples it looks at before each step"
    )
    learning_rate: float = real(0.3, low=0, high=100, meaning="How far a step goes (η)")
    weight_decay: float = real(
        0.0,
        low=0,
        high=1,
        includes_low=True,
        meaning="How strongly weights are pulled to zero; 0 is not at all",
    )

    def __post_init__(self) -> None:
        super().__post_init__()
        if (shrinkage := self.learning_rate * self.weight_decay) >= 1:
            raise InvalidPlanError(
                f"learning_rate times weight_decay is below 1, not {self.learning_rate:g} times"
                f" {self.weight_decay:g}, which is {shrinkage:g}"
            )


def add_run_arguments(parser: ArgumentParser) -> None:
    """The options of every command that runs a federation: what is trained, how, and the seed.

    `strategy_parameters_of` and `local_training_of` read those that are more than a value.
    """
    parser.add_argument("--rounds", type=int, default=10)
    parser.add_argument("--target", default="risk_tier")
    parser.add_argument("--strategy", default="fedavg")
    parser.add_argument(
        "--strategy-parameter",
        action="append",
        default=[],
        metavar="NAME=VALUE",
        help="of the strategy; once for each",
    )
    parser.add_argument("--network", default="logistic_regression")
    for field in fields(LocalTrainingConfig):
        option = f"--{field.name.replace('_', '-')}"
        parser.add_argument(option, type=type(field.default), default=field.default)
    parser.add_argument("--seed", type=seed_from, default=0)


def strategy_parameters_of(options: Mapping[str, Any]) -> dict[str, Any]:
    """Raises UnknownStrategyError or InvalidPlanError."""
    return strategy_named(options["strategy"]).read_parameters(options["strategy_parameter"])


def local_training_of(options: Mapping[str, Any]) -> LocalTrainingConfig:
    """Raises InvalidPlanError."""
    chosen = {field.name: options[field.name] for field in fields(LocalTrainingConfig)}
    return LocalTrainingConfig(**chosen)


LEAVES_THE_HOSPITAL = (
    "round 0: count, mean and squared deviations of each numeric input, and which outcomes occur",
    "every round: the change of the model's parameters, the number of training examples and the"
    " mean loss on them",
    "every round: on the hospital's validation patients, if they are 10 or more, the number of"
    " their admissions, the mean loss and AUROC; and the accuracy, if as many have each outcome",
)
READINGS_LEAVE = (
    "round 0: count, mean and squared deviations of each input, and which outcomes occur",
    "every round: the change of the model's parameters, the number of training readings and the"
    " mean loss on them",
    "every round: on the node's validation people, if they are 10 or more, the number of their"
    " readings, the mean loss and AUROC; and the accuracy, if as many have each outcome",
    "once a version is released: of the training readings, each input's mean, deviation and"
    " histogram, in bins of 10 people or more, to tell drift by",
    "once a version is released: of the validation readings, sums to calibrate it by and histograms"
    " of its scores, in bins of 10 people or more",
)
CONTROLS_LEAVE_TOO = (
    "every round: the change of the hospital's control variate, an estimate of the mean gradient"
    " over its training examples, with as many numbers as the model has",
)
READINGS_CONTROLS_LEAVE_TOO = (
    "every round: the change of the node's control variate, an estimate of the mean gradient over"
    " its training readings, with as many numbers as the model has",
)
STAYS_IN_THE_HOSPITAL = ("every row of every patient",)
READINGS_STAY = ("every reading of every person",)


@dataclass(frozen=True)
class TrainingPlan:
    """A run in full, but for its seed and its data. Frozen, readable as JSON, named by its hash."""

    study: str
    dataset: str
    target: str
    target_definition: str
    network: str
    strategy: str
    strategy_parameters: StrategyParameters
    num_rounds: int
    local_training: LocalTrainingConfig
    min_examples: int
    min_contributors: int
    schema_sha256: str
    vocabulary_sha256: str
    leaves_the_hospital: tuple[str, ...] = LEAVES_THE_HOSPITAL
    stays_in_the_hospital: tuple[str, ...] = STAYS_IN_THE_HOSPITAL

    def __post_init__(self) -> None:
        target_named(self.target)
        architecture_named(self.network)
        if type(self.strategy_parameters) is not strategy_named(self.strategy).parameters:
            given = type(self.strategy_parameters).__name__
            raise InvalidPlanError(f"{given} are no parameters of {self.strategy}")
        if isinstance(self.strategy_parameters, FedProxParameters):
            _check_proximal_step(self.local_training.learning_rate, self.strategy_parameters.mu)
        for name, low in (("num_rounds", 1), ("min_examples", 0), ("min_contributors", 0)):
            number = getattr(self, name)
            if isinstance(number, bool) or not isinstance(number, int) or number < low:
                raise InvalidPlanError(f"{name} is a whole number from {low}, not {number!r}")

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
        strategy = strategy_named(plain["strategy"])
        _check_fields(
            "strategy_parameters",
            plain["strategy_parameters"],
            {field.name for field in fields(strategy.parameters)},
        )
        values = dict(plain)
        values["strategy_parameters"] = strategy.make_parameters(plain["strategy_parameters"])
        values["local_training"] = LocalTrainingConfig(**plain["local_training"])
        for name in ("leaves_the_hospital", "stays_in_the_hospital"):
            values[name] = tuple(plain[name])
        return cls(**values)

    @property
    def sha256(self) -> str:
        return plan_sha256(self.to_json())


def _check_proximal_step(learning_rate: float, mu: float) -> None:
    """A step leaves 1 - η μ of the way to the global model: below 0 it would swing beyond it."""
    if learning_rate * mu > 1:
        raise InvalidPlanError(f"mu {MU_RANGE}, which is [0, {1 / learning_rate:g}], not {mu:g}")


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
    strategy_parameters: dict[str, Any] | None = None,
    num_rounds: int = 10,
    local_training: LocalTrainingConfig | None = None,
    min_examples: int = 20,
    min_contributors: int = 3,
) -> TrainingPlan:
    """A plan on admissions, or on readings where the dataset says so.

    Args:
        strategy_parameters: those that are not to have their default.
    Raises:
        UnknownTargetError, UnknownNetworkError, UnknownStrategyError: they say what there is.
        InvalidPlanError: a parameter is unknown or out of range.
    """
    schema = feature_schema(target)
    chosen = strategy_named(strategy)
    leaves, controls, stays = (
        (READINGS_LEAVE, READINGS_CONTROLS_LEAVE_TOO, READINGS_STAY)
        if dataset == READINGS
        else (LEAVES_THE_HOSPITAL, CONTROLS_LEAVE_TOO, STAYS_IN_THE_HOSPITAL)
    )
    return TrainingPlan(
        study=study,
        dataset=dataset,
        target=target,
        target_definition=target_named(target).definition,
        network=network,
        strategy=strategy,
        strategy_parameters=chosen.make_parameters(strategy_parameters or {}),
        num_rounds=num_rounds,
        local_training=local_training or LocalTrainingConfig(),
        min_examples=min_examples,
        min_contributors=min_contributors,
        schema_sha256=schema.sha256,
        vocabulary_sha256=schema.vocabulary_sha256,
        leaves_the_hospital=leaves + (controls if chosen.uses_controls else ()),
        stays_in_the_hospital=stays,
    )


def plan_of(options: Mapping[str, Any]) -> TrainingPlan:
    """The plan that the options of `add_run_arguments` ask for. Raises as `make_plan`."""
    return make_plan(
        target=options["target"],
        network=options["network"],
        strategy=options["strategy"],
        strategy_parameters=strategy_parameters_of(options),
        num_rounds=options["rounds"],
        local_training=local_training_of(options),
    )
