"""The four figures of `federated.metrics`, to be resampled."""

import numpy as np
from numpy.typing import NDArray

from federated.calibration import brier_scores
from federated.intervals import Statistic, auprc_statistic, auroc_statistic, mean_statistic
from federated.metrics import Labels, Probabilities

FIGURES = ("auroc", "auprc", "accuracy", "brier")


def figure_statistics(labels: Labels, probabilities: Probabilities) -> dict[str, Statistic]:
    """By figure, of labels (num_rows,) and probabilities (num_rows, num_classes)."""
    is_right: NDArray[np.bool_] = probabilities.argmax(axis=1) == labels
    return {
        "auroc": auroc_statistic(labels, probabilities),
        "auprc": auprc_statistic(labels, probabilities),
        "accuracy": mean_statistic(is_right.astype(np.float64)),
        "brier": mean_statistic(brier_scores(labels, probabilities)),
    }
