import math

import numpy as np
import pytest

from federated.readings import INPUTS, input_named
from federated.synthetic_readings import KINDS, InvalidRecipeError, generate

# The rules as they were asked for, once more.
RULES = {
    "wearables": lambda v: (
        0.02 * (v["aqi"] - 80)
        + 0.5 * v["smoker"]
        + 0.7 * v["chronic"]
        + 0.03 * (90 - v["spo2"])
        + 0.1 * (7 - v["sleep_hours"])
    ),
    "environment": lambda v: (
        0.02 * (v["pm25"] - 50) + 0.01 * (v["pm10"] - 80) + 0.05 * (v["no2"] - 30)
    ),
    "clinic": lambda v: (
        0.04 * (v["heart_rate"] - 80) + 0.05 * (95 - v["spo2"]) + 0.8 * v["cough"] + v["breathless"]
    ),
}
MEASURED = {
    "wearables": "heart_rate spo2 steps sleep_hours age smoker chronic aqi",
    "environment": "pm25 pm10 no2 o3 temperature humidity wind_speed",
    "clinic": "heart_rate spo2 steps age cough breathless",
}


@pytest.mark.parametrize("kind", KINDS)
def test_each_reading_follows_its_nodes_rule_and_has_all_its_inputs(kind):
    generated = generate(kind, num_rows=2000, seed=0)

    assert generated.best_accuracy == 1.0
    assert len({record.subject_id for record in generated.records}) == 2000
    for record in generated.records:
        assert list(record.values) == MEASURED[kind].split()
        # Values have one decimal, slopes two: below a ten-thousandth a sum is 0.
        assert record.outcome == (RULES[kind](record.values) > 1e-4)
    share = np.mean([record.outcome for record in generated.records])
    assert 0.2 < share < 0.8


@pytest.mark.parametrize("kind", KINDS)
def test_values_are_in_their_ranges_and_as_instruments_show_them(kind):
    for record in generate(kind, num_rows=500, seed=3).records:
        for name, value in record.values.items():
            input_named(name).check(value)
            assert round(value, 1) == value


def test_a_seed_gives_the_same_readings_and_another_seed_others():
    first, again, other = (generate("clinic", num_rows=50, seed=s) for s in (1, 1, 2))
    assert first == again
    assert [r.values for r in first.records] != [r.values for r in other.records]


def test_inputs_of_a_node_are_independent_of_each_other():
    records = generate("wearables", num_rows=20_000, seed=5).records
    columns = np.array([list(record.values.values()) for record in records])
    correlations = np.corrcoef(columns.T) - np.eye(columns.shape[1])
    assert np.abs(correlations).max() < 4 / math.sqrt(20_000)


@pytest.mark.parametrize("kind", KINDS)
def test_noise_changes_outcomes_alone_as_often_as_is_said(kind):
    clear = generate(kind, num_rows=20_000, seed=0).records
    noisy = generate(kind, num_rows=20_000, seed=0, noise=0.5)

    assert [r.values for r in noisy.records] == [r.values for r in clear]
    # Who knows the rule is right as often as no noise has turned the sum's sign.
    agreed = np.mean([a.outcome == b.outcome for a, b in zip(clear, noisy.records, strict=True)])
    assert 0.7 < agreed < 0.95
    assert agreed == pytest.approx(noisy.best_accuracy, abs=0.01)


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("noise", [0.0, 0.5])
def test_the_best_accuracy_with_gaps_is_that_of_guessing_by_complete_readings(kind, noise):
    holey = generate(kind, num_rows=400, seed=0, noise=noise, gaps=0.3)
    complete = generate(kind, num_rows=4000, seed=77).records
    others = {name: np.array([r.values[name] for r in complete]) for name in complete[0].values}
    noises = np.random.default_rng(1).normal(0, 1, 4000) * noise

    certainty = []
    for record in holey.records:
        score = RULES[kind]({**others, **record.values}) + noises  # (draws,), or one number
        p = np.mean(score > 1e-4)
        certainty.append(max(p, 1 - p))
    assert holey.best_accuracy == pytest.approx(np.mean(certainty), abs=0.01)
    assert holey.best_accuracy < 0.97


def test_gaps_leave_each_reading_a_value_and_take_the_share_asked_for():
    records = generate("environment", num_rows=5000, seed=0, gaps=0.6).records
    assert len(records) == 5000
    assert all(record.values for record in records)
    num_left = sum(len(record.values) for record in records)
    kept = 0.4 / (1 - 0.6**7)  # of the rows that are not empty
    assert num_left / (7 * 5000) == pytest.approx(kept, abs=0.01)
    without = generate("environment", num_rows=5000, seed=0).records
    assert [r.outcome for r in records] == [r.outcome for r in without]


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        ({"kind": "cars"}, "no node is called 'cars'; there are wearables, environment, clinic"),
        ({"num_rows": 0}, "at least one row, not 0"),
        ({"noise": -1}, "noise is a standard deviation from 0, not -1"),
        ({"noise": math.nan}, "noise is a standard deviation from 0, not nan"),
        ({"gaps": 1}, "gaps is a probability from 0 and below 1, not 1"),
    ],
)
def test_a_recipe_that_cannot_be_followed_is_refused(arguments, words):
    with pytest.raises(InvalidRecipeError, match=words):
        generate(**{"kind": "clinic", "num_rows": 10, "seed": 0, **arguments})


def test_every_input_of_a_node_is_in_the_table():
    assert {name for names in MEASURED.values() for name in names.split()} < {
        each.name for each in INPUTS
    }
