"""How good predictions are, over the classes of a target; None where a figure is undefined.

In NumPy alone: every hospital is measured in every round, and scikit-learn, which the tests hold
these figures against, takes longer to look at its arguments than a few hundred patients need.
"""

from dataclasses import asdict, dataclass

import numpy as np
from numpy.typing import NDArray

Labels = NDArray[np.int8]
Probabilities = NDArray[np.float32]
Patients = NDArray[np.integer]  # (num_rows,): rows of one patient share a number


@dataclass(frozen=True)
class Metrics:
    """Discrimination (auroc, auprc; macro one-vs-rest beyond two classes), accuracy, Brier."""

    auroc: float | None
    auprc: float | None
    accuracy: float | None
    brier: float | None

    def to_json(self) -> dict[str, float | None]:
        return asdict(self)


UNDEFINED = Metrics(None, None, None, None)


def auroc(labels: Labels, probabilities: Probabilities) -> float | None:
    """Macro one-vs-rest; for two classes, of the second. None where a class does not occur."""
    num_classes = probabilities.shape[1]
    if len(np.unique(labels)) < num_classes:
        return None
    return float(
        np.mean(
            [
                _ranking(labels == cls, probabilities[:, cls])[0]
                for cls in scored_classes(num_classes)
            ]
        )
    )


def _ranking(is_positive: NDArray[np.bool_], scores: NDArray[np.floating]) -> tuple[float, float]:
    """AUROC and average precision of one class against the rest (num_rows,), both of which occur.

    Rows of equal score count half of a pair in the first, and together in the second, as in
    scikit-learn.
    """
    _, place = np.unique(scores, return_inverse=True)  # rising; equal scores share a place
    positives = np.bincount(place, weights=is_positive)
    all_rows = np.bincount(place).astype(np.float64)
    negatives = all_rows - positives
    num_positives = positives.sum()
    negatives_below = np.cumsum(negatives) - negatives / 2
    ahead = (positives * negatives_below).sum() / (num_positives * negatives.sum())
    found_from_here_up = np.cumsum(positives[::-1])[::-1]
    precision = found_from_here_up / np.cumsum(all_rows[::-1])[::-1]
    return float(ahead), float((positives * precision).sum() / num_positives)


def cross_entropy(labels: Labels, probabilities: Probabilities) -> float | None:
    """Mean negative log-likelihood in nats; None without labels."""
    if not len(labels):
        return None
    return float(cross_entropies(labels, probabilities).mean())


def cross_entropies(labels: Labels, probabilities: Probabilities) -> NDArray[np.float64]:
    """The negative log-likelihood of each row in nats (num_rows,)."""
    chosen = probabilities[np.arange(len(labels)), labels].astype(np.float64)
    losses: NDArray[np.float64] = -np.log(np.maximum(chosen, 1e-12))
    return losses


def measure(labels: Labels, probabilities: Probabilities) -> Metrics:
    """All figures of predictions.

    Args:
        labels: classes (num_rows,), from 0.
        probabilities: (num_rows, num_classes), rows sum to 1.
    """
    num_classes = probabilities.shape[1]
    if not len(labels):
        return UNDEFINED
    all_classes = len(np.unique(labels)) == num_classes
    auprc = [
        _ranking(labels == cls, probabilities[:, cls])[1]
        for cls in scored_classes(num_classes)
        if all_classes
    ]
    # Of the scores as they are: dividing them by their sum would part or join equal ones.
    ranked = auroc(labels, probabilities)
    probabilities = probabilities.astype(np.float64)
    probabilities /= probabilities.sum(axis=1, keepdims=True)
    happened = np.eye(num_classes)[labels]  # (num_rows, num_classes)
    squares = (probabilities - happened) ** 2
    return Metrics(
        auroc=ranked,
        auprc=float(np.mean(auprc)) if auprc else None,
        accuracy=float((probabilities.argmax(axis=1) == labels).mean()),
        # Of two classes that of the second, else the sum over the classes (0 to 2).
        brier=float((squares[:, 1] if num_classes == 2 else squares.sum(axis=1)).mean()),
    )


def mean_of(parts: list[Metrics]) -> Metrics:
    """The plain mean of each figure over those that define it."""

    def mean(values: list[float | None]) -> float | None:
        known = [value for value in values if value is not None]
        return float(np.mean(known)) if known else None

    return Metrics(
        auroc=mean([part.auroc for part in parts]),
        auprc=mean([part.auprc for part in parts]),
        accuracy=mean([part.accuracy for part in parts]),
        brier=mean([part.brier for part in parts]),
    )


def scored_classes(num_classes: int) -> range:
    """Those that are ranked against the rest: of two classes the second alone, else all."""
    return range(1, 2) if num_classes == 2 else range(num_classes)
