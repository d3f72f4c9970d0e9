"""How the site is served: `gunicorn techlife.wsgi` reads this; options of the command come first."""

import gc
import os
import tempfile
from typing import Any

from techlife import settings

worker_class = "gthread"
workers = settings.WEB_PROCESSES
threads = 8
accesslog = None  # `techlife.requests` has a line for each, without the address
logconfig_dict = settings.LOGGING
control_socket_disable = True

# Where its processes add up what they count, from nought with each start: prometheus_client reads
# the name of the folder from here.
if settings.METRICS_TOKEN and "PROMETHEUS_MULTIPROC_DIR" not in os.environ:
    os.environ["PROMETHEUS_MULTIPROC_DIR"] = tempfile.mkdtemp(prefix="techlife-metrics-")


def post_worker_init(worker: Any) -> None:
    """Have what pages leave behind freed soon: Django ties what a page has read into cycles.

    The collector walks through all that lives, and with the threshold it comes with waits until
    pages of several megabytes have piled up. What a process holds for good is left out of its walks,
    so that it can come by after every few pages.
    """
    from django.urls import reverse

    reverse("training:run-list")  # imports what pages need
    gc.collect()
    gc.freeze()
    gc.set_threshold(700, 10, 2)
