"""Workers' signs of life, and how much waits for them."""

from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Any

import redis
from celery import current_app
from django.db import connection, connections
from django.utils import timezone
from kombu.exceptions import KombuError
from kombu.exceptions import OperationalError as BrokerError

from envoys.models import Envoy, WorkerSign

FORGOTTEN_AFTER = timedelta(days=7)
LOCK_MILLISECONDS = 500  # the worker's own loop waits as long for the database, and no longer
BROKER_SECONDS = 0.5
UNACKED = "unacked"  # where the transport keeps what workers hold and have not finished
BROKER_ERRORS = (redis.RedisError, BrokerError, KombuError, OSError)


@dataclass(frozen=True)
class QueueLength:
    name: str
    num_messages: int
    hospitals: list[str]  # whose own queue it is; none: the shared one


@dataclass(frozen=True)
class BrokerState:
    queues: list[QueueLength]
    num_taken: int  # messages that workers hold
    trouble: str  # why there is nothing to show, in words


def record_sign(
    hostname: str, *, queues: Iterable[str], num_processes: int, started_at: datetime
) -> None:
    """Write down that a worker lives.

    Raises:
        django.db.Error: it could not be written; the caller goes on without.
    """
    now = timezone.now()
    try:
        if connection.vendor == "sqlite":
            with connection.cursor() as cursor:
                cursor.execute(f"PRAGMA busy_timeout = {LOCK_MILLISECONDS}")
        WorkerSign.objects.update_or_create(
            hostname=hostname[:120],
            defaults={
                "queues": sorted(queues),
                "num_processes": num_processes,
                "started_at": started_at,
                "seen_at": now,
            },
        )
        WorkerSign.objects.filter(seen_at__lt=now - FORGOTTEN_AFTER).delete()
    finally:
        # A pool process that is forked next must not inherit, and then end, this connection.
        if not connection.in_atomic_block:
            connections.close_all()


def read_broker() -> BrokerState:
    """How many messages wait in each queue; a broker that does not answer soon is said so."""
    owners: dict[str, list[str]] = {current_app.conf.task_default_queue: []}
    for envoy in Envoy.objects.standing().exclude(queue="").only("name", "queue"):
        owners.setdefault(envoy.queue, []).append(envoy.name)
    try:
        lengths, num_taken = _lengths(list(owners))
    except BROKER_ERRORS:
        return BrokerState(
            [],
            0,
            "The broker does not answer, so how much waits in the queues is not known. No work is"
            " lost: it is handed out again once the broker is back.",
        )
    return BrokerState(
        [QueueLength(name, lengths[name], owners[name]) for name in owners], num_taken, ""
    )


def broker_answers() -> bool:
    try:
        with broker_client() as client:
            return bool(client.ping())
    except BROKER_ERRORS:
        return False


@contextmanager
def broker_client() -> Iterator[Any]:
    """The broker's own client, for a question that is not worth a wait. Raises BROKER_ERRORS."""
    options = {
        "socket_timeout": BROKER_SECONDS,
        "socket_connect_timeout": BROKER_SECONDS,
    }
    with current_app.connection_for_read(transport_options=options) as broker:
        broker.ensure_connection(max_retries=1, interval_start=0, interval_step=0)
        yield broker.channel().client


def _lengths(queues: list[str]) -> tuple[dict[str, int], int]:
    with broker_client() as client, client.pipeline(transaction=False) as pipeline:
        for queue in queues:
            pipeline.llen(queue)
        pipeline.hlen(UNACKED)
        *lengths, num_taken = pipeline.execute()
    return dict(zip(queues, lengths, strict=True)), num_taken
