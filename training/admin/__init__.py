"""The federation's rows; importing a module registers what is in it."""

from training.admin import envoys, runs, versions

__all__ = ["envoys", "runs", "versions"]
