"""The sign that a backup is being made, which keeps from being removed what it is about to copy.

It lies among the director's objects: those every process reaches, on whichever host.
"""

from collections.abc import Iterator
from contextlib import contextmanager, suppress
from datetime import timedelta

from django.utils import timezone

from envoys.errors import StorageError
from envoys.storage import delete_object, director_storage, last_changed, write_object

BEING_COPIED = "backup_is_being_made"
# A sign older than this is of a backup that was killed.
LONGEST_COPY = timedelta(hours=24)


@contextmanager
def copying() -> Iterator[None]:
    """Show the sign while rows and objects are copied; of two backups at once the first takes it down.

    Raises:
        StorageError: the sign cannot be written.
    """
    write_object(director_storage(), BEING_COPIED, b"")
    try:
        yield
    finally:
        with suppress(StorageError):  # what was copied is whole; the sign counts for a day at most
            delete_object(director_storage(), BEING_COPIED)


def is_copied() -> bool:
    """Whether a backup is being made. Raises StorageError: storage is out of reach."""
    since = last_changed(director_storage(), BEING_COPIED)
    return since is not None and timezone.now() - since < LONGEST_COPY
