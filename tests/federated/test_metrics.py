from typing import Any

import numpy as np
import pytest
from sklearn.metrics import average_precision_score, brier_score_loss, roc_auc_score

from federated.metrics import UNDEFINED, Metrics, auroc, cross_entropy, mean_of, measure

approx: Any = pytest.approx  # stands where a number belongs
PERFECT = [[0.8, 0.1, 0.1], [0.1, 0.8, 0.1], [0.1, 0.1, 0.8]]


def as_arrays(labels, probabilities):
    return np.array(labels, np.int8), np.array(probabilities, np.float32)


def of_second(*probabilities):
    return [[1 - probability, probability] for probability in probabilities]


def test_figures_of_two_classes_are_those_of_the_second():
    labels, probabilities = as_arrays([0, 0, 1, 1], of_second(0.1, 0.4, 0.35, 0.8))
    found = measure(labels, probabilities)
    # Of four pairs the positive one is ahead in three; precision is 1 at the first, 2/3 at the
    # second positive; one of four is on the wrong side of one half.
    assert found.auroc == approx(3 / 4)
    assert found.auprc == approx((1 + 2 / 3) / 2)
    assert found.accuracy == approx(3 / 4)
    assert found.brier == approx((0.1**2 + 0.4**2 + 0.65**2 + 0.2**2) / 4)
    assert found.auroc == auroc(labels, probabilities)


def test_figures_of_three_classes_are_means_of_one_against_the_rest():
    found = measure(*as_arrays([0, 1, 2], PERFECT))
    assert found == Metrics(auroc=1.0, auprc=1.0, accuracy=1.0, brier=approx(0.2**2 + 2 * 0.1**2))
    turned = measure(*as_arrays([0, 2, 1], PERFECT))
    # Class 0 is ranked right; of classes 1 and 2 the positive is below one other and beside one.
    assert turned.auroc == approx((1 + 0.25 + 0.25) / 3)
    assert turned.accuracy == approx(1 / 3)


def test_auroc_equals_the_one_of_scikit_learn():
    rng = np.random.default_rng(0)
    labels, probabilities = as_arrays(rng.integers(0, 3, 60), rng.dirichlet([1, 1, 1], 60))
    expected = roc_auc_score(
        labels,
        probabilities.astype(np.float64) / probabilities.sum(axis=1, keepdims=True),
        multi_class="ovr",
        average="macro",
    )
    assert auroc(labels, probabilities) == approx(expected)


@pytest.mark.parametrize("num_classes", [2, 3])
@pytest.mark.parametrize("places", [1, 6], ids=["many equal scores", "few"])
def test_all_figures_agree_with_scikit_learn(num_classes, places):
    rng = np.random.default_rng(num_classes)
    labels, probabilities = as_arrays(
        rng.integers(0, num_classes, 200),
        rng.dirichlet([1] * num_classes, 200).round(places) + 0.01,
    )
    found = measure(labels, probabilities)
    exact = probabilities.astype(np.float64)
    exact /= exact.sum(axis=1, keepdims=True)
    classes = range(1, 2) if num_classes == 2 else range(num_classes)
    aurocs = [roc_auc_score(labels == cls, probabilities[:, cls]) for cls in classes]
    auprcs = [average_precision_score(labels == cls, probabilities[:, cls]) for cls in classes]
    assert found.auroc == approx(np.mean(aurocs))
    assert found.auprc == approx(np.mean(auprcs))
    scores = exact[:, 1] if num_classes == 2 else exact
    assert found.brier == approx(brier_score_loss(labels, scores))


def test_a_guess_is_worth_half():
    found = measure(*as_arrays([0, 1, 0, 1], of_second(0.5, 0.5, 0.5, 0.5)))
    assert found == Metrics(auroc=0.5, auprc=0.5, accuracy=0.5, brier=0.25)


@pytest.mark.parametrize(
    ("labels", "probabilities", "accuracy", "brier"),
    [
        ([1, 1], of_second(0.9, 0.4), 0.5, (0.1**2 + 0.6**2) / 2),
        ([0], of_second(0.2), 1.0, 0.2**2),
        ([0, 1], PERFECT[:2], 1.0, 0.2**2 + 2 * 0.1**2),
    ],
    ids=["one class of two", "a single patient", "two classes of three"],
)
def test_ranking_is_undefined_where_a_class_does_not_occur(labels, probabilities, accuracy, brier):
    assert measure(*as_arrays(labels, probabilities)) == Metrics(
        auroc=None, auprc=None, accuracy=accuracy, brier=approx(brier, rel=1e-5)
    )


def test_nothing_is_defined_without_patients():
    labels, probabilities = np.zeros(0, np.int8), np.zeros((0, 3), np.float32)
    assert measure(labels, probabilities) == UNDEFINED
    assert auroc(labels, probabilities) is None
    assert cross_entropy(labels, probabilities) is None
    assert UNDEFINED.to_json() == {"auroc": None, "auprc": None, "accuracy": None, "brier": None}


def test_cross_entropy_is_the_mean_surprise_in_nats():
    assert cross_entropy(*as_arrays([0, 1], of_second(0.5, 0.25))) == approx(
        (np.log(2) + np.log(4)) / 2
    )


def test_a_certain_mistake_costs_much_and_not_everything():
    assert cross_entropy(*as_arrays([1], of_second(0.0))) == approx(-np.log(1e-12))


def test_a_mean_is_over_those_that_define_the_figure():
    parts = [Metrics(0.6, None, 0.5, 0.1), Metrics(None, None, 0.9, 0.3), UNDEFINED]
    assert mean_of(parts) == Metrics(0.6, None, approx(0.7), approx(0.2))
    assert mean_of([]) == UNDEFINED
