"""Making a released model's risks true, and saying from which risk on it is called high.

Both are found on the nodes' validation rows without a row leaving its node: the line from sums,
the threshold from score histograms.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from federated.histograms import (
    MAX_LOGIT,
    NUM_BINS,
    ScoreHistogram,
    fixed_bins,
    merge_small_bins,
    pooled_counts,
)
from federated.metrics import Patients
from federated.small_counts import MIN_PATIENTS

MIN_ROWS = 10  # with the outcome, and without it: below that the model stays as it is
SLOPE_SPREAD = 1.0  # of the slope around 1, before any row is seen
HALF = NUM_BINS // 2  # the first fixed bin from 0.5 on
MAX_STEPS = 50
MAX_HALVINGS = 40
TOLERANCE = 1e-9


@dataclass(frozen=True)
class NodeMargins:
    """A node's validation rows as a model sees them; they stay at the node.

    Attributes:
        margins: the model's log-odds (num_rows,).
        is_positive: whether the outcome came (num_rows,).
        subjects: rows of one subject share a number (num_rows,).
    """

    margins: NDArray[np.float64]
    is_positive: NDArray[np.bool_]
    subjects: Patients

    def line_sums(self, line: NDArray[np.float64]) -> "LineSums":
        """What the node sends for one step: seven numbers, over all of its rows.

        Args:
            line: (2,), intercept and slope.
        """
        inputs = np.stack([np.ones_like(self.margins), self.margins])  # (2, num_rows)
        predictor = line @ inputs
        predicted = np.exp(-np.logaddexp(0, -predictor))
        return LineSums(
            log_likelihood=float((self.is_positive * predictor - np.logaddexp(0, predictor)).sum()),
            gradient=inputs @ (self.is_positive - predicted),
            curvature=(inputs * (predicted * (1 - predicted))) @ inputs.T,
        )

    def histogram(self, *, slope: float, intercept: float) -> ScoreHistogram:
        """What the node sends for the threshold: its calibrated risks, in bins of 10 subjects.

        Merged apart on either side of 0.5, where both have 10: whether 0.5 will do is then known
        exactly, which bins that reach across it would hide.
        """
        odds = np.clip(slope * self.margins + intercept, -50, 50)
        bins = fixed_bins((1 / (1 + np.exp(-odds))).astype(np.float32))
        is_above = bins >= HALF
        below, above = (
            merge_small_bins(bins[rows] - first, self.subjects[rows], num_bins=HALF)
            for rows, first in ((~is_above, 0), (is_above, HALF))
        )
        starts = np.concatenate([below, above + HALF])
        if not len(below) or not len(above):
            starts = merge_small_bins(bins, self.subjects, num_bins=NUM_BINS)
        merged = np.searchsorted(starts, bins, side="right") - 1
        positives, negatives = (
            np.bincount(merged[rows], minlength=len(starts))[np.newaxis].astype(np.float64)
            for rows in (self.is_positive, ~self.is_positive)
        )
        return ScoreHistogram(starts, positives, negatives)


@dataclass(frozen=True)
class LineSums:
    log_likelihood: float
    gradient: NDArray[np.float64]  # (2,)
    curvature: NDArray[np.float64]  # (2, 2)


@dataclass(frozen=True)
class Recalibration:
    """Log-odds of the risk = slope × the model's + intercept; high from the threshold on."""

    slope: float = 1.0
    intercept: float = 0.0
    threshold: float = 0.5
    num_rows: int = 0


def recalibrate(nodes: Sequence[NodeMargins]) -> Recalibration:
    """The line and the threshold that suit the validation rows of all nodes.

    Nodes of fewer than 10 subjects send nothing. With fewer than 10 rows of either outcome the
    model stays as it is.
    """
    sending = [node for node in nodes if len(np.unique(node.subjects)) >= MIN_PATIENTS]
    num_rows = sum(len(node.margins) for node in sending)
    num_positive = sum(int(node.is_positive.sum()) for node in sending)
    if min(num_positive, num_rows - num_positive) < MIN_ROWS:
        return Recalibration(num_rows=num_rows)
    slope, intercept = fit_line(sending)
    histograms = [node.histogram(slope=slope, intercept=intercept) for node in sending]
    return Recalibration(slope, intercept, best_threshold(histograms), num_rows)


def fit_line(nodes: Sequence[NodeMargins]) -> tuple[float, float]:
    """Slope and intercept of the outcome's log-odds in the model's, by Newton on pooled sums.

    The slope is drawn to 1 as if by a normal prior of deviation 1: a thousand rows do not feel it,
    and where some log-odds parts the outcomes altogether it keeps the slope finite. A model that
    ranks the wrong way is not turned round: its slope is 0, and everybody's risk the mean.

    Args:
        nodes: with rows of either outcome.
    Source: Cox 1958, "Two further applications of a model for binary regression"; the prior as in
        Gelman et al. 2008, "A weakly informative default prior distribution for logistic
        regression", there a Cauchy.
    """
    precision = np.diag([0.0, 1 / SLOPE_SPREAD**2])
    middle = np.array([0.0, 1.0])

    def pooled(line: NDArray[np.float64]) -> LineSums:
        sums = [node.line_sums(line) for node in nodes]
        away = line - middle
        return LineSums(
            sum(each.log_likelihood for each in sums) - float(away @ precision @ away) / 2,
            np.sum([each.gradient for each in sums], axis=0) - precision @ away,
            np.sum([each.curvature for each in sums], axis=0) + precision,
        )

    line = middle
    at = pooled(line)
    for _ in range(MAX_STEPS):
        # A curvature of nearly nothing, where all risks are 0 or 1, would make an endless step.
        step = np.linalg.solve(at.curvature + 1e-9 * np.eye(2), at.gradient)
        for _ in range(MAX_HALVINGS):
            after = pooled(line + step)
            if after.log_likelihood >= at.log_likelihood:
                break
            step = step / 2
        else:
            break  # no step is better: arrived, within rounding
        line, at = line + step, after
        if (np.abs(step) < TOLERANCE).all():
            break
    if line[1] < 0:
        num_rows = sum(len(node.margins) for node in nodes)
        share = sum(int(node.is_positive.sum()) for node in nodes) / num_rows
        return 0.0, float(np.log(share / (1 - share)))
    return float(line[1]), float(line[0])


def best_threshold(histograms: Sequence[ScoreHistogram]) -> float:
    """The risk from which on to say high, so that balanced accuracy is best (Youden's index).

    Of equally good ones the nearest to 0.5, where there is nothing to go by 0.5 itself. As fine as
    the histograms' fixed bins: 1/16 in log-odds, from 0.0003 to 0.9997.

    Source: Youden 1950, "Index for rating diagnostic tests".
    """
    positives, negatives = pooled_counts(histograms)
    if not positives.sum() or not negatives.sum():
        return 0.5
    edges = np.linspace(-MAX_LOGIT, MAX_LOGIT, NUM_BINS + 1)[1:-1]
    missed = np.cumsum(positives)[:-1] / positives.sum()  # positives below each edge
    spared = np.cumsum(negatives)[:-1] / negatives.sum()
    index = spared - missed
    best = np.flatnonzero(index >= index.max() - 1e-9)  # the counts are sums of shares
    edge = edges[best[np.abs(edges[best]).argmin()]]
    return float(1 / (1 + np.exp(-edge)))
