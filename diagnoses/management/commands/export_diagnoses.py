from typing import Any

from django.core.management.base import BaseCommand, CommandError, CommandParser

from diagnoses import services
from envoys.lookup import envoy_named
from federated.errors import FederatedError


class Command(BaseCommand):
    help = "Export a hospital's diagnoses and outcomes to its storage."

    def add_arguments(self, parser: CommandParser) -> None:
        parser.add_argument("envoy", help="name or slug of the envoy")

    def handle(self, *args: Any, **options: Any) -> None:
        try:
            envoy = envoy_named(options["envoy"])
            snapshot = services.export_now(envoy)
        except FederatedError as error:
            raise CommandError(str(error)) from error
        self.stdout.write(
            f"{envoy.name}: {snapshot.num_admissions} admissions, {snapshot.num_diagnoses} "
            f"diagnoses, snapshot {snapshot.sha256}"
        )
