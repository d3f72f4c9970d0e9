from typing import Any

import numpy as np
import pytest
from sklearn.linear_model import LogisticRegression

from federated.calibration import (
    ReliabilityBin,
    brier_scores,
    calibration_line,
    reliability_curve,
    resampled_line,
)
from federated.intervals import sample_weights
from federated.metrics import measure

approx: Any = pytest.approx


def sigmoid(logits):
    return 1 / (1 + np.exp(-logits))


def line_of(is_positive, probabilities):
    return calibration_line(is_positive, probabilities)


def make_outcomes(num_rows, *, seed=0, level=-1.5):
    """Outcomes (num_rows,) that come as often as their probabilities say."""
    rng = np.random.default_rng(seed)
    logits = rng.normal(level, 1.0, num_rows)
    return rng.random(num_rows) < sigmoid(logits), logits


def test_a_line_through_two_groups_is_worked_out_by_hand():
    # Predicted 1/4 and 3/4 (logits -ln 3 and ln 3); observed 1/10 and 9/10 (-ln 9 and ln 9).
    probabilities = np.repeat([0.25, 0.75], 10)
    is_positive = np.array([True] + [False] * 9 + [True] * 9 + [False])
    line = line_of(is_positive, probabilities)
    assert line.slope == approx(2.0)
    assert line.intercept == approx(0.0, abs=1e-9)
    assert line.in_the_large == approx(0.0, abs=1e-9)


def test_a_shift_of_one_logit_is_the_intercept_in_the_large():
    # Predicted 1/2 and 3/4, with logits 0 and ln 3; observed 1/(1+1/e) and 1/(1+1/(3e)).
    observed = sigmoid(np.array([0.0, np.log(3)]) + 1)
    num_rows = 100_000
    is_positive = np.concatenate(
        [np.arange(num_rows) < round(num_rows * share) for share in observed]
    )
    line = line_of(is_positive, np.repeat([0.5, 0.75], num_rows))
    assert line.slope == approx(1.0, abs=1e-3)
    assert line.intercept == approx(1.0, abs=1e-3)
    assert line.in_the_large == approx(1.0, abs=1e-3)


@pytest.mark.parametrize("stretch", [0.3, 1.0, 2.0])
def test_a_line_is_the_logistic_regression_of_scikit_learn(stretch):
    is_positive, logits = make_outcomes(800)
    line = line_of(is_positive, sigmoid(stretch * logits))
    fitted = LogisticRegression(C=np.inf, tol=1e-10, max_iter=1000).fit(
        stretch * logits[:, np.newaxis], is_positive
    )
    assert line.slope == approx(fitted.coef_[0, 0], rel=1e-3)
    assert line.intercept == approx(fitted.intercept_[0], rel=1e-3)


def test_predictions_far_off_still_have_a_line():
    is_positive, logits = make_outcomes(500, level=0.0)
    line = line_of(is_positive, sigmoid(logits - 8))
    assert line.slope == approx(1.0, abs=0.3)
    assert line.in_the_large == approx(8.0, abs=0.3)


@pytest.mark.parametrize(
    ("is_positive", "probabilities"),
    [
        ([], []),
        ([True, True], [0.2, 0.4]),
        ([False, True], [0.3, 0.3]),
        ([False, False, True, True], [0.1, 0.2, 0.3, 0.4]),
        ([True, True, False, False], [0.1, 0.2, 0.2, 0.4]),
    ],
    ids=["no row", "one outcome", "one probability", "parted", "parted but for a tie"],
)
def test_there_is_no_line_where_none_fits_best(is_positive, probabilities):
    assert calibration_line(np.array(is_positive, bool), np.array(probabilities)) is None


def test_certainties_are_kept_a_millionth_away_from_nought_and_one():
    line = line_of(np.array([False, True, False, True]), np.array([0.0, 0.0, 1.0, 1.0], np.float32))
    assert line.slope == approx(0.0, abs=1e-9)


def test_slope_and_intercept_of_a_resample_are_those_of_refitting_it():
    is_positive, logits = make_outcomes(400)
    probabilities, patients = sigmoid(1.2 * logits), np.arange(400) // 2
    slope, intercept = resampled_line(
        is_positive, probabilities, patients, num_resamples=300, seed=0
    )
    weights = np.concatenate(list(sample_weights(patients, num_resamples=300, seed=0)))
    refitted = [
        line_of(np.repeat(is_positive, times), np.repeat(probabilities, times))
        for times in weights[:6].astype(int)
    ]
    assert slope.figures[:6] == approx([line.slope for line in refitted], abs=1e-3)
    assert intercept.figures[:6] == approx([line.intercept for line in refitted], abs=1e-3)
    assert slope.estimate == approx(line_of(is_positive, probabilities).slope, abs=1e-6)
    interval = slope.interval()
    assert interval is not None
    assert interval.low < 1 / 1.2 < interval.high


def test_a_slope_without_a_line_has_no_interval():
    one_outcome = (np.array([True] * 20), np.linspace(0.1, 0.9, 20), np.arange(20))
    slope, intercept = resampled_line(*one_outcome, num_resamples=20, seed=0)
    assert (slope.interval(), intercept.interval()) == (None, None)


def test_a_reliability_curve_has_bins_of_equal_count():
    probabilities = np.linspace(0.01, 0.40, 40)
    is_positive = np.arange(40) % 10 == 0  # 1, 11, 21, 31: one in ten of each bin
    curve = reliability_curve(is_positive, probabilities, np.arange(40), num_bins=4)
    assert curve == [
        ReliabilityBin(approx(0.055 + 0.1 * number), approx(0.1), 10, (9, 1)) for number in range(4)
    ]


def test_a_reliability_bin_is_of_ten_patients_and_equal_predictions_stay_together():
    patients = np.arange(40) // 2  # twenty, with two admissions each
    few = reliability_curve(np.zeros(40, bool), np.linspace(0.1, 0.5, 40), patients, num_bins=4)
    assert [found.num_rows for found in few] == [20, 20]
    assert [found.num_patients for found in few] == [(10, 0), (10, 0)]
    equal = reliability_curve(np.zeros(40, bool), np.full(40, 0.3), np.arange(40))
    assert equal == [ReliabilityBin(approx(0.3), 0.0, 40, (40, 0))]
    assert reliability_curve(np.zeros(9, bool), np.linspace(0, 1, 9), np.arange(9)) == []
    assert reliability_curve(np.zeros(0, bool), np.zeros(0), np.zeros(0, np.int32)) == []


@pytest.mark.parametrize("num_classes", [2, 3])
def test_the_mean_of_brier_scores_is_the_brier_score(num_classes):
    rng = np.random.default_rng(3)
    labels = rng.integers(0, num_classes, 50).astype(np.int8)
    probabilities = rng.dirichlet(np.ones(num_classes), 50).astype(np.float32)
    assert brier_scores(labels, probabilities).mean() == approx(
        measure(labels, probabilities).brier
    )
