import csv
import gzip
from argparse import ArgumentParser
from pathlib import Path
from typing import Any

from django.core.management import call_command
from django.core.management.base import CommandError

from envoys.models import Envoy
from federated.leave_one_out import leave_one_out
from federated.plan import TrainingPlan, add_run_arguments
from federated.synthetic_readings import check_recipe
from federated.targets import target_named
from publichealth.importers import FORMATS, import_readings
from publichealth.models import Serving
from publichealth.services import serving
from publichealth.services.synthetic_nodes import NODES
from techlife import demonstration
from techlife.management.demonstration_command import DemonstrationCommand, check_run_options
from techlife.processes import Supervisor, start_city_monitors
from training.arrays import open_snapshot
from training.models import ModelVersion, ReceivedUpdate, TrainingRun

# Most inputs are known to one kind of node, and the mean over nodes shortens what it has learned of
# them. Chosen, with the defaults below, on rows drawn anew; where all nodes know the same inputs, as
# in NHANES, it diverges: docs/health.md.
SERVER_RATE = "server_learning_rate=2"
MIN_ROWS = 100  # about 15 of them to validate on, and 15 to test
NHANES_FILE = "nhanes_adults.csv.gz"


class Command(DemonstrationCommand):
    help = (
        "Watch nodes of wearables, city air and clinics train one health-risk model together, then"
        " see it at work on nine cities."
    )
    again = "make demo-health"
    envoys = "nodes"
    accounts = "/health/ needs no account; log in as health/health or pass/pass"

    def add_arguments(self, parser: ArgumentParser) -> None:
        parser.add_argument(
            "--data",
            type=Path,
            help=f"a folder with {NHANES_FILE}, to train on real people; synthetic nodes without",
        )
        parser.add_argument("--rows", type=int, default=2000, help="readings of a synthetic node")
        parser.add_argument("--noise", type=float, default=0.0, help="see generate_readings")
        parser.add_argument("--gaps", type=float, default=0.0, help="see generate_readings")
        parser.add_argument(
            "--leave-one-out",
            action="store_true",
            help="also train without each node in turn, and try the model there",
        )
        add_run_arguments(parser)
        parser.set_defaults(
            target=None,
            strategy="scaffold",
            rounds=20,
            local_epochs=2,
            batch_size=16,
            learning_rate=0.1,
        )
        super().add_arguments(parser)

    def check_options(self, options: dict[str, Any]) -> None:
        data = options["data"]
        target = "health_tier" if data else "health_risk"
        options["target"] = options["target"] or target
        if options["target"] != target:
            what = "NHANES has" if data else "the synthetic nodes have"
            raise CommandError(f"--target: {what} {target} only, not {options['target']}")
        is_default = options["strategy"] == "scaffold" and not options["strategy_parameter"]
        if is_default and not data:
            options["strategy_parameter"] = [SERVER_RATE]
        check_run_options(options)
        if data:
            check_nhanes(data)
            return
        check_recipe(num_rows=options["rows"], noise=options["noise"], gaps=options["gaps"])
        if options["rows"] < MIN_ROWS:
            raise CommandError(
                f"--rows: a node with fewer than {MIN_ROWS} people has too few to train and to test"
                f" on, not {options['rows']}"
            )

    def load(self, options: dict[str, Any]) -> list[Envoy]:
        if data := options["data"]:
            self.stdout.write("Importing the sites of NHANES")
            imported = import_readings(
                data, FORMATS["nhanes"], envoy="NHANES", kind=Envoy.Kind.CLINIC
            )
            for name, recorded in imported.recorded.items():
                self.stdout.write(f"  {name}: {recorded.num_new + recorded.num_known:,} readings")
            return list(Envoy.objects.active().filter(name__in=imported.recorded))
        self.stdout.write("Making the synthetic nodes")
        call_command(
            "generate_readings",
            **{name: options[name] for name in ("rows", "seed", "noise", "gaps")},
            stdout=self.stdout,
        )
        names = [node.name for node in NODES.values()]
        return list(Envoy.objects.active().filter(name__in=names))

    def after_training(self, run: TrainingRun, options: dict[str, Any]) -> dict[str, Any]:
        if not options["leave_one_out"]:
            return {}
        plan = TrainingPlan.from_json(run.plan)
        classes = target_named(plan.target).classes
        datasets = {
            participant.envoy.name: open_snapshot(participant.snapshot, plan)
            for participant in run.participants.select_related("envoy", "snapshot__envoy")
            if participant.snapshot is not None
        }
        with demonstration.progress_bar("Leaving one out", unit="nodes") as bar:
            found = leave_one_out(
                datasets,
                plan,
                class_name=classes[-1],
                label=len(classes) - 1,
                seed=run.seed,
                on_hospital=lambda name: bar.update(),
            )
        self.stdout.write(f"\nTrained without each in turn, AUROC of {found.class_name!r} there:")
        for each in found.hospitals:
            told = "–" if each.auroc is None else f"{each.auroc:.3f}"
            self.stdout.write(f"  {each.name}: {told}")
        if found.pooled:
            estimate, low, high = found.pooled.estimate, found.pooled.low, found.pooled.high
            self.stdout.write(f"  all together: {estimate:.3f} ({low:.3f} to {high:.3f})")
        return {"leave_one_out": found.to_json()}

    def use(
        self, supervisor: Supervisor, run: TrainingRun, version: ModelVersion | None
    ) -> dict[str, str]:
        if version is None or run.report is None:
            return {}
        serving.request_missing_servings()
        demonstration.wait_for_work(
            "Calibrating", Serving.objects.filter(version=version), supervisor, unit="nodes"
        )
        return {
            row["name"]: f"right {row['global']['accuracy']:.1%}"
            for row in run.report["envoys"]
            if row["global"]["accuracy"] is not None
        }

    def report_of(
        self, run: TrainingRun, report: dict[str, Any], *, import_seconds: float
    ) -> dict[str, Any]:
        """As the first demonstration's, and of each node its kind and rounds.

        A round's figures are the global model's before it, on the node's validation rows.
        """
        result = super().report_of(run, report, import_seconds=import_seconds)
        nodes = {
            participant.envoy.name: participant.envoy for participant in run.participants.all()
        }
        return {
            **result,
            "envoys": [
                {
                    **row,
                    "kind": nodes[row["name"]].kind,
                    "rounds": rounds_of(run, nodes[row["name"]]),
                }
                for row in result["envoys"]
            ],
        }

    def start_serving(self, supervisor: Supervisor) -> None:
        start_city_monitors(supervisor)


def rounds_of(run: TrainingRun, envoy: Envoy) -> list[dict[str, float | None]]:
    updates = ReceivedUpdate.objects.filter(
        assignment__training_round__run=run,
        assignment__envoy=envoy,
        assignment__training_round__number__gt=0,
        verdict=ReceivedUpdate.Verdict.ACCEPTED,
    )
    return [
        {
            "loss": metrics.get("validation_loss"),
            "accuracy": metrics.get("validation_accuracy"),
        }
        for metrics in updates.order_by("assignment__training_round__number").values_list(
            "metrics", flat=True
        )
    ]


def check_nhanes(folder: Path) -> None:
    """Raises CommandError where the folder does not hold what is asked for."""
    path = folder / NHANES_FILE
    try:
        with gzip.open(path, "rt", encoding="utf-8-sig", newline="") as file:
            header = next(csv.reader(file), [])
    except OSError as error:
        raise CommandError(
            f"--data: {path} cannot be read ({error.strerror or error}): name the folder that holds"
            " it, of NHANES; other data sets come in by import_readings"
        ) from error
    missing = {"ID", "envoy", "risk_tier"} - set(header)
    if missing:
        raise CommandError(f"--data: {path} has no column {', '.join(sorted(missing))}")
