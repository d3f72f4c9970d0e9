"""How good predictions are, over the classes of a target; None where a figure is undefined."""

from dataclasses import asdict, dataclass

import numpy as np
from numpy.typing import NDArray
from sklearn.metrics import average_precision_score, brier_score_loss, roc_auc_score

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
                roc_auc_score(labels == cls, probabilities[:, cls])
                for cls in scored_classes(num_classes)
            ]
        )
    )


def cross_entropy(labels: Labels, probabilities: Probabilities) -> float | None:
    """Mean negative log-likelihood in nats; None without labels."""
    if not len(labels):
        return None
    chosen = probabilities[np.arange(len(labels)), labels].astype(np.float64)
    return float(-np.log(np.maximum(chosen, 1e-12)).mean())


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
        average_precision_score(labels == cls, probabilities[:, cls])
        for cls in scored_classes(num_classes)
        if all_classes
    ]
    probabilities = probabilities.astype(np.float64)
    probabilities /= probabilities.sum(axis=1, keepdims=True)
    return Metrics(
        auroc=auroc(labels, probabilities),
        auprc=float(np.mean(auprc)) if auprc else None,
        accuracy=float((probabilities.argmax(axis=1) == labels).mean()),
        brier=float(
            brier_score_loss(
                labels,
                probabilities if num_classes > 2 else probabilities[:, 1],
                labels=list(range(num_classes)),
            )
        ),
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
