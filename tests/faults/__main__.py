"""`make faults`: rounds while processes are killed and storage fails; fails where one is lost.

Prints one JSON object. Exit status 1, with words, if a round, an object or a version was lost, a row
is stuck, or the bytes differ from those of the run that nothing disturbed.
"""

import argparse
import json
import shutil
import statistics
import sys
import time
from collections import Counter, deque
from pathlib import Path
from typing import Any

from tests.faults.plan import plan_faults
from tests.faults.postgres import NoPostgresError
from tests.faults.rounds import (
    NoProgressError,
    Site,
    ask_database,
    prepare,
    run_to_its_end,
)
from tests.faults.stack import Stack, running_stack
from tests.faults.verdict import Verdict


def main() -> int:
    parser = argparse.ArgumentParser(prog="make faults", description=__doc__)
    parser.add_argument("--kills", type=int, default=20, help="and faults of storage, together")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument(
        "--rounds", type=int, default=20, help="of each of as many runs as it takes"
    )
    parser.add_argument("--envoys", type=int, default=5)
    parser.add_argument("--strategy", choices=("fedavg", "scaffold"), default="fedavg")
    parser.add_argument("--logs", type=Path, help="a new folder for the processes' logs")
    options = parser.parse_args()
    if options.kills < 1 or options.rounds < 1 or options.envoys < 3:
        parser.error("it takes a kill and a round at least, and the three envoys of a release")
    from techlife.processes import ProcessError, stop_on_signals

    stop_on_signals()
    try:
        with running_stack(seed=options.seed) as stack:
            try:
                verdict, told = endure(stack, options)
            finally:
                if options.logs:
                    shutil.copytree(stack.supervisor.log_folder, options.logs)
    except (NoPostgresError, ProcessError, NoProgressError) as error:
        sys.stderr.write(f"{error}\n")
        return 1
    except KeyboardInterrupt:
        return 130
    sys.stdout.write(json.dumps(told) + "\n")
    for problem in verdict.problems:
        sys.stderr.write(f"{problem}\n")
    return int(bool(verdict.problems))


def endure(stack: Stack, options: argparse.Namespace) -> tuple[Verdict, dict[str, Any]]:
    started = time.monotonic()
    site = Site(stack)
    hospitals = prepare(
        stack.supervisor.log_folder.parent / "cohort",
        num_envoys=options.envoys,
        num_rounds=options.rounds,
        strategy=options.strategy,
        seed=options.seed,
    )
    # In the first, processes load what they keep.
    undisturbed = [run_to_its_end(site, deque(), seed=options.seed) for _ in range(2)]
    verdict = Verdict(undisturbed[-1], options.rounds, hospitals)
    for run in undisturbed:
        verdict.judge(run)
    verdict.seconds.clear()
    # Against a reference that is none itself nothing is held.
    num_faults = 0 if verdict.problems else options.kills
    faults = deque(plan_faults(num_faults, seed=options.seed))
    try:
        while faults:
            verdict.judge(run_to_its_end(site, faults, seed=options.seed))
    except NoProgressError as error:
        verdict.lose(str(error))
    stack.end_storage_fault()  # of a run that stood still
    ask_database(verdict.judge_rows)
    seconds = statistics.mean(verdict.seconds) if verdict.seconds else None
    return verdict, {
        "kills": len(stack.struck),
        "by_target": dict(sorted(Counter(fault.target for fault in stack.struck).items())),
        "rounds_lost": verdict.rounds_lost,
        "stuck_rows": verdict.stuck_rows,
        "identical": verdict.identical,
        "problems": len(verdict.problems),
        "ended_by_themselves": dict(sorted(stack.ended_by_themselves.items())),
        "slowdown": seconds and round(seconds / verdict.reference.seconds, 2),
        "strategy": options.strategy,
        "seed": options.seed,
        "runs": len(verdict.seconds),
        "rounds": options.rounds,
        "envoys": options.envoys,
        "undisturbed_seconds": round(verdict.reference.seconds, 2),
        "disturbed_seconds": seconds and round(seconds, 2),
        "spoilt_answers": stack.storage.num_spoilt,
        "seconds": round(time.monotonic() - started, 1),
    }


if __name__ == "__main__":
    sys.exit(main())
