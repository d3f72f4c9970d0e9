import itertools
from typing import Any

import numpy as np
import pytest

from federated.datasets import build_dataset
from federated.metrics import UNDEFINED, measure
from federated.schemas import feature_schema
from federated.subgroups import age_bands, ages_of, by_subgroup, sexes_of
from federated.suppression import SuppressedTable, suppress
from tests.federated.builders import make_record


def one_way(*counts):
    table = suppress(np.array(counts))
    return table.cells, table.total


def test_a_table_without_small_cells_is_shown_as_it_is():
    assert one_way(10, 20, 30) == ([10, 20, 30], 60)
    assert suppress(np.array([[20, 30], [40, 50]])) == SuppressedTable(
        [[20, 30], [40, 50]], [50, 90], [60, 80], 140
    )


@pytest.mark.parametrize(
    ("counts", "cells", "total"),
    [
        # 63 - 20 - 40 would be 3: the next smallest goes with it.
        ((3, 20, 40), [None, None, 40], 63),
        # Two are hidden already, and their sum, 9 + 8, is of more than ten.
        ((9, 8, 40), [None, None, 40], 57),
        # Their sum, 3 + 4, would be of a group of seven.
        ((3, 4, 40, 50), [None, None, None, 50], 97),
        # Nought says as much of the group as a small number.
        ((0, 12, 50), [None, None, 50], 62),
        # All together are too few.
        ((3, 4), [None, None], None),
        ((3,), [None], None),
        # The smallest of two that are equal: the first.
        ((3, 20, 20), [None, None, 20], 43),
    ],
)
def test_a_hidden_cell_is_not_the_only_one(counts, cells, total):
    assert one_way(*counts) == (cells, total)


def test_a_table_of_nothing_is_all_hidden():
    assert one_way() == ([], None)


def test_of_a_two_way_table_no_margin_gives_a_hidden_cell_away():
    found = suppress(np.array([[3, 20, 40], [30, 25, 50], [60, 70, 80]]))
    # 3 goes with the 20 of its row and the 30 of its column; those with the 25 where they meet.
    assert found == SuppressedTable(
        cells=[[None, None, 40], [None, None, 50], [60, 70, 80]],
        row_totals=[63, 105, 210],
        column_totals=[93, 115, 170],
        total=378,
    )


def test_a_small_margin_is_hidden_and_not_alone():
    found = suppress(np.array([[2, 3], [50, 60], [70, 80]]))
    assert found.row_totals == [None, None, 150]  # 265 - 110 - 150 would be 5
    assert found.cells == [[None, None], [None, None], [70, 80]]
    assert (found.column_totals, found.total) == ([122, 143], 265)


def shown_counts(full, found):
    """The table with margins, NaN where hidden."""
    rows = [[*row, total] for row, total in zip(found.cells, found.row_totals, strict=True)]
    rows.append([*found.column_totals, found.total])
    shown = np.array(rows, dtype=float)
    assert (np.isnan(shown) | (shown == full)).all()
    return shown


@pytest.mark.parametrize("seed", range(20))
def test_no_hidden_count_follows_from_those_shown(seed):
    """For each hidden count another table, with the same counts shown, has another there."""
    rng = np.random.default_rng(seed)
    table = rng.poisson(rng.choice([4, 30], size=(4, 3), p=[0.3, 0.7]))
    margins = np.append(table, table.sum(axis=1, keepdims=True), axis=1)
    full = np.append(margins, margins.sum(axis=0, keepdims=True), axis=0)
    hidden = np.isnan(shown_counts(full, suppress(table)))
    assert hidden[full < 10].all()
    # Changes of the inner cells that leave what is shown as it is: the null space of its sums.
    effects = []
    for cell in itertools.product(range(4), range(3)):
        change = np.zeros((5, 4))
        change[cell] = change[cell[0], 3] = change[4, cell[1]] = change[4, 3] = 1
        effects.append(change.ravel())
    effect = np.array(effects).T  # (counts with margins, inner cells)
    _, singular, directions = np.linalg.svd(effect[~hidden.ravel()])
    free = directions[int((singular > 1e-9).sum()) :]
    can_change = np.abs(effect @ free.T).max(axis=1, initial=0) > 1e-9
    assert can_change[hidden.ravel()].all()


def make_rows(**sizes):
    """Groups of so many patients, whose labels and probabilities take turns."""
    groups = np.repeat(list(sizes), list(sizes.values()))
    labels = np.arange(len(groups)).astype(np.int8) % 2
    rng = np.random.default_rng(0)
    probabilities = rng.dirichlet([1, 1], len(groups)).astype(np.float32)
    return labels, probabilities, np.arange(len(groups), dtype=np.int32), groups


def test_a_group_of_nine_has_no_figures_and_the_next_smallest_none_either():
    labels, probabilities, patients, groups = make_rows(north=9, south=30, west=20)
    found = by_subgroup(labels, probabilities, patients, groups, seed=0)
    assert (found["north"].num_patients, found["north"].metrics) == (None, UNDEFINED)
    assert (found["west"].num_patients, found["west"].metrics) == (None, UNDEFINED)
    assert found["south"].num_patients == 30
    south = groups == "south"
    assert found["south"].metrics == measure(labels[south], probabilities[south])
    assert found["north"].to_json()["auroc"] is None


def with_outcome(**groups):
    """Groups of so many patients, of whom so many have the outcome."""
    labels = [number < ill for size, ill in groups.values() for number in range(size)]
    _, *rest = make_rows(**{name: size for name, (size, _) in groups.items()})
    return np.array(labels, np.int8), *rest


def test_a_group_with_nine_deaths_has_no_figures_nor_has_the_smallest_beside_it():
    found = by_subgroup(
        *with_outcome(young=(99, 9), middle=(200, 50), old=(300, 90)), num_resamples=50, seed=0
    )
    assert {name: each.num_patients for name, each in found.items()} == {
        "young": 99,
        "middle": 200,
        "old": 300,
    }
    told = {name: each.metrics.accuracy is not None for name, each in found.items()}
    # Of all less the old and the middle, the nine would be left.
    assert told == {"young": False, "middle": False, "old": True}
    assert set(found["young"].to_json()["intervals"].values()) == {None}
    enough = by_subgroup(
        *with_outcome(young=(99, 10), middle=(200, 50), old=(300, 90)), num_resamples=50, seed=0
    )
    assert all(each.metrics.accuracy is not None for each in enough.values())


def test_groups_are_hidden_until_those_without_figures_have_ten_of_each_outcome_together():
    def told(**groups):
        found = by_subgroup(*with_outcome(**groups), num_resamples=50, seed=0)
        return {name for name, each in found.items() if each.metrics.brier is not None}

    # 4 and 3 deaths are 7 together; 4 and 7 are eleven.
    assert told(a=(50, 4), b=(60, 3), c=(70, 30), d=(80, 40)) == {"d"}
    assert told(a=(50, 4), b=(60, 7), c=(70, 30), d=(80, 40)) == {"c", "d"}
    # Of one sex alone nobody died.
    assert told(female=(60, 0), male=(70, 30)) == set()


def test_the_figures_of_a_group_have_intervals():
    labels, probabilities, patients, groups = make_rows(north=300, south=200)
    found = by_subgroup(labels, probabilities, patients, groups, seed=0)
    for name, each in found.items():
        rows = groups == name
        figures: dict[str, Any] = measure(labels[rows], probabilities[rows]).to_json()
        for figure, interval in each.intervals.items():
            assert interval is not None
            assert interval.low < interval.estimate < interval.high
            assert interval.estimate == pytest.approx(figures[figure], abs=1e-6)
        error = (figures["accuracy"] * (1 - figures["accuracy"]) / rows.sum()) ** 0.5
        accuracy = each.to_json()["intervals"]["accuracy"]
        assert accuracy["high"] - accuracy["low"] == pytest.approx(2 * 1.96 * error, rel=0.15)


def test_a_group_counts_patients_and_not_admissions():
    labels, probabilities, patients, groups = make_rows(north=30, south=30)
    patients[:30] //= 4  # eight patients
    found = by_subgroup(labels, probabilities, patients, groups, seed=0)
    assert found["north"].num_patients is None


def test_ages_fall_into_bands_by_their_lower_end():
    ages = np.array([0, 17.9, 18, 39, 40, 65, 80, 101, np.nan], np.float32)
    assert age_bands(ages).tolist() == [
        "under 18",
        "under 18",
        "18–39",
        "18–39",
        "40–64",
        "65–79",
        "80 and over",
        "80 and over",
        "unknown",
    ]


def test_age_and_sex_are_read_from_the_inputs():
    schema = feature_schema("risk_tier")
    people = [("F", 70.0), (None, None), ("M", 30.0), ("F", 50.0)]
    dataset = build_dataset(
        (
            make_record(f"p{number}", sex=sex, age=age, risk_tier=0)
            for number, (sex, age) in enumerate(people)
        ),
        schema,
    )
    rows = np.array([0, 1, 2])
    assert sexes_of(dataset, rows, schema).tolist() == ["female", "unknown", "male"]
    assert age_bands(ages_of(dataset, rows, schema)).tolist() == ["65–79", "unknown", "18–39"]
    nobody = np.array([], np.int64)
    assert sexes_of(dataset, nobody, schema).tolist() == []
