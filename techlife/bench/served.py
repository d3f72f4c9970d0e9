"""One run of a workload through broker, workers and database; prints its figures as JSON.

Everything goes the way of any run: study, plan, package and approval of each hospital, frozen
snapshots, durable updates, screening, versions. A process of its own, since settings are read once.
"""

import argparse
import json
import os
import shutil
import statistics
import sys
import time
from pathlib import Path
from typing import Any

os.environ["DJANGO_SETTINGS_MODULE"] = "techlife.bench.settings"
POLL_SECONDS = 0.1


def main() -> None:
    import django

    django.setup()
    from techlife.bench.workloads import NETWORKS, WORKLOADS

    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("workload", choices=WORKLOADS)
    parser.add_argument("network", choices=NETWORKS)
    parser.add_argument("--rounds", type=int, required=True)
    parser.add_argument("--params", type=Path, help="where the last parameters are written")
    options = parser.parse_args()
    sys.stdout.write(json.dumps(serve(options)) + "\n")


def serve(options: argparse.Namespace) -> dict[str, Any]:
    from django.conf import settings
    from django.core.management import call_command

    from techlife.bench.memory import PeakMemory, cpu_seconds
    from techlife.processes import (
        Supervisor,
        lock_data_folder,
        start_broker,
        start_worker,
        stop_on_signals,
        wait_for_worker,
    )

    stop_on_signals()
    try:
        with (
            lock_data_folder(settings.DATA_DIR) as lock,
            Supervisor(settings.DATA_DIR, lock) as supervisor,
        ):
            call_command("migrate", verbosity=0, interactive=False)
            start_broker(supervisor)
            start_worker(supervisor)
            run = make_run(options, when_ready=lambda: wait_for_worker(supervisor))
            while run.status == run.Status.PREPARING:  # round 0
                supervisor.check()
                time.sleep(POLL_SECONDS / 10)
                run.refresh_from_db(fields=["status", "reason"])
            busy = -cpu_seconds(all_processes())
            with PeakMemory(all_processes) as memory:
                while run.is_active:
                    supervisor.check()
                    time.sleep(POLL_SECONDS)
                    run.refresh_from_db(fields=["status", "reason"])
                busy += cpu_seconds(all_processes())
    finally:
        if settings.BROKER_IS_BUNDLED:
            shutil.rmtree(settings.BROKER_SOCKET.parent, ignore_errors=True)
    if run.status != run.Status.FINISHED:
        raise SystemExit(f"{run}: {run.get_status_display().lower()}. {run.reason}")
    return figures(run, options) | {
        "cpu_per_round": busy / options.rounds,
        "peak_bytes": memory.num_bytes,
    }


def make_run(options: argparse.Namespace, *, when_ready: Any) -> Any:
    """A run of the workload, approved by a doctor of each hospital."""
    from federated.plan import LocalTrainingConfig
    from techlife.bench.hospitals import make_hospitals
    from techlife.bench.workloads import LEARNING_RATE, NETWORKS, SEED, TARGET, WORKLOADS
    from training import services

    workload = WORKLOADS[options.workload]
    envoys, doctors = make_hospitals(workload)
    study = services.study_for(TARGET, network=NETWORKS[options.network])
    plan = services.plan_for(
        study,
        num_rounds=options.rounds,
        local_training=LocalTrainingConfig(
            local_epochs=1, batch_size=workload.batch_size, learning_rate=LEARNING_RATE
        ),
    )
    for envoy in envoys:
        membership = services.package_training(study, envoy, plan)
        services.approve_package(
            membership, approved_by=doctors[envoy.pk], plan_hash=membership.plan_sha256
        )
    when_ready()
    return services.start_run(study, plan, started_by=None, seed=SEED, envoys=envoys)


def figures(run: Any, options: argparse.Namespace) -> dict[str, Any]:
    """Seconds by the rows' own times: round 1 opened until the last one was aggregated."""
    from federated.params import to_bytes
    from training.objects import load_params

    rounds = list(run.rounds.filter(number__gt=0).order_by("number"))
    total = (rounds[-1].aggregated_at - rounds[0].opened_at).total_seconds()
    each = [(row.aggregated_at - row.opened_at).total_seconds() for row in rounds]
    run.refresh_from_db()
    if options.params:
        options.params.write_bytes(to_bytes(load_params(run.params_sha256)))
    return {
        "seconds_per_round": total / len(rounds),
        "median_round": statistics.median(each),
        "first_round": each[0],
        "last_round": each[-1],
        "final_sha256": run.final_sha256,
    }


def all_processes() -> set[int]:
    """This one and its children; where services are used, theirs that work for this run."""
    import redis
    from django.conf import settings
    from django.db import connection

    from techlife.bench.memory import descendants

    found = descendants(os.getpid())
    if not settings.BROKER_IS_BUNDLED:
        with redis.Redis.from_url(settings.REDIS_URL) as client:
            found.add(client.info("server")["process_id"])
    if connection.vendor == "postgresql":
        name = connection.settings_dict["NAME"]
        for path in Path("/proc").glob("[0-9]*/cmdline"):
            try:
                command = path.read_text()
            except OSError:
                continue
            if command.startswith("postgres:") and f" {name} " in command:
                found.add(int(path.parent.name))
    return found


if __name__ == "__main__":
    main()
