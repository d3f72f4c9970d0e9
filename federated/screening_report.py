"""How often screening holds an honest update, and whether it finds a bad hospital: `make screening`.

First runs in which everybody is honest, each with a seed of its own. Then each of the largest
hospitals in turn alters its updates, in every round or from a later one on. An attack is caught if
the first altered update is held; once that has happened, the hospital's later ones are held too.
"""

import argparse
import json
import os
import sys
from collections.abc import Iterable, Mapping
from concurrent.futures import ProcessPoolExecutor
from dataclasses import asdict, dataclass, field
from functools import partial
from itertools import starmap
from multiprocessing import get_context
from pathlib import Path

from tqdm import tqdm

from federated.__main__ import read_datasets
from federated.aggregation import ClientUpdate
from federated.attack_report import NO_ATTACK, NUM_ATTACKERS, pooled_auroc
from federated.attacks import attack_by, attacks
from federated.commands import output_file, refusals
from federated.datasets import ClientDataset
from federated.errors import InvalidPlanError
from federated.plan import TrainingPlan, add_run_arguments, plan_of
from federated.screening import Screening
from federated.simulation import simulate

HONEST_RUNS = 20
MAX_FALSE_ALARMS = 0.02


@dataclass(frozen=True)
class Case:
    """A run to try: with one bad hospital from a round on, or with none."""

    seed: int
    attack: str = NO_ATTACK
    attacker: str = ""
    first_round: int = 1


@dataclass(frozen=True)
class Outcome:
    """What screening did in a run.

    Attributes:
        num_rounds: that were screened.
        num_honest: updates of honest hospitals; those before the attack are among them.
        num_honest_held: of these, held: false alarms, and what was held because of one.
        honest_reasons: why, each with its hospital and round.
        rounds_held: of the altered updates, the rounds in which they were held.
        auroc: on the test patients of all hospitals; None of under ten.
    """

    case: Case
    num_rounds: int
    num_honest: int
    num_honest_held: int
    honest_reasons: list[str] = field(default_factory=list)
    rounds_held: list[int] = field(default_factory=list)
    auroc: float | None = None

    @property
    def is_caught(self) -> bool:
        """In the first round of the attack."""
        return self.case.first_round in self.rounds_held

    @property
    def share_held(self) -> float:
        """Of all altered updates."""
        return len(self.rounds_held) / (self.num_rounds - self.case.first_round + 1)


_datasets: Mapping[str, ClientDataset] = {}  # of a pool's process: sent once, not with every run


def _receive(datasets: Mapping[str, ClientDataset]) -> None:
    global _datasets
    _datasets = datasets


def _try(plan: TrainingPlan, case: Case) -> Outcome:
    return try_case(_datasets, plan, case)


def try_case(datasets: Mapping[str, ClientDataset], plan: TrainingPlan, case: Case) -> Outcome:
    """Run the federation once, screened."""
    honest, held, bad_rounds = 0, [], []
    altered = attack_by(case.attack, {case.attacker}, seed=case.seed) if case.attack else None

    def on_update(update: ClientUpdate, round_number: int) -> ClientUpdate:
        if altered is None or round_number < case.first_round:
            return update
        return altered(update, round_number)

    def on_screening(screenings: Mapping[str, Screening], round_number: int) -> None:
        nonlocal honest
        for name, screening in screenings.items():
            if name == case.attacker and round_number >= case.first_round:
                if screening.is_outlier:
                    bad_rounds.append(round_number)
                continue
            honest += 1
            if screening.is_outlier:
                held.append(f"{name}, round {round_number}: {screening.reason}")

    result = simulate(
        datasets, plan, seed=case.seed, on_update=on_update, on_screening=on_screening
    )
    return Outcome(
        case=case,
        num_rounds=plan.num_rounds,
        num_honest=honest,
        num_honest_held=len(held),
        honest_reasons=held,
        rounds_held=bad_rounds,
        auroc=pooled_auroc(datasets, result),
    )


def cases_of(
    datasets: Mapping[str, ClientDataset],
    *,
    seed: int,
    honest_runs: int,
    first_rounds: Iterable[int],
    num_attackers: int | None,
) -> list[Case]:
    """Raises InvalidPlanError: there are not as many hospitals."""
    if num_attackers is None:
        num_attackers = min(NUM_ATTACKERS, len(datasets))
    if not 0 <= num_attackers <= len(datasets):
        raise InvalidPlanError(
            f"of {len(datasets)} hospitals, up to {len(datasets)} can be the bad one in turn,"
            f" not {num_attackers}"
        )
    by_size = sorted(datasets, key=lambda name: (-datasets[name].num_examples, name))
    return [
        *(Case(seed + number) for number in range(honest_runs)),
        *(
            Case(seed, attack, attacker, first_round)
            for first_round in first_rounds
            for attack in attacks()
            for attacker in by_size[:num_attackers]
        ),
    ]


def run_cases(
    datasets: Mapping[str, ClientDataset],
    plan: TrainingPlan,
    cases: list[Case],
    *,
    num_processes: int | None = None,
) -> list[Outcome]:
    show = partial(tqdm, desc="Training", total=len(cases), leave=False, disable=None)
    if num_processes == 1:
        _receive(datasets)
        return list(show(starmap(_try, [(plan, case) for case in cases])))
    with ProcessPoolExecutor(
        num_processes,
        mp_context=get_context("spawn"),  # a fork would copy torch's threads half-way
        initializer=_receive,
        initargs=(datasets,),
    ) as pool:
        return list(show(pool.map(_try, [plan] * len(cases), cases)))


def table(outcomes: list[Outcome]) -> str:
    """False alarms, then a line an attack, with the worst of its attackers."""
    honest = [outcome for outcome in outcomes if outcome.case.attack == NO_ATTACK]
    num_honest = sum(outcome.num_honest for outcome in honest)
    num_held = sum(outcome.num_honest_held for outcome in honest)
    lines = []
    if num_honest:
        rate = num_held / num_honest
        lines.append(
            f"Nobody bad: {num_held} of {num_honest:,} updates held in"
            f" {sum(outcome.num_rounds for outcome in honest)} rounds, {rate:.2%}"
            f" (bar {MAX_FALSE_ALARMS:.0%})"
        )
    before = next((outcome.auroc for outcome in honest), None)
    bad = [outcome for outcome in outcomes if outcome.case.attack != NO_ATTACK]
    if bad:
        lines += [
            f"AUROC without an attack: {'–' if before is None else f'{before:.4f}'}",
            f"{'attack':12}{'from round':>11}{'caught':>9}{'held':>8}{'honest held':>13}"
            f"{'AUROC moves':>13}",
        ]
    for first_round, attack in dict.fromkeys((o.case.first_round, o.case.attack) for o in bad):
        mine = [o for o in bad if (o.case.first_round, o.case.attack) == (first_round, attack)]
        moves = [o.auroc - before for o in mine if o.auroc is not None and before is not None]
        shown_move = f"{max(moves, key=abs):+.4f}" if moves else "–"
        lines.append(
            f"{attack:12}{first_round:>11}"
            f"{f'{sum(o.is_caught for o in mine)}/{len(mine)}':>9}"
            f"{sum(o.share_held for o in mine) / len(mine):>8.0%}"
            f"{sum(o.num_honest_held for o in mine):>13}"
            f"{shown_move:>13}"
        )
    return "\n".join(lines)


def main() -> None:
    parser = argparse.ArgumentParser(
        prog="python -m federated.screening_report", description=__doc__
    )
    parser.add_argument("--data", type=Path, required=True, help="a cohort folder")
    add_run_arguments(parser)
    parser.add_argument(
        "--honest-runs", type=int, default=HONEST_RUNS, help="with a seed each, from --seed on"
    )
    parser.add_argument(
        "--attack-from", type=int, nargs="*", default=[1], help="in which rounds attacks begin"
    )
    parser.add_argument(
        "--attackers",
        type=int,
        help=f"how many of the largest hospitals are the bad one in turn; {NUM_ATTACKERS} or all",
    )
    parser.add_argument("--json", type=output_file, help="write every run to this file")
    options = parser.parse_args()
    with refusals("screening"):
        plan = plan_of(vars(options))
        if odd := [number for number in options.attack_from if not 1 <= number <= plan.num_rounds]:
            raise InvalidPlanError(
                f"an attack begins in one of the rounds 1 to {plan.num_rounds}, not {odd[0]}"
            )
        datasets = read_datasets(options.data, options.target)
        cases = cases_of(
            datasets,
            seed=options.seed,
            honest_runs=options.honest_runs,
            first_rounds=options.attack_from,
            num_attackers=options.attackers,
        )
        outcomes = run_cases(datasets, plan, cases, num_processes=os.cpu_count())
    sys.stdout.write(
        f"{options.target}, {options.network}, {options.strategy}, {plan.num_rounds} rounds a run;"
        " caught: attackers whose first altered update was held; held: of all their altered"
        f" updates\n{table(outcomes)}\n"
    )
    for outcome in outcomes:
        for reason in outcome.honest_reasons:
            sys.stdout.write(f"held though honest: {reason}\n")
    if options.json:
        plain = [asdict(outcome) for outcome in outcomes]
        options.json.write_text(json.dumps(plain, indent=2) + "\n")


if __name__ == "__main__":
    main()
