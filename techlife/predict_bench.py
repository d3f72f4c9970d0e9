"""How `/predict` compares with a view that answers the same requests with {}, on the server that `make demo` starts.

`make bench-predict` trains a small model in a folder of its own and removes it again, or takes a
data folder in which one has been released. It fails where `/predict` answers fewer than 0.8 times
the requests per second, or its 99th percentile is more than twice the empty view's.
"""

import argparse
import json
import os
import socket
import statistics
import subprocess
import sys
import tempfile
import urllib.request
from dataclasses import asdict
from pathlib import Path

from techlife.http_load import Load

ROOT = Path(__file__).resolve().parent.parent
NUM_CONNECTIONS = 16
MIN_RATE = 0.8
MAX_P99 = 2.0
TODAY = {
    "heart_rate": 88,
    "spo2": 97,
    "steps": 4500,
    "sleep_hours": 6,
    "age": 30,
    "smoker": 0,
    "chronic": 0,
    "aqi": 60,
}


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--data-dir", type=Path, help="where a health model has been released")
    parser.add_argument("--rounds", type=int, default=6, help="of either view, in turn")
    parser.add_argument("--seconds", type=float, default=5.0, help="of each round")
    options = parser.parse_args()
    os.environ["TECHLIFE_PREDICT_RATE"] = "1000000000/hour"  # counted, and never reached
    os.environ["TECHLIFE_LOG_LEVEL"] = "WARNING"
    os.environ["DJANGO_SETTINGS_MODULE"] = "techlife.settings"
    if options.data_dir is not None:
        return bench(options.data_dir, options)
    with tempfile.TemporaryDirectory(prefix="techlife-bench-") as name:
        say("Training a small model")
        subprocess.run(
            [sys.executable, "manage.py", "demo_health", "--no-serve", "--rows=300", "--rounds=2"],
            cwd=ROOT,
            env={**os.environ, "TECHLIFE_DATA_DIR": name},
            stdout=subprocess.DEVNULL,
            check=True,
        )
        return bench(Path(name), options)


def say(text: str) -> None:
    sys.stdout.write(f"{text}\n")
    sys.stdout.flush()


def bench(data_dir: Path, options: argparse.Namespace) -> int:
    os.environ["TECHLIFE_DATA_DIR"] = str(data_dir.resolve())
    import django

    django.setup()
    from techlife.processes import Supervisor, lock_data_folder, start_web, stop_on_signals

    stop_on_signals()
    port = free_port()
    with lock_data_folder(data_dir) as lock, Supervisor(data_dir, lock) as supervisor:
        start_web(supervisor, port, application="techlife.predict_bench_wsgi:application")
        views = {
            name: Load(port, "POST", path, json.dumps(TODAY), NUM_CONNECTIONS, 0)
            for name, path in (("an empty view", "/bench/empty"), ("/predict", "/predict"))
        }
        rates: dict[str, list[float]] = {name: [] for name in views}
        latencies: dict[str, list[float]] = {name: [] for name in views}
        for number in range(options.rounds + 1):
            for name, load in views.items():
                seconds, waited = run(load, options.seconds if number else 1.0)
                if number:  # the first warms up
                    rates[name].append(len(waited) / seconds)
                    latencies[name] += waited
        loaded = modules_of(port)
    return report(rates, latencies, has_torch="torch" in loaded)


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port: int = probe.getsockname()[1]
    return port


def run(load: Load, seconds: float) -> tuple[float, list[float]]:
    """How long it took in all, and the seconds of each request."""
    given = json.dumps({**asdict(load), "seconds": seconds})
    command = [sys.executable, "-I", str(ROOT / "techlife" / "http_load.py"), given]
    found = json.loads(subprocess.check_output(command))
    return found["seconds"], found["latencies"]


def modules_of(port: int) -> list[str]:
    with urllib.request.urlopen(f"http://127.0.0.1:{port}/bench/modules", timeout=10) as answer:
        found: list[str] = json.load(answer)["modules"]
    return found


def report(
    rates: dict[str, list[float]], latencies: dict[str, list[float]], *, has_torch: bool
) -> int:
    """Print the figures and the verdict; returns the exit status."""
    p99 = {}
    for name, seconds in latencies.items():
        percent = statistics.quantiles(seconds, n=100)
        p99[name] = percent[98]
        say(
            f"{name:14} {statistics.median(rates[name]):7.0f} requests/s"
            f" (rounds: {', '.join(f'{rate:.0f}' for rate in rates[name])}),"
            f" p50 {1000 * percent[49]:.1f} ms, p99 {1000 * percent[98]:.1f} ms"
        )
    empty, predict = rates
    # Round by round: what else the machine does slows neighbours alike.
    share = statistics.median(b / a for a, b in zip(rates[empty], rates[predict], strict=True))
    slower = p99[predict] / p99[empty]
    say(f"/predict answers {share:.2f} times as many (at least {MIN_RATE})")
    say(f"its p99 is {slower:.2f} times as long (at most {MAX_P99:g})")
    say(f"torch is {'' if has_torch else 'not '}loaded in the web process")
    is_good = share >= MIN_RATE and slower <= MAX_P99 and not has_torch
    say("good" if is_good else "NOT GOOD ENOUGH")
    return 0 if is_good else 1


if __name__ == "__main__":
    sys.exit(main())
