"""Small admissions and hospitals, whose outcome one can tell from their codes."""

from collections.abc import Sequence
from dataclasses import replace
from itertools import count
from typing import Any

import numpy as np

from federated.cohorts import AdmissionRecord, CodedDiagnosis
from federated.datasets import ClientDataset, build_dataset
from federated.features import TRAIN, split_of
from federated.params import Params
from federated.plan import LocalTrainingConfig, TrainingPlan, make_plan
from federated.scaling import FeatureScaling
from federated.schemas import feature_schema
from federated.scored_rows import ScoredRows

CODE_OF_TIER = ("I10", "E119", "I509")
AS_IS = FeatureScaling(mean=(0.0,), std=(1.0,))  # of one number


def make_record(
    subject_id: str = "p1",
    hadm_id: str = "1",
    *,
    codes: Sequence[str] = ("I509",),
    icd_version: int = 10,
    **facts: Any,
) -> AdmissionRecord:
    """An admission; its first code is the primary one."""
    diagnoses = tuple(
        CodedDiagnosis(seq_num, code, icd_version) for seq_num, code in enumerate(codes, start=1)
    )
    return AdmissionRecord(subject_id, hadm_id, diagnoses=diagnoses, **facts)


def subjects_in(split: int, num_subjects: int) -> list[str]:
    """The first patients of p1, p2, … that are on one side of the split."""
    found = (name for number in count(1) if split_of(name := f"p{number}") == split)
    return [next(found) for _ in range(num_subjects)]


def make_dataset(
    labels: Sequence[int],
    *,
    sparse: Sequence[Sequence[int]] | None = None,
    numeric: Any = None,
    splits: Sequence[int] | None = None,
    bands: Sequence[int] | None = None,
    patients: Sequence[int] | None = None,
) -> ClientDataset:
    """Rows as given; by default patients to train on with one number, zero, and nothing else."""
    num_rows = len(labels)
    rows = sparse if sparse is not None else [[]] * num_rows
    numbers = np.array([0] * num_rows if numeric is None else numeric, np.float32)
    return ClientDataset(
        indices=np.array([index for row in rows for index in row], np.int32),
        offsets=np.cumsum([0, *(len(row) for row in rows)], dtype=np.int64),
        numeric=numbers if numbers.ndim == 2 else numbers[:, np.newaxis],
        labels=np.array(labels, np.int8),
        splits=np.array([TRAIN] * num_rows if splits is None else splits, np.int8),
        bands=np.array([0] * num_rows if bands is None else bands, np.int8),
        patients=np.array(range(num_rows) if patients is None else patients, np.int32),
    )


def make_params(**arrays: Any) -> Params:
    """Parameters, float32, from nested lists."""
    return {name: np.array(values, np.float32) for name, values in arrays.items()}


def make_hospital(
    num_patients: int, *, prefix: str = "p", tiers: Sequence[int] = (0, 1, 2)
) -> ClientDataset:
    """Patients whose only code says their risk tier; the tiers take turns."""
    return build_dataset(
        (
            make_record(
                f"{prefix}{number}",
                codes=(CODE_OF_TIER[tier],),
                age=40.0 + number % 50,
                risk_tier=tier,
            )
            for number in range(num_patients)
            for tier in [tiers[number % len(tiers)]]
        ),
        feature_schema("risk_tier"),
    )


def split_evenly(dataset: ClientDataset) -> ClientDataset:
    """A third each to train on, to validate on and to test on, of every class alike."""
    splits = dataset.splits.copy()
    for label in np.unique(dataset.labels):
        of_class = dataset.labels == label
        splits[of_class] = np.arange(of_class.sum()) % 3
    return replace(dataset, splits=splits)


def make_hospitals() -> dict[str, ClientDataset]:
    return {
        "north": make_hospital(90, prefix="n"),
        "south": make_hospital(30, prefix="s"),
        "west": make_hospital(60, prefix="w"),
    }


def score(
    labels: Any, *, patients: Any = None, ages: Any = None, **of_second_class: Any
) -> ScoredRows:
    """Rows of two classes, with each model's probability of the second."""
    num_rows = len(labels)
    return ScoredRows(
        labels=np.array(labels, np.int8),
        patients=np.array(range(num_rows) if patients is None else patients, np.int32),
        age_bands=np.array(ages or ["40–64"] * num_rows),
        sexes=np.array(["female"] * num_rows),
        probabilities={
            model: np.array([[1 - p, p] for p in values], np.float32).reshape(-1, 2)
            for model, values in of_second_class.items()
        },
    )


def small_plan(**changes: Any) -> TrainingPlan:
    """Two rounds of one local epoch for the risk tier."""
    return make_plan(
        **{
            "target": "risk_tier",
            "num_rounds": 2,
            "local_training": LocalTrainingConfig(local_epochs=1, batch_size=16),
            **changes,
        }
    )


def as_lists(params: Params) -> dict[str, Any]:
    return {name: params[name].tolist() for name in sorted(params)}
