from typing import Any

from django.core.management.base import CommandError, CommandParser

from envoys.lookup import UnknownNameError, user_named
from training import services
from training.errors import NotReadyError
from training.management.federation_command import (
    FederationCommand,
    add_study_arguments,
    add_wait_argument,
    study_of,
)
from training.models import Distribution, ModelVersion, Study


class Command(FederationCommand):
    help = "Release a global model and send it to every hospital; the newest if none is named."

    def create_parser(self, prog_name: str, subcommand: str, **kwargs: Any) -> CommandParser:
        # Every command of Django has a --version, its own; here it names a model's.
        return super().create_parser(prog_name, subcommand, conflict_handler="resolve", **kwargs)

    def add_arguments(self, parser: CommandParser) -> None:
        parser.add_argument("--version", type=int, metavar="NUMBER", help="the newest if left out")
        add_study_arguments(parser)
        parser.add_argument("--user", help="username of who releases it")
        add_wait_argument(parser)

    def handle(self, *args: Any, **options: Any) -> None:
        version = version_numbered(study_of(options), options["version"])
        user = user_named(options["user"]) if options["user"] else None
        distributions = services.distribute_version(version, distributed_by=user)
        self.stdout.write(f"{version} is active, on its way to {len(distributions)} hospitals")
        if options["wait"]:
            self.wait_for(distributions)
            failed = [row for row in distributions if row.status == Distribution.Status.FAILED]
            if failed:
                names = ", ".join(str(row.envoy) for row in failed)
                raise CommandError(
                    f"Not delivered to {names}: mend the storage and distribute again"
                )
        self.stdout.write("  next: predict_envoy ENVOY")


def version_numbered(study: Study, number: int | None) -> ModelVersion:
    """The federation's version of this number, or its newest."""
    versions = ModelVersion.objects.of_federation().filter(study=study).order_by("-number")
    newest = versions.first()
    if newest is None:
        raise NotReadyError(f"there is no version of {study} yet: train, then distribute one")
    if number is None:
        return newest
    if version := versions.filter(number=number).first():
        return version
    known = ", ".join(str(known) for known in versions.values_list("number", flat=True))
    raise UnknownNameError(f"There is no version {number} of {study}. There are: {known}.")
