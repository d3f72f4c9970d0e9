"""Predictions as decisions: who was put into which class."""

import numpy as np
from numpy.typing import NDArray

from federated.intervals import Figures, Statistic, Weights
from federated.metrics import Labels


def confusion_matrix(
    labels: Labels, predicted: NDArray[np.integer], *, num_classes: int
) -> NDArray[np.int64]:
    """How many rows of each class (rows) were predicted as which (columns).

    Matrices of several hospitals are added up. They are counts of patients: show them through
    `suppression.suppress`.

    Args:
        labels: classes (num_rows,), from 0.
        predicted: classes (num_rows,): `probabilities.argmax(axis=1)`, or a threshold's choice.
    """
    pairs = labels.astype(np.int64) * num_classes + predicted
    counts: NDArray[np.int64] = np.bincount(pairs, minlength=num_classes**2)
    return counts.reshape(num_classes, num_classes)


def macro_f1(confusion: NDArray[np.int64] | NDArray[np.float64]) -> float | None:
    """The mean F1 of the classes that occur or are predicted; None of no row.

    F1 = 2 TP / (2 TP + FP + FN): zero for a class that is never predicted right.
    """
    correct = confusion.diagonal()
    named = confusion.sum(axis=0) + confusion.sum(axis=1)  # 2 TP + FP + FN
    occurs = named > 0
    return float((2 * correct[occurs] / named[occurs]).mean()) if occurs.any() else None


def macro_f1_statistic(
    labels: Labels, predicted: NDArray[np.integer], *, num_classes: int
) -> Statistic:
    """`macro_f1` of labels and predicted classes (num_rows,), to be resampled."""
    cells = np.eye(num_classes**2)[labels.astype(np.int64) * num_classes + predicted]

    def statistic(weights: Weights) -> Figures:
        confusions = (weights @ cells).reshape(-1, num_classes, num_classes)
        # Of no row None, which is NaN as a float.
        return np.array([macro_f1(confusion) for confusion in confusions], np.float64)

    return statistic
