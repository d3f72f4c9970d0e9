"""The inputs of any target."""

from federated.features import FeatureSchema, admission_schema
from federated.readings import reading_schema
from federated.targets import DIAGNOSES, target_named


def feature_schema(target_name: str) -> FeatureSchema:
    """The schema of a target. Raises UnknownTargetError."""
    target = target_named(target_name)
    make = admission_schema if target.dataset == DIAGNOSES else reading_schema
    return make(target.name)
