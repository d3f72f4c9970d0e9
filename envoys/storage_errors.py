"""How often storage has failed, counted in the broker: workers of all hosts reach it."""

from django.conf import settings

from envoys.workers import BROKER_ERRORS, broker_client

KEY = "techlife:storage-errors"


def note_storage_error() -> None:
    """Nothing where no metrics are asked for, or the broker does not answer."""
    if not settings.METRICS_TOKEN:
        return
    try:
        with broker_client() as client:
            client.incr(KEY)
    except BROKER_ERRORS:
        pass  # the error itself is raised and logged


def count_storage_errors() -> int | None:
    """None where the broker does not answer."""
    try:
        with broker_client() as client:
            return int(client.get(KEY) or 0)
    except BROKER_ERRORS:
        return None
