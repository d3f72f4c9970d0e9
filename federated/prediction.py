"""Serving a model: NumPy only, so that no web process loads PyTorch."""

from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from federated.architectures import logits, softmax
from federated.datasets import ClientDataset
from federated.features import EncodedExample, FeatureSchema
from federated.params import Params
from federated.scaling import FeatureScaling

ROWS_AT_ONCE = 4096


def predict_rows(
    params: Params, scaling: FeatureScaling, dataset: ClientDataset, rows: NDArray[np.int64]
) -> NDArray[np.float32]:
    """Probabilities (len(rows), num_classes), computed a few thousand rows at a time."""
    num_classes = params["output.bias" if "output.bias" in params else "bias"].shape[0]
    parts = [np.empty((0, num_classes), np.float32)]
    for start in range(0, len(rows), ROWS_AT_ONCE):
        some = rows[start : start + ROWS_AT_ONCE]
        indices, starts = dataset.sparse_rows(some)
        parts.append(softmax(logits(params, indices, starts, scaling.apply(dataset.numeric[some]))))
    return np.concatenate(parts)


def predict_examples(
    params: Params, scaling: FeatureScaling, admissions: list[EncodedExample]
) -> NDArray[np.float32]:
    """Probabilities (len(admissions), num_classes)."""
    lengths = [len(admission.sparse) for admission in admissions]
    indices = np.array([i for admission in admissions for i in admission.sparse], np.int64)
    starts = np.concatenate([[0], np.cumsum(lengths)[:-1]]).astype(np.int64)
    numeric = np.array([admission.numeric for admission in admissions], np.float32)
    return softmax(logits(params, indices, starts, scaling.apply(numeric)))


class Contribution(NamedTuple):
    """How much an input raises the probability in question; negative where it lowers it."""

    input: str
    change: float


def contributions(
    params: Params, scaling: FeatureScaling, admission: EncodedExample, schema: FeatureSchema
) -> list[Contribution]:
    """What drives a prediction: its probability less that without each input, largest first.

    A sparse input is left out; a number is set to the hospitals' mean. One pass over as many
    variants as the admission has inputs.
    Source: occlusion, Zeiler & Fergus 2014, arXiv:1311.2901, section 4.2.
    """
    names, variants = [], [admission]
    for index in admission.sparse:
        names.append(schema.sparse_inputs[index])
        variants.append(
            EncodedExample([i for i in admission.sparse if i != index], admission.numeric)
        )
    for position, name in enumerate(schema.numeric_inputs):
        if not np.isnan(admission.numeric[position]):
            numeric = list(admission.numeric)
            numeric[position] = np.nan
            names.append(name)
            variants.append(EncodedExample(admission.sparse, numeric))
    probabilities = predict_examples(params, scaling, variants)
    predicted = int(probabilities[0].argmax())
    changes = probabilities[0, predicted] - probabilities[1:, predicted]
    return ranked_contributions(names, changes.tolist())


def ranked_contributions(names: list[str], changes: list[float]) -> list[Contribution]:
    """What each input changes, largest first; of equal ones by name."""
    ranked = sorted(zip(names, changes, strict=True), key=lambda pair: (-abs(pair[1]), pair[0]))
    return [Contribution(name, change) for name, change in ranked]
