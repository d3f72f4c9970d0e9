"""The inputs of any target."""

from collections.abc import Callable

from federated.features import FeatureSchema, admission_schema
from federated.readings import reading_schema
from federated.targets import DIAGNOSES, READINGS, target_named

_makers: dict[str, Callable[[str], FeatureSchema]] = {
    DIAGNOSES: admission_schema,
    READINGS: reading_schema,
}


def feature_schema(target_name: str) -> FeatureSchema:
    """The schema of a target. Raises UnknownTargetError."""
    target = target_named(target_name)
    return _makers[target.dataset](target.name)


def register(dataset: str, make: Callable[[str], FeatureSchema]) -> None:
    """Give a dataset's rows other inputs than those that ship, as a benchmark does."""
    _makers[dataset] = make
