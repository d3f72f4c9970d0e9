import numpy as np
import pytest

from federated import simulation
from federated.attacks import attack_by, attacks
from federated.datasets import concatenate, open_dataset, save_dataset
from federated.errors import EmptyRoundError, TooFewUpdatesError
from federated.features import TEST
from federated.metrics import auroc
from federated.params import check_finite, params_sha256, to_bytes
from federated.plan import LocalTrainingConfig
from federated.prediction import predict_rows
from federated.rounds import first_params
from federated.scaling import feature_statistics, pooled_scaling
from federated.simulation import run_round, simulate
from federated.strategies import strategies
from tests.federated.builders import make_dataset, make_hospital, make_hospitals, small_plan

NUM_NUMERIC = 6
FIVE_HOSPITALS = make_hospitals() | {
    "east": make_hospital(60, prefix="e"),
    "centre": make_hospital(45, prefix="c"),
}


def good_plan(**changes):
    return small_plan(num_rounds=5, local_training=LocalTrainingConfig(2, 16, 0.5), **changes)


def auroc_of(result):
    """Of a run's model, on patients it has not seen."""
    unseen = make_hospital(300, prefix="unseen")
    rows = unseen.rows(TEST)
    return auroc(unseen.labels[rows], predict_rows(result.params, result.scaling, unseen, rows))


def nobody():
    return make_dataset([], numeric=np.zeros((0, NUM_NUMERIC)))


@pytest.mark.parametrize("network", ["logistic_regression", "shallow_network"])
def test_equal_runs_end_in_equal_bits(network):
    plan = small_plan(network=network)
    first, again, other = (simulate(make_hospitals(), plan, seed=seed) for seed in (0, 0, 1))
    assert to_bytes(first.params) == to_bytes(again.params)
    assert first.scaling == again.scaling
    assert first.final_sha256 == again.final_sha256 == params_sha256(first.params)
    assert first.final_sha256 != other.final_sha256


def test_the_order_of_the_hospitals_does_not_matter():
    hospitals = make_hospitals()
    turned = dict(reversed(hospitals.items()))
    assert list(turned) != list(hospitals)
    first, second = (simulate(given, small_plan(), seed=0) for given in (hospitals, turned))
    assert first.final_sha256 == second.final_sha256
    assert first.client_ids == second.client_ids == ("north", "south", "west")


def test_the_updates_of_a_round_come_in_order_of_name(monkeypatch):
    hospitals = dict(reversed(make_hospitals().items()))
    plan = small_plan()
    seen: list[str] = []
    scaling = pooled_scaling(feature_statistics(dataset) for dataset in hospitals.values())

    def note_order(plan, global_params, updates, server_state):
        seen.extend(update.client_id for update in updates)
        return global_params, server_state

    monkeypatch.setattr(simulation, "next_params", note_order)
    run_round(
        first_params(plan, seed=0),
        hospitals,
        plan,
        scaling,
        seed=0,
        round_number=1,
        server_state={},
        client_states={},
    )
    assert seen == ["north", "south", "west"]


def test_arrays_mapped_from_files_end_in_the_same_bits(tmp_path):
    mapped = {}
    for name, dataset in make_hospitals().items():
        save_dataset(dataset, tmp_path / name, schema_sha256="s")
        mapped[name] = open_dataset(tmp_path / name, schema_sha256="s")
    in_memory = simulate(make_hospitals(), small_plan(), seed=0)
    assert simulate(mapped, small_plan(), seed=0).final_sha256 == in_memory.final_sha256


@pytest.mark.parametrize(
    "absent",
    [nobody(), make_hospital(19, prefix="q"), make_dataset([-1] * 30, numeric=[[0] * 6] * 30)],
    ids=["empty", "too small", "without outcomes"],
)
def test_a_hospital_that_cannot_take_part_sits_out_and_changes_nothing(absent):
    without = simulate(make_hospitals(), small_plan(), seed=0)
    beside = simulate({"absent": absent, **make_hospitals()}, small_plan(), seed=0)
    assert beside.client_ids == ("north", "south", "west")
    assert beside.final_sha256 == without.final_sha256
    assert beside.scaling == without.scaling


@pytest.mark.parametrize("hospitals", [{}, {"north": nobody()}, {"north": make_hospital(19)}])
def test_a_run_in_which_nobody_can_take_part_is_refused(hospitals):
    with pytest.raises(EmptyRoundError, match="no hospital sent feature statistics"):
        simulate(hospitals, small_plan(), seed=0)


def test_a_hospital_with_one_class_takes_part():
    hospitals = make_hospitals() | {"hospice": make_hospital(40, prefix="h", tiers=[2])}
    result = simulate(hospitals, small_plan(), seed=0)
    assert "hospice" in result.client_ids
    check_finite(result.params)


def test_the_scaling_is_that_of_all_training_rows_together():
    result = simulate(make_hospitals(), small_plan(), seed=0)
    everyone = concatenate(make_hospitals().values())
    at_once = pooled_scaling([feature_statistics(everyone)])
    assert result.scaling.mean == pytest.approx(at_once.mean)
    assert result.scaling.std == pytest.approx(at_once.std)


@pytest.mark.parametrize("network", ["logistic_regression", "shallow_network"])
@pytest.mark.parametrize("strategy", [strategy.name for strategy in strategies()])
def test_an_obvious_signal_is_found(strategy, network):
    result = simulate(FIVE_HOSPITALS, good_plan(strategy=strategy, network=network), seed=0)
    assert auroc_of(result) == 1.0


@pytest.mark.parametrize("strategy", [strategy.name for strategy in strategies()])
def test_a_strategy_ends_in_equal_bits_whatever_the_order_of_the_hospitals(strategy):
    plan = small_plan(strategy=strategy)
    turned = dict(reversed(FIVE_HOSPITALS.items()))
    first, second = (simulate(given, plan, seed=0) for given in (FIVE_HOSPITALS, turned))
    assert to_bytes(first.params) == to_bytes(second.params)


def test_only_what_is_said_to_equal_fedavg_ends_in_its_bits():
    names = [strategy.name for strategy in strategies()]
    bits = {
        name: simulate(FIVE_HOSPITALS, small_plan(strategy=name), seed=0).final_sha256
        for name in names
    }
    assert len(set(bits.values())) == len(names)
    still = small_plan(strategy="fedprox", strategy_parameters={"mu": 0})
    assert simulate(FIVE_HOSPITALS, still, seed=0).final_sha256 == bits["fedavg"]


def test_a_stronger_proximal_term_keeps_the_model_nearer_to_where_it_started():
    sizes = []
    for mu in (0, 1, 3):
        plan = small_plan(strategy="fedprox", strategy_parameters={"mu": mu})
        result = simulate(FIVE_HOSPITALS, plan, seed=0)  # it starts at zero
        sizes.append(sum(float((value**2).sum()) for value in result.params.values()))
    assert sizes[0] > sizes[1] > sizes[2]


@pytest.mark.parametrize("attack", attacks())
@pytest.mark.parametrize("strategy", ["median", "trimmed_mean", "multi_krum"])
def test_a_robust_strategy_withstands_one_bad_hospital(strategy, attack):
    on_update = attack_by(attack, {"north"}, seed=0)
    plan = good_plan(strategy=strategy)
    result = simulate(FIVE_HOSPITALS, plan, seed=0, on_update=on_update, is_screened=False)
    assert auroc_of(result) == 1.0


@pytest.mark.parametrize(
    ("strategy", "is_moved"),
    [("fedavg", True), ("median", False), ("trimmed_mean", False), ("multi_krum", False)],
)
def test_noise_about_codes_that_no_hospital_has_moves_fedavg_alone(strategy, is_moved):
    plan = small_plan(strategy=strategy)
    on_update = attack_by("random", {"north"}, seed=0)
    honest = simulate(FIVE_HOSPITALS, plan, seed=0).params["codes"]
    result = simulate(FIVE_HOSPITALS, plan, seed=0, on_update=on_update, is_screened=False)
    attacked = result.params["codes"]
    unknown = ~honest.any(axis=1)
    assert unknown.sum() > 1000
    assert attacked[unknown].any() == is_moved


def test_a_run_with_too_few_hospitals_for_its_strategy_is_refused():
    simulate(FIVE_HOSPITALS, small_plan(strategy="multi_krum"), seed=0)
    with pytest.raises(TooFewUpdatesError, match="num_bad = 1 needs 5 updates or more, not 3"):
        simulate(make_hospitals(), small_plan(strategy="multi_krum"), seed=0)


def test_each_finished_round_is_reported():
    finished: list[int] = []
    simulate(make_hospitals(), small_plan(num_rounds=3), seed=0, on_round=finished.append)
    assert finished == [1, 2, 3]


def test_a_longer_run_begins_as_the_shorter_one():
    one, two, again = (
        simulate(make_hospitals(), small_plan(num_rounds=rounds), seed=0) for rounds in (1, 2, 1)
    )
    assert one.final_sha256 == again.final_sha256 != two.final_sha256
