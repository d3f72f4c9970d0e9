"""A snapshot's arrays, kept by each worker as memory-mapped files under the snapshot's hash."""

import shutil
from collections.abc import Callable, Iterable
from functools import lru_cache
from pathlib import Path

from django.conf import settings

from diagnoses.models import Snapshot
from federated.datasets import ClientDataset, open_dataset, save_dataset, source_named
from federated.errors import SchemaMismatchError, UnreadableDatasetError
from federated.plan import TrainingPlan


def open_snapshot(
    snapshot: Snapshot, plan: TrainingPlan, *, heartbeat: Callable[[], None] = lambda: None
) -> ClientDataset:
    """The examples of a snapshot, built from the export where this host has not yet done so.

    Raises:
        SchemaMismatchError: the plan was made with another vocabulary or other inputs.
        StorageError: the export is missing, unreachable or damaged.
    """
    source = source_named(plan.dataset)
    schema = source.schema(plan.target)
    if schema.sha256 != plan.schema_sha256:
        raise SchemaMismatchError(
            f"the plan was made with the inputs {plan.schema_sha256[:12]} and the vocabulary"
            f" {plan.vocabulary_sha256[:12]}, here they are {schema.sha256[:12]} and"
            f" {schema.vocabulary_sha256[:12]}: make a new package"
        )
    folder = settings.DATA_DIR / "arrays" / f"{snapshot.sha256}-{schema.sha256[:16]}"
    try:
        return _open(folder, schema.sha256)
    except UnreadableDatasetError:  # not built on this host, or damaged since
        shutil.rmtree(folder, ignore_errors=True)
    dataset = source.build(snapshot.pk, plan.target, heartbeat)
    save_dataset(dataset, folder, schema_sha256=schema.sha256)
    return _open(folder, schema.sha256)


def remove_arrays(snapshots: Iterable[Snapshot]) -> None:
    """Remove what this host has built of them."""
    for snapshot in snapshots:
        for folder in Path(settings.DATA_DIR, "arrays").glob(f"{snapshot.sha256 or None}-*"):
            shutil.rmtree(folder, ignore_errors=True)


@lru_cache(maxsize=64)
def _open(folder: Path, schema_sha256: str) -> ClientDataset:
    return open_dataset(folder, schema_sha256=schema_sha256)
