"""Hospitals as they come, under each kind of strategy and both networks, with the benefit report.

What `docs/learning.md` says of them is held here and in `test_robustness.py`.
"""

import json
from dataclasses import replace

import numpy as np
import pytest

from federated import benefit
from federated.architectures import architectures
from federated.datasets import build_dataset, concatenate
from federated.errors import OneClassError
from federated.features import TEST, TRAIN, VALIDATION
from federated.params import check_finite
from federated.prediction import predict_rows
from federated.schemas import feature_schema
from federated.simulation import SimulationResult, simulate
from tests.federated.builders import (
    make_dataset,
    make_hospital,
    make_record,
    small_plan,
    split_evenly,
)

# Those that can differ: weighted by examples or not, with a state here or there, robust ones.
STRATEGIES = ("fedavg", "fedprox", "scaffold", "fedadam", "median", "trimmed_mean", "multi_krum")
NETWORKS = tuple(each.name for each in architectures())
NUM_ROUNDS = 3
SCHEMA = feature_schema("risk_tier")
AGE = SCHEMA.numeric_inputs.index("age")


def repeated(dataset, times):
    """Its admissions again and again, as other patients each time."""
    copies = [replace(dataset, patients=dataset.patients + 1000 * n) for n in range(times)]
    return concatenate(copies)


def twice(dataset):
    """Its admissions again, under the same patients."""
    return replace(concatenate([dataset] * 2), patients=np.tile(dataset.patients, 2))


def without_inputs(num_patients):
    """Neither a code, nor a number, nor a sex; the outcome alone is known."""
    return build_dataset(
        (make_record(f"blank{n}", codes=(), risk_tier=n % 3) for n in range(num_patients)), SCHEMA
    )


def without_ages(dataset):
    numeric = dataset.numeric.copy()
    numeric[:, AGE] = np.nan
    return replace(dataset, numeric=numeric)


OTHERS = {name: split_evenly(make_hospital(100, prefix=name)) for name in ("a", "b", "c", "d")}
LAST = {"e": split_evenly(make_hospital(100, prefix="e"))}
TINY = replace(make_hospital(1, prefix="tiny"), splits=np.array([TRAIN], np.int8))
ODD = {
    "one class": split_evenly(make_hospital(100, prefix="one", tiers=[2])),
    "one patient too few": make_hospital(19, prefix="few"),
    "nobody": make_dataset([], numeric=np.zeros((0, len(SCHEMA.numeric_inputs)))),
    "ten thousand times smaller": TINY,
    "small": make_hospital(20, prefix="small"),
    "duplicated patients": twice(split_evenly(make_hospital(100, prefix="twice"))),
    "no ages": without_ages(split_evenly(make_hospital(100, prefix="ages"))),
    "no inputs at all": split_evenly(without_inputs(100)),
    "nobody to test on": replace(
        make_hospital(40, prefix="train"), splits=np.full(40, TRAIN, np.int8)
    ),
}
SIT_OUT = {"one patient too few", "nobody"}


def federation(case, **changes):
    """Five hospitals and the odd one, and a plan; 10,000 times smaller it is than one of the five."""
    plan = small_plan(
        num_rounds=NUM_ROUNDS,
        local_training=replace(small_plan().local_training, batch_size=64),
        **changes,
    )
    datasets = OTHERS | LAST | {"odd": ODD[case]}
    if case == "ten thousand times smaller":
        datasets["e"] = repeated(LAST["e"], 100)
        assert len(datasets["e"].labels) == 10_000 * len(TINY.labels)
        plan = replace(
            plan,
            min_examples=len(TINY.labels),
            local_training=replace(plan.local_training, batch_size=10_000),
        )
    return datasets, plan


def report_of(datasets, plan, result):
    return benefit.benefit_report(datasets, plan, result, num_classes=3, seed=0)


def is_json_without_nan(value):
    return bool(json.dumps(value, allow_nan=False))


BASELINES: dict[tuple[object, ...], SimulationResult] = {}


def trained_once(datasets, plan, *, seed, on_round):
    """A report's pooled and local models are the same whatever the strategy of the federation."""
    ((name, dataset),) = datasets.items()
    rows = [each.tobytes() for each in (dataset.labels, dataset.numeric, dataset.splits)]
    key = (name, plan.sha256, seed, *rows)
    if key not in BASELINES:
        BASELINES[key] = simulate(datasets, plan, seed=seed, on_round=on_round)
    return BASELINES[key]


@pytest.fixture(autouse=True)
def quick_reports(monkeypatch):
    monkeypatch.setattr(benefit, "NUM_RESAMPLES", 10)
    monkeypatch.setattr(benefit, "simulate", trained_once)


@pytest.mark.parametrize("network", NETWORKS)
@pytest.mark.parametrize("strategy", STRATEGIES)
@pytest.mark.parametrize("case", ODD)
def test_an_odd_hospital_stops_nobody_and_makes_nothing_that_is_no_number(case, strategy, network):
    datasets, plan = federation(case, strategy=strategy, network=network)
    sent = []

    def on_update(update, round_number):
        check_finite(update.delta_params)
        check_finite(update.delta_control)
        assert is_json_without_nan(update.metrics)
        sent.append((round_number, update.client_id))
        return update

    result = simulate(datasets, plan, seed=0, on_update=on_update)
    taking_part = sorted(set(datasets) - ({"odd"} if case in SIT_OUT else set()))
    rounds = range(1, NUM_ROUNDS + 1)
    assert sent == [(number, name) for number in rounds for name in taking_part]
    check_finite(result.params)
    assert sorted(result.local_params) == taking_part
    for params in result.local_params.values():
        check_finite(params)  # fine-tuned, also at the smallest
    assert np.isfinite([*result.scaling.mean, *result.scaling.std]).all()

    report = report_of(datasets, plan, result)
    assert is_json_without_nan(report.to_json())
    for name in datasets:
        choice = report.choice(name, of=("global", "fine_tuned", "local"))
        assert is_json_without_nan(choice.figures_to_json())
        if name != "odd":
            figures = report.envoys[name]
            assert None not in [figures[model].auroc for model in benefit.MODELS]
    assert None not in (report.pooled_test["global"].auroc, report.mean_of_envoys["global"].auroc)


@pytest.mark.parametrize("network", NETWORKS)
@pytest.mark.parametrize("case", sorted(set(ODD) - {"ten thousand times smaller"}))
def test_an_odd_hospital_degrades_as_documented(case, network):
    datasets, plan = federation(case, network=network)
    odd = datasets["odd"]
    result = simulate(datasets, plan, seed=0)
    report = report_of(datasets, plan, result)
    figures = report.envoys["odd"]
    tested = len(np.unique(odd.patients[odd.rows(TEST)]))
    has_figures = tested >= 10 and case != "one class"
    for model in ("global", "local", "pooled", "rule_of_thumb"):
        assert (figures[model].brier is not None) == has_figures, model
        assert (figures[model].auroc is not None) == has_figures, model
        assert (figures[model].auprc is not None) == has_figures, model
    choice = report.choice("odd", of=("global", "fine_tuned", "local"))
    predictions = predict_rows(result.params, result.scaling, odd, np.arange(len(odd.labels)))
    assert np.isfinite(predictions).all()  # everybody gets the model
    match case:
        case "one class":
            assert tested >= 10
            assert report.gains["odd"].sentence.endswith("with one of the outcomes")
            assert choice.model == "global"
            assert choice.reason.startswith("All validation patients have the same outcome")
        case "one patient too few" | "nobody":
            assert "odd" not in result.local_params
            assert figures["fine_tuned"].brier is None
            assert choice.model == "global"
        case "small":
            base = simulate(datasets, replace(plan, num_rounds=NUM_ROUNDS - 1), seed=0).params
            tuned = result.local_params["odd"]
            assert any((tuned[name] != base[name]).any() for name in tuned)
        case "duplicated patients":
            assert odd.num_examples == 2 * odd.num_labelled_patients - 2 * len(
                np.unique(odd.patients[odd.splits != TRAIN])
            )
            assert report.gains["odd"].num_patients == tested
        case "no ages":
            without = simulate({**OTHERS, **LAST}, plan, seed=0).scaling
            assert result.scaling.mean[AGE] == without.mean[AGE]
            assert result.scaling.std[AGE] == without.std[AGE]
        case "no inputs at all":
            assert has_figures
            assert np.ptp(predictions, axis=0).max() == 0  # the same for all of its patients
            assert figures["global"].auroc == figures["local"].auroc == 0.5
        case "nobody to test on":
            assert "odd" in result.local_params
            assert (tested, len(odd.rows(VALIDATION))) == (0, 0)
            assert choice.model == "global"


@pytest.mark.parametrize("network", NETWORKS)
def test_federations_that_are_odd_throughout(network):
    plan = federation("small", network=network)[1]
    blank = {str(n): without_inputs(100) for n in range(3)}
    result = simulate(blank, plan, seed=0)
    check_finite(result.params)
    assert (set(result.scaling.mean), set(result.scaling.std)) == ({0.0}, {1.0})
    report = report_of(blank, plan, result)
    assert is_json_without_nan(report.to_json())
    assert report.pooled_test["global"].auroc == 0.5

    same = {str(n): make_hospital(30, prefix=str(n), tiers=[1]) for n in range(3)}
    with pytest.raises(OneClassError, match="'Medium' at every hospital"):
        simulate(same, plan, seed=0)
