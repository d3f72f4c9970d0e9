"""The Celery application: `celery -A celery_app worker`."""

import os
from typing import Any

from celery import Celery
from celery.signals import task_prerun, worker_init, worker_process_init

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
