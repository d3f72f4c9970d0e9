"""A choice among models as a person reads it: what was compared, and what came of it."""

from collections.abc import Iterable
from dataclasses import dataclass

from training.models import ModelChoice, ModelVersion

Kind = ModelVersion.Kind
TITLES = {
    Kind.GLOBAL: "The federation's model",
    Kind.FINE_TUNED: "The federation's model, fine-tuned here",
    Kind.LOCAL: "The model trained here alone",
}


@dataclass(frozen=True)
class Candidate:
    """One of the models that were compared."""

    title: str
    version: ModelVersion | None
    loss: float | None
    lower_by: dict[str, float] | None  # than the global model's: "estimate", "low", "high"
    is_chosen: bool  # by the validation patients
    is_in_use: bool


def choice_in_words(choice: ModelChoice, versions: Iterable[ModelVersion]) -> list[Candidate]:
    """The models of a choice, in the order in which they come nearer to the hospital.

    Args:
        versions: of the run, the global one and the hospital's.
    """
    by_kind = {version.kind: version for version in versions}
    losses = choice.figures.get("losses", {})
    lower_by = choice.figures.get("lower_by", {})
    return [
        Candidate(
            title=title,
            version=by_kind.get(kind.value),
            loss=losses.get(kind.value.lower()),
            lower_by=lower_by.get(kind.value.lower()),
            is_chosen=choice.kind == kind,
            is_in_use=choice.kind_in_use == kind,
        )
        for kind, title in TITLES.items()
        if kind.value.lower() in losses or kind in (choice.kind, choice.kind_in_use)
    ]
