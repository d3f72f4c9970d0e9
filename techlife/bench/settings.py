"""The product's settings, with the benchmark's rows in place of hospitals' admissions."""

from techlife.settings import *  # noqa: F403
from techlife.settings import INSTALLED_APPS

INSTALLED_APPS = [*INSTALLED_APPS, "techlife.bench.apps.BenchConfig"]
