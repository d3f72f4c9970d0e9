"""The defaults of local training beside their neighbours, on validation patients: `make scan-defaults`.

Loss and AUROC over the validation patients of all hospitals, after the last round of a plan that is
the default one but for its epochs, batches and learning rate. No test patient is looked at.
"""

import argparse
import sys
from collections.abc import Iterator, Mapping
from pathlib import Path

from federated.__main__ import read_datasets
from federated.commands import refusals
from federated.datasets import ClientDataset
from federated.plan import LocalTrainingConfig, TrainingPlan, make_plan, seed_from
from federated.pooled_baseline import TrainedModel, after_each_round

DEFAULT = LocalTrainingConfig()
POINTS = (
    DEFAULT,
    *(LocalTrainingConfig(learning_rate=rate) for rate in (0.1, 1.0)),
    *(LocalTrainingConfig(batch_size=size) for size in (64, 256)),
    *(LocalTrainingConfig(local_epochs=epochs) for epochs in (1, 5)),
    *(
        LocalTrainingConfig(batch_size=size, learning_rate=rate)
        for size, rate in ((64, 0.15), (256, 0.6))
    ),
)


def scan(
    datasets: Mapping[str, ClientDataset], *, target: str, num_rounds: int, seed: int
) -> Iterator[tuple[int, TrainedModel]]:
    """Each point with its seed; last the default once more, by the next seed, to tell chance.

    Raises:
        FederatedError: the plan cannot be carried out on these hospitals.
    """
    for config, its_seed in (*((point, seed) for point in POINTS), (DEFAULT, seed + 1)):
        plan = make_plan(target=target, num_rounds=num_rounds, local_training=config)
        *_, model = after_each_round(datasets, plan, seed=its_seed)
        yield its_seed, model


def line(plan: TrainingPlan, seed: int, loss: float, auroc: float | None) -> str:
    config = plan.local_training
    auroc_text = "–" if auroc is None else f"{auroc:.4f}"
    return (
        f"{config.local_epochs:>6}{config.batch_size:>7}{config.learning_rate:>6g}{seed:>6}"
        f"{loss:>10.5f}{auroc_text:>9}"
    )


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m federated.default_scan", description=__doc__)
    parser.add_argument("--data", type=Path, required=True, help="a cohort folder")
    parser.add_argument("--target", default="risk_tier")
    parser.add_argument("--rounds", type=int, default=10)
    parser.add_argument("--seed", type=seed_from, default=0)
    options = parser.parse_args()
    with refusals("scan-defaults"):
        make_plan(target=options.target, num_rounds=options.rounds)  # refused before the reading
        datasets = read_datasets(options.data, options.target)
        found = scan(datasets, target=options.target, num_rounds=options.rounds, seed=options.seed)
        lines = [line(m.plan, seed, m.validation_loss, m.validation_auroc) for seed, m in found]
    head = f"{'epochs':>6}{'batch':>7}{'rate':>6}{'seed':>6}{'loss':>10}{'AUROC':>9}"
    sys.stdout.write(
        f"{options.target}, {options.rounds} rounds: loss (nats) and AUROC on validation patients\n"
        + "\n".join([head, *lines])
        + "\n"
    )


if __name__ == "__main__":
    main()
