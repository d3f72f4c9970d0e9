import numpy as np
import pytest
import torch

from federated.datasets import open_dataset, save_dataset
from federated.errors import EmptyRoundError, NotFiniteError
from federated.features import TEST, TRAIN, VALIDATION
from federated.local_training import train_locally, use_one_thread, validation_metrics
from federated.params import check_finite, params_sha256, to_bytes
from federated.plan import LocalTrainingConfig
from federated.seeds import rng_for
from tests.federated.builders import AS_IS, make_dataset, make_params

ONE_STEP = LocalTrainingConfig(local_epochs=1, batch_size=8, learning_rate=1.0)
ZERO = make_params(bias=[0, 0], codes=[[0, 0], [0, 0]], numeric=[[0, 0]])


@pytest.fixture(autouse=True)
def one_thread():
    use_one_thread()


def train(dataset, *, params=ZERO, config=ONE_STEP, seed=0, **options):
    return train_locally(
        params, dataset, AS_IS, config, client_id="north", rng=rng_for(seed), **options
    )


def many_rows():
    rng = rng_for("rows")
    labels = rng.integers(0, 2, 50)
    return make_dataset(
        labels.tolist(), sparse=[[label] for label in labels], numeric=rng.normal(size=50)
    )


def test_one_step_can_be_computed_by_hand():
    # All parameters zero: both classes have probability 1/2, so each logit's gradient is ±1/2.
    update = train(make_dataset([1], sparse=[[0]], numeric=[2]))
    assert update.delta_params["bias"].tolist() == [-0.5, 0.5]
    assert update.delta_params["codes"].tolist() == [[-0.5, 0.5], [0, 0]]
    assert update.delta_params["numeric"].tolist() == [[-1, 1]]
    assert update.metrics["train_loss"] == pytest.approx(np.log(2))
    assert (update.client_id, update.num_examples) == ("north", 1)


def test_weight_decay_shrinks_parameters_before_the_step():
    config = LocalTrainingConfig(1, batch_size=8, learning_rate=0.5, weight_decay=0.5)
    params = ZERO | make_params(codes=[[0, 0], [4, 4]])
    update = train(make_dataset([1], sparse=[[0]]), params=params, config=config)
    assert update.delta_params["codes"].tolist() == [[-0.25, 0.25], [-1, -1]]  # 4 · 0.25 lost


def test_training_stops_after_local_steps_however_many_epochs_they_are():
    config = LocalTrainingConfig(local_epochs=2, batch_size=16, learning_rate=0.5)
    dataset = many_rows()  # 50: four steps an epoch
    steps: list[int] = []
    two_epochs = train(dataset, config=config, on_batch=lambda: steps.append(1))
    as_steps = train(dataset, config=config, local_steps=8)
    assert len(steps) == 8
    assert to_bytes(as_steps.delta_params) == to_bytes(two_epochs.delta_params)
    assert as_steps.metrics == two_epochs.metrics
    steps.clear()
    short = train(dataset, config=config, local_steps=5, on_batch=lambda: steps.append(1))
    assert len(steps) == 5
    assert short.num_examples == 50
    assert 0 < short.metrics["train_loss"] < np.log(2)


def test_a_proximal_term_pulls_back_to_the_global_parameters():
    config = LocalTrainingConfig(local_epochs=2, batch_size=8, learning_rate=0.5)
    dataset = make_dataset([1], sparse=[[0]], numeric=[0])
    free, held = (train(dataset, config=config, proximal_mu=mu) for mu in (0.0, 1.0))
    # Both begin by ∓0.5 · 0.5; the second step of the one that is held also takes back
    # η μ (y - x) = 0.5 · 1 · ∓0.25.
    difference = held.delta_params["bias"] - free.delta_params["bias"]
    assert difference == pytest.approx(np.array([0.125, -0.125]), abs=1e-7)
    assert to_bytes(free.delta_params) == to_bytes(train(dataset, config=config).delta_params)


def test_control_variates_correct_each_step_and_are_renewed():
    config = LocalTrainingConfig(local_epochs=1, batch_size=1, learning_rate=0.5)
    dataset = make_dataset([1, 1], sparse=[[], []])  # two steps; only the bias has a gradient
    none = ZERO
    control = ZERO | make_params(bias=[0.25, -0.25])  # c, of the server
    own = ZERO | make_params(bias=[1.0, -1.0])  # cᵢ, of the hospital
    update = train(dataset, config=config, controls=(control, own))
    # First step: gradient ±0.5 of the bias, c - cᵢ = ∓0.75, so y = -0.5 · (0.5 - 0.75) = ±0.125.
    # Second: p = 1 / (1 + e^-0.25) of the wrong class as gradient.
    p = 1 / (1 + np.exp(-0.25))
    bias = 0.125 - 0.5 * (p - 0.75)
    assert update.delta_params["bias"] == pytest.approx(np.array([bias, -bias]), abs=1e-6)
    # cᵢ⁺ = cᵢ - c + (x - y) / (2 · 0.5): the mean gradient, (0.5 + p) / 2; sent less cᵢ.
    assert own["bias"][0] + update.delta_control["bias"][0] == pytest.approx(
        1.0 - 0.25 - bias / (2 * 0.5), abs=1e-6
    )
    assert own["bias"][0] + update.delta_control["bias"][0] == pytest.approx(
        (0.5 + p) / 2, abs=1e-6
    )
    plain, zero = (
        train(dataset, config=config),
        train(dataset, config=config, controls=(none, none)),
    )
    assert to_bytes(plain.delta_params) == to_bytes(zero.delta_params)
    assert plain.delta_control == {}


def test_local_training_leaves_the_global_parameters_alone():
    before = to_bytes(ZERO)
    train(many_rows())
    assert to_bytes(ZERO) == before


@pytest.mark.parametrize("layer", [{}, {"output.bias": [0, 0], "output.weight": [[1, 0], [0, 1]]}])
def test_equal_arguments_give_equal_bits_and_another_order_does_not(layer):
    params = ZERO | make_params(**layer)
    first, again, other = (
        train(many_rows(), params=params, config=LocalTrainingConfig(2, batch_size=8), seed=seed)
        for seed in (0, 0, 1)
    )
    assert to_bytes(first.delta_params) == to_bytes(again.delta_params)
    assert first.metrics == again.metrics
    assert params_sha256(first.delta_params) != params_sha256(other.delta_params)


def test_arrays_mapped_from_files_train_to_the_same_bits(tmp_path):
    save_dataset(many_rows(), tmp_path / "north", schema_sha256="s")
    mapped = open_dataset(tmp_path / "north", schema_sha256="s")
    assert to_bytes(train(mapped).delta_params) == to_bytes(train(many_rows()).delta_params)


def test_only_labelled_training_rows_are_learned_from():
    update = train(
        make_dataset(
            [1, 0, 0, -1],
            sparse=[[0], [1], [1], [1]],
            numeric=[2, 5, 5, 5],
            splits=[TRAIN, VALIDATION, TEST, TRAIN],
        )
    )
    alone = train(make_dataset([1], sparse=[[0]], numeric=[2]))
    assert update.num_examples == 1
    assert to_bytes(update.delta_params) == to_bytes(alone.delta_params)


def test_a_sign_of_life_is_given_after_every_step():
    steps = []
    dataset = make_dataset([0, 1, 0, 1, 0])
    train(dataset, config=LocalTrainingConfig(3, batch_size=2), on_batch=lambda: steps.append(1))
    assert len(steps) == 9  # three epochs of batches of 2, 2 and 1


def test_training_lowers_the_loss():
    once, often = (
        train(many_rows(), config=LocalTrainingConfig(epochs, batch_size=8)).metrics["train_loss"]
        for epochs in (1, 20)
    )
    assert often < once < np.log(2)


def test_a_hospital_with_one_class_trains_to_finite_parameters():
    update = train(make_dataset([1] * 20), config=LocalTrainingConfig(50, learning_rate=5.0))
    check_finite(update.delta_params)
    assert update.delta_params["bias"][1] > 0 > update.delta_params["bias"][0]


@pytest.mark.parametrize(
    "dataset",
    [make_dataset([]), make_dataset([-1, -1]), make_dataset([0, 1], splits=[VALIDATION, TEST])],
    ids=["no row", "no outcome", "nobody to train on"],
)
def test_a_hospital_without_an_example_is_refused_by_name(dataset):
    train(make_dataset([0]))
    with pytest.raises(EmptyRoundError, match="north has no training example with an outcome"):
        train(dataset)


def test_training_that_diverges_is_refused():
    with pytest.raises(NotFiniteError, match="is not finite"):
        train(make_dataset([0, 1], numeric=[1e38, -1e38]), config=LocalTrainingConfig(5))


def test_a_model_is_measured_on_the_validation_patients():
    # Right of all twenty with probability 3/4, on rows to train on it would be wrong.
    params = ZERO | make_params(codes=[[np.log(3), 0], [0, np.log(3)]])
    dataset = make_dataset(
        [0, 1] * 10 + [1, 0],
        sparse=[[0], [1]] * 10 + [[0], [1]],
        splits=[VALIDATION] * 20 + [TRAIN, TRAIN],
    )
    metrics = validation_metrics(params, dataset, AS_IS)
    assert metrics == {
        "validation_loss": pytest.approx(-np.log(0.75)),
        "validation_auroc": 1.0,
        "validation_accuracy": 1.0,
        "num_validation": 20,
    }


def test_the_share_of_right_predictions_does_not_tell_of_under_ten_outcomes():
    # The model says the first class of everybody: what is left are those of the second.
    for num_second, accuracy in ((9, None), (10, 0.75)):
        labels = [1] * num_second + [0] * (3 * num_second)
        params = ZERO | make_params(bias=[1, 0])
        dataset = make_dataset(labels, splits=[VALIDATION] * len(labels))
        metrics = validation_metrics(params, dataset, AS_IS)
        assert metrics["validation_accuracy"] == accuracy
        assert metrics["validation_loss"] is not None
        assert metrics["num_validation"] == len(labels)


def test_a_figure_that_the_validation_patients_do_not_define_is_none():
    dataset = make_dataset([0] * 12, splits=[VALIDATION] * 12)
    assert validation_metrics(ZERO, dataset, AS_IS) == {
        "validation_loss": pytest.approx(np.log(2)),
        "validation_auroc": None,
        "validation_accuracy": 1.0,
        "num_validation": 12,
    }


@pytest.mark.parametrize("num_patients", [0, 1, 9])
def test_of_under_ten_validation_patients_nothing_leaves_however_many_their_admissions(
    num_patients,
):
    labels = [0, 1] * (2 * num_patients)
    patients = [row % num_patients for row in range(len(labels))]
    dataset = make_dataset(labels, splits=[VALIDATION] * len(labels), patients=patients)
    metrics = validation_metrics(ZERO, dataset, AS_IS)
    assert metrics == {
        "validation_loss": None,
        "validation_auroc": None,
        "validation_accuracy": None,
        "num_validation": None,
    }


def test_a_process_trains_with_one_thread():
    assert torch.get_num_threads() == 1
