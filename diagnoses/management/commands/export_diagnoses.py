from typing import Any

from django.core.management.base import BaseCommand, CommandError, CommandParser

from diagnoses import services
from diagnoses.management.commands.import_cohort import envoy_named
from envoys.errors import StorageError


class Command(BaseCommand):
    help = "Export a hospital's diagnoses and outcomes to its storage."

    def add_arguments(self, parser: CommandParser) -> None:
        parser.add_argument("envoy", help="name or slug of the envoy")

    def handle(self, *args: Any, **options: Any) -> None:
        envoy = envoy_named(options["envoy"])
        try:
            snapshot = services.export_now(envoy)
        except StorageError as error:
            raise CommandError(str(error)) from error
        self.stdout.write(
            f"{envoy.name}: {snapshot.num_admissions} admissions, {snapshot.num_diagnoses} "
            f"diagnoses, snapshot {snapshot.sha256}"
        )
