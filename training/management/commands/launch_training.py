from typing import Any

from django.core.management.base import CommandError, CommandParser

from envoys.lookup import envoy_named, user_named
from training import services
from training.management.federation_command import (
    FederationCommand,
    add_study_arguments,
    add_wait_argument,
    study_of,
)
from training.models import RoundAssignment


class Command(FederationCommand):
    help = "Train one hospital by hand, from its approved package; the round stays open."

    def add_arguments(self, parser: CommandParser) -> None:
        parser.add_argument("envoy", help="name, slug or id")
        add_study_arguments(parser)
        parser.add_argument("--user", help="username of who launches it")
        add_wait_argument(parser)

    def handle(self, *args: Any, **options: Any) -> None:
        envoy = envoy_named(options["envoy"])
        user = user_named(options["user"]) if options["user"] else None
        assignment = services.launch_training(study_of(options), envoy, launched_by=user)
        self.stdout.write(f"{envoy}: launched in {assignment.training_round}")
        if options["wait"]:
            self.wait_for([assignment])
            if assignment.status != RoundAssignment.Status.SUBMITTED:
                raise CommandError(f"{envoy} has not trained: {assignment.reason}")
        self.stdout.write(
            "  next: launch other hospitals, then aggregate those that have submitted:"
            f" aggregate {envoy.slug} …"
        )
