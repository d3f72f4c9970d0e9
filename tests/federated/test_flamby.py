import numpy as np
import pytest
import torch

from federated import flamby
from federated.errors import UnreadableDatasetError
from federated.features import TEST, TRAIN
from federated.flamby import (
    METHODS,
    SEEDS,
    Figure,
    accuracies,
    first_params,
    folds,
    make_row,
    own_scaling,
    read_hospitals,
    read_published,
    take_rows,
    train_alone,
    train_as_flamby,
)
from federated.local_training import train_locally, use_one_thread
from federated.plan import LocalTrainingConfig
from federated.seeds import rng_for
from tests.federated.builders import make_dataset
from tests.shared_data import shared_data

HEADER = (
    "site,center,row,age,sex,cp,trestbps,chol,fbs,restecg,thalach,exang,oldpeak,slope,ca,thal,num,"
    "flamby_split,target"
)


@pytest.fixture(autouse=True)
def one_thread():
    use_one_thread()


def four_patients():
    """One batch, so that the order of rows decides nothing."""
    numbers = rng_for("four patients").normal(size=(4, flamby.NUM_INPUTS))
    return make_dataset([0, 1, 1, 0], numeric=numbers)


def score(params):
    """What stands for FLamby's one score: the second class's parameters less the first's."""
    return params["numeric"] @ [-1, 1], params["bias"] @ [-1, 1]


def flambys_model(seed):
    torch.manual_seed(seed)
    return torch.nn.Linear(flamby.NUM_INPUTS, 1)


def flambys_steps(model, dataset, optimizer, num_steps):
    scaled = torch.from_numpy(own_scaling(dataset).apply(dataset.numeric))
    outcomes = torch.from_numpy(dataset.labels.astype(np.float32))[:, None]
    for _ in range(num_steps):
        optimizer.zero_grad()
        chance = torch.sigmoid(model(scaled))
        torch.nn.functional.binary_cross_entropy(chance, outcomes).backward()
        optimizer.step()


def assert_same_score(params, model, tolerance):
    weights, bias = score(params)
    assert weights == pytest.approx(model.weight.detach().numpy()[0], abs=tolerance)
    assert bias == pytest.approx(model.bias.item(), abs=tolerance)


def write_patients(folder, *rows):
    (folder / "heart_disease_4sites.csv").write_text("\n".join([HEADER, *rows]))


def test_training_starts_where_flambys_does():
    assert_same_score(first_params(42), flambys_model(42), 1e-7)


def test_half_the_learning_rate_takes_flambys_steps():
    dataset, model, params = four_patients(), flambys_model(42), first_params(42)
    flambys_steps(model, dataset, torch.optim.SGD(model.parameters(), lr=0.1), 10)
    config = LocalTrainingConfig(local_epochs=10, batch_size=4, learning_rate=0.1 / 2)
    update = train_locally(
        params, dataset, own_scaling(dataset), config, client_id="north", rng=rng_for(0)
    )
    moved = {name: value + update.delta_params[name] for name, value in params.items()}
    assert_same_score(moved, model, 1e-6)


def test_a_baseline_takes_adams_steps():
    dataset, model = four_patients(), flambys_model(42)
    flambys_steps(model, dataset, torch.optim.Adam(model.parameters(), lr=0.001), 20)
    assert_same_score(train_alone(dataset, 42, num_epochs=20), model, 1e-5)


def test_folds_hold_training_rows_alone_and_each_class_alike():
    dataset = make_dataset(
        [0] * 10 + [1] * 15, splits=[TRAIN] * 20 + [TEST] * 5, numeric=list(range(25))
    )
    seen = []
    for parts in folds({"north": dataset}, 0):
        part = parts["north"]
        held_out = part.rows(TEST)
        assert (part.num_examples, len(held_out)) == (16, 4)
        assert part.labels[held_out].sum() == 2
        seen += part.numeric[held_out, 0].tolist()
    assert sorted(seen) == list(range(20))  # the test rows are 20 to 24


def test_rows_are_taken_with_all_that_belongs_to_them():
    dataset = make_dataset([0, 1, 1], splits=[TRAIN, TEST, TRAIN], numeric=[5, 6, 7])
    taken = take_rows(dataset, np.array([2, 1]))
    assert taken.numeric.ravel().tolist() == [7, 6]
    assert taken.splits.tolist() == [TRAIN, TEST]
    assert taken.patients.tolist() == [2, 1]


def test_a_row_is_near_within_two_published_standard_deviations():
    published = Figure(0.75, 0.01)
    assert Figure(0.73, 0.5).is_near(published)
    assert not Figure(0.72, 0.5).is_near(published)


def test_a_row_says_what_each_seed_came_to():
    ours = {42: 0.75, 43: 0.5}
    row = make_row(
        "FedAvg",
        lambda seed: dict.fromkeys(flamby.TEST_SETS, ours[seed]),
        {name: [0.752, 0.5] for name in flamby.TEST_SETS},
        seeds=(42, 43),
    )
    assert row.to_text().splitlines()[-1].split("  ")[-1] == (
        "pooled test by seed, ours 0.750 0.500; FLamby 0.752 0.500"
    )
    found = row.to_json()
    assert found["by_seed"]["va"] == (0.75, 0.5)
    assert found["flambys_by_seed"]["pooled"] == (0.752, 0.5)


def test_patients_are_read_with_what_flamby_drops_on_demand(tmp_path):
    write_patients(
        tmp_path,
        "cleveland,0,0,63,1,4,145,233,1,2,150,0,2.3,3,0,6,0,train,0",
        "hungarian,1,0,50,0,1,120,0,0,0,140,1,1.0,,,,2,test,1",
        "switzerland,2,0,50,0,1,120,0,0,0,140,1,1.0,,,,2,train,1",
        "va,3,0,50,0,1,120,0,0,0,140,1,1.0,,,,2,train,1",
        "va,3,1,50,0,1,,0,0,0,140,1,1.0,,,,2,,1",  # a gap: not in FLamby's split
    )
    hospitals = read_hospitals(tmp_path)
    first = hospitals["cleveland"].numeric[0]
    assert first.tolist() == pytest.approx([63, 1, 145, 233, 1, 150, 0, 2.3, 0, 0, 1, 0, 1])
    assert hospitals["hungarian"].splits.tolist() == [TEST]
    assert len(hospitals["va"].labels) == 1
    with_gaps = read_hospitals(tmp_path, with_gaps=True)
    nan = pytest.approx(np.nan, nan_ok=True)
    assert with_gaps["cleveland"].numeric[0, 13:].tolist() == [0, 0, 0, 0, 1, 0, 1, 0, 0]
    assert with_gaps["va"].numeric[0, 13:].tolist() == [1, nan, 1, nan, nan, 1, nan, nan, 1]


def test_another_file_is_refused_and_says_why(tmp_path):
    write_patients(tmp_path, "cleveland,0,0,63,1,4,145,233,1,2,150,0,2.3,3,0,6,0,train,0")
    with pytest.raises(UnreadableDatasetError, match="no patient of hungarian"):
        read_hospitals(tmp_path)
    rows = [f"{name},0,0,old,1,4,1,1,1,2,1,0,2,3,0,6,0,train,0" for name in flamby.HOSPITALS]
    write_patients(tmp_path, *rows)
    with pytest.raises(UnreadableDatasetError, match=r"a value in .* is no number"):
        read_hospitals(tmp_path)
    (tmp_path / "heart_disease_4sites.csv").write_text(HEADER.replace("chol,", ""))
    with pytest.raises(UnreadableDatasetError, match="no column chol"):
        read_hospitals(tmp_path)
    published = tmp_path / "flamby_reference_results.csv"
    published.write_text("method,seed,test_set,accuracy\nPooled Training,42,pooled,0.8\n")
    with pytest.raises(UnreadableDatasetError, match="too few runs of Pooled Training"):
        read_published(tmp_path)


def test_the_split_is_flambys():
    hospitals = read_hospitals(shared_data("heart_disease_uci"))
    counts = [(data.num_examples, len(data.rows(TEST))) for data in hospitals.values()]
    assert counts == [(199, 104), (172, 89), (30, 16), (85, 45)]


@pytest.mark.parametrize("method", METHODS[:3], ids=lambda method: method.title)
def test_an_averaging_strategy_ends_where_flambys_run_of_the_same_seed_did(method):
    """To the patient: one of the 254 is 0.004."""
    folder = shared_data("heart_disease_uci")
    hospitals, published = read_hospitals(folder), read_published(folder)
    ours = accuracies(hospitals, train_as_flamby(hospitals, method, SEEDS[0]))
    flambys = published[method.published_as]["pooled"][0]
    assert ours["pooled"] == pytest.approx(flambys, abs=0.002)
