import json
import os
import subprocess
import sys
import tempfile
from argparse import ArgumentParser
from dataclasses import asdict
from pathlib import Path
from typing import Any

from django.conf import settings
from django.core.management.base import BaseCommand, CommandError

from federated.errors import FederatedError
from federated.plan import local_training_of
from federated.synthetic import write_synthetic_cohort
from techlife.management.commands.demo import add_demonstration_arguments, check_options


def embedded_environment() -> dict[str, str]:
    """This process's, without services that hold somebody's data."""
    services = ("DATABASE_URL", "REDIS_URL", "DIRECTOR_S3_BUCKET_NAME", "ENVOY_S3_BUCKET_NAME")
    return {name: value for name, value in os.environ.items() if name not in services}


class Command(BaseCommand):
    help = "Run simulation and served federation from one seed: the same bits, at what cost?"

    def add_arguments(self, parser: ArgumentParser) -> None:
        add_demonstration_arguments(parser)

    def handle(self, *args: Any, **options: Any) -> None:
        try:
            check_options(options)
        except FederatedError as error:
            raise CommandError(str(error)) from error
        with tempfile.TemporaryDirectory(prefix="techlife-compare-") as scratch:
            data = (options["data"] or Path(scratch, "synthetic")).resolve()
            if options["data"] is None:
                write_synthetic_cohort(data, seed=options["seed"])
            arguments = [
                f"--{name}={options[name]}"
                for name in ("rounds", "target", "strategy", "network", "seed")
            ]
            arguments += [
                f"--{name.replace('_', '-')}={value}"
                for name, value in asdict(local_training_of(options)).items()
            ]
            for given in options["strategy_parameter"]:
                arguments.append(f"--strategy-parameter={given}")
            simulated = self.simulate(data, arguments)
            served = self.serve(data, arguments, Path(scratch))
        self.print_comparison(simulated, served)

    def simulate(self, data: Path, arguments: list[str]) -> dict[str, Any]:
        self.stdout.write("Simulating in one process …")
        output = self.run_python(
            ["-m", "federated", str(data), "--no-report", *arguments], stdout=subprocess.PIPE
        )
        result: dict[str, Any] = json.loads(output)
        return result

    def serve(self, data: Path, arguments: list[str], scratch: Path) -> dict[str, Any]:
        self.stdout.write("Training the same through workers …\n")
        report = scratch / "report.json"
        self.run_python(
            [
                str(settings.BASE_DIR / "manage.py"),
                *("demo", "--no-serve", f"--data={data}", f"--report={report}"),
                *arguments,
            ],
            environment={"TECHLIFE_DATA_DIR": str(scratch / "data")},
        )
        result: dict[str, Any] = json.loads(report.read_text())
        return result

    def run_python(
        self,
        arguments: list[str],
        *,
        stdout: int | None = None,
        environment: dict[str, str] | None = None,
    ) -> bytes:
        done = subprocess.run(
            [sys.executable, *arguments],
            cwd=settings.BASE_DIR,
            env={**embedded_environment(), **(environment or {})},
            stdout=stdout,
            check=False,
        )
        if done.returncode:
            raise CommandError(
                f"{arguments[0]} ended with exit status {done.returncode}; see above"
            )
        return done.stdout or b""

    def print_comparison(self, simulated: dict[str, Any], served: dict[str, Any]) -> None:
        seconds = simulated["seconds"]["train"], served["seconds"]["train"]
        self.stdout.write(f"\n{'':12}{'training':>10}  final parameters")
        self.stdout.write(f"{'simulation':12}{seconds[0]:>8.2f} s  {simulated['final_sha256']}")
        self.stdout.write(f"{'served':12}{seconds[1]:>8.2f} s  {served['final_sha256']}")
        self.stdout.write(
            f"ratio of wall times, served to simulation: {seconds[1] / seconds[0]:.2f}"
        )
        if simulated["final_sha256"] != served["final_sha256"]:
            raise CommandError("The two ended in different parameters")
        self.stdout.write("Both ended in the same bits")
