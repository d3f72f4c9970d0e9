from argparse import ArgumentParser
from pathlib import Path
from typing import Any

from django.core.management.base import BaseCommand, CommandError
from tqdm import tqdm

from envoys.models import Envoy
from federated.errors import CohortError, FederatedError
from publichealth.importers import FORMATS, Imported, import_readings, unknown_columns

KINDS = {
    "wearables": Envoy.Kind.WEARABLES,
    "environment": Envoy.Kind.ENVIRONMENT,
    "clinic": Envoy.Kind.CLINIC,
}


class Command(BaseCommand):
    help = (
        "Import readings from a file into a node, which is invited if it is new. A row of a subject"
        " and moment that is there already is left as it is."
    )

    def add_arguments(self, parser: ArgumentParser) -> None:
        parser.add_argument("path", type=Path, help="a file, or the folder of a data set")
        parser.add_argument("--format", choices=FORMATS, default="csv")
        parser.add_argument("--envoy", help="the node's name; NHANES' sites begin with it")
        parser.add_argument("--kind", choices=KINDS, help="what the node is")
        parser.add_argument(
            "--skip-bad", action="store_true", help="leave bad rows out instead of refusing all"
        )

    def handle(self, *args: Any, **options: Any) -> None:
        file_format = FORMATS[options["format"]]
        name = options["envoy"] or file_format.envoy
        kind = KINDS.get(options["kind"]) or file_format.kind
        if name is None:
            raise CommandError("--envoy names the node that the readings go to")
        standing = Envoy.objects.standing().filter(name=name).first()
        kind = kind or (standing.kind if standing else None)
        if kind is None:
            raise CommandError(
                f"{name!r} is new: --kind says what it is, one of {', '.join(KINDS)}"
            )
        if options["format"] == "csv":
            unknown = unknown_columns(options["path"])
            if unknown:
                self.stdout.write(f"Ignored, as no input is called so: {', '.join(unknown)}")
        try:
            with tqdm(desc="Importing", unit=" rows", leave=False, disable=None) as bar:

                def show(num_done: int, num_total: int) -> None:
                    bar.total, bar.n = num_total, num_done
                    bar.refresh()

                imported = import_readings(
                    options["path"],
                    file_format,
                    envoy=name,
                    kind=kind,
                    skip_bad=options["skip_bad"],
                    on_progress=show,
                )
        except CohortError as error:
            raise CommandError("\n".join([str(error), *_more(error)])) from error
        except FederatedError as error:
            raise CommandError(str(error)) from error
        self.report(imported)

    def report(self, imported: Imported) -> None:
        for name, recorded in sorted(imported.recorded.items()):
            known = f", {recorded.num_known:,} were there" if recorded.num_known else ""
            self.stdout.write(f"{name}: {recorded.num_new:,} readings{known}")
        if imported.num_bad:
            self.stdout.write(f"{imported.num_bad:,} bad rows were left out. The first:")
            for problem in imported.problems[:3]:
                self.stdout.write(f"  {problem}")


def _more(error: CohortError) -> list[str]:
    left_out = error.num_problems - len(error.problems)
    more = [f"… and {left_out:,} more bad rows."] if left_out else []
    return [*more, "Nothing was imported."]
