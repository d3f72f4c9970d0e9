"""The Celery application: `celery -A celery_app worker`."""

import logging
import os
import time
from typing import Any

from celery import Celery
from celery.signals import (
    heartbeat_sent,
    task_prerun,
    worker_init,
    worker_process_init,
    worker_ready,
)

SIGN_SECONDS = 10.0

os.environ.setdefault("DJANGO_SETTINGS_MODULE", "techlife.settings")

app = Celery("techlife")
app.config_from_object("django.conf:settings", namespace="CELERY")
app.autodiscover_tasks()


@worker_init.connect
def preload_torch(**kwargs: Any) -> None:
    """Import torch once, before the pool forks; no other process than a worker imports it."""
    from federated.local_training import use_one_thread

    use_one_thread()


@worker_process_init.connect
def prepare_pool_process(**kwargs: Any) -> None:
    from django.db import connections

    from federated.local_training import use_one_thread

    use_one_thread()
    connections.close_all()  # a connection made before the fork belongs to the parent


@task_prerun.connect
def drop_stale_connections(**kwargs: Any) -> None:
    """Celery keeps connections for as long as it runs (CELERY_DB_REUSE_MAX); the server may not."""
    from django.db import close_old_connections

    close_old_connections()


class SignOfLife:
    """What the tasks page knows of this worker, written by its main process every few seconds."""

    def __init__(self) -> None:
        self._worker: dict[str, Any] = {}
        self._written_at = 0.0

    def introduce(self, consumer: Any) -> None:
        from django.utils import timezone

        self._worker = {
            "hostname": consumer.hostname,
            "queues": list(app.amqp.queues.consume_from),
            "num_processes": consumer.controller.concurrency,
            "started_at": timezone.now(),
        }
        self.write()

    def write(self) -> None:
        from django.db import Error

        from envoys.workers import record_sign

        if not self._worker or time.monotonic() - self._written_at < SIGN_SECONDS:
            return
        self._written_at = time.monotonic()
        try:
            record_sign(**self._worker)
        except Error as error:  # the work matters more than the page that shows it
            logging.getLogger(__name__).warning("no sign of life written: %s", error)


sign_of_life = SignOfLife()


@worker_ready.connect
def introduce_worker(sender: Any, **kwargs: Any) -> None:
    sign_of_life.introduce(sender)


@heartbeat_sent.connect
def show_worker(**kwargs: Any) -> None:
    sign_of_life.write()
