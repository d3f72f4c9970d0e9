"""What killed processes left in a hospital's storage: files that no row names any more."""

import hashlib
from collections import defaultdict
from datetime import timedelta
from pathlib import PurePosixPath

from django.utils import timezone

from diagnoses.models import Snapshot, Upload
from envoys.models import Envoy
from envoys.storage import (
    delete_folder,
    delete_object,
    envoy_storage,
    last_changed,
    list_objects,
    object_exists,
    open_object,
)

# A request that stores its files has no row before the end; none lasts that long.
UPLOAD_LASTS = timedelta(hours=1)
EXPORTS, UPLOADS = "snapshots", "uploads"
TOP_FILES = ("diagnoses.csv", "outcomes.csv")


def are_exports_being_written(envoy: Envoy) -> bool:
    """Whether somebody holds the lease of an export: until it ends, no row names its files."""
    running = Snapshot.objects.filter(envoy=envoy, status=Snapshot.Status.RUNNING)
    return bool(running.filter(leased_until__gte=timezone.now()).exists())


def remove_leftovers(envoy: Envoy) -> tuple[int, list[str]]:
    """Remove what lies below `snapshots/` and `uploads/` and no row names, and half-written files.

    Returns:
        How many folders and files were removed, and what to wait for, in words: what may be
        written at this moment stays.
    Raises:
        StorageError: safe to do again.
    """
    storage = envoy_storage(envoy)
    # Listed first: what an export that ends now has stored is named by its row after that.
    folders: dict[tuple[str, str], list[str]] = defaultdict(list)
    half_written = []
    for key, _ in list_objects(storage):
        top, _, rest = key.partition("/")
        folder, _, name = rest.partition("/")
        if top in (EXPORTS, UPLOADS) and name:
            folders[top, folder].append(key)
        elif key.startswith(tuple(f".{name}." for name in (*TOP_FILES, "readings.csv"))):
            half_written.append(key)
    named = _named_folders(envoy)
    num_removed, waits_for = 0, []
    for (top, folder), keys in folders.items():
        if (top, folder) in named:
            half_written += [key for key in keys if PurePosixPath(key).name.startswith(".")]
        elif top == EXPORTS and are_exports_being_written(envoy):
            waits_for.append("an export is being written: what killed ones left is removed then")
        elif top == UPLOADS and not _is_old(envoy, keys):
            waits_for.append("files are being uploaded that may hold the patient")
        else:
            delete_folder(storage, keys)
            num_removed += 1
    if half_written and are_exports_being_written(envoy):
        return num_removed, [*waits_for, "an export is being written: it ends first"]
    for key in half_written:
        delete_object(storage, key)
    return num_removed + len(half_written), waits_for


def is_top_another(envoy: Envoy, snapshot: Snapshot | None) -> bool:
    """Whether files lie on top of the hospital's storage that are not those of this export.

    Raises StorageError.
    """
    storage = envoy_storage(envoy)
    for name in TOP_FILES:
        if not object_exists(storage, name):
            continue
        with open_object(storage, name, sha256=None) as file:
            sha256 = hashlib.file_digest(file, "sha256").hexdigest()  # type: ignore[arg-type]
        if sha256 != getattr(snapshot, f"{name.removesuffix('.csv')}_sha256", ""):
            return True
    return False


def _named_folders(envoy: Envoy) -> set[tuple[str, str]]:
    snapshots = Snapshot.objects.filter(envoy=envoy, removed_at=None).exclude(sha256="")
    named = {(EXPORTS, sha256) for sha256 in snapshots.values_list("sha256", flat=True)}
    for files in Upload.objects.filter(envoy=envoy).values_list("files", flat=True):
        named |= {(UPLOADS, PurePosixPath(file["key"]).parts[1]) for file in files.values()}
    return named


def _is_old(envoy: Envoy, keys: list[str]) -> bool:
    storage, since = envoy_storage(envoy), timezone.now() - UPLOAD_LASTS
    times = [changed for key in keys if (changed := last_changed(storage, key)) is not None]
    return all(changed < since for changed in times)
