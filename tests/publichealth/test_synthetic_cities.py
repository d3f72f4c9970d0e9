from collections import defaultdict

import numpy as np
import pytest

from federated.readings import input_named
from federated.synthetic_cities import CITIES, CITY_INPUTS, draw_city
from federated.synthetic_readings import generate


def draw_all(num_each: int, **more):
    """{input: values} over a day in all cities, and {city: mean PM2.5}."""
    columns, levels = defaultdict(list), {}
    for city in CITIES:
        rng = np.random.default_rng(len(city.name) * 100 + ord(city.name[0]))
        rows = [draw_city(city, hour=24 * i / num_each, rng=rng, **more) for i in range(num_each)]
        levels[city.name] = np.mean([row["pm25"] for row in rows])
        for row in rows:
            for name, value in row.items():
                columns[name].append(value)
    return {name: np.array(values) for name, values in columns.items()}, levels


def psi(one, two) -> float:
    """Population stability index over tenths of the first."""
    edges = np.unique(np.quantile(one, np.linspace(0, 1, 11)[1:-1]))
    counts = [
        np.bincount(np.searchsorted(edges, each), minlength=len(edges) + 1) for each in (one, two)
    ]
    p, q = (np.maximum(count / count.sum(), 1e-4) for count in counts)
    return float(np.sum((p - q) * np.log(p / q)))


def test_a_reading_has_all_inputs_in_their_ranges():
    for city in CITIES:
        values = draw_city(city, hour=3.5, rng=np.random.default_rng(0))
        assert tuple(values) == CITY_INPUTS
        for name, value in values.items():
            input_named(name).check(value)


def test_all_cities_together_look_like_the_nodes_that_a_model_learns_from():
    cities, _ = draw_all(600)
    for kind in ("environment", "wearables"):
        records = generate(kind, num_rows=5000, seed=4).records
        for name in records[0].values:
            usual = np.array([record.values[name] for record in records])
            assert psi(usual, cities[name]) < 0.05, name
            assert abs(cities[name].mean() - usual.mean()) < 0.1 * usual.std(), name


def test_cities_differ_in_their_air_and_lahores_is_the_worst():
    _, levels = draw_all(300)
    assert max(levels, key=levels.__getitem__) == "Lahore"
    assert levels["Lahore"] > 1.5 * levels["Quetta"]


def test_an_hour_is_like_any_other():
    rng = np.random.default_rng(0)
    for name in ("pm25", "temperature"):
        means = [
            np.mean([draw_city(CITIES[1], hour=hour, rng=rng)[name] for _ in range(2000)])
            for hour in (3, 15)
        ]
        usual = [
            record.values[name] for record in generate("environment", num_rows=5000, seed=1).records
        ]
        assert abs(means[1] - means[0]) < 0.3 * np.std(usual), name


@pytest.mark.parametrize("name", ["heart_rate", "temperature", "sleep_hours", "smoker"])
@pytest.mark.parametrize("shift", [0.5, -0.4])
def test_a_shifted_input_is_moved_by_so_many_standard_deviations_and_no_other(name, shift):
    usual, _ = draw_all(500)
    moved, _ = draw_all(500, shift={name: shift})
    for other in CITY_INPUTS:
        distance = (moved[other].mean() - usual[other].mean()) / usual[other].std()
        expected = shift if other == name else 0
        assert distance == pytest.approx(expected, abs=0.08), other
