"""Durable rounds through workers, taking turns with the bare loop."""

import argparse
import json
import statistics
import subprocess
import sys
import tempfile
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Self

import numpy as np
from safetensors.numpy import load_file

from techlife.bench.report import gigabytes, say, say_json, verdict
from techlife.bench.stacks import STACKS, NoServiceError, environment_of
from techlife.bench.workloads import NETWORKS, WORKLOADS, Workload

ROOT = Path(__file__).resolve().parent.parent.parent
BARS = {  # times the bare loop
    "embedded": {"small": 1.6, "wide": 1.6, "large": 0.8},
    "production": {"small": 2.0, "wide": 2.1, "large": 0.8},
}
MAX_WIDE_BYTES = 1.5e9
# Sums in another order end in other last bits, which training carries on.
MAX_DIFFERENCE = 0.01
# What a layer of the bare model is called here.
SAME = {
    "logistic": {"weight": "numeric", "bias": "bias"},
    "hidden": {
        "0.weight": "numeric",
        "0.bias": "bias",
        "2.weight": "output.weight",
        "2.bias": "output.bias",
    },
}


class BareLoop:
    """A process that holds a workload's tensors and trains when it is asked to."""

    def __init__(self, workload: Workload, network: str, params: Path) -> None:
        self._process = subprocess.Popen(
            [
                *(sys.executable, "-m", "techlife.bench.bare"),
                *(workload.name, network, f"--params={params}"),
            ],
            cwd=ROOT,
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
        )

    def __enter__(self) -> Self:
        self._answer()  # its data are made, and torch is warm
        return self

    def __exit__(self, *error: object) -> None:
        self._process.kill()
        self._process.wait()

    def seconds_per_round(self, num_rounds: int) -> tuple[float, float]:
        """By the clock, and of the processor."""
        assert self._process.stdin is not None
        self._process.stdin.write(f"{num_rounds}\n")
        self._process.stdin.flush()
        seconds, busy = (float(figure) / num_rounds for figure in self._answer().split())
        return seconds, busy

    def _answer(self) -> str:
        assert self._process.stdout is not None
        line = self._process.stdout.readline()
        if not line:
            raise RuntimeError("the bare loop has ended; see above")
        return line


def serve(
    workload: Workload,
    network: str,
    stack: str,
    num_rounds: int,
    options: argparse.Namespace,
    params: Path,
) -> dict[str, Any]:
    """One run in a fresh installation. Raises NoServiceError."""
    with environment_of(stack, postgres=options.postgres, redis_url=options.redis) as environment:
        done = subprocess.run(
            [
                *(sys.executable, "-m", "techlife.bench.served", workload.name, network),
                *(f"--rounds={num_rounds}", f"--params={params}"),
            ],
            cwd=ROOT,
            env=environment,
            stdout=subprocess.PIPE,
            check=False,
        )
    if done.returncode:
        raise SystemExit("the served run has ended without figures; see above")
    figures: dict[str, Any] = json.loads(done.stdout.splitlines()[-1])
    return figures


@dataclass(frozen=True)
class Turn:
    """One served run, and the bare loop just before and just after it; seconds per round."""

    bare: float
    bare_cpu: float
    served: float
    figures: dict[str, Any]

    @property
    def ratio(self) -> float:
        return self.served / self.bare

    @property
    def median_ratio(self) -> float:
        """Of a round in the middle: the last one also makes a version of each hospital's own."""
        median: float = self.figures["median_round"]
        return median / self.bare

    @property
    def cpu_ratio(self) -> float:
        """Of what processors did, which other work on the machine changes little."""
        busy: float = self.figures["cpu_per_round"]
        return busy / self.bare_cpu


def bench_rounds(options: argparse.Namespace) -> None:
    """Print seconds per round, ratio and memory for each workload, network and stack."""
    head = f"{'':30}{'bare':>10}{'served':>10}{'last':>10}{'CPU':>8}{'median':>8}{'ratio':>8}  (least to most)"
    say(f"{head}{'memory':>10}  bar")
    for name in options.workload or ["small", "wide", "large"]:
        for network in options.network or NETWORKS:
            _bench_workload(WORKLOADS[name], network, options)


def _bench_workload(workload: Workload, network: str, options: argparse.Namespace) -> None:
    num_rounds = options.rounds or workload.num_rounds
    with tempfile.TemporaryDirectory(prefix="techlife-bench-") as folder:
        bare_params, served_params = Path(folder, "bare"), Path(folder, "served")
        with BareLoop(workload, network, bare_params) as bare:
            for stack in options.stack or STACKS:
                turns = []
                try:
                    for _ in range(options.turns):
                        before = bare.seconds_per_round(num_rounds)
                        served = serve(workload, network, stack, num_rounds, options, served_params)
                        after = bare.seconds_per_round(num_rounds)
                        seconds, busy = (
                            statistics.mean(pair) for pair in zip(before, after, strict=True)
                        )
                        turns.append(Turn(seconds, busy, served["seconds_per_round"], served))
                except NoServiceError as error:
                    say(f"{workload.name} {network} {stack}: not measured, {error}")
                    continue
                _check_same_steps(network, bare_params, served_params)
                _report(workload, network, stack, num_rounds, turns)


def _check_same_steps(network: str, bare: Path, served: Path) -> None:
    """Both must end in the same model, but for rounding."""
    ours, theirs = load_file(served), load_file(bare)
    for name, same in SAME[network].items():
        difference = float(np.abs(theirs[name].T - ours[same]).max())
        if difference > MAX_DIFFERENCE * float(np.abs(ours[same]).max()):
            raise AssertionError(f"not the same steps: {same} differs by {difference:g}")


def _report(
    workload: Workload, network: str, stack: str, num_rounds: int, turns: list[Turn]
) -> None:
    ratios = sorted(turn.ratio for turn in turns)
    ratio = statistics.median(ratios)
    bare = statistics.median(turn.bare for turn in turns)
    served = statistics.median(turn.served for turn in turns)
    last = statistics.median(turn.figures["last_round"] for turn in turns)
    peak = max(turn.figures["peak_bytes"] for turn in turns)
    cpu_ratio = statistics.median(turn.cpu_ratio for turn in turns)
    median_ratio = statistics.median(turn.median_ratio for turn in turns)
    bar = BARS[stack].get(workload.name)
    said = verdict(ratio, bar)
    if workload.name == "wide":
        said += f"; memory {verdict(peak / 1e9, MAX_WIDE_BYTES / 1e9)} GB"
    say(
        f"{f'{workload.name} {network} {stack}':30}{bare:>8.3f} s{served:>8.3f} s{last:>8.3f} s"
        f"{cpu_ratio:>8.2f}{median_ratio:>8.2f}{ratio:>8.2f}  ({ratios[0]:.2f} to {ratios[-1]:.2f}){gigabytes(peak):>10}  {said}"
    )
    say_json(
        what="round",
        workload=workload.name,
        network=network,
        stack=stack,
        rounds=num_rounds,
        turns=len(turns),
        bare_seconds=bare,
        seconds=served,
        median_seconds=statistics.median(turn.figures["median_round"] for turn in turns),
        first_seconds=statistics.median(turn.figures["first_round"] for turn in turns),
        last_seconds=last,
        ratio=ratio,
        ratio_min=ratios[0],
        ratio_max=ratios[-1],
        median_ratio=median_ratio,
        cpu_ratio=cpu_ratio,
        bar=bar,
        peak_bytes=peak,
    )


def bench_envoys(options: argparse.Namespace) -> None:
    """Print what an envoy costs among 50 and among 200."""
    for stack in options.stack or STACKS:
        found: dict[str, tuple[float, float]] = {}
        for workload in (WORKLOADS["envoys-50"], WORKLOADS["envoys-200"]):
            num_rounds = options.rounds or workload.num_rounds
            seconds, peaks = [], []
            with tempfile.TemporaryDirectory(prefix="techlife-bench-") as folder:
                try:
                    for _ in range(options.turns):
                        figures = serve(
                            *(workload, "logistic", stack, num_rounds, options),
                            Path(folder, "params"),
                        )
                        seconds.append(figures["seconds_per_round"] / workload.num_hospitals)
                        peaks.append(figures["peak_bytes"] / workload.num_hospitals)
                except NoServiceError as error:
                    say(f"{workload.name} {stack}: not measured, {error}")
                    break
            per_envoy, per_envoy_bytes = statistics.median(seconds), max(peaks)
            found[workload.name] = per_envoy, per_envoy_bytes
            say(
                f"{f'{workload.name} {stack}':30}{1000 * per_envoy:>8.2f} ms and"
                f" {per_envoy_bytes / 1e6:.2f} MB an envoy and round"
            )
            say_json(
                what="envoys",
                workload=workload.name,
                stack=stack,
                seconds_per_envoy=per_envoy,
                seconds_per_envoy_min=min(seconds),
                seconds_per_envoy_max=max(seconds),
                peak_bytes_per_envoy=per_envoy_bytes,
            )
        if len(found) == 2:
            few, many = found["envoys-50"], found["envoys-200"]
            say(
                f"200 envoys against 50, each: {many[0] / few[0]:.2f} times the seconds,"
                f" {many[1] / few[1]:.2f} times the memory (bar: 1)"
            )
