"""What every demonstration does: processes, a run from the data to the released model, the site."""

import json
import resource
import shutil
import sys
import time
from argparse import ArgumentParser
from pathlib import Path
from typing import Any

from django.conf import settings
from django.core.management import call_command
from django.core.management.base import BaseCommand, CommandError
from django.db import connection

from envoys.models import Envoy
from federated.errors import FederatedError
from federated.plan import check_seed, local_training_of, plan_of, strategy_parameters_of
from techlife import demonstration
from techlife.processes import (
    ProcessError,
    Supervisor,
    check_port_free,
    lock_data_folder,
    start_broker,
    start_web,
    start_worker,
    stop_on_signals,
    wait_for_worker,
)
from training import services
from training.models import ModelVersion, TrainingRun

# What demonstrations make in their data folder, and `--fresh` removes.
OURS = (
    *("db.sqlite3*", "celerybeat-schedule*", "broker", "objects", "arrays", "synthetic"),
    *("logs", "preparing"),
)


class DemonstrationCommand(BaseCommand):
    """`load` brings the data, `use` shows what the released model is good for.

    Attributes:
        again: the command that goes on where this one was stopped.
        envoys: what takes part, in words.
        accounts: whom one can log in as, in words.
    """

    again: str
    envoys = "hospitals"
    accounts = "log in as doc/doc, pass/pass, admin/admin or health/health"

    def add_arguments(self, parser: ArgumentParser) -> None:
        parser.add_argument("--report", type=Path, help="write the figures to this JSON file")
        parser.add_argument("--port", type=int, default=8000, help="where to serve the site")
        parser.add_argument("--fresh", action="store_true", help="empty the data folder first")
        parser.add_argument("--no-serve", action="store_true", help="end after the run")

    def check_options(self, options: dict[str, Any]) -> None:
        """Refuse what cannot end well before anything has begun.

        Raises:
            CommandError, FederatedError: what is wrong with which option.
        """
        check_run_options(options)

    def load(self, options: dict[str, Any]) -> list[Envoy]:
        """Bring in the data; returns who is to train on it."""
        raise NotImplementedError

    def use(
        self, supervisor: Supervisor, run: TrainingRun, version: ModelVersion | None
    ) -> dict[str, str]:
        """Use the released model; returns words on it by hospital, for the table."""
        raise NotImplementedError

    def report_of(
        self, run: TrainingRun, report: dict[str, Any], *, import_seconds: float
    ) -> dict[str, Any]:
        """What `--report` writes."""
        return demonstration.report_json(run, report, import_seconds=import_seconds)

    def after_training(self, run: TrainingRun, options: dict[str, Any]) -> dict[str, Any]:
        """What else is asked for, said and given back for `--report`; nothing by default."""
        return {}

    def start_serving(self, supervisor: Supervisor) -> None:
        """Start what the site shows besides its rows; nothing by default."""

    def handle(self, *args: Any, **options: Any) -> None:
        if not settings.EMBEDDED:
            raise CommandError("The demonstration runs in TECHLIFE_MODE=embedded only")
        stop_on_signals()
        try:
            self.check_options(options)
            with lock_data_folder(settings.DATA_DIR) as lock:
                if not options["no_serve"]:
                    check_port_free(options["port"])
                if options["fresh"]:
                    self.empty_data_folder()
                settings.PREPARING_FLAG.touch()
                with Supervisor(settings.DATA_DIR, lock, report=self.stderr.write) as supervisor:
                    self.demonstrate(supervisor, options)
                    settings.PREPARING_FLAG.unlink(missing_ok=True)
                    if not options["no_serve"]:
                        self.serve(supervisor, options["port"])
        except KeyboardInterrupt:
            self.stdout.write(f"\nStopped. `{self.again}` goes on from here.")
            if options["no_serve"]:
                sys.exit(130)
        except (FederatedError, ProcessError, demonstration.DemonstrationError) as error:
            raise CommandError(str(error)) from error
        finally:
            settings.PREPARING_FLAG.unlink(missing_ok=True)
            if settings.BROKER_IS_BUNDLED and settings.BROKER_SOCKET.parent.is_dir():
                shutil.rmtree(settings.BROKER_SOCKET.parent, ignore_errors=True)
        if options["no_serve"]:
            self.print_peak_memory()

    def empty_data_folder(self) -> None:
        """Start anew; keeps the lock and the secrets, which are in use, and what is not ours."""
        if connection.vendor != "sqlite":
            raise CommandError("--fresh empties the embedded database only, not DATABASE_URL's")
        for pattern in OURS:
            for path in settings.DATA_DIR.glob(pattern):
                if path.is_dir():
                    shutil.rmtree(path)
                else:
                    path.unlink()

    def demonstrate(self, supervisor: Supervisor, options: dict[str, Any]) -> None:
        call_command("migrate", verbosity=0, interactive=False)
        start_broker(supervisor)
        start_worker(supervisor)

        say = self.stdout.write
        started = time.monotonic()
        envoys = self.load(options)
        import_seconds = time.monotonic() - started

        study = services.study_for(options["target"], network=options["network"])
        plan = services.plan_for(
            study,
            num_rounds=options["rounds"],
            strategy=options["strategy"],
            strategy_parameters=strategy_parameters_of(options),
            local_training=local_training_of(options),
        )
        doctors = demonstration.make_accounts(envoys)
        demonstration.approve_for_all(study, plan, envoys, doctors)
        say(
            f"Approved the plan {plan.sha256[:12]} for all {len(envoys)} {self.envoys}: a"
            " demonstration may; elsewhere somebody at each of them does"
        )

        if not options["no_serve"]:
            start_web(supervisor, options["port"])
        wait_for_worker(supervisor)
        run = demonstration.start_or_resume(study, plan, envoys, seed=options["seed"], say=say)
        if not options["no_serve"]:
            say(f"Watch it at http://localhost:{options['port']}/runs/{run.pk}/ (pass/pass)")
        demonstration.watch_run(run, supervisor)
        train_seconds, per_round = demonstration.run_seconds(run)
        say(
            f"Trained {run.num_rounds} rounds in {train_seconds:.1f} s"
            f" ({per_round:.2f} s a round): {run.final_sha256}"
        )
        for participant in run.participants.exclude(sits_out_because=""):
            say(f"  sat out: {participant.sits_out_because}")

        report = demonstration.make_report(run, supervisor)
        version = None
        if len(report["envoys"]) >= study.min_contributors:
            version = demonstration.distribute(run, supervisor)
            say(f"Released {version} and delivered it to {len(envoys)} {self.envoys}")
        else:
            say(
                f"Not released: {len(report['envoys'])} of {study.min_contributors} {self.envoys}"
                " needed took part"
            )
        predicted = self.use(supervisor, run, version)
        say("")
        for line in demonstration.table(report, predicted, words=study.words):
            say(line)
        more = self.after_training(run, options)
        if options["report"]:
            result = self.report_of(run, report, import_seconds=import_seconds) | more
            options["report"].write_text(json.dumps(result, indent=2) + "\n")
            say(f"\nWrote {options['report']}")

    def serve(self, supervisor: Supervisor, port: int) -> None:
        self.start_serving(supervisor)
        self.stdout.write(f"\nServing http://localhost:{port}/ ({self.accounts}); Ctrl-C stops")
        while True:
            supervisor.check()
            time.sleep(1)

    def print_peak_memory(self) -> None:
        unit = 2**20 if sys.platform == "darwin" else 2**10  # bytes there, kilobytes elsewhere
        own = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / unit
        largest_child = resource.getrusage(resource.RUSAGE_CHILDREN).ru_maxrss / unit
        self.stdout.write(
            f"Peak memory: {own:.0f} MB here, {largest_child:.0f} MB in the largest other process"
        )


def check_run_options(options: dict[str, Any]) -> None:
    """Raises CommandError, FederatedError: what is wrong with an option that all runs have."""
    plan_of(options)
    check_seed(options["seed"])  # one that no command line has read, as in `call_command`
    report = options.get("report")
    if report and (report.is_dir() or not report.absolute().parent.is_dir()):
        raise CommandError(f"--report: {report} cannot be written: name a file in a folder that is")
