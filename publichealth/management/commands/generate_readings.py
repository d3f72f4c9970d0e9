from argparse import ArgumentParser
from typing import Any

import numpy as np
from django.core.management.base import BaseCommand, CommandError

from federated.errors import FederatedError
from federated.synthetic_readings import Generated, generate
from publichealth.services.readings import Recorded, record_readings
from publichealth.services.synthetic_nodes import (
    CITY_MONITORS,
    NODES,
    last_day_of_cities,
    open_node,
    record_generated,
)


class Command(BaseCommand):
    help = (
        "Make the synthetic nodes with labelled readings, and monitors in nine cities with a day's."
        " Prints of each node how often any model at all can be right."
    )

    def add_arguments(self, parser: ArgumentParser) -> None:
        parser.add_argument("--rows", type=int, default=2000, help="labelled readings of each node")
        parser.add_argument("--seed", type=int, default=0)
        parser.add_argument(
            "--noise",
            type=float,
            default=0.0,
            metavar="S",
            help="standard deviation of the noise added to the rule's sum",
        )
        parser.add_argument(
            "--gaps",
            type=float,
            default=0.0,
            metavar="G",
            help="probability that a value is missing",
        )
        parser.add_argument("--nodes", nargs="+", choices=NODES, default=list(NODES))
        parser.add_argument("--no-cities", action="store_true", help="without the cities' monitors")

    def handle(self, *args: Any, **options: Any) -> None:
        try:
            for kind in options["nodes"]:
                node = NODES[kind]
                generated = generate(
                    kind,
                    num_rows=options["rows"],
                    seed=options["seed"],
                    noise=options["noise"],
                    gaps=options["gaps"],
                )
                envoy = open_node(node.name, node.kind)
                recorded = record_generated(envoy, generated, seed=options["seed"])
                self.report(node.name, recorded, generated)
            if not options["no_cities"]:
                envoy = open_node(CITY_MONITORS.name, CITY_MONITORS.kind)
                recorded = record_readings(envoy, last_day_of_cities(seed=options["seed"]))
                self.stdout.write(f"{CITY_MONITORS.name}: {_rows(recorded)}, without an outcome")
        except FederatedError as error:
            raise CommandError(str(error)) from error

    def report(self, name: str, recorded: Recorded, generated: Generated) -> None:
        share = np.mean([record.outcome for record in generated.records])
        self.stdout.write(
            f"{name}: {_rows(recorded)}, {share:.1%} high risk,"
            f" best reachable accuracy {generated.best_accuracy:.4f}"
        )


def _rows(recorded: Recorded) -> str:
    known = f" ({recorded.num_known:,} were there)" if recorded.num_known else ""
    return f"{recorded.num_new + recorded.num_known:,} rows{known}"
