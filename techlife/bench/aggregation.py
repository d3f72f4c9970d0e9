"""Aggregation of many updates of a large model, beside reading their files once.

In a process of its own, from the director's folder, by the functions that a round uses: each file
is read, checked against its hash, unpacked and added up; then the same with screening before it.
"""

import argparse
import json
import os
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any

import numpy as np

from techlife.bench.report import say, say_json, verdict

ROOT = Path(__file__).resolve().parent.parent.parent
MAX_RATIO = 3.0
MAX_MODELS = 2.0  # of float64, as sums are: one that grows, and one that is added


def bench_aggregation(options: argparse.Namespace) -> None:
    """Print seconds and memory of reading, of adding up, and of screening and adding up."""
    with tempfile.TemporaryDirectory(prefix="techlife-bench-") as folder:
        done = subprocess.run(
            [
                *(sys.executable, "-m", "techlife.bench.aggregation"),
                *(str(options.updates), str(options.values), str(options.turns)),
            ],
            cwd=ROOT,
            env=os.environ | {"TECHLIFE_DATA_DIR": folder, "TECHLIFE_LOG_LEVEL": "WARNING"},
            stdout=subprocess.PIPE,
            check=True,
        )
    figures = json.loads(done.stdout.splitlines()[-1])
    reading = statistics.median(figures["read"])
    model_bytes = options.values * 8
    for what in ("aggregate", "screen_and_aggregate"):
        ratios = sorted(a / b for a, b in zip(figures[what], figures["read"], strict=True))
        ratio = statistics.median(ratios)
        models = round(figures[f"{what}_bytes"] / model_bytes, 1)
        say(
            f"{options.updates} updates × {options.values:,} values, {what.replace('_', ' ')}:"
            f" {statistics.median(figures[what]):.2f} s, reading {reading:.2f} s, {ratio:.1f} times"
            f" ({ratios[0]:.1f} to {ratios[-1]:.1f}): {verdict(ratio, MAX_RATIO)};"
            f" {models:.1f} models of memory: {verdict(models, MAX_MODELS)}"
        )
        say_json(
            what=what,
            updates=options.updates,
            values=options.values,
            read_seconds=reading,
            seconds=statistics.median(figures[what]),
            ratio=ratio,
            ratio_min=ratios[0],
            ratio_max=ratios[-1],
            peak_bytes=figures[f"{what}_bytes"],
        )


def measure(num_updates: int, num_values: int, num_turns: int) -> dict[str, Any]:
    import django

    django.setup()
    from django.conf import settings

    from federated.aggregation import ClientUpdate
    from federated.plan import make_plan
    from federated.rounds import next_params
    from federated.screening import screen_round
    from federated.seeds import rng_for
    from training.objects import load_params, params_key, save_params

    plan = make_plan(target="risk_tier")
    rows = num_values // 100
    base = {"weight": np.zeros((rows, 100), np.float32)}
    names = {}
    for number in range(num_updates):
        rng = rng_for("bench", "update", number)
        names[f"hospital-{number:03}"] = save_params(
            {"weight": rng.standard_normal((rows, 100), np.float32) + np.float32(0.5)}
        )
    paths = [settings.OBJECT_FOLDER / "director" / params_key(name) for name in names.values()]

    def updates() -> Any:
        return (ClientUpdate(name, load_params(sha256), 1) for name, sha256 in names.items())

    def read() -> None:
        buffer = bytearray(2**20)
        for path in paths:
            with path.open("rb", buffering=0) as file:
                while file.readinto(buffer):
                    pass

    def aggregate() -> None:
        next_params(plan, base, updates())

    def screen_and_aggregate() -> None:
        screen_round(plan, updates, last_counted=lambda name: None, held_since={})
        aggregate()

    figures: dict[str, Any] = {}
    for _ in range(num_turns):
        for step in (read, aggregate, screen_and_aggregate):
            _forget(paths)
            seconds, num_bytes = _watched(step)
            figures.setdefault(step.__name__, []).append(seconds)
            key = f"{step.__name__}_bytes"
            figures[key] = max(figures.get(key, 0), num_bytes)
    return figures


def _forget(paths: Iterable[Path]) -> None:
    """Have the files read from the disk again, whatever is read next."""
    for path in paths:
        with path.open("rb") as file:
            os.posix_fadvise(file.fileno(), 0, 0, os.POSIX_FADV_DONTNEED)


def _watched(step: Callable[[], None]) -> tuple[float, int]:
    """Seconds, and how far memory rose above what it was before."""
    Path("/proc/self/clear_refs").write_text("5")  # the peak is now what is resident
    before = _status_bytes("VmRSS")
    started = time.perf_counter()
    step()
    return time.perf_counter() - started, _status_bytes("VmHWM") - before


def _status_bytes(name: str) -> int:
    lines = Path("/proc/self/status").read_text().splitlines()
    (line,) = (line for line in lines if line.startswith(f"{name}:"))
    return int(line.split()[1]) * 1024


if __name__ == "__main__":
    os.environ["DJANGO_SETTINGS_MODULE"] = "techlife.settings"
    found = measure(*(int(argument) for argument in sys.argv[1:4]))
    sys.stdout.write(json.dumps(found) + "\n")
