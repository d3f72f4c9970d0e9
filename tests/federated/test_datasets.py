from dataclasses import fields
from itertools import pairwise

import numpy as np
import pytest

from federated import datasets
from federated.datasets import (
    UNLABELLED,
    ClientDataset,
    DatasetSource,
    build_dataset,
    concatenate,
    open_dataset,
    register,
    save_dataset,
    source_named,
)
from federated.errors import SchemaMismatchError, UnknownDatasetError, UnreadableDatasetError
from federated.features import TEST, TRAIN, VALIDATION
from federated.schemas import feature_schema
from tests.federated.builders import make_dataset, make_hospital, make_record, subjects_in

SCHEMA = feature_schema("risk_tier")


def assert_equal(left: ClientDataset, right: ClientDataset) -> None:
    for field in fields(ClientDataset):
        first, second = getattr(left, field.name), getattr(right, field.name)
        assert first.dtype == second.dtype
        np.testing.assert_array_equal(first, second)


def sparse_lists(dataset: ClientDataset) -> list[list[int]]:
    bounds = dataset.offsets.tolist()
    return [dataset.indices[start:end].tolist() for start, end in pairwise(bounds)]


# Building


def test_admissions_become_rows_in_their_order():
    dataset = build_dataset(
        [
            make_record("p1", "1", codes=["I10"], age=50.0, risk_tier=0),
            make_record("p1", "2", codes=["I10"] * 5, age=51.0, risk_tier=2),
            make_record("p2", "3", codes=[], age=80.0),
        ],
        SCHEMA,
    )
    assert dataset.labels.tolist() == [0, 2, UNLABELLED]
    assert dataset.patients.tolist() == [0, 0, 1]
    assert dataset.bands.tolist() == [0, 2, 0]
    assert dataset.numeric.shape == (3, len(SCHEMA.numeric_inputs))
    assert dataset.numeric[:, SCHEMA.numeric_inputs.index("age")].tolist() == [50, 51, 80]
    names = [{SCHEMA.sparse_inputs[index] for index in row} for row in sparse_lists(dataset)]
    assert "primary code I10" in names[1]
    assert {name for name in names[2] if "unknown" not in name} == set()


def test_only_rows_with_an_outcome_are_examples_and_a_patient_counts_once():
    train, validation = subjects_in(TRAIN, 2), subjects_in(VALIDATION, 1)
    dataset = build_dataset(
        [
            make_record(train[0], "1", risk_tier=1),
            make_record(train[0], "2", risk_tier=1),
            make_record(train[1], "3"),
            make_record(validation[0], "4", risk_tier=1),
        ],
        SCHEMA,
    )
    assert dataset.rows(TRAIN).tolist() == [0, 1]
    assert dataset.rows(VALIDATION).tolist() == [3]
    assert dataset.rows(TEST).tolist() == []
    assert dataset.num_examples == 2
    assert dataset.num_labelled_patients == 2


def test_a_patient_of_two_hospitals_is_on_one_side_of_the_split():
    patients = [f"p{number}" for number in range(50)]
    north = build_dataset((make_record(name, "1") for name in patients), SCHEMA)
    south = build_dataset((make_record(name, "2") for name in reversed(patients)), SCHEMA)
    assert set(north.splits.tolist()) == {TRAIN, VALIDATION, TEST}
    assert north.splits.tolist() == south.splits.tolist()[::-1]


def test_a_hospital_without_admissions_is_an_empty_dataset():
    empty = build_dataset([], SCHEMA)
    assert empty.numeric.shape == (0, len(SCHEMA.numeric_inputs))
    assert empty.offsets.tolist() == [0]
    assert (empty.num_examples, empty.num_labelled_patients) == (0, 0)


def test_sparse_inputs_of_chosen_rows_come_in_the_order_asked_for():
    dataset = make_dataset([0, 0, 0, 0], sparse=[[1, 2], [], [3], [4, 5, 6]])
    indices, starts = dataset.sparse_rows(np.array([3, 1, 0]))
    assert indices.tolist() == [4, 5, 6, 1, 2]
    assert starts.tolist() == [0, 3, 3]
    nothing = dataset.sparse_rows(np.array([], np.int64))
    assert [part.tolist() for part in nothing] == [[], []]


# All hospitals as one


def test_hospitals_are_joined_row_by_row_and_their_patients_kept_apart():
    north = make_dataset([0, 1], sparse=[[1], [2, 3]], numeric=[5, 6], patients=[0, 1])
    nobody = make_dataset([])
    south = make_dataset([2, 0, 1], sparse=[[], [4], [5]], numeric=[7, 8, 9], patients=[0, 0, 1])
    joined = concatenate([north, nobody, south])
    assert sparse_lists(joined) == [[1], [2, 3], [], [4], [5]]
    assert joined.labels.tolist() == [0, 1, 2, 0, 1]
    assert joined.numeric.ravel().tolist() == [5, 6, 7, 8, 9]
    assert joined.patients.tolist() == [0, 1, 2, 2, 3]
    assert_equal(concatenate([north]), north)


# Files


def test_saved_arrays_are_opened_as_they_were_built(tmp_path):
    dataset = make_hospital(10)
    save_dataset(dataset, tmp_path / "arrays" / "north", schema_sha256="s1")
    opened = open_dataset(tmp_path / "arrays" / "north", schema_sha256="s1")
    assert_equal(opened, dataset)
    assert isinstance(opened.indices.base, np.memmap)


def test_an_empty_hospital_can_be_saved_and_opened(tmp_path):
    empty = build_dataset([], SCHEMA)
    save_dataset(empty, tmp_path / "north", schema_sha256="s1")
    assert_equal(open_dataset(tmp_path / "north", schema_sha256="s1"), empty)


def test_saving_twice_keeps_one_copy_and_leaves_nothing_unfinished(tmp_path):
    for _ in range(2):  # another worker may have built the same
        save_dataset(make_hospital(10), tmp_path / "north", schema_sha256="s1")
    assert [path.name for path in tmp_path.iterdir()] == ["north"]
    assert_equal(open_dataset(tmp_path / "north", schema_sha256="s1"), make_hospital(10))


def test_arrays_that_cannot_be_put_in_place_leave_nothing_behind(tmp_path):
    (tmp_path / "north").write_text("a file where a folder belongs")
    with pytest.raises(NotADirectoryError):
        save_dataset(make_hospital(10), tmp_path / "north", schema_sha256="s1")
    assert [path.name for path in tmp_path.iterdir()] == ["north"]


def test_arrays_of_another_schema_are_refused(tmp_path):
    folder = tmp_path / "north"
    save_dataset(make_hospital(10), folder, schema_sha256="a" * 64)
    open_dataset(folder, schema_sha256="a" * 64)
    with pytest.raises(SchemaMismatchError, match=r"inputs a{12}, the study has b{12}: "):
        open_dataset(folder, schema_sha256="b" * 64)


def test_arrays_that_nobody_saved_are_not_there(tmp_path):
    with pytest.raises(UnreadableDatasetError):
        open_dataset(tmp_path / "north", schema_sha256="a")


# Sources


def test_a_source_is_found_under_its_name_and_an_unknown_one_refused(monkeypatch):
    monkeypatch.setattr(datasets, "_sources", {})
    source = DatasetSource(
        schema=feature_schema,
        freeze=lambda envoy_id, user_id: 1,
        export=lambda snapshot_id: None,
        build=lambda snapshot_id, target, heartbeat: make_hospital(3),
        count_labelled_patients=lambda envoy_id, target, at_most: 3,
    )
    register("wearables", source)
    register("diagnoses", source)
    assert source_named("wearables") is source
    with pytest.raises(UnknownDatasetError, match="'scans'; there are diagnoses, wearables"):
        source_named("scans")
