"""Which of the models that a hospital could use suits its own patients best."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np

from federated.intervals import (
    MAX_PLACES,
    Interval,
    mean_statistic,
    number_in_words,
    resample,
)
from federated.metrics import Labels, Patients, Probabilities, cross_entropies
from federated.suppression import MIN_PATIENTS

GLOBAL, FINE_TUNED, LOCAL = "global", "fine_tuned", "local"
CANDIDATES = (GLOBAL, FINE_TUNED, LOCAL)
NAMES = {FINE_TUNED: "the fine-tuned model", LOCAL: "the model trained here alone"}


@dataclass(frozen=True)
class Choice:
    """A model, why it was chosen, and what that rests on.

    Attributes:
        model: "global", "fine_tuned" or "local".
        reason: in words, without a full stop.
        losses: mean cross-entropy in nats of each model there is; None where it is undefined or
            there are too few patients.
        lower_by: the global model's loss minus that of each other model, paired.
    """

    model: str
    reason: str
    losses: dict[str, float | None]
    lower_by: dict[str, Interval | None]

    def figures_to_json(self) -> dict[str, Any]:
        return {
            "losses": self.losses,
            "lower_by": {
                model: interval.to_json() if interval else None
                for model, interval in self.lower_by.items()
            },
        }


def choose_model(
    labels: Labels,
    patients: Patients,
    probabilities: Mapping[str, Probabilities],
    *,
    seed: int | str,
) -> Choice:
    """The global model, unless another's loss is lower by more than chance; of several the lowest.

    Args:
        labels, patients: of a hospital's validation rows (num_rows,).
        probabilities: by model, (num_rows, num_classes); the global model's and, where there are
            such models, "fine_tuned" and "local".
        seed: of the resampled patients.
    """
    others = [model for model in CANDIDATES if model in probabilities and model != GLOBAL]
    num_patients = len(np.unique(patients))
    reason = ""
    if num_patients < MIN_PATIENTS:
        reason = (
            f"There are under {MIN_PATIENTS} validation patients, too few to prefer another model"
            " to the global one"
        )
    elif len(np.unique(labels)) < 2:
        reason = (
            "All validation patients have the same outcome: a model that says it of everybody would"
            " look best, so the global one is kept"
        )
    if reason:
        return Choice(GLOBAL, reason, dict.fromkeys([GLOBAL, *others]), dict.fromkeys(others))
    drawn = resample(
        {
            model: mean_statistic(cross_entropies(labels, probabilities[model]))
            for model in [GLOBAL, *others]
        },
        patients,
        seed=f"{seed}:choice",
    )
    losses = {
        model: found.estimate if np.isfinite(found.estimate) else None
        for model, found in drawn.items()
    }
    lower_by = {model: (drawn[GLOBAL] - drawn[model]).interval() for model in others}
    lower = {
        model: interval.estimate
        for model, interval in lower_by.items()
        if interval and round(interval.low, MAX_PLACES) > 0
    }
    chosen = max(lower, key=lambda model: lower[model]) if lower else GLOBAL
    reason = f"On {num_patients:,} validation patients " + _compared(chosen, losses, lower_by)
    return Choice(chosen, reason, losses, lower_by)


def _compared(
    chosen: str, losses: dict[str, float | None], lower_by: dict[str, Interval | None]
) -> str:
    loss_of_global = _loss(losses[GLOBAL])
    if chosen != GLOBAL:
        return (
            f"{NAMES[chosen]} has a loss of {_loss(losses[chosen])}, the global one"
            f" {loss_of_global}: {_lower(lower_by[chosen])}"
        )
    if not lower_by:
        return f"the global model has a loss of {loss_of_global}, and there is no other model"
    others = ", ".join(
        f"{NAMES[model]} {_loss(losses[model])}, {_lower(interval)}"
        for model, interval in lower_by.items()
    )
    return (
        f"the global model has a loss of {loss_of_global}, and no other is lower by more than"
        f" chance: {others}"
    )


def _loss(loss: float | None) -> str:
    return "that is undefined" if loss is None else f"{loss:.3f}"


def _lower(interval: Interval | None) -> str:
    """A difference with its bounds, in as many places (3 or 4) as its nearer bound needs."""
    if interval is None:
        return "which cannot be compared"
    nearer, farther = sorted((interval.low, interval.high), key=abs)
    is_told = interval.low * interval.high > 0
    places = MAX_PLACES if is_told and not round(nearer, 3) else 3
    if is_told:
        word = "lower" if interval.low > 0 else "higher"
        return (
            f"{word} by {abs(interval.estimate):.{places}f}"
            f" ({abs(nearer):.{places}f} to {abs(farther):.{places}f})"
        )
    estimate, low, high = (
        number_in_words(figure, places)
        for figure in (interval.estimate, interval.low, interval.high)
    )
    return f"lower by {estimate} ({low} to {high})"
