import numpy as np
import pytest

from federated.metrics import UNDEFINED
from federated.scored_rows import join, told_together
from tests.federated.builders import score


def of_patients(num_patients, **models):
    """Half of them with the outcome."""
    labels = [number % 2 for number in range(num_patients)]
    models = models or {"global": 0.5}
    return score(labels, **{model: [p] * num_patients for model, p in models.items()})


@pytest.mark.parametrize(
    ("sizes", "counted"),
    [
        ({"north": 30, "south": 20}, {"north", "south"}),
        # The figure of all less that of the others would be the small one's.
        ({"north": 30, "south": 20, "west": 9}, {"north", "south"}),
        ({"north": 30, "south": 4, "west": 5}, {"north"}),
        # Of ten patients of two hospitals, nobody can tell whose they are.
        ({"north": 30, "south": 4, "west": 6}, {"north", "south", "west"}),
        ({"north": 6, "south": 6}, {"north", "south"}),
        ({"north": 30, "empty": 0}, {"north"}),
    ],
)
def test_small_hospitals_count_together_only_where_they_are_ten_patients(sizes, counted):
    hospitals = {name: of_patients(size) for name, size in sizes.items()}
    assert set(told_together(hospitals)) == counted


def test_rows_of_hospitals_are_joined_with_the_models_that_all_of_them_have():
    joined = join([of_patients(3, **{"global": 0.5, "local": 0.6}), of_patients(2)])
    assert set(joined.probabilities) == {"global"}
    assert joined.labels.tolist() == [0, 1, 0, 0, 1]
    assert joined.num_patients == 5  # whose numbers were 0 to 2 and 0 to 1
    assert joined.patients.dtype == np.int32


def test_of_nine_patients_nothing_is_measured():
    together = join([of_patients(4), of_patients(5)])
    assert together.measure("global") == UNDEFINED
    assert together.untold_because == "too few patients"
    together = join([of_patients(5), of_patients(5)])
    assert together.measure("global").brier == pytest.approx(0.25)
    assert together.measure("local") == UNDEFINED


def test_of_one_hospital_figures_are_told_where_every_outcome_has_ten_patients():
    assert of_patients(19).measure("global") == UNDEFINED
    assert of_patients(19).untold_because == "under 10 patients with one of the outcomes"
    assert of_patients(20).measure("global").brier == pytest.approx(0.25)
    # All together, where they are one hospital's, are that one's.
    assert join([of_patients(19)]).measure("global") == UNDEFINED
