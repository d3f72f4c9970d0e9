"""How the site is served: `gunicorn techlife.wsgi` reads this; options of the command come first."""

import os
import tempfile

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
