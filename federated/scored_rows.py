"""Held-out rows with what each model makes of them, and whose figures may be told together."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from federated.datasets import ClientDataset
from federated.features import FeatureSchema
from federated.intervals import TOO_FEW
from federated.metrics import UNDEFINED, Metrics, measure
from federated.params import Params
from federated.prediction import predict_rows
from federated.scaling import FeatureScaling
from federated.subgroups import age_bands, ages_of, sexes_of
from federated.suppression import MIN_PATIENTS, fewest_with_an_outcome

Probabilities = NDArray[np.float32]
RARE_OUTCOME = f"under {MIN_PATIENTS} patients with one of the outcomes"


@dataclass(frozen=True)
class ScoredRows:
    """Rows of one hospital or several; a model that there is not is left out.

    Attributes:
        labels, patients, age_bands, sexes: (num_rows,); rows of one patient share a number.
        probabilities: by model, (num_rows, num_classes).
        num_hospitals: whose rows these are.
    """

    labels: NDArray[np.int8]
    patients: NDArray[np.int32]
    age_bands: NDArray[np.str_]
    sexes: NDArray[np.str_]
    probabilities: dict[str, Probabilities]
    num_hospitals: int = 1

    @property
    def num_patients(self) -> int:
        return len(np.unique(self.patients))

    @property
    def has_enough_patients(self) -> bool:
        """Of fewer no figure is told to anybody."""
        return self.num_patients >= MIN_PATIENTS

    @property
    def untold_because(self) -> str:
        """Why no figure of these rows is told to anybody, in words; empty where figures are.

        Of several hospitals together figures are told from 10 patients on; of a single one only
        where every outcome has 10 patients (`suppression.fewest_with_an_outcome`).

        Not protected: that the figures of all together, less those of the hospitals that are
        told, are those of the others; where that is one, its own. To work them out one has to know
        how many admissions each hospital was tested on, which no report says.
        """
        if not self.has_enough_patients:
            return TOO_FEW
        if self.num_hospitals > 1 or not self.probabilities:
            return ""
        classes = range(next(iter(self.probabilities.values())).shape[1])
        fewest = fewest_with_an_outcome(self.labels, self.patients, classes)
        return RARE_OUTCOME if fewest < MIN_PATIENTS else ""

    def measure(self, model: str) -> Metrics:
        """Undefined where nothing is told, and of a model that there is not."""
        if model not in self.probabilities or self.untold_because:
            return UNDEFINED
        return measure(self.labels, self.probabilities[model])


def score_rows(
    dataset: ClientDataset,
    split: int,
    schema: FeatureSchema,
    models: Mapping[str, tuple[Params, FeatureScaling]],
) -> ScoredRows:
    """The labelled rows of one part of a hospital, scored by each model."""
    rows = dataset.rows(split)
    return ScoredRows(
        labels=dataset.labels[rows],
        patients=dataset.patients[rows],
        age_bands=age_bands(ages_of(dataset, rows, schema)),
        sexes=sexes_of(dataset, rows, schema),
        probabilities={
            model: predict_rows(params, scaling, dataset, rows)
            for model, (params, scaling) in models.items()
        },
    )


def told_together(hospitals: Mapping[str, ScoredRows]) -> dict[str, ScoredRows]:
    """The hospitals that count in the figures of all patients together, by name.

    A hospital of under 10 patients shows no figure of its own, and a figure of all together less
    those of the others would be just that. So such hospitals count only if together they have 10
    patients or more; a hospital without patients counts for nothing.
    """
    large = {name: rows for name, rows in hospitals.items() if rows.has_enough_patients}
    small = {
        name: rows
        for name, rows in hospitals.items()
        if rows.num_patients and not rows.has_enough_patients
    }
    if large and sum(rows.num_patients for rows in small.values()) < MIN_PATIENTS:
        return large
    return large | small or dict(hospitals)


def join(hospitals: Sequence[ScoredRows]) -> ScoredRows:
    """The rows of one hospital or more, with the models that all of them have.

    A model of some only would be judged on other patients than the rest, and one of a single
    hospital would tell of that one. A patient seen by two hospitals counts as two: nobody can tell
    they are one.
    """
    starts = np.cumsum([0, *(int(part.patients.max(initial=-1)) + 1 for part in hospitals)])
    return ScoredRows(
        labels=np.concatenate([part.labels for part in hospitals]),
        patients=np.concatenate(
            [part.patients + start for part, start in zip(hospitals, starts[:-1], strict=True)]
        ).astype(np.int32),
        age_bands=np.concatenate([part.age_bands for part in hospitals]),
        sexes=np.concatenate([part.sexes for part in hospitals]),
        probabilities={
            model: np.concatenate([part.probabilities[model] for part in hospitals])
            for model in hospitals[0].probabilities
            if all(model in part.probabilities for part in hospitals)
        },
        num_hospitals=sum(part.num_hospitals for part in hospitals),
    )
