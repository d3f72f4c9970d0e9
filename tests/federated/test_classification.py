from typing import Any

import numpy as np
import pytest
from sklearn.metrics import confusion_matrix as expected_matrix
from sklearn.metrics import f1_score

from federated.classification import confusion_matrix, macro_f1

approx: Any = pytest.approx


def test_a_confusion_matrix_has_a_row_per_class_and_a_column_per_prediction():
    labels = np.array([0, 0, 0, 1, 1, 2], np.int8)
    matrix = confusion_matrix(labels, np.array([0, 0, 1, 1, 0, 1]), num_classes=3)
    assert matrix.tolist() == [[2, 1, 0], [1, 1, 0], [0, 1, 0]]
    # F1: 4/6 of class 0, 2/5 of class 1, none of class 2, which nobody was predicted.
    assert macro_f1(matrix) == approx((4 / 6 + 2 / 5 + 0) / 3)


def test_matrix_and_f1_are_those_of_scikit_learn():
    rng = np.random.default_rng(0)
    labels, predicted = rng.integers(0, 3, (2, 100))
    matrix = confusion_matrix(labels.astype(np.int8), predicted, num_classes=3)
    assert (matrix == expected_matrix(labels, predicted)).all()
    assert macro_f1(matrix) == approx(f1_score(labels, predicted, average="macro"))


def test_a_class_that_neither_occurs_nor_is_predicted_is_left_out():
    matrix = confusion_matrix(np.array([0, 1], np.int8), np.array([0, 1]), num_classes=3)
    assert macro_f1(matrix) == 1.0
    assert macro_f1(np.zeros((3, 3), np.int64)) is None


def test_matrices_of_hospitals_add_up():
    labels, predicted = np.array([0, 1, 1], np.int8), np.array([0, 0, 1])
    parts = [
        confusion_matrix(labels[:1], predicted[:1], num_classes=2),
        confusion_matrix(labels[1:], predicted[1:], num_classes=2),
    ]
    whole = confusion_matrix(labels, predicted, num_classes=2)
    assert (parts[0] + parts[1]).tolist() == whole.tolist()
