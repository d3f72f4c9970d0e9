"""What one bad hospital does to the model, by strategy: `make attack`.

Each of the largest hospitals in turn sends altered updates in every round; the model is scored on
the test patients of all hospitals, and compared with the same strategy's model without an attack.
Updates are not screened here: what screening adds is `make screening`.
"""

import argparse
import json
import os
import sys
from collections.abc import Mapping
from concurrent.futures import ProcessPoolExecutor
from dataclasses import asdict, dataclass
from functools import partial
from itertools import starmap
from multiprocessing import get_context
from pathlib import Path

import numpy as np
from tqdm import tqdm

from federated.__main__ import read_datasets
from federated.attacks import attack_by, attacks
from federated.commands import output_file, refusals
from federated.datasets import ClientDataset, concatenate
from federated.errors import InvalidPlanError, NotFiniteError
from federated.features import TEST
from federated.metrics import auroc
from federated.plan import TrainingPlan, make_plan, seed_from
from federated.prediction import predict_rows
from federated.simulation import SimulationResult, simulate
from federated.suppression import MIN_PATIENTS

STRATEGIES = ("fedavg", "median", "trimmed_mean", "multi_krum")
NUM_ATTACKERS = 5
NO_ATTACK = ""


@dataclass(frozen=True)
class Trial:
    """A federation of which one hospital may be bad.

    Attributes:
        auroc: None where the model broke down, and of under ten test patients.
    """

    strategy: str
    attack: str
    attacker: str
    auroc: float | None


_datasets: Mapping[str, ClientDataset] = {}  # of a pool's process: sent once, not with every trial


def _receive(datasets: Mapping[str, ClientDataset]) -> None:
    global _datasets
    _datasets = datasets


def _try(plan: TrainingPlan, attack: str, attacker: str, seed: int) -> Trial:
    try:
        if attack == NO_ATTACK:
            result = simulate(_datasets, plan, seed=seed, is_screened=False)
        else:
            on_update = attack_by(attack, {attacker}, seed=seed)
            result = simulate(_datasets, plan, seed=seed, on_update=on_update, is_screened=False)
        found = pooled_auroc(_datasets, result)
    except NotFiniteError:
        found = None  # honest hospitals can no longer train from what the attack made of it
    return Trial(plan.strategy, attack, attacker, found)


def pooled_auroc(datasets: Mapping[str, ClientDataset], result: SimulationResult) -> float | None:
    """AUROC over the test patients of all hospitals; None of under ten."""
    everyone = concatenate([datasets[name] for name in sorted(datasets)])
    rows = everyone.rows(TEST)
    if len(np.unique(everyone.patients[rows])) < MIN_PATIENTS:
        return None
    return auroc(everyone.labels[rows], predict_rows(result.params, result.scaling, everyone, rows))


def run_trials(
    datasets: Mapping[str, ClientDataset],
    *,
    target: str,
    num_rounds: int,
    seed: int,
    num_attackers: int | None = None,
    num_processes: int | None = None,
) -> list[Trial]:
    """Every strategy, first alone and then with each attack by each of the largest hospitals.

    Args:
        num_attackers: how many hospitals; by default five, or all where they are fewer.
    Raises:
        InvalidPlanError: there are not as many hospitals, or the plan cannot be carried out.
        TooFewUpdatesError: fewer take part than a robust strategy needs.
    """
    plans = [make_plan(target=target, strategy=s, num_rounds=num_rounds) for s in STRATEGIES]
    if num_attackers is None:
        num_attackers = min(NUM_ATTACKERS, len(datasets))
    if not 1 <= num_attackers <= len(datasets):
        raise InvalidPlanError(
            f"of {len(datasets)} hospitals, 1 to {len(datasets)} can be the bad one in turn,"
            f" not {num_attackers}"
        )
    by_size = sorted(datasets, key=lambda name: (-datasets[name].num_examples, name))
    cases = [(NO_ATTACK, "")]
    cases += [(attack, name) for attack in attacks() for name in by_size[:num_attackers]]
    trials = [(plan, attack, attacker, seed) for plan in plans for attack, attacker in cases]
    show = partial(tqdm, desc="Training", total=len(trials), leave=False, disable=None)
    if num_processes == 1:
        _receive(datasets)
        return list(show(starmap(_try, trials)))
    with ProcessPoolExecutor(
        num_processes,
        mp_context=get_context("spawn"),  # a fork would copy torch's threads half-way
        initializer=_receive,
        initargs=(datasets,),
    ) as pool:
        return list(show(pool.map(_try, *zip(*trials, strict=True))))


def moves(trials: list[Trial], strategy: str, attack: str) -> dict[str, float | None]:
    """By attacker, how far the attack moves the AUROC of a strategy; None where it broke down."""
    mine = [trial for trial in trials if trial.strategy == strategy]
    honest = next(trial.auroc for trial in mine if trial.attack == NO_ATTACK)
    return {
        trial.attacker: None if trial.auroc is None or honest is None else trial.auroc - honest
        for trial in mine
        if trial.attack == attack
    }


def table(trials: list[Trial]) -> str:
    """A line a strategy: its AUROC without an attack, and the worst move under each."""
    lines = [f"{'strategy':14}{'no attack':>10}" + "".join(f"{attack:>13}" for attack in attacks())]
    for strategy in STRATEGIES:
        honest = next(t.auroc for t in trials if (t.strategy, t.attack) == (strategy, NO_ATTACK))
        line = f"{strategy:14}{'–' if honest is None else f'{honest:.4f}':>10}"
        for attack in attacks():
            found = list(moves(trials, strategy, attack).values())
            known = [move for move in found if move is not None]
            broken = len(known) < len(found)
            if honest is None:
                line += f"{'–':>13}"
                continue
            line += f"{'no model' if broken else f'{max(known, key=abs):+.4f}':>13}"
        lines.append(line)
    return "\n".join(lines)


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m federated.attack_report", description=__doc__)
    parser.add_argument("--data", type=Path, required=True, help="a cohort folder")
    parser.add_argument("--target", default="readmitted_30d")
    parser.add_argument("--rounds", type=int, default=10)
    parser.add_argument("--seed", type=seed_from, default=0)
    parser.add_argument(
        "--attackers",
        type=int,
        help=f"how many of the largest hospitals are the bad one in turn; {NUM_ATTACKERS} or all",
    )
    parser.add_argument("--json", type=output_file, help="write every trial to this file")
    options = parser.parse_args()
    with refusals("attack"):
        datasets = read_datasets(options.data, options.target)
        trials = run_trials(
            datasets,
            target=options.target,
            num_rounds=options.rounds,
            seed=options.seed,
            num_attackers=options.attackers,
            num_processes=os.cpu_count(),
        )
    num_attackers = len({trial.attacker for trial in trials if trial.attack != NO_ATTACK})
    sys.stdout.write(
        f"AUROC of {options.target} on all test patients; under each attack, the largest move of"
        f" any of the {num_attackers} largest hospitals as the bad one\n{table(trials)}\n"
    )
    if options.json:
        options.json.write_text(json.dumps([asdict(trial) for trial in trials], indent=2) + "\n")


if __name__ == "__main__":
    main()
