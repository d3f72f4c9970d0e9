"""The Celery application: `celery -A celery_app worker`."""

import logging
import os
import time
from typing import Any

from celery import Celery
from celery.signals import (
    before_task_publish,
    heartbeat_sent,
    task_prerun,
    worker_init,
    worker_process_init,
    worker_ready,
)

SIGN_SECONDS = 10.0
TIDY_SECONDS = 60.0

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


@before_task_publish.connect
def send_request_id(headers: Any = None, **kwargs: Any) -> None:
    from techlife import request_ids

    request_ids.send_along(headers)


@task_prerun.connect
def take_request_id(task: Any = None, **kwargs: Any) -> None:
    """Of the click that the task comes of, through however many tasks; else one of its own."""
    from techlife import request_ids

    request_ids.begin_task(task)


class SignOfLife:
    """What the tasks page knows of this worker, written by its main process every few seconds."""

    def __init__(self) -> None:
        self._worker: dict[str, Any] = {}
        self._written_at = 0.0
        self._tidied_at = 0.0

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
        from training.arrays import remove_unneeded_arrays

        if not self._worker or time.monotonic() - self._written_at < SIGN_SECONDS:
            return
        self._written_at = time.monotonic()
        try:
            if time.monotonic() - self._tidied_at > TIDY_SECONDS:
                self._tidied_at = time.monotonic()
                remove_unneeded_arrays()  # of what was erased, by another host perhaps
            record_sign(**self._worker)  # last: it ends the connection
        except Error as error:  # the work matters more than the page that shows it
            logging.getLogger(__name__).warning("no sign of life written: %s", error)


sign_of_life = SignOfLife()


@worker_ready.connect
def introduce_worker(sender: Any, **kwargs: Any) -> None:
    sign_of_life.introduce(sender)


@heartbeat_sent.connect
def show_worker(**kwargs: Any) -> None:
    sign_of_life.write()
