"""Whether of the patients given 20 % one in five has the outcome."""

from dataclasses import asdict, dataclass

import numpy as np
from numpy.typing import NDArray

from federated.histograms import logits_of, merge_small_bins
from federated.intervals import Figures, Resampled, Weights, sample_weights
from federated.metrics import Labels, Patients, Probabilities

MAX_STEPS = 50
MAX_HALVINGS = 30
TOLERANCE = 1e-8


@dataclass(frozen=True)
class CalibrationLine:
    """The outcome's logit as a line in the predicted one: slope 1 and intercept 0 are perfect.

    Attributes:
        slope: below 1, predictions are too extreme; above, too timid.
        intercept: of the line with that slope.
        in_the_large: the intercept where the slope is held at 1: above 0, risks are too low.
    """

    slope: float
    intercept: float
    in_the_large: float

    def to_json(self) -> dict[str, float]:
        return asdict(self)


def calibration_line(
    is_positive: NDArray[np.bool_], probabilities: NDArray[np.floating]
) -> CalibrationLine | None:
    """Logistic regression of the outcome on the logit of its probability, both (num_rows,).

    None where no finite line fits best: there is one outcome only, all probabilities are equal, or
    some probability parts those with the outcome from those without.

    Source: Cox 1958, "Two further applications of a model for binary regression"; the intercept in
        the large as in Van Calster et al. 2019, "Calibration: the Achilles heel of predictive
        analytics".
    """
    logits = logits_of(probabilities)
    if not _has_best_line(is_positive, logits):
        return None
    constant, weights = np.ones((1, len(logits))), np.ones((1, len(logits)))
    line = _fit(np.vstack([constant, logits]), is_positive, np.zeros_like(logits), weights)[0]
    level = _fit(constant, is_positive, logits, weights)[0]
    if not np.isfinite([*line, *level]).all():
        return None
    return CalibrationLine(float(line[1]), float(line[0]), float(level[0]))


def resampled_line(
    is_positive: NDArray[np.bool_],
    probabilities: NDArray[np.floating],
    patients: Patients,
    *,
    num_resamples: int,
    seed: int | str,
) -> tuple[Resampled, Resampled]:
    """The slope and the intercept of `calibration_line`, and those of each resample.

    Newton's method starts where the rows as they are have their best line, and stops a thousandth
    from the resample's. NaN where there is no line. All arrays (num_rows,).
    """
    line = calibration_line(is_positive, probabilities)
    if line is None:
        nothing = Resampled(np.full(1 + num_resamples, np.nan))
        return nothing, nothing
    logits = logits_of(probabilities)
    inputs = np.vstack([np.ones_like(logits), logits])
    start = np.array([line.intercept, line.slope])

    def coefficients_of(weights: Weights) -> Figures:
        coefficients = np.tile(start, (len(weights), 1))
        for _ in range(MAX_STEPS):
            step = _newton_step(inputs, is_positive, coefficients @ inputs, weights)
            coefficients = coefficients + step
            # Convergence is quadratic: after a step of 0.01 the next is about 0.0001.
            if not (np.abs(step) > 0.01).any():
                break
        return np.where((np.abs(step) > 0.01).any(axis=1, keepdims=True), np.nan, coefficients)

    weights = sample_weights(patients, num_resamples=num_resamples, seed=seed)
    drawn = np.concatenate([coefficients_of(some) for some in weights])
    return Resampled(drawn[:, 1]), Resampled(drawn[:, 0])


def _has_best_line(is_positive: NDArray[np.bool_], logits: NDArray[np.float64]) -> bool:
    positives, negatives = logits[is_positive], logits[~is_positive]
    if not len(positives) or not len(negatives):
        return False
    overlap_above = positives.max() > negatives.min()
    return bool(overlap_above and negatives.max() > positives.min())


@dataclass(frozen=True)
class ReliabilityBin:
    """Rows of like probability: what was predicted of them, and what came.

    Attributes:
        num_patients: different ones without the outcome and with it; who had both counts twice.
    """

    predicted: float
    observed: float
    num_rows: int
    num_patients: tuple[int, int]


def reliability_curve(
    is_positive: NDArray[np.bool_],
    probabilities: NDArray[np.floating],
    patients: Patients,
    *,
    num_bins: int = 10,
) -> list[ReliabilityBin]:
    """Mean prediction and observed fraction in bins of equal count, by rising probability.

    Equal probabilities stay in one bin, and neighbours are merged until each holds 10 different
    patients; of fewer patients there is no curve. All arrays (num_rows,).
    """
    order = np.argsort(probabilities, kind="stable")
    ranked = probabilities[order].astype(np.float64)
    edges = ranked[len(ranked) * np.arange(1, num_bins) // num_bins] if len(ranked) else ranked
    bins = np.searchsorted(np.unique(edges), ranked, side="right")
    starts = merge_small_bins(bins, patients[order], num_bins=num_bins)
    merged = np.searchsorted(starts, bins, side="right") - 1
    curve = []
    for number in range(len(starts)):
        rows = merged == number
        observed, people = is_positive[order][rows], patients[order][rows]
        curve.append(
            ReliabilityBin(
                predicted=float(ranked[rows].mean()),
                observed=float(observed.mean()),
                num_rows=int(rows.sum()),
                num_patients=(len(np.unique(people[~observed])), len(np.unique(people[observed]))),
            )
        )
    return curve


def brier_scores(labels: Labels, probabilities: Probabilities) -> NDArray[np.float64]:
    """Each row's part (num_rows,) of the Brier score, whose mean `metrics.measure` gives.

    For two classes (p - y)^2 of the second, beyond that the sum over the classes.
    """
    num_classes = probabilities.shape[1]
    exact = probabilities.astype(np.float64)
    exact /= exact.sum(axis=1, keepdims=True)
    squares = (exact - np.eye(num_classes)[labels]) ** 2
    scores: NDArray[np.float64] = squares[:, 1] if num_classes == 2 else squares.sum(axis=1)
    return scores


def _fit(
    inputs: NDArray[np.float64],
    is_positive: NDArray[np.bool_],
    offsets: NDArray[np.float64],
    weights: Weights,
) -> Figures:
    """Logistic regression by Newton's method: coefficients (num_samples, num_inputs).

    A step that makes a sample less likely is halved. Coefficients are NaN of a sample whose steps
    do not end: its patients are parted, or too alike.

    Args:
        inputs: (num_inputs, num_rows).
        offsets: (num_rows,), added to the linear predictor.
        weights: (num_samples, num_rows).
    """

    def log_likelihood(coefficients: Figures) -> Figures:
        predictor = offsets + coefficients @ inputs
        found: Figures = (weights * (is_positive * predictor - np.logaddexp(0, predictor))).sum(1)
        return found

    coefficients = np.zeros((len(weights), len(inputs)))
    for _ in range(MAX_STEPS):
        step = _newton_step(inputs, is_positive, offsets + coefficients @ inputs, weights)
        before = log_likelihood(coefficients)
        for _ in range(MAX_HALVINGS):
            is_worse = log_likelihood(coefficients + step) < before - 1e-12 * np.abs(before)
            if not is_worse.any():
                break
            step[is_worse] /= 2
        coefficients = coefficients + step
        if not (np.abs(step) > TOLERANCE).any():  # all have arrived, or are NaN
            return coefficients
    return np.where((np.abs(step) > TOLERANCE).any(axis=1, keepdims=True), np.nan, coefficients)


def _newton_step(
    inputs: NDArray[np.float64],
    is_positive: NDArray[np.bool_],
    predictor: Figures,  # (num_samples, num_rows)
    weights: Weights,
) -> Figures:
    """The step (num_samples, num_inputs); NaN where the inputs do not determine one."""
    num_inputs = len(inputs)
    pairs = (inputs[:, np.newaxis] * inputs).reshape(num_inputs**2, -1)
    predicted = 1 / (1 + np.exp(-np.clip(predictor, -500, 500)))
    gradient = (weights * (is_positive - predicted)) @ inputs.T
    hessian = (weights * predicted * (1 - predicted)) @ pairs.T
    hessian = hessian.reshape(-1, num_inputs, num_inputs)
    diagonal = np.diagonal(hessian, axis1=1, axis2=2)
    with np.errstate(invalid="ignore"):  # of a sample that has run away before
        solvable = np.linalg.det(hessian) > 1e-9 * diagonal.prod(axis=1)
    step = np.full_like(gradient, np.nan)
    right_side = gradient[solvable][:, :, np.newaxis]
    step[solvable] = np.linalg.solve(hessian[solvable], right_side)[:, :, 0]
    return step
