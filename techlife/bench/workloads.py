"""What is trained in the benchmark of rounds: made-up rows of 64 numbers in three classes."""

import hashlib
from dataclasses import dataclass
from functools import cache

import numpy as np

from federated import architectures, schemas
from federated.architectures import Architecture
from federated.datasets import ClientDataset
from federated.features import TRAIN, FeatureSchema
from federated.seeds import rng_for
from federated.targets import DIAGNOSES

NUM_INPUTS, NUM_CLASSES, HIDDEN_UNITS = 64, 3, 64
INPUT_NAMES = tuple(f"x{number}" for number in range(NUM_INPUTS))
TARGET = "risk_tier"  # for its three classes
LEARNING_RATE = 0.1
SEED = 0
NETWORKS = {"logistic": "logistic_regression", "hidden": "bench_network"}


@dataclass(frozen=True)
class Workload:
    name: str
    num_hospitals: int
    num_rows: int  # of each hospital, all of them to train on
    num_rounds: int
    batch_size: int

    def hospitals(self) -> list[str]:
        return [f"hospital-{number:03}" for number in range(self.num_hospitals)]

    @property
    def num_steps(self) -> int:
        """Of one round, all hospitals together."""
        return self.num_hospitals * -(-self.num_rows // self.batch_size)


WORKLOADS = {
    workload.name: workload
    for workload in (
        Workload("small", 4, 5_000, 10, 256),
        Workload("wide", 50, 2_000, 5, 256),
        Workload("large", 8, 250_000, 3, 4096),
        Workload("envoys-50", 50, 500, 3, 256),
        Workload("envoys-200", 200, 500, 3, 256),
        Workload("tiny", 3, 200, 2, 64),
    )
}


def register_inputs() -> None:
    """Let this process train on 64 numbers without codes, also through a hidden layer of 64."""
    schemas.register(DIAGNOSES, bench_schema)
    architectures.register(
        Architecture(
            NETWORKS["hidden"],
            f"{NUM_INPUTS}-{HIDDEN_UNITS}-{NUM_CLASSES}",
            "The shallow network with 64 hidden units, for the benchmark.",
            lambda num_sparse, num_numeric, num_classes: {
                "bias": (HIDDEN_UNITS,),
                "codes": (num_sparse, HIDDEN_UNITS),
                "numeric": (num_numeric, HIDDEN_UNITS),
                "output.bias": (num_classes,),
                "output.weight": (HIDDEN_UNITS, num_classes),
            },
        )
    )


@cache
def bench_schema(target_name: str) -> FeatureSchema:
    return FeatureSchema(
        target=target_name,
        numeric_inputs=INPUT_NAMES,
        sparse_inputs=(),
        vocabulary_sha256=hashlib.sha256(b"bench").hexdigest(),
    )


def make_rows(hospital: str, num_rows: int) -> ClientDataset:
    """A hospital's rows: the class that scores highest, of linear scores with noise."""
    weights = rng_for("bench", "weights").normal(size=(NUM_INPUTS, NUM_CLASSES))
    rng = rng_for("bench", hospital)
    inputs = rng.standard_normal((num_rows, NUM_INPUTS), np.float32)
    scores = inputs @ weights.astype(np.float32) / 2
    scores += rng.gumbel(size=(num_rows, NUM_CLASSES)).astype(np.float32)
    numeric = inputs * np.float32(2)
    numeric += np.float32(1)  # so that scaling has something to do
    return ClientDataset(
        indices=np.zeros(0, np.int32),
        offsets=np.zeros(num_rows + 1, np.int64),
        numeric=numeric,
        labels=scores.argmax(axis=1).astype(np.int8),
        splits=np.full(num_rows, TRAIN, np.int8),
        bands=np.zeros(num_rows, np.int8),
        patients=np.arange(num_rows, dtype=np.int32),
    )
