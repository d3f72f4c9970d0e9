"""What a hospital would get that has had no part in the training: leave one hospital out."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np

from federated.datasets import ClientDataset
from federated.intervals import Interval, auroc_statistic, bootstrap
from federated.metrics import auroc
from federated.plan import TrainingPlan
from federated.prediction import predict_rows
from federated.simulation import simulate
from federated.suppression import MIN_PATIENTS

NUM_RESAMPLES = 500


@dataclass(frozen=True)
class LeftOut:
    """The federation of all others on one hospital's patients.

    Attributes:
        num_patients: with an outcome; all of them, of every part of the split.
        auroc: of the class asked about against the rest; None where undefined, or of under 10.
    """

    name: str
    num_patients: int
    auroc: float | None


@dataclass(frozen=True)
class LeaveOneOut:
    """Attributes: `pooled` is over all hospitals' patients, each scored without their own."""

    class_name: str
    hospitals: list[LeftOut]
    pooled: Interval | None

    def to_json(self) -> dict[str, Any]:
        return {
            "class": self.class_name,
            "pooled_auroc": self.pooled.to_json() if self.pooled else None,
            "envoys": [
                {
                    "name": each.name,
                    "num_patients": each.num_patients
                    if each.num_patients >= MIN_PATIENTS
                    else None,
                    "auroc": each.auroc,
                }
                for each in self.hospitals
            ],
        }


def leave_one_out(
    datasets: Mapping[str, ClientDataset],
    plan: TrainingPlan,
    *,
    class_name: str,
    label: int,
    seed: int,
    on_hospital: Callable[[str], None] = lambda name: None,
) -> LeaveOneOut:
    """Train as many federations as there are hospitals, each without one, and score that one.

    Args:
        label: the class whose AUROC against the rest is asked for, and `class_name` its name.
        on_hospital: told who is done.
    Raises:
        EmptyRoundError, TooFewUpdatesError: too few remain to train.
    """
    labels, scores, patients, found = [], [], [], []
    for number, name in enumerate(sorted(datasets)):
        others = {other: dataset for other, dataset in datasets.items() if other != name}
        result = simulate(others, plan, seed=seed)
        dataset = datasets[name]
        rows = np.flatnonzero(dataset.labels >= 0)
        score = predict_rows(result.params, result.scaling, dataset, rows)[:, label]
        is_class = (dataset.labels[rows] == label).astype(np.int8)
        num_patients = len(np.unique(dataset.patients[rows]))
        two_classes = np.stack([1 - score, score], axis=1)
        told = auroc(is_class, two_classes) if num_patients >= MIN_PATIENTS else None
        found.append(LeftOut(name, num_patients, told))
        labels.append(is_class)
        scores.append(two_classes)
        # A patient seen by two hospitals counts as two: nobody can tell they are one.
        patients.append(dataset.patients[rows].astype(np.int64) + (number << 32))
        on_hospital(name)
    everybody = np.concatenate(labels)
    return LeaveOneOut(
        class_name,
        found,
        bootstrap(
            auroc_statistic(everybody, np.concatenate(scores)),
            np.concatenate(patients),
            num_resamples=NUM_RESAMPLES,
            seed=f"{seed}:leave one out",
        ),
    )
