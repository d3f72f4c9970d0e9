"""Served rounds beside a bare PyTorch loop that does the same steps, and the other dear things.

Each figure is a ratio taken within one run, in turns, since a machine's speed drifts. A table goes
to the terminal, and a line of JSON for each figure.
"""

import argparse
import sys
from collections.abc import Callable

from techlife.bench import aggregation, imports, rounds
from techlife.bench.stacks import POSTGRES_URL, REDIS_URL, STACKS
from techlife.bench.workloads import NETWORKS, WORKLOADS

WHAT: dict[str, Callable[[argparse.Namespace], None]] = {
    "rounds": rounds.bench_rounds,
    "envoys": rounds.bench_envoys,
    "aggregation": aggregation.bench_aggregation,
    "import": imports.bench_import,
}


def main() -> int:
    parser = argparse.ArgumentParser(prog="python -m techlife.bench", description=__doc__)
    parser.add_argument("--what", choices=WHAT, default="rounds")
    parser.add_argument("--workload", choices=WORKLOADS, action="append")
    parser.add_argument("--network", choices=NETWORKS, action="append")
    parser.add_argument("--stack", choices=STACKS, action="append")
    parser.add_argument("--rounds", type=int, help="of each run, instead of the workload's own")
    parser.add_argument("--turns", type=int, default=3, help="of bare loop and served run")
    parser.add_argument("--updates", type=int, default=100, help="to aggregate")
    parser.add_argument("--values", type=int, default=10_000_000, help="of each update")
    parser.add_argument("--rows", type=int, default=2_000_000, help="of diagnoses to import")
    parser.add_argument("--postgres", default=POSTGRES_URL, help="where a database is made")
    parser.add_argument("--redis", default=REDIS_URL, help="where an empty database is taken")
    options = parser.parse_args()
    WHAT[options.what](options)
    return 0


if __name__ == "__main__":
    sys.exit(main())
