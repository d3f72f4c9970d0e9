"""The Celery application: `celery -A celery_app worker`."""

import os

from celery import Celery

os.environ.setdefault("DJANGO_SETTINGS_MODULE", "techlife.settings")

app = Celery("techlife")
app.config_from_object("django.conf:settings", namespace="CELERY")
app.autodiscover_tasks()
