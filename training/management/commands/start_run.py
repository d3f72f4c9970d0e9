import time
from typing import Any

from django.core.management.base import CommandError, CommandParser

from envoys.lookup import envoy_named, user_named
from training import services
from training.management.federation_command import (
    POLL_SECONDS,
    FederationCommand,
    add_study_arguments,
    add_wait_argument,
    study_of,
)
from training.models import TrainingRun


class Command(FederationCommand):
    help = "Train round after round, with the hospitals that have approved the newest package."

    def add_arguments(self, parser: CommandParser) -> None:
        parser.add_argument(
            "envoy", nargs="*", help="name, slug or id; all of them if none is given"
        )
        add_study_arguments(parser)
        parser.add_argument("--user", help="username of who starts it")
        parser.add_argument("--seed", type=int, default=0)
        parser.add_argument("--quorum", type=int, help="updates that a round needs")
        parser.add_argument(
            "--deadline-minutes", type=float, default=60.0, help="of a round; up to 30 days (60)"
        )
        parser.add_argument(
            "--mandatory",
            nargs="+",
            default=[],
            metavar="ENVOY",
            help="without these no round counts",
        )
        parser.add_argument(
            "--on-miss",
            type=lambda text: text.upper().replace("-", "_"),
            default=TrainingRun.OnMiss.GO_ON,
            choices=TrainingRun.OnMiss.values,
            help="what a round does where somebody is missing (GO_ON)",
        )
        add_wait_argument(parser)

    def handle(self, *args: Any, **options: Any) -> None:
        study = study_of(options)
        run = services.start_run(
            study,
            services.packaged_plan(study),
            started_by=user_named(options["user"]) if options["user"] else None,
            seed=options["seed"],
            envoys=[envoy_named(name) for name in options["envoy"]] or None,
            quorum=options["quorum"],
            deadline_seconds=round(60 * options["deadline_minutes"]),
            mandatory=[envoy_named(name) for name in options["mandatory"]],
            on_miss=options["on_miss"],
        )
        self.stdout.write(f"{run}: started")
        if options["wait"]:
            self.wait_until_it_ends(run)

    def wait_until_it_ends(self, run: TrainingRun) -> None:
        said = ""
        while run.is_active:
            time.sleep(POLL_SECONDS)
            run.refresh_from_db()
            newest = run.rounds.latest("number")
            state = f"round {newest.number} of {run.num_rounds}. {newest.reason}".rstrip(". ")
            if run.is_active and state != said:
                self.stdout.write(f"  {state}")
                said = state
        if run.status != TrainingRun.Status.FINISHED:
            raise CommandError(f"{run} {run.get_status_display().lower()}: {run.reason}")
        version = run.versions.of_federation().get()
        self.stdout.write(f"  {version} is a candidate: {version.params_sha256}")
        self.stdout.write("  next: distribute")
