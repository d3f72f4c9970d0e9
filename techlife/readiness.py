"""Whether this installation can do its work: what `/readyz` asks, each within a second or two."""

import logging
import time
from functools import lru_cache

from django.conf import settings
from django.core.exceptions import ImproperlyConfigured
from django.db import Error, connection, transaction
from django.http import HttpRequest, JsonResponse

from envoys.errors import StorageError
from envoys.models import WorkerSign
from envoys.storage import check_director_storage
from envoys.workers import broker_answers

logger = logging.getLogger(__name__)

REMEMBERED_SECONDS = 2  # of however many probes, the services are asked once in that time
DATABASE_SECONDS = 2


def readyz(request: HttpRequest) -> JsonResponse:
    """200 where everything answers, else 503; what is wrong in words, without hosts or secrets."""
    troubles = dict(_troubles(int(time.monotonic() // REMEMBERED_SECONDS)))
    body = {"ready": not troubles, "troubles": troubles}
    return JsonResponse(body, status=503 if troubles else 200)


@lru_cache(maxsize=1)
def _troubles(moment: int) -> tuple[tuple[str, str], ...]:
    return tuple(find_troubles().items())


def find_troubles() -> dict[str, str]:
    """What is wrong, by name: database, broker, storage, worker, site."""
    found = {
        "database": _database_trouble(),
        "broker": "" if broker_answers() else "The broker does not answer.",
        "storage": _storage_trouble(),
    }
    # Where the database does not answer, nobody knows of workers.
    found["worker"] = "" if found["database"] else _worker_trouble()
    if settings.EMBEDDED and settings.PREPARING_FLAG.exists():
        found["site"] = "The demonstration still prepares what it shows."
    return {name: trouble for name, trouble in found.items() if trouble}


def _database_trouble() -> str:
    try:
        _ask_database()
    except (Error, ImproperlyConfigured) as error:
        logger.warning("the database does not answer: %s", type(error).__name__)
        return "The database does not answer."
    return ""


def _ask_database() -> None:
    """A server that has just come back is met with a new connection; a slow one is not awaited."""
    if not connection.in_atomic_block:
        connection.close_if_unusable_or_obsolete()
    with transaction.atomic(), connection.cursor() as cursor:
        if connection.vendor == "postgresql":
            cursor.execute(f"SET LOCAL statement_timeout = {DATABASE_SECONDS * 1000}")
        cursor.execute("SELECT 1")


def _storage_trouble() -> str:
    try:
        check_director_storage()
    except StorageError as error:
        logger.warning("%s", error)
        return "The storage of objects cannot be used; the log says why."
    return ""


def _worker_trouble() -> str:
    try:
        signs = list(WorkerSign.objects.all())
    except Error as error:
        logger.warning("the signs of workers cannot be read: %s", type(error).__name__)
        return "The signs of workers cannot be read: is the database migrated?"
    if any(not sign.is_silent for sign in signs):
        return ""
    if signs:
        return "No worker has been heard of lately. Work waits, and nothing is lost."
    return "No worker has been heard of yet."
