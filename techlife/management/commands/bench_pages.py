import gc
import json
import logging
import tempfile
from argparse import ArgumentParser
from pathlib import Path
from typing import Any

from django.conf import settings
from django.core.management.base import BaseCommand, CommandError
from django.db import connection
from django.test import override_settings

from techlife.demonstration import progress_bar
from techlife.page_bench import (
    MAX_RISK_MS,
    Bench,
    PageFigures,
    get_routes,
    measure_risk,
    report_json,
    table,
)
from techlife.page_nodes import grow_nodes
from techlife.page_world import add_some_rows, grow, make_small_world


class Command(BaseCommand):
    help = "Time every page with one large hospital, in a database made for it and removed again."

    def add_arguments(self, parser: ArgumentParser) -> None:
        parser.add_argument("--patients", type=int, default=100_000, help="of the large hospital")
        parser.add_argument("--requests", type=int, default=40, help="how often each page is asked")
        parser.add_argument("--json", type=Path, help="write the figures to this file")

    def handle(self, *args: Any, **options: Any) -> None:
        logging.disable(logging.INFO)  # a line for each task that fills the database
        with tempfile.TemporaryDirectory(prefix="techlife-bench-") as name:
            folder = Path(name)
            with override_settings(DATA_DIR=folder, OBJECT_FOLDER=folder / "objects"):
                self.bench_in(folder, options)

    def bench_in(self, folder: Path, options: dict[str, Any]) -> None:
        """In a database of its own: a file here, on PostgreSQL one beside that of DATABASE_URL."""
        database = settings.DATABASES["default"]
        if connection.vendor == "sqlite":
            connection.settings_dict["TEST"]["NAME"] = str(folder / "bench.sqlite3")
        connection.creation.create_test_db(verbosity=0, serialize=False)
        try:
            self.bench(folder, options)
        finally:
            connection.creation.destroy_test_db(database["NAME"], verbosity=0)

    def bench(self, folder: Path, options: dict[str, Any]) -> None:
        self.stdout.write("Training five small hospitals")
        world = make_small_world(folder)
        add_some_rows(world)
        routes = get_routes()
        small = Bench(world)
        num_queries = {route: small.count_queries(route) for route in routes}
        grow(world, folder, num_patients=options["patients"])
        self.stdout.write(
            f"{world.envoy.patients.count():,} patients with"
            f" {world.envoy.admissions.count():,} admissions in one hospital; {connection.vendor}"
        )
        self.stdout.write(f"{grow_nodes():,} readings of nodes and nine cities' monitors")
        gc.collect()
        gc.freeze()  # what filling has left behind is not a web process's to look through

        large = Bench(world)
        pages: list[PageFigures] = []
        with progress_bar("Asking for pages", unit="pages") as bar:
            bar.total = len(routes)
            for route in routes:
                pages.append(
                    large.measure(
                        route,
                        num_requests=options["requests"],
                        num_queries_small=num_queries[route],
                    )
                )
                bar.update(1)
        risk_p50, risk_p95 = measure_risk(world, num_requests=options["requests"])

        for line in table(pages):
            self.stdout.write(line)
        verdict = "good" if risk_p95 <= MAX_RISK_MS else "slow"
        self.stdout.write(f"A patient's risk: {risk_p50} ms, p95 {risk_p95} ms  {verdict}")
        if options["json"]:
            result = report_json(
                pages,
                database=connection.vendor,
                num_patients=world.envoy.patients.count(),
                num_admissions=world.envoy.admissions.count(),
                risk_p50_ms=risk_p50,
                risk_p95_ms=risk_p95,
            )
            options["json"].write_text(json.dumps(result, indent=2) + "\n")
        missed = [f"{page.page} ({page.person})" for page in pages if not page.is_good]
        if risk_p95 > MAX_RISK_MS:
            missed.append("a patient's risk")
        if missed:
            raise CommandError(f"Not good enough: {', '.join(missed)}")
