"""`make faults`: rounds while processes are killed and storage fails; fails where one is lost.

Prints one JSON object. Exit status 1, with words, if a round was lost, a row is stuck, or the bytes
differ from those of the run that nothing disturbed.
"""

import argparse
import json
import shutil
import statistics
import sys
import time
from collections import deque
from pathlib import Path
from typing import Any

from tests.faults.plan import plan_faults
from tests.faults.postgres import NoPostgresError
from tests.faults.rounds import (
    NoProgressError,
    Site,
    Verdict,
    ask_database,
    prepare,
    run_to_its_end,
    wait_for_rest,
)
from tests.faults.stack import Stack, running_stack


def main() -> int:
    parser = argparse.ArgumentParser(prog="make faults", description=__doc__)
    parser.add_argument("--kills", type=int, default=20, help="and faults of storage, together")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument(
        "--rounds", type=int, default=20, help="of each of as many runs as it takes"
    )
    parser.add_argument("--envoys", type=int, default=5)
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
    return int(bool(verdict.rounds_lost or verdict.stuck_rows or not verdict.identical))


def endure(stack: Stack, options: argparse.Namespace) -> tuple[Verdict, dict[str, Any]]:
    started = time.monotonic()
    site = Site(stack)
    prepare(
        stack.supervisor.log_folder.parent / "cohort",
        num_envoys=options.envoys,
        num_rounds=options.rounds,
        seed=options.seed,
    )
    undisturbed = []
    for _ in range(2):  # in the first, workers build what they keep
        undisturbed.append(run_to_its_end(site, deque(), seed=options.seed))
        wait_for_rest(site)
    verdict = Verdict(undisturbed[-1])
    verdict.judge(undisturbed[0])
    verdict.seconds.clear()
    faults = deque(plan_faults(options.kills, seed=options.seed))
    try:
        while faults:
            verdict.judge(run_to_its_end(site, faults, seed=options.seed))
            wait_for_rest(site)
    except NoProgressError as error:
        verdict.rounds_lost += 1
        verdict.problems.append(str(error))
    stack.storage.end()
    ask_database(verdict.judge_rows)
    ask_database(verdict.judge_lineage)
    seconds = statistics.mean(verdict.seconds) if verdict.seconds else None
    return verdict, {
        "kills": sum(stack.num_struck.values()),
        "by_target": dict(sorted(stack.num_struck.items())),
        "rounds_lost": verdict.rounds_lost,
        "stuck_rows": verdict.stuck_rows,
        "identical": verdict.identical,
        "slowdown": seconds and round(seconds / verdict.reference.seconds, 2),
        "seed": options.seed,
        "runs": len(verdict.seconds),
        "rounds": options.rounds,
        "envoys": options.envoys,
        "undisturbed_seconds": round(verdict.reference.seconds, 2),
        "disturbed_seconds": seconds and round(seconds, 2),
        "spoilt_answers": stack.storage.num_spoilt,
        "seconds": round(time.monotonic() - started, 1),
        "problems": len(verdict.problems),
    }


if __name__ == "__main__":
    sys.exit(main())
