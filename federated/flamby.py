"""FLamby's Fed-Heart-Disease with our own functions: under its settings, and by our own recipe.

Source: du Terrail et al. 2022, arXiv:2210.04620: four hospitals, 740 patients, 13 inputs, a fixed
split. FLamby's model gives one score to a sigmoid, ours a score to each class. Their difference is
FLamby's score, and a step moves it twice as far; so learning rates are half of FLamby's, μ is twice
and τ is half of it, and then the difference takes FLamby's own steps.
"""

import argparse
import csv
import json
import math
import sys
from collections import defaultdict
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, field, replace
from itertools import product
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from federated.aggregation import ClientUpdate
from federated.architectures import initial_params
from federated.commands import output_file, refusals
from federated.datasets import ClientDataset, concatenate
from federated.errors import UnreadableDatasetError
from federated.features import TEST, TRAIN
from federated.local_training import train_locally, use_one_thread
from federated.params import Params, add, under, zeros_like
from federated.plan import LocalTrainingConfig
from federated.prediction import predict_rows
from federated.scaling import FeatureScaling, feature_statistics, pooled_scaling
from federated.seeds import rng_for
from federated.strategies import FedAdamParameters, FedProxParameters, strategy_named
from federated.strategies.server_optimizers import fedadam, first_moments

HOSPITALS = ("cleveland", "hungarian", "switzerland", "va")  # FLamby's 0 to 3
POOLED = "pooled"
TEST_SETS = (POOLED, *HOSPITALS)
SEEDS = (42, 43, 44, 45, 46)
NUM_ROUNDS = 15
LOCAL_STEPS = 100
BATCH_SIZE = 4
BASELINE_EPOCHS = 50
BASELINE_LEARNING_RATE = 0.001
BETA_1, BETA_2, TAU = 0.9, 0.999, 1e-8

NUM_FOLDS, NUM_REPETITIONS = 5, 3  # of our own recipe's cross-validation
_NETWORKS = ("logistic_regression", "shallow_network")
_WEIGHT_DECAYS = (0.0, 0.1)

_BASELINES = ("Pooled Training", *(f"Local {number}" for number in range(len(HOSPITALS))))
_PATIENTS = "heart_disease_4sites.csv"
_PUBLISHED = "flamby_reference_results.csv"
_NUMBERS = ("age", "sex", "trestbps", "chol", "fbs", "thalach", "exang", "oldpeak")
_LEVELS = {"cp": (2, 3, 4), "restecg": (1, 2)}  # without the first, which the others imply
_LEVELS_WITH_GAPS = {"slope": (2, 3), "thal": (6, 7)}
_OTHERS = (*_LEVELS, *_LEVELS_WITH_GAPS, "ca")
NUM_INPUTS = len(_NUMBERS) + sum(len(levels) for levels in _LEVELS.values())

Accuracies = dict[str, float]  # by test set


@dataclass(frozen=True)
class FederatedMethod:
    """A row of FLamby's table: its learning rate, and the strategy's parameters, for our model."""

    title: str
    published_as: str
    strategy: str
    learning_rate: float
    parameters: dict[str, Any] = field(default_factory=dict)


def _adaptive(server_learning_rate: float, **betas: float) -> dict[str, float]:
    return {"server_learning_rate": server_learning_rate / 2, "tau": TAU / 2, **betas}


METHODS = (
    FederatedMethod("FedAvg", "FedAvg100", "fedavg", 0.001 / 2),
    FederatedMethod("FedProx", "FedProx100", "fedprox", 0.001 / 2, {"mu": 0.01 * 2}),
    FederatedMethod(
        "SCAFFOLD", "Scaffold100", "scaffold", 0.001 / 2, {"weighted_by_examples": True}
    ),
    FederatedMethod(
        "FedAdam", "FedAdam100", "fedadam", 0.01 / 2, _adaptive(0.01, beta_1=BETA_1, beta_2=BETA_2)
    ),
    FederatedMethod(
        "FedYogi",
        "FedYogi100",
        "fedyogi",
        0.003162 / 2,
        _adaptive(0.01, beta_1=BETA_1, beta_2=BETA_2),
    ),
    FederatedMethod(
        "FedAdagrad",
        "FedAdagrad100",
        "fedadagrad",
        0.003162 / 2,
        _adaptive(0.316228, beta_1=BETA_1),
    ),
)


def read_hospitals(folder: Path, *, with_gaps: bool = False) -> dict[str, ClientDataset]:
    """The 740 patients of FLamby's fixed split, by hospital, with its 13 inputs.

    Args:
        with_gaps: the inputs too that FLamby drops because few hospitals know them, slope, ca and
            thal, and for each, and for a cholesterol of 0, whether it is missing: 22 inputs.
    Raises:
        UnreadableDatasetError: the file is missing, or is another.
    """
    rows = _read(folder / _PATIENTS, "site", "flamby_split", "target", *_NUMBERS, *_OTHERS)
    chosen = [row for row in rows if row["flamby_split"]]
    for name in HOSPITALS:
        if not any(row["site"] == name for row in chosen):
            raise UnreadableDatasetError(f"{_PATIENTS} has no patient of {name}")
    try:
        return {
            name: _dataset([row for row in chosen if row["site"] == name], with_gaps)
            for name in HOSPITALS
        }
    except ValueError as error:
        raise UnreadableDatasetError(f"a value in {_PATIENTS} is no number") from error


def _dataset(rows: Sequence[Mapping[str, str]], with_gaps: bool) -> ClientDataset:
    numeric = [_inputs(row) + (_inputs_with_gaps(row) if with_gaps else []) for row in rows]
    return ClientDataset(
        indices=np.zeros(0, np.int32),
        offsets=np.zeros(len(rows) + 1, np.int64),
        numeric=np.array(numeric, np.float32),
        labels=np.array([int(row["target"]) for row in rows], np.int8),
        splits=np.array(
            [TRAIN if row["flamby_split"] == "train" else TEST for row in rows], np.int8
        ),
        bands=np.zeros(len(rows), np.int8),
        patients=np.arange(len(rows), dtype=np.int32),
    )


def _inputs(row: Mapping[str, str]) -> list[float]:
    levels = [float(float(row[name]) == level) for name in _LEVELS for level in _LEVELS[name]]
    return [float(row[name]) for name in _NUMBERS] + levels


def _inputs_with_gaps(row: Mapping[str, str]) -> list[float]:
    inputs = [float(float(row["chol"]) == 0), float(row["ca"] or "nan"), float(not row["ca"])]
    for name, levels in _LEVELS_WITH_GAPS.items():
        is_missing = not row[name]
        inputs += [math.nan if is_missing else float(row[name]) == level for level in levels]
        inputs.append(float(is_missing))
    return inputs


def read_published(folder: Path) -> dict[str, dict[str, list[float]]]:
    """FLamby's accuracies by rising seed, by its name of a method and by test set.

    Raises:
        UnreadableDatasetError: the file is missing, or is another.
    """
    published: dict[str, dict[str, list[float]]] = defaultdict(lambda: defaultdict(list))
    rows = _read(folder / _PUBLISHED, "method", "seed", "test_set", "accuracy")
    try:
        for row in sorted(rows, key=lambda row: int(row["seed"])):
            published[row["method"]][row["test_set"]].append(float(row["accuracy"]))
    except ValueError as error:
        raise UnreadableDatasetError(f"a value in {_PUBLISHED} is no number") from error
    for method in (*_BASELINES, *(method.published_as for method in METHODS)):
        if any(len(published[method][name]) < 2 for name in TEST_SETS):
            raise UnreadableDatasetError(f"{_PUBLISHED} has too few runs of {method}")
    return published


def _read(path: Path, *columns: str) -> list[dict[str, str]]:
    try:
        with path.open(newline="", encoding="utf-8") as file:
            reader = csv.DictReader(file)
            rows = list(reader)
    except (OSError, UnicodeDecodeError) as error:
        raise UnreadableDatasetError(f"{path} cannot be read; --data names its folder") from error
    if missing := [name for name in columns if name not in (reader.fieldnames or ())]:
        raise UnreadableDatasetError(f"{path.name} has no column {', '.join(missing)}")
    return rows


def first_params(seed: int) -> Params:
    """FLamby's own starting point: PyTorch's `Linear(13, 1)` after `manual_seed(seed)`.

    Both PyTorch and NumPy's `RandomState` draw from MT19937; PyTorch uses the low 24 bits.
    """
    draws = np.random.RandomState(seed).randint(2**32, size=NUM_INPUTS + 1, dtype=np.uint32)
    values = ((draws % 2**24) / 2**24 * 2 - 1) / math.sqrt(NUM_INPUTS)
    by_class = np.outer(values, [-0.5, 0.5]).astype(np.float32)
    return {
        "bias": by_class[-1],
        "codes": np.zeros((0, 2), np.float32),
        "numeric": by_class[:-1],
    }


def own_scaling(dataset: ClientDataset) -> FeatureScaling:
    return pooled_scaling([feature_statistics(dataset)])


def train_alone(dataset: ClientDataset, seed: int, *, num_epochs: int = BASELINE_EPOCHS) -> Params:
    """A baseline on one data set, by Adam: FedAdam of one client and one step a round.

    Adam corrects its moments for their start at zero, which FedAdam does not; the correction is a
    factor of each step's learning rate.

    Source: Kingma & Ba 2015, arXiv:1412.6980, the end of section 2.
    """
    rows = dataset.rows(TRAIN)
    scaling = own_scaling(dataset)
    rng = rng_for(seed, "alone")
    config = LocalTrainingConfig(local_epochs=1, batch_size=BATCH_SIZE, learning_rate=1.0)
    parameters = FedAdamParameters(beta_1=BETA_1, beta_2=BETA_2, tau=TAU)
    params = first_params(seed)
    moments = first_moments(params, parameters, 1)
    steps_per_epoch = math.ceil(len(rows) / BATCH_SIZE)
    for step in range(num_epochs * steps_per_epoch):
        start = step % steps_per_epoch * BATCH_SIZE
        if start == 0:
            order = rng.permutation(rows)
        batch = take_rows(dataset, order[start : start + BATCH_SIZE])
        update = train_locally(params, batch, scaling, config, client_id="alone", rng=rng)
        correction = math.sqrt(1 - BETA_2 ** (step + 1)) / (1 - BETA_1 ** (step + 1))
        rate = BASELINE_LEARNING_RATE / 2 * correction
        parameters = replace(parameters, server_learning_rate=rate)
        params, moments = fedadam(params, moments, [update], parameters)
    return params


def take_rows(dataset: ClientDataset, rows: NDArray[np.int64]) -> ClientDataset:
    """Some rows of a data set without sparse inputs, as one that holds no other."""
    return ClientDataset(
        indices=dataset.indices,
        offsets=np.zeros(len(rows) + 1, np.int64),
        numeric=dataset.numeric[rows],
        labels=dataset.labels[rows],
        splits=dataset.splits[rows],
        bands=dataset.bands[rows],
        patients=dataset.patients[rows],
    )


def train_as_flamby(
    hospitals: Mapping[str, ClientDataset], method: FederatedMethod, seed: int
) -> Params:
    """FLamby's federation: 15 rounds of 100 local steps, each hospital scaled by itself."""
    return train_together(
        hospitals,
        {name: own_scaling(dataset) for name, dataset in hospitals.items()},
        first_params(seed),
        LocalTrainingConfig(batch_size=BATCH_SIZE, learning_rate=method.learning_rate),
        strategy_name=method.strategy,
        chosen=method.parameters,
        num_rounds=NUM_ROUNDS,
        local_steps=LOCAL_STEPS,
        seed=seed,
    )


def train_together(
    hospitals: Mapping[str, ClientDataset],
    scalings: Mapping[str, FeatureScaling],
    params: Params,
    config: LocalTrainingConfig,
    *,
    strategy_name: str,
    chosen: dict[str, Any],
    num_rounds: int,
    seed: int,
    local_steps: int | None = None,
) -> Params:
    """Rounds as `federated.rounds` takes them, but of data that no plan and no target describe.

    Args:
        params: where round 1 starts.
        chosen: the strategy's parameters that are not to have their default.
        local_steps: as `train_locally` has it.
    """
    strategy = strategy_named(strategy_name)
    parameters = strategy.make_parameters(chosen)
    state = strategy.first_state(params, parameters, len(hospitals))
    controls = {name: zeros_like(params) for name in hospitals}
    for round_number in range(1, num_rounds + 1):
        updates: list[ClientUpdate] = []
        for name in sorted(hospitals):
            update = train_locally(
                params,
                hospitals[name],
                scalings[name],
                config,
                client_id=name,
                rng=rng_for(seed, round_number, name),
                local_steps=local_steps,
                proximal_mu=parameters.mu if isinstance(parameters, FedProxParameters) else 0.0,
                controls=(under("control", state), controls[name])
                if strategy.uses_controls
                else None,
            )
            if strategy.uses_controls:
                controls[name] = add(controls[name], update.delta_control)
            updates.append(update)
        params, state = strategy.aggregate(params, state, updates, parameters)
    return params


def accuracies(hospitals: Mapping[str, ClientDataset], params: Params) -> Accuracies:
    """On each hospital's test rows, scaled by itself, and on all of them, scaled as one."""
    together = concatenate(hospitals.values())
    return {
        name: float(_are_right(params, dataset, own_scaling(dataset)).mean())
        for name, dataset in {POOLED: together, **hospitals}.items()
    }


def _are_right(
    params: Params, dataset: ClientDataset, scaling: FeatureScaling
) -> NDArray[np.bool_]:
    rows = dataset.rows(TEST)
    predicted = predict_rows(params, scaling, dataset, rows).argmax(axis=1)
    right: NDArray[np.bool_] = predicted == dataset.labels[rows]
    return right


@dataclass(frozen=True)
class Recipe:
    """Our own: FedAvg on one scaling for all (round 0), and perhaps tuning at each hospital."""

    with_gaps: bool
    is_tuned: bool
    network: str
    weight_decay: float

    @property
    def title(self) -> str:
        inputs = "22 inputs" if self.with_gaps else "13 inputs"
        return f"Ours, {inputs}{', fine-tuned' if self.is_tuned else ''}"


def recipe_accuracies(
    hospitals: Mapping[str, ClientDataset], recipe: Recipe, seed: int
) -> Accuracies:
    """Train by a recipe; the pooled accuracy is that of each patient by the own hospital's model.

    Args:
        hospitals: with the inputs that the recipe names.
    """
    scaling = pooled_scaling(feature_statistics(hospitals[name]) for name in sorted(hospitals))
    num_numeric = hospitals[HOSPITALS[0]].numeric.shape[1]
    config = LocalTrainingConfig(
        local_epochs=1, batch_size=32, learning_rate=0.1, weight_decay=recipe.weight_decay
    )
    global_params = train_together(
        hospitals,
        dict.fromkeys(hospitals, scaling),
        initial_params(
            recipe.network,
            num_sparse=0,
            num_numeric=num_numeric,
            num_classes=2,
            rng=rng_for(seed, "initial parameters"),
        ),
        config,
        strategy_name="fedavg",
        chosen={},
        num_rounds=20,
        seed=seed,
    )
    right = {}
    for name, dataset in hospitals.items():
        params = global_params
        if recipe.is_tuned:
            tuning = replace(config, local_epochs=5)
            rng = rng_for(seed, "fine-tuning", name)
            tuned = train_locally(params, dataset, scaling, tuning, client_id=name, rng=rng)
            params = add(params, tuned.delta_params)
        right[name] = _are_right(params, dataset, scaling)
    pooled = np.concatenate([right[name] for name in HOSPITALS])
    return {name: float(values.mean()) for name, values in {POOLED: pooled, **right}.items()}


def validated_accuracy(hospitals: Mapping[str, ClientDataset], recipe: Recipe) -> float:
    """By cross-validation within the training rows; test rows take no part in it."""
    return float(
        np.mean(
            [
                recipe_accuracies(fold, recipe, repetition)[POOLED]
                for repetition in range(NUM_REPETITIONS)
                for fold in folds(hospitals, repetition)
            ]
        )
    )


def folds(
    hospitals: Mapping[str, ClientDataset], repetition: int
) -> Iterator[dict[str, ClientDataset]]:
    """The training rows alone, a fifth of each hospital's taking the place of the test rows.

    Each part has as much of each class as the others, to within a patient.
    """
    orders = {}
    for name, dataset in hospitals.items():
        rows = rng_for("folds", repetition, name).permutation(dataset.rows(TRAIN))
        orders[name] = rows[np.argsort(dataset.labels[rows], kind="stable")]
    for fold in range(NUM_FOLDS):
        parts = {}
        for name, dataset in hospitals.items():
            part = take_rows(dataset, orders[name])
            part.splits[fold::NUM_FOLDS] = TEST
            parts[name] = part
        yield parts


def choose_recipes(
    by_inputs: Mapping[bool, Mapping[str, ClientDataset]],
) -> Iterator[tuple[Recipe, float]]:
    """For either set of inputs, tuned or not: the best recipe of all, with its validated accuracy.

    Args:
        by_inputs: hospitals without and `with_gaps`.
    """
    for with_gaps, is_tuned in product((False, True), repeat=2):
        recipes = [
            Recipe(with_gaps, is_tuned, network, weight_decay)
            for network, weight_decay in product(_NETWORKS, _WEIGHT_DECAYS)
        ]
        scores = [validated_accuracy(by_inputs[with_gaps], recipe) for recipe in recipes]
        best = int(np.argmax(scores))
        yield recipes[best], scores[best]


@dataclass(frozen=True)
class Figure:
    """Mean and standard deviation over the seeds."""

    mean: float
    std: float

    @classmethod
    def of(cls, values: Sequence[float]) -> "Figure":
        return cls(float(np.mean(values)), float(np.std(values, ddof=1)))

    def is_near(self, published: "Figure") -> bool:
        """Whether it lies within two of the published standard deviations."""
        return abs(self.mean - published.mean) <= 2 * published.std + 1e-9

    def __str__(self) -> str:
        return f"{self.mean:.3f} ± {self.std:.3f}"


@dataclass(frozen=True)
class Row:
    """A row of the table, by test set; FLamby's part is empty where it has no such row.

    Attributes:
        by_seed, flambys_by_seed: the accuracies that `ours` and `flambys` sum up.
    """

    title: str
    ours: dict[str, Figure]
    by_seed: dict[str, tuple[float, ...]]
    flambys: dict[str, Figure] = field(default_factory=dict)
    flambys_by_seed: dict[str, tuple[float, ...]] = field(default_factory=dict)

    def is_near(self, test_set: str) -> bool:
        return not self.flambys or self.ours[test_set].is_near(self.flambys[test_set])

    def to_text(self) -> str:
        cells = "".join(
            f"{self.ours[name]}{' ' if self.is_near(name) else '*'}  " for name in TEST_SETS
        )
        lines = [f"{self.title:<30}{'ours':<8}{cells.rstrip()}"]
        if self.flambys:
            cells = "".join(f"{self.flambys[name]}   " for name in TEST_SETS)
            lines.append(f"{'':<30}{'FLamby':<8}{cells.rstrip()}")
            ours, theirs = self.by_seed[POOLED], self.flambys_by_seed[POOLED]
            by_seed = f"ours {_three_places(ours)}; FLamby {_three_places(theirs)}"
            lines.append(f"{'':<30}pooled test by seed, {by_seed}")
        return "\n".join(lines)

    def to_json(self) -> dict[str, Any]:
        near = {name: self.is_near(name) for name in TEST_SETS} if self.flambys else None
        return {**asdict(self), "within_two_std": near}


def make_row(
    title: str,
    accuracies_of: Callable[[int], Accuracies],
    published: Mapping[str, Sequence[float]] | None = None,
    *,
    seeds: Sequence[int] = SEEDS,
) -> Row:
    """Train once a seed.

    Args:
        accuracies_of: a seed → accuracies by test set.
    """
    runs = [accuracies_of(seed) for seed in seeds]
    ours = {name: tuple(run[name] for run in runs) for name in TEST_SETS}
    flambys = {name: tuple(published[name]) for name in TEST_SETS} if published else {}
    return Row(title, _figures(ours), ours, _figures(flambys), flambys)


def _figures(by_seed: Mapping[str, Sequence[float]]) -> dict[str, Figure]:
    return {name: Figure.of(values) for name, values in by_seed.items()}


def _three_places(values: Sequence[float]) -> str:
    return " ".join(f"{value:.3f}" for value in values)


def reproduced_rows(
    hospitals: Mapping[str, ClientDataset],
    published: Mapping[str, Mapping[str, Sequence[float]]],
) -> Iterator[Row]:
    """FLamby's table, a row at a time."""
    datasets = {"Pooled": concatenate(hospitals.values())}
    datasets |= {f"Local, {name}": hospitals[name] for name in HOSPITALS}
    for (title, dataset), published_as in zip(datasets.items(), _BASELINES, strict=True):

        def alone(seed: int, dataset: ClientDataset = dataset) -> Accuracies:
            return accuracies(hospitals, train_alone(dataset, seed))

        yield make_row(title, alone, published[published_as])
    for method in METHODS:

        def together(seed: int, method: FederatedMethod = method) -> Accuracies:
            return accuracies(hospitals, train_as_flamby(hospitals, method, seed))

        yield make_row(method.title, together, published[method.published_as])


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m federated.flamby", description=__doc__)
    parser.add_argument("--data", type=Path, required=True, help="the folder of the two CSV files")
    parser.add_argument("--json", type=output_file, help="write the figures there too")
    options = parser.parse_args()
    use_one_thread()
    with refusals("federated.flamby"):
        by_inputs = {
            with_gaps: read_hospitals(options.data, with_gaps=with_gaps)
            for with_gaps in (False, True)
        }
        published = read_published(options.data)
        _say(f"{'accuracy, 5 seeds':<38}" + "".join(f"{name:<16}" for name in TEST_SETS).rstrip())
        rows = []
        for row in reproduced_rows(by_inputs[False], published):
            rows.append(row)
            _say(row.to_text())
        num_near = sum(row.is_near(POOLED) for row in rows)
        _say("* more than 2 of FLamby's standard deviations from its mean")
        _say(f"pooled test within 2 standard deviations: {num_near} of {len(rows)} rows")
        own = []
        for recipe, validated in choose_recipes(by_inputs):

            def by_recipe(seed: int, recipe: Recipe = recipe) -> Accuracies:
                return recipe_accuracies(by_inputs[recipe.with_gaps], recipe, seed)

            row = make_row(recipe.title, by_recipe)
            own.append({**row.to_json(), "recipe": asdict(recipe), "validated": validated})
            _say(row.to_text())
            chosen = f"{recipe.network}, weight decay {recipe.weight_decay:g}"
            _say(f"{'':<30}chosen by cross-validated accuracy, {validated:.3f}: {chosen}")
    if options.json:
        report = {"seeds": SEEDS, "rows": [row.to_json() for row in rows], "own": own}
        options.json.write_text(json.dumps(report, indent=2) + "\n")


def _say(line: str) -> None:
    sys.stdout.write(f"{line}\n")
    sys.stdout.flush()


if __name__ == "__main__":
    main()
