import time
from typing import Any

from django.core.management.base import CommandError, CommandParser

from envoys.lookup import envoy_named
from training import services
from training.management.federation_command import (
    POLL_SECONDS,
    FederationCommand,
    add_study_arguments,
    add_wait_argument,
    study_of,
)
from training.models import ModelVersion, TrainingRound

Status = TrainingRound.Status


class Command(FederationCommand):
    help = "Make a global model of the hospitals that were launched and are named here."

    def add_arguments(self, parser: CommandParser) -> None:
        parser.add_argument("envoy", nargs="+", help="name, slug or id")
        add_study_arguments(parser)
        add_wait_argument(parser)

    def handle(self, *args: Any, **options: Any) -> None:
        envoys = [envoy_named(name) for name in options["envoy"]]
        training_round = services.aggregate_envoys(study_of(options), envoys)
        names = ", ".join(envoy.name for envoy in envoys)
        self.stdout.write(f"{training_round}: aggregating {names}")
        if options["wait"]:
            version = self.version_of(training_round)
            self.stdout.write(f"  {version} is a candidate: {version.params_sha256}")
        self.stdout.write("  next: distribute")

    def version_of(self, training_round: TrainingRound) -> ModelVersion:
        training_round.refresh_from_db()
        while training_round.status == Status.CLOSED:
            time.sleep(POLL_SECONDS)
            training_round.refresh_from_db()
        if training_round.status == Status.COLLECTING:
            raise CommandError(
                "An update was lost and is trained again: once it is in, aggregate again"
            )
        if training_round.status == Status.FAILED:
            raise CommandError(f"{training_round} failed: {training_round.reason}")
        return training_round.versions.of_federation().get()
