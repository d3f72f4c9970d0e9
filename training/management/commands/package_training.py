from typing import Any

from django.core.management.base import CommandParser

from envoys.lookup import envoy_named
from training import services
from training.management.federation_command import (
    FederationCommand,
    add_study_arguments,
    study_of,
)
from training.services.packages import PACKAGE_KEY


class Command(FederationCommand):
    help = "Put a training package into hospitals' storage, for a doctor there to approve."

    def add_arguments(self, parser: CommandParser) -> None:
        parser.add_argument("envoy", nargs="+", help="name, slug or id")
        add_study_arguments(parser)
        parser.add_argument("--strategy", default="fedavg")
        parser.add_argument("--rounds", type=int, default=10)

    def handle(self, *args: Any, **options: Any) -> None:
        # All are looked up first, so that a wrong name stops before the first package.
        envoys = [envoy_named(name) for name in options["envoy"]]
        study = study_of(options)
        plan = services.plan_for(study, num_rounds=options["rounds"], strategy=options["strategy"])
        for envoy in envoys:
            membership = services.package_training(study, envoy, plan)
            self.stdout.write(
                f"{envoy}: {PACKAGE_KEY} holds the plan {membership.plan_sha256}\n"
                "  next, a doctor there reads and approves it:"
                f" approve_package {envoy.slug} --user USERNAME"
            )
