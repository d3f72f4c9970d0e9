"""A hospital's examples as arrays, in memory or mapped from files; and who provides them."""

import json
import os
import shutil
import tempfile
from array import array
from collections.abc import Callable, Iterable
from dataclasses import dataclass, fields
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from federated.cohorts import AdmissionRecord
from federated.errors import (
    SchemaMismatchError,
    UnknownDatasetError,
    UnreadableDatasetError,
)
from federated.features import TRAIN, EncodedExample, FeatureSchema, encode, split_of
from federated.targets import rule_of_thumb_band, target_named

UNLABELLED = -1


@dataclass(frozen=True)
class ClientDataset:
    """One hospital's examples. Rows are admissions; sparse inputs are stored end to end."""

    indices: NDArray[np.int32]  # (num_sparse_values,)
    offsets: NDArray[np.int64]  # (num_rows + 1,): row i is indices[offsets[i]:offsets[i + 1]]
    numeric: NDArray[np.float32]  # (num_rows, num_numeric), NaN where not known
    labels: NDArray[np.int8]  # (num_rows,), UNLABELLED where the outcome is not known
    splits: NDArray[np.int8]  # (num_rows,): TRAIN, VALIDATION or TEST
    bands: NDArray[np.int8]  # (num_rows,): the rule of thumb
    patients: NDArray[np.int32]  # (num_rows,): rows of one patient share a number

    def rows(self, split: int) -> NDArray[np.int64]:
        """The labelled rows of a part."""
        return np.flatnonzero((self.splits == split) & (self.labels >= 0))

    @property
    def num_examples(self) -> int:
        return len(self.rows(TRAIN))

    @property
    def num_labelled_patients(self) -> int:
        return len(np.unique(self.patients[self.labels >= 0]))

    def sparse_rows(self, rows: NDArray[np.int64]) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
        """Indices (num_values,) and row starts (len(rows),) of the chosen rows."""
        starts = self.offsets[rows]
        lengths = self.offsets[rows + 1] - starts
        first = np.concatenate([[0], np.cumsum(lengths)[:-1]]) if len(rows) else lengths
        positions = np.arange(lengths.sum()) + np.repeat(starts - first, lengths)
        return self.indices[positions].astype(np.int64), first.astype(np.int64)


@dataclass(frozen=True)
class ExampleRow:
    """A record as a row of a dataset: whose it is, its inputs, its class and its rule of thumb."""

    subject_id: str
    encoded: EncodedExample
    label: int | None  # None where the outcome is not known
    band: int


def dataset_of(rows: Iterable[ExampleRow], schema: FeatureSchema) -> ClientDataset:
    """Rows in the order given; those of one subject stand together."""
    indices, offsets, numeric = array("i"), array("q", [0]), array("f")
    labels, splits, bands, patients = array("b"), array("b"), array("b"), array("i")
    patient, subject_id = -1, None
    for row in rows:
        if row.subject_id != subject_id:
            patient, subject_id = patient + 1, row.subject_id
            split = split_of(row.subject_id)
        indices.extend(row.encoded.sparse)
        offsets.append(len(indices))
        numeric.extend(row.encoded.numeric)
        labels.append(UNLABELLED if row.label is None else row.label)
        splits.append(split)
        bands.append(row.band)
        patients.append(patient)
    return ClientDataset(
        indices=np.frombuffer(indices, np.int32),
        offsets=np.frombuffer(offsets, np.int64),
        numeric=np.frombuffer(numeric, np.float32).reshape(-1, len(schema.numeric_inputs)),
        labels=np.frombuffer(labels, np.int8),
        splits=np.frombuffer(splits, np.int8),
        bands=np.frombuffer(bands, np.int8),
        patients=np.frombuffer(patients, np.int32),
    )


def build_dataset(
    records: Iterable[AdmissionRecord], schema: FeatureSchema, *, keeps_death_codes: bool = False
) -> ClientDataset:
    """Encode admissions, sorted by patient and time; one is in memory at a time.

    Args:
        keeps_death_codes: see `features.encode`.
    """
    target = target_named(schema.target)
    encoded = encode(records, schema, keeps_death_codes=keeps_death_codes)
    return dataset_of(
        (
            ExampleRow(
                record.subject_id, inputs, target.label_of(record), rule_of_thumb_band(record)
            )
            for record, inputs in encoded
        ),
        schema,
    )


def concatenate(datasets: Iterable[ClientDataset]) -> ClientDataset:
    """All hospitals' rows as one: for the pooled baseline, where all data is hosted."""
    parts = list(datasets)
    starts = np.cumsum([0] + [len(part.indices) for part in parts])
    people = np.cumsum([0] + [int(part.patients.max(initial=-1)) + 1 for part in parts])
    joined: dict[str, NDArray[Any]] = {
        field.name: np.concatenate([getattr(part, field.name) for part in parts])
        for field in fields(ClientDataset)
        if field.name not in ("offsets", "patients")
    }
    joined["offsets"] = np.concatenate(
        [[0], *(part.offsets[1:] + start for part, start in zip(parts, starts[:-1], strict=True))]
    ).astype(np.int64)
    joined["patients"] = np.concatenate(
        [part.patients + start for part, start in zip(parts, people[:-1], strict=True)]
    ).astype(np.int32)
    return ClientDataset(**joined)


def save_dataset(dataset: ClientDataset, folder: Path, *, schema_sha256: str) -> None:
    """Write one file an array, all or nothing: `folder` appears complete or not at all."""
    folder.parent.mkdir(parents=True, exist_ok=True)
    unfinished = Path(tempfile.mkdtemp(dir=folder.parent, prefix=".building-"))
    try:
        for field in fields(ClientDataset):
            with (unfinished / f"{field.name}.npy").open("wb") as file:
                np.save(file, getattr(dataset, field.name))
                file.flush()
                os.fsync(file.fileno())
        (unfinished / "schema.json").write_text(json.dumps({"schema_sha256": schema_sha256}))
        os.replace(unfinished, folder)
    except OSError:
        if not folder.is_dir():  # else another worker built the same first: its copy serves
            raise
    finally:
        shutil.rmtree(unfinished, ignore_errors=True)


def open_dataset(folder: Path, *, schema_sha256: str) -> ClientDataset:
    """Map the arrays of `save_dataset` into memory; pages are read as they are used.

    Raises:
        UnreadableDatasetError: nothing has been saved there, or it is damaged: build it again.
        SchemaMismatchError: it was built with another vocabulary or other inputs.
    """
    try:
        built_with = json.loads((folder / "schema.json").read_text())["schema_sha256"]
        arrays = {
            # As plain arrays: those of class `memmap` take several times as long to index.
            field.name: np.asarray(np.load(folder / f"{field.name}.npy", mmap_mode="r"))
            for field in fields(ClientDataset)
        }
    except (OSError, EOFError, ValueError, KeyError) as error:
        raise UnreadableDatasetError(f"the arrays in {folder.name} cannot be read") from error
    if built_with != schema_sha256:
        raise SchemaMismatchError(
            f"the arrays were built with the inputs {built_with[:12]}, the study has"
            f" {schema_sha256[:12]}: another vocabulary or other inputs"
        )
    return ClientDataset(**arrays)


@dataclass(frozen=True)
class DatasetSource:
    """How a study gets at the rows of one kind; registered by the app that owns them.

    Attributes:
        schema: the inputs of a target.
        freeze: envoy id, id of the user who asked or None → id of the snapshot, whose export has
            been enqueued.
        export: snapshot id → nothing; a worker writes the rows to the hospital's storage.
        build: snapshot id, target, a sign of life to give now and then → its examples. Raises
            what the storage raises.
        count_labelled_patients: envoy id, target, where to stop counting or None → patients with
            an outcome, as of now.
    """

    schema: Callable[[str], FeatureSchema]
    freeze: Callable[[int, int | None], int]
    export: Callable[[int], None]
    build: Callable[[int, str, Callable[[], None]], ClientDataset]
    count_labelled_patients: Callable[[int, str, int | None], int]


_sources: dict[str, DatasetSource] = {}


def register(name: str, source: DatasetSource) -> None:
    """Let studies train on a kind of rows, under this name."""
    _sources[name] = source


def source_named(name: str) -> DatasetSource:
    """Raises UnknownDatasetError, which says what there is."""
    if name not in _sources:
        raise UnknownDatasetError(
            f"no dataset is called {name!r}; there are {', '.join(sorted(_sources))}"
        )
    return _sources[name]
