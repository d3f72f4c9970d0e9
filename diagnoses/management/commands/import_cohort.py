from pathlib import Path
from typing import Any

from django.core.management.base import BaseCommand, CommandError, CommandParser

from diagnoses import services
from diagnoses.models import Import
from envoys.lookup import envoy_named
from federated.cohorts import EnvoyFiles, find_envoys
from federated.errors import FederatedError


class Command(BaseCommand):
    help = "Import a cohort folder: each of its hospitals into the envoy of that name."

    def add_arguments(self, parser: CommandParser) -> None:
        parser.add_argument("folder", type=Path, help="a cohort folder")
        parser.add_argument("--only", metavar="NAME", help="only this hospital of the folder")
        parser.add_argument(
            "--envoy", help="name or slug of the envoy, if not that of the hospital"
        )

    def handle(self, *args: Any, **options: Any) -> None:
        try:
            cohorts = self.chosen(find_envoys(options["folder"]), options["only"])
            if options["envoy"] and len(cohorts) > 1:
                names = ", ".join(files.name for files in cohorts)
                raise CommandError(f"--envoy takes one hospital: choose --only of {names}.")
            # All envoys are looked up first, so that a wrong name stops before the first import.
            chosen = [(envoy_named(options["envoy"] or files.name), files) for files in cohorts]
            for envoy, files in chosen:
                self.report(services.import_cohort(envoy, files))
        except FederatedError as error:
            raise CommandError(str(error)) from error

    def chosen(self, cohorts: list[EnvoyFiles], name: str | None) -> list[EnvoyFiles]:
        chosen = [files for files in cohorts if name in (None, files.name)]
        if not chosen:
            names = ", ".join(files.name for files in cohorts)
            raise CommandError(f"The folder holds no hospital {name!r}. It holds: {names}.")
        return chosen

    def report(self, row: Import) -> None:
        self.stdout.write(
            f"{row.envoy.name}: {row.num_admissions} admissions, {row.num_diagnoses} diagnoses"
        )
        for warning in row.warnings:
            example = f", first {warning['example']}" if warning["example"] else ""
            self.stdout.write(f"  {warning['count']} x {warning['kind']}{example}")
