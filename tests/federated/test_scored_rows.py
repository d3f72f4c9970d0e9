import numpy as np
import pytest

from federated.metrics import UNDEFINED
from federated.scored_rows import join, told_together
from tests.federated.builders import score


def of_patients(num_patients, **models):
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
    assert of_patients(9).measure("global") == UNDEFINED
    assert of_patients(10).measure("global").brier == pytest.approx(0.25)
    assert of_patients(10).measure("local") == UNDEFINED
