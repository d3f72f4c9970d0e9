"""The project package: settings, URLs, processes; wiring only.

Celery's app is imported here, so that whatever process enqueues a task publishes to the configured
broker and not to Celery's default one.
"""

from celery_app import app as celery_app

__all__ = ["celery_app"]
