import sys
from argparse import ArgumentParser
from pathlib import Path
from typing import Any

from django.core.management.base import BaseCommand, CommandError

from federated.drift_power import (
    NUM_NEWEST,
    NUM_TRAINED_ON,
    Pool,
    detections,
    false_alarms,
    make_pool,
    table,
)
from federated.errors import FederatedError
from federated.readings import ReadingRecord
from federated.synthetic_readings import KINDS, generate
from publichealth.importers import FORMATS

POOL_ROWS = 100_000  # so many that drawing from them is drawing from the distribution
GAPS = 0.1  # values missing in the synthetic readings


class Command(BaseCommand):
    requires_system_checks = ()  # it asks for no page and no row
    help = "Measure how often a drift check gives a false alarm, and how often it finds a shift."

    def add_arguments(self, parser: ArgumentParser) -> None:
        parser.add_argument(
            "--data",
            type=Path,
            action="append",
            default=[],
            help="also draw from a folder or file of real readings; may be given several times",
        )
        parser.add_argument(
            "--format",
            choices=sorted(FORMATS),
            action="append",
            default=[],
            help="what that is, in the same order",
        )
        parser.add_argument("--checks", type=int, default=2_000, help="without drift, a line")
        parser.add_argument("--trials", type=int, default=1_000, help="with a shift, an input")
        parser.add_argument("--seed", type=int, default=0)

    def handle(self, *args: Any, **options: Any) -> None:
        if len(options["data"]) != len(options["format"]):
            raise CommandError("Give a --format for each --data")
        if min(options["checks"], options["trials"]) < 1:
            raise CommandError("--checks and --trials are at least 1")
        try:
            pools = [_synthetic(kind, options["seed"]) for kind in KINDS]
            for path, name in zip(options["data"], options["format"], strict=True):
                pools.append(_real(path, name))
        except (FederatedError, OSError) as error:
            raise CommandError(str(error)) from error
        num_checks, seed = options["checks"], options["seed"]
        alarms, found = [], []
        for pool in pools:
            self.stderr.write(f"{pool.name}: {len(pool.values):,} readings to draw from")
            for num_trained_on in NUM_TRAINED_ON:
                for num_newest in NUM_NEWEST:
                    for whole_people in [False, True] if pool.has_repeats else [False]:
                        alarms.append(
                            false_alarms(
                                pool,
                                num_trained_on=num_trained_on,
                                num_newest=num_newest,
                                num_checks=num_checks,
                                seed=seed,
                                whole_people=whole_people,
                            )
                        )
                found += detections(
                    pool, num_trained_on=num_trained_on, num_checks=options["trials"], seed=seed
                )
        for line in table(alarms, found):
            self.stdout.write(line)
        sys.stdout.flush()


def _synthetic(kind: str, seed: int) -> Pool:
    return make_pool(kind, generate(kind, num_rows=POOL_ROWS, seed=seed, gaps=GAPS).records)


def _real(path: Path, name: str) -> Pool:
    """Rows that cannot be are left out, as `import_readings --skip-bad` does."""
    readings = FORMATS[name].read(path, lambda problem: None)
    pool = make_pool(name, (ReadingRecord(new.subject_id, new.values) for _, _, new in readings))
    if not len(pool.values):
        raise CommandError(f"{path}: holds no reading")
    return pool
