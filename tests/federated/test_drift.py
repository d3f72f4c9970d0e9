import json
import math

import numpy as np
import pytest
from scipy.stats import chi2, entropy, norm  # type: ignore[import-untyped]

from federated import drift
from federated.drift import (
    MIN_COMPARED,
    bin_edges,
    compare,
    compare_all,
    distribution,
    distributions,
    population_stability,
)
from federated.readings import INPUT_NAMES, INPUTS, input_named

AQI = input_named("aqi").scale


def normals(num, *, mean=AQI[0], deviation=AQI[1], seed=0):
    """Exactly normal: the quantiles, shuffled, so that mean and deviation are as asked for."""
    places = (np.arange(num) + 0.5) / num
    values = mean + deviation * norm.ppf(places)
    return np.random.default_rng(seed).permutation(values)


def flags(num, share):
    return (np.arange(num) < num * share).astype(float)


def test_the_index_is_the_hand_calculation():
    # Half a reading more in each bin: 50.5 of 101 then, 70.5 and 30.5 of 101 now.
    expected = (70.5 / 101 - 0.5) * math.log(70.5 / 50.5) + (30.5 / 101 - 0.5) * math.log(
        30.5 / 50.5
    )
    found = population_stability(np.array([50, 50]), np.array([70, 30]))
    assert found == pytest.approx(expected, rel=1e-12)
    assert found == pytest.approx(0.1659, abs=1e-4)


def test_the_index_is_the_relative_entropy_both_ways():
    before, now = np.array([10, 40, 80, 0]), np.array([30, 5, 60, 20])
    both = entropy(now + 0.5, before + 0.5) + entropy(before + 0.5, now + 0.5)
    assert population_stability(before, now) == pytest.approx(both, rel=1e-12)
    assert population_stability(before, 3 * before) < 0.01


def test_the_limit_of_the_index_is_the_chi_square_quantile():
    for degrees in (3, 5, 10, 19):
        exact = chi2.isf(drift._PER_FIGURE, degrees)
        assert drift._chi_square_limit(degrees) == pytest.approx(exact, rel=0.02)
    exact = chi2.isf(drift._PER_FIGURE, 1)
    assert exact < drift._chi_square_limit(1) < 1.04 * exact


@pytest.mark.parametrize("each", INPUTS, ids=lambda each: each.name)
def test_the_bins_are_those_of_the_input_and_equally_probable(each):
    edges = bin_edges(each)
    if each.is_flag:
        assert edges.tolist() == [0.5]
        return
    assert (np.diff(edges) > 0).all()
    assert (edges > each.low).all()
    assert (edges < each.high).all()
    mean, deviation = each.scale
    inside = normals(20_000, mean=mean, deviation=1.5 * deviation)
    shares = np.histogram(inside, [-np.inf, *edges, np.inf])[0] / 20_000
    assert shares[1:-1] == pytest.approx(0.05, abs=0.001)


def test_what_a_node_releases_is_counts_and_moments_that_json_keeps():
    values = np.append(normals(400), [np.nan] * 100)
    released = distribution("aqi", values)
    assert json.loads(json.dumps(released)) == released
    assert (released["num_rows"], released["num_readings"]) == (500, 400)
    assert sum(released["counts"]) == 400
    assert released["mean"] == pytest.approx(np.nanmean(values))
    assert released["squared_deviations"] == pytest.approx(400 * np.nanvar(values))


def test_no_released_count_is_of_fewer_than_ten_people():
    rng = np.random.default_rng(3)
    people = rng.integers(60, size=500)
    values = 70 + 40 * rng.normal(size=60)[people]  # each person's own, day by day
    released = distribution("aqi", values, people)
    of_bin = np.searchsorted(
        released["starts"], drift._bins_of(input_named("aqi"), values), "right"
    )
    for each in np.unique(of_bin):
        assert len(np.unique(people[of_bin == each])) >= 10
    assert len(released["counts"]) < len(distribution("aqi", values)["counts"])


def test_of_fewer_than_ten_people_no_count_and_no_moment_is_released():
    released = distribution("aqi", normals(300), np.arange(300) % 9)
    assert (released["counts"], released["mean"]) == ([], None)
    assert released["squared_deviations"] is None
    found = compare("aqi", released, normals(300, mean=500))
    assert (found.psi, found.shift, found.is_alert) == (None, None, False)


def test_the_shift_is_in_standard_deviations_of_what_was_trained_on():
    before, now = normals(1000, deviation=20), normals(500, mean=80, deviation=60)
    found = compare("aqi", distribution("aqi", before), now)
    assert found.shift == pytest.approx((now.mean() - before.mean()) / before.std())
    assert found.num_readings == 500
    down = compare("aqi", distribution("aqi", before), before - 10)
    assert down.shift == pytest.approx(-10 / before.std())


@pytest.mark.parametrize(
    ("shift", "num_newest", "is_alert"),
    [
        (0.0, 500, False),
        (0.5, 500, True),
        (-0.5, 500, True),
        (0.3, 100, False),  # chance reaches 0.37 with so few
        (0.3, 500, True),
        (0.15, 10_000, False),  # far beyond chance, and too small to act upon
    ],
)
def test_an_alert_is_beyond_chance_and_worth_acting_upon(shift, num_newest, is_alert):
    reference = distribution("aqi", normals(1400))
    newest = normals(num_newest, mean=AQI[0] + shift * AQI[1], seed=1)
    found = compare("aqi", reference, newest)
    assert found.is_alert is is_alert, found


def test_a_change_of_shape_that_leaves_the_mean_alone_is_seen_by_the_index():
    reference = distribution("aqi", normals(1400))
    halves = np.append(normals(250, mean=30, deviation=5), normals(250, mean=110, deviation=5))
    found = compare("aqi", reference, halves)
    assert found.alerts == ["psi"]
    assert found.shift == pytest.approx(0, abs=0.05)


def test_bins_that_the_newest_have_left_count_in_the_index():
    reference = distribution("aqi", normals(1400))
    one_place = np.full(500, AQI[0])
    found = compare("aqi", reference, one_place)
    assert found.psi is not None
    assert found.psi > 3
    assert "shift" not in found.alerts


def test_flags_drift_in_their_share():
    reference = distribution("smoker", flags(1400, 0.2))
    assert not compare("smoker", reference, flags(500, 0.22)).is_alert
    found = compare("smoker", reference, flags(500, 0.4))
    assert found.shift == pytest.approx(0.2 / 0.4, abs=0.01)
    assert set(found.alerts) == {"psi", "shift"}


def test_an_input_that_is_measured_less_often_is_an_alert_of_its_own():
    reference = distribution("aqi", normals(1000))
    newest = normals(500)
    newest[:100] = np.nan
    found = compare("aqi", reference, newest)
    assert found.share_known == pytest.approx(-0.2)
    assert "share_known" in found.alerts
    newest[:100] = normals(100)
    newest[:30] = np.nan  # six in a hundred: not worth acting upon
    assert compare("aqi", reference, newest).alerts == []


def test_a_share_that_chance_explains_is_no_alert():
    half = normals(1000)
    half[:500] = np.nan
    reference = distribution("aqi", half)
    newest = np.append(normals(350), np.full(250, np.nan))  # 8 in a hundred more
    assert compare("aqi", reference, newest).share_limit == pytest.approx(0.1)
    few = np.append(normals(124), np.full(76, np.nan))  # 12 in a hundred more, of 200
    found = compare("aqi", reference, few)
    assert found.share_known == pytest.approx(0.12)
    assert found.share_limit == pytest.approx(0.129, abs=0.001)
    assert found.alerts == []


@pytest.mark.parametrize("num_newest", range(MIN_COMPARED, 200, 9))
def test_whatever_their_number_all_readings_count_in_some_bin(num_newest):
    reference = distribution("aqi", normals(1400))
    before, now = drift._common_counts(input_named("aqi"), reference, normals(num_newest))
    assert (before.sum(), now.sum()) == (1400, num_newest)
    assert (before * num_newest / 1400 >= 10).all()


def test_inputs_that_come_and_go_are_compared_too():
    before = np.full((1000, len(INPUT_NAMES)), np.nan)
    newest = np.full((500, len(INPUT_NAMES)), np.nan)
    aqi, spo2, age = (INPUT_NAMES.index(name) for name in ("aqi", "spo2", "age"))
    before[:, aqi] = normals(1000)
    before[:, age] = newest[:, age] = 40
    newest[:, spo2] = 97
    found = compare_all(distributions(before), newest)
    assert sorted(found) == ["age", "aqi", "spo2"]
    assert (found["aqi"].share_known, found["aqi"].alerts) == (-1, ["share_known"])
    assert (found["spo2"].share_known, found["spo2"].alerts) == (1, ["share_known"])
    # A value that never varied has no standard deviation to count in.
    assert (found["age"].shift, found["age"].is_alert) == (None, False)


def test_too_few_values_are_not_compared():
    reference = distribution("aqi", normals(1000))
    few = normals(MIN_COMPARED - 1, mean=500)
    found = compare("aqi", reference, few)
    assert (found.psi, found.shift, found.is_alert) == (None, None, False)
    assert compare("aqi", reference, normals(MIN_COMPARED, mean=500)).is_alert
