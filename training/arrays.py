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
from training.errors import NotReadyError

SHA256_CHARACTERS = 64


def open_snapshot(
    snapshot: Snapshot, plan: TrainingPlan, *, heartbeat: Callable[[], None] = lambda: None
) -> ClientDataset:
    """The examples of a snapshot, built from the export where this host has not yet done so.

    Raises:
        NotReadyError: the export was removed because a patient in it was erased.
        SchemaMismatchError: the plan was made with another vocabulary or other inputs.
        StorageError: the export is missing, unreachable or damaged.
    """
    if snapshot.removed_at is not None:
        raise NotReadyError(
            f"the data of {snapshot.envoy} that this run froze were removed, since a patient in them"
            " was erased: start another run, which freezes them as they are now"
        )
    source = source_named(plan.dataset)
    schema = source.schema(plan.target)
    if schema.sha256 != plan.schema_sha256:
        raise SchemaMismatchError(
            f"the plan was made with the inputs {plan.schema_sha256[:12]} and the vocabulary"
            f" {plan.vocabulary_sha256[:12]}, here they are {schema.sha256[:12]} and"
            f" {schema.vocabulary_sha256[:12]}: make a new package"
        )
    folder = _folder() / f"{snapshot.sha256}-{schema.sha256[:16]}"
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
        for folder in _folder().glob(f"{snapshot.sha256 or None}-*"):
            shutil.rmtree(folder, ignore_errors=True)
    let_go_of_removed()


def remove_unneeded_arrays() -> int:
    """Remove what this host has built of exports that are gone; returns how many folders.

    Every worker's host does it for itself: who erases a patient or a hospital reaches one host only.
    """
    folders = list(_folder().iterdir()) if _folder().is_dir() else []
    # A folder that is still being written has another name, and is not looked at.
    by_sha256 = {folder: folder.name.partition("-")[0] for folder in folders}
    standing = Snapshot.objects.filter(sha256__in=set(by_sha256.values()), removed_at=None)
    needed = set(standing.values_list("sha256", flat=True)) if folders else set()
    unneeded = [
        folder
        for folder, sha256 in by_sha256.items()
        if len(sha256) == SHA256_CHARACTERS and sha256 not in needed
    ]
    for folder in unneeded:
        shutil.rmtree(folder, ignore_errors=True)
    return len(unneeded)


def _folder() -> Path:
    return Path(settings.DATA_DIR, "arrays")


_opened: set[Path] = set()


@lru_cache(maxsize=512)  # mapped: what is not read takes no memory
def _open(folder: Path, schema_sha256: str) -> ClientDataset:
    dataset = open_dataset(folder, schema_sha256=schema_sha256)
    _opened.add(folder)
    return dataset


def let_go_of_removed() -> None:
    """Files that are gone keep their place on the disk while a process has them mapped.

    Whoever opens many snapshots calls it once, before the first.
    """
    if not all(folder.exists() for folder in _opened):
        _opened.clear()
        _open.cache_clear()
