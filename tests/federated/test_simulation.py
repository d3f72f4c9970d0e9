import numpy as np
import pytest

from federated import simulation
from federated.datasets import concatenate, open_dataset, save_dataset
from federated.errors import EmptyRoundError
from federated.features import TEST
from federated.metrics import auroc
from federated.params import check_finite, params_sha256, to_bytes
from federated.plan import LocalTrainingConfig
from federated.prediction import predict_rows
from federated.rounds import first_params
from federated.scaling import feature_statistics, pooled_scaling
from federated.simulation import run_round, simulate
from tests.federated.builders import make_dataset, make_hospital, make_hospitals, small_plan

NUM_NUMERIC = 6


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

    def note_order(plan, global_params, updates):
        seen.extend(update.client_id for update in updates)
        return global_params

    monkeypatch.setattr(simulation, "next_params", note_order)
    run_round(first_params(plan, seed=0), hospitals, plan, scaling, seed=0, round_number=1)
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
def test_an_obvious_signal_is_found(network):
    plan = small_plan(network=network, num_rounds=5, local_training=LocalTrainingConfig(2, 16, 0.5))
    result = simulate(make_hospitals(), plan, seed=0)
    unseen = make_hospital(300, prefix="unseen")
    rows = unseen.rows(TEST)
    probabilities = predict_rows(result.params, result.scaling, unseen, rows)
    assert auroc(unseen.labels[rows], probabilities) == 1.0


def test_each_finished_round_is_reported():
    finished: list[int] = []
    simulate(make_hospitals(), small_plan(num_rounds=3), seed=0, on_round=finished.append)
    assert finished == [1, 2, 3]


def test_a_longer_run_begins_as_the_shorter_one():
    one, two, again = (
        simulate(make_hospitals(), small_plan(num_rounds=rounds), seed=0) for rounds in (1, 2, 1)
    )
    assert one.final_sha256 == again.final_sha256 != two.final_sha256
