from dataclasses import fields

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from federated import aggregation
from federated.aggregation import ClientUpdate
from federated.attacks import attack_by, attacks
from federated.errors import (
    EmptyRoundError,
    InvalidPlanError,
    ShapeMismatchError,
    TooFewUpdatesError,
    UnknownStrategyError,
)
from federated.params import to_bytes, under
from federated.strategies import (
    FedAdagradParameters,
    FedAdamParameters,
    FedProxParameters,
    MedianParameters,
    MultiKrumParameters,
    ScaffoldParameters,
    StrategyParameters,
    TrimmedMeanParameters,
    robust,
    strategies,
    strategy_named,
)
from tests.federated.builders import as_lists, make_params

NAMES = [strategy.name for strategy in strategies()]
ROBUST = ["median", "trimmed_mean", "multi_krum"]
GLOBAL = make_params(bias=[10, 20])


def update(client_id, num_examples=1, control=None, **delta_params):
    delta_control = {} if control is None else make_params(bias=control)
    return ClientUpdate(
        client_id, make_params(**delta_params), num_examples, delta_control=delta_control
    )


# Of the two hospitals' changes, [1, 0] and [5, 4], the mean is [4, 3] by examples, [3, 2] without.
TWO = [update("north", 1, [1, 0], bias=[1, 0]), update("south", 3, [3, 2], bias=[5, 4])]


def aggregate(name, updates, parameters=None, *, state=None, global_params=GLOBAL, num_clients=2):
    strategy = strategy_named(name)
    parameters = parameters or strategy.make_parameters({})
    if state is None:
        state = strategy.first_state(global_params, parameters, num_clients)
    return strategy.aggregate(global_params, state, updates, parameters)


def changes(*values):
    """Updates of one number each, named by their place."""
    return [update(f"client {i}", bias=[value]) for i, value in enumerate(values)]


def change_of(name, updates, parameters=None):
    """What becomes of parameters that were zero."""
    zero = {key: np.zeros_like(value) for key, value in updates[0].delta_params.items()}
    params, _ = aggregate(name, updates, parameters, global_params=zero)
    return as_lists(params)


@pytest.mark.parametrize("name", ["fedavg", "fedprox"])
def test_the_server_of_fedavg_and_fedprox_adds_the_mean_weighted_by_examples(name):
    params, state = aggregate(name, TWO)
    assert as_lists(params) == {"bias": [14, 23]}
    assert to_bytes(params) == to_bytes(aggregation.fedavg(GLOBAL, TWO))
    assert state == {}


def test_fedadagrad_divides_by_the_root_of_all_squares_so_far():
    parameters = FedAdagradParameters(server_learning_rate=2, beta_1=0.5, tau=1)
    params, state = aggregate("fedadagrad", TWO, parameters)
    # m = 0.5 · [4, 3]; v = 1 + [16, 9]
    assert as_lists(state) == {"m/bias": [2, 1.5], "v/bias": [17, 10]}
    expected = [10 + 2 * 2 / (17**0.5 + 1), 20 + 2 * 1.5 / (10**0.5 + 1)]
    assert params["bias"] == pytest.approx(np.array(expected))
    _, state = aggregate("fedadagrad", TWO, parameters, state=state)
    # m = 0.5 · [2, 1.5] + 0.5 · [4, 3]; v = [17, 10] + [16, 9]
    assert as_lists(state) == {"m/bias": [3, 2.25], "v/bias": [33, 19]}


def test_fedadam_divides_by_the_root_of_a_moving_mean_of_squares():
    parameters = FedAdamParameters(server_learning_rate=2, beta_1=0.5, beta_2=0.75, tau=2)
    params, state = aggregate("fedadam", TWO, parameters)
    # m = 0.5 · [4, 3]; v = 0.75 · 2² + 0.25 · [16, 9]
    assert as_lists(state) == {"m/bias": [2, 1.5], "v/bias": [7, 5.25]}
    expected = [10 + 2 * 2 / (7**0.5 + 2), 20 + 2 * 1.5 / (5.25**0.5 + 2)]
    assert params["bias"] == pytest.approx(np.array(expected))
    _, state = aggregate("fedadam", TWO, parameters, state=state)
    # v = 0.75 · [7, 5.25] + 0.25 · [16, 9]
    assert as_lists(state) == {"m/bias": [3, 2.25], "v/bias": [9.25, 6.1875]}


def test_fedyogi_moves_its_second_moment_by_a_step_of_its_own_towards_the_square():
    parameters = FedAdamParameters(server_learning_rate=2, beta_1=0.5, beta_2=0.75, tau=4)
    updates = [update("north", bias=[8, 2])]
    params, state = aggregate("fedyogi", updates, parameters)
    # v = 4² = 16; 8² is above it: 16 + 0.25 · 64; 2² below: 16 - 0.25 · 4
    assert as_lists(state) == {"m/bias": [4, 1], "v/bias": [32, 15]}
    expected = [10 + 2 * 4 / (32**0.5 + 4), 20 + 2 * 1 / (15**0.5 + 4)]
    assert params["bias"] == pytest.approx(np.array(expected))
    _, state = aggregate("fedyogi", updates, parameters, state=state)
    assert as_lists(state) == {"m/bias": [6, 1.5], "v/bias": [48, 14]}


@pytest.mark.parametrize("name", ["fedadagrad", "fedadam", "fedyogi"])
def test_an_adaptive_server_starts_at_tau_squared(name):
    strategy = strategy_named(name)
    parameters = strategy.make_parameters({"tau": 0.5})
    assert as_lists(strategy.first_state(GLOBAL, parameters, 2)) == {
        "m/bias": [0, 0],
        "v/bias": [0.25, 0.25],
    }


def test_scaffold_moves_parameters_and_control_variate_by_plain_means():
    params, state = aggregate("scaffold", TWO)
    assert as_lists(params) == {"bias": [13, 22]}  # every hospital counts alike
    assert as_lists(state) == {"control/bias": [2, 1], "num_clients": 2}
    _, state = aggregate("scaffold", TWO, state=state)
    assert as_lists(state) == {"control/bias": [4, 2], "num_clients": 2}


def test_scaffold_steps_as_far_as_its_server_learning_rate_says():
    params, state = aggregate("scaffold", TWO, ScaffoldParameters(server_learning_rate=0.5))
    assert as_lists(params) == {"bias": [11.5, 21]}
    assert as_lists(state)["control/bias"] == [2, 1]


def test_scaffold_can_weight_both_means_by_examples():
    params, state = aggregate("scaffold", TWO, ScaffoldParameters(weighted_by_examples=True))
    assert as_lists(params) == {"bias": [14, 23]}
    assert as_lists(state)["control/bias"] == [2.5, 1.5]


def test_scaffold_remembers_the_hospitals_that_missed_a_round():
    # |S| / N = 2 / 4: the two that are absent keep their control variates, zero.
    params, state = aggregate("scaffold", TWO, num_clients=4)
    assert as_lists(params) == {"bias": [13, 22]}
    assert as_lists(state) == {"control/bias": [1, 0.5], "num_clients": 4}


def test_scaffold_refuses_an_update_without_a_control_variate():
    aggregate("scaffold", TWO)
    with pytest.raises(ShapeMismatchError, match="'control/bias' is missing"):
        aggregate("scaffold", [TWO[0], update("west", bias=[1, 1])])


@pytest.mark.parametrize(
    ("values", "expected"),
    [((1, 2, 9), 2), ((9, 1, 2), 2), ((1, 2, 4, 9), 3), ((1, 2, 1e30), 2), ((-1e30, 2, 3), 2)],
)
def test_the_median_is_the_middle_or_the_mean_of_the_two_in_the_middle(values, expected):
    assert change_of("median", changes(*values)) == {"bias": [expected]}


def test_the_median_of_two_hospitals_is_their_plain_mean():
    assert change_of("median", TWO, MedianParameters(num_bad=0)) == {"bias": [3, 2]}


def test_median_and_trimmed_mean_decide_each_coordinate_by_itself():
    updates = [
        update("a", bias=[1, 900], codes=[[5]]),
        update("b", bias=[-900, 2], codes=[[6]]),
        update("c", bias=[3, 3], codes=[[-900]]),
    ]
    for name in ("median", "trimmed_mean"):
        assert change_of(name, updates) == {"bias": [1, 3], "codes": [[5]]}


@pytest.mark.parametrize(
    ("num_bad", "expected"),
    [(0, 4), (1, 3), (2, 2)],  # (0 + 1 + 2 + 6 + 11) / 5, (1 + 2 + 6) / 3, 2
)
def test_the_trimmed_mean_leaves_out_as_many_on_either_side_as_may_be_bad(num_bad, expected):
    updates = changes(11, 0, 2, 6, 1)
    assert change_of("trimmed_mean", updates, TrimmedMeanParameters(num_bad)) == {
        "bias": [expected]
    }


def test_multi_krum_keeps_those_nearest_to_their_neighbours():
    # Of five with one bad, each is scored by its 5 - 1 - 2 = 2 nearest: 0: 1 + 4, 1: 1 + 1,
    # 2: 1 + 4, 4: 4 + 9, 10: 36 + 64.
    updates = changes(10, 0, 1, 2, 4)
    kept = {1: [1], 2: [0, 1], 3: [0, 1, 2], 4: [0, 1, 2, 4]}
    for num_kept, values in kept.items():
        mean = change_of("multi_krum", updates, MultiKrumParameters(1, num_kept))
        assert mean == {"bias": [pytest.approx(sum(values) / len(values))]}
    assert change_of("multi_krum", updates) == {"bias": [1.75]}  # all but the bad


def test_multi_krum_measures_distance_over_all_parameters():
    # The third is in the middle by its code, and far away by its bias.
    places = [(0, 0), (0, 1), (50, 2), (0, 3), (0, 4)]
    updates = [update(f"{code}", bias=[bias], codes=[[code]]) for bias, code in places]
    assert change_of("multi_krum", updates) == {"bias": [0], "codes": [[2]]}


@pytest.mark.parametrize("name", ROBUST)
def test_blocks_do_not_change_what_a_robust_strategy_finds(name, monkeypatch):
    rng = np.random.default_rng(0)
    updates = [
        update(f"{i}", bias=rng.normal(size=10), codes=rng.normal(size=(3, 3))) for i in "abcde"
    ]
    at_once = change_of(name, updates)
    monkeypatch.setattr(robust, "BLOCK_SIZE", 4)
    in_blocks = change_of(name, updates)
    for key in at_once:
        np.testing.assert_allclose(in_blocks[key], at_once[key], rtol=1e-6)


@pytest.mark.parametrize("attack", attacks())
def test_a_robust_strategy_ignores_one_wild_hospital_and_fedavg_does_not(attack):
    rng = np.random.default_rng(0)
    good = [update(f"good {i}", bias=10 + rng.normal(size=50)) for i in range(5)]
    bad = attack_by(attack, {"bad"}, seed=0)(update("bad", bias=[10] * 50), 1)
    for name in ROBUST:
        assert all(7 < value < 13 for value in change_of(name, [*good, bad])["bias"])
    # (5 · 10 - 10) / 6, (5 · 10 + 1000) / 6, or (5 · 10 + 0) / 6
    mean = np.mean(change_of("fedavg", [*good, bad])["bias"])
    assert mean == pytest.approx(
        {"sign_flip": 40, "scale_100": 1050, "random": 50}[attack] / 6, abs=0.5
    )


@pytest.mark.parametrize("name", ROBUST)
def test_a_robust_strategy_does_not_believe_a_number_of_examples(name):
    modest = changes(1, 2, 3, 4, 5)
    boastful = [*modest[:4], update("client 4", num_examples=10**6, bias=[5])]
    assert change_of(name, boastful) == change_of(name, modest)


@settings(deadline=None, max_examples=30)
@given(
    name=st.sampled_from(["median", "trimmed_mean"]),
    values=st.lists(st.integers(-1000, 1000), min_size=5, max_size=9),
    order=st.randoms(),
)
def test_median_and_trimmed_mean_lie_among_the_good_in_whatever_order(name, values, order):
    with_bad = [*values, 10**6]
    before = change_of(name, changes(*with_bad))["bias"]
    order.shuffle(with_bad)
    assert change_of(name, changes(*with_bad))["bias"] == before
    assert min(values) <= before[0] <= max(values)


@pytest.mark.parametrize(
    ("name", "parameters", "enough"),
    [
        ("median", MedianParameters(0), 1),
        ("median", MedianParameters(1), 3),
        ("median", MedianParameters(2), 5),
        ("trimmed_mean", TrimmedMeanParameters(1), 3),
        ("trimmed_mean", TrimmedMeanParameters(2), 5),
        ("multi_krum", MultiKrumParameters(0), 3),
        ("multi_krum", MultiKrumParameters(1), 5),
        ("multi_krum", MultiKrumParameters(2), 7),
        ("multi_krum", MultiKrumParameters(1, num_kept=2), 5),
        ("multi_krum", MultiKrumParameters(1, num_kept=6), 7),
    ],
)
def test_a_robust_strategy_refuses_more_bad_hospitals_than_it_can_tolerate(
    name, parameters, enough
):
    assert parameters.min_updates == enough
    change_of(name, changes(*range(enough)), parameters)
    words = f"num_bad = {parameters.num_bad} needs {enough} updates or more, not {enough - 1}"
    too_few = [*changes(*range(enough - 1)), update("without examples", 0, bias=[1])]
    with pytest.raises(TooFewUpdatesError, match=words):
        change_of(name, too_few, parameters)


@pytest.mark.parametrize("name", NAMES)
def test_updates_that_hold_no_example_are_no_round(name):
    with pytest.raises((EmptyRoundError, TooFewUpdatesError)):
        aggregate(name, [])
    with pytest.raises((EmptyRoundError, TooFewUpdatesError)):
        aggregate(name, [update(f"{i}", 0, [1, 2], bias=[1, 2]) for i in "abcde"])


@pytest.mark.parametrize("name", NAMES)
def test_an_update_of_another_model_is_refused(name):
    good = [update(i, 1, [1, 2], bias=[1, 2]) for i in "abcde"]
    aggregate(name, good)
    for bad in (update("f", 1, [1, 2], bias=[1]), update("f", 1, [1, 2], other=[1, 2])):
        with pytest.raises(ShapeMismatchError):
            aggregate(name, [*good, bad])
        with pytest.raises(ShapeMismatchError):
            aggregate(name, [bad] * 5)


@pytest.mark.parametrize("name", NAMES)
def test_aggregating_again_gives_the_same_bits_and_alters_nothing(name):
    rng = np.random.default_rng(0)
    updates = [
        update(i, n + 1, rng.normal(size=2), bias=rng.normal(size=2)) for n, i in enumerate("abcde")
    ]
    strategy = strategy_named(name)
    parameters = strategy.make_parameters({})
    _, state = aggregate(name, updates)
    given = [to_bytes(value) for value in (GLOBAL, state, updates[0].delta_params)]
    first, again = (strategy.aggregate(GLOBAL, state, iter(updates), parameters) for _ in range(2))
    assert [to_bytes(value) for value in first] == [to_bytes(value) for value in again]
    assert [to_bytes(value) for value in (GLOBAL, state, updates[0].delta_params)] == given
    assert {value.dtype for value in first[0].values()} == {np.dtype(np.float32)}
    assert {
        value.dtype
        for prefix in ("m", "v", "control")
        for value in under(prefix, first[1]).values()
    } <= {np.dtype(np.float32)}
    assert first[1].keys() == strategy.first_state(GLOBAL, parameters, 5).keys()


def test_a_strategy_says_whether_it_looks_at_single_updates():
    looking = {strategy.name for strategy in strategies() if strategy.needs_plain_updates}
    assert looking == set(ROBUST)
    assert [strategy.name for strategy in strategies() if strategy.uses_controls] == ["scaffold"]


def test_an_unknown_strategy_is_refused_with_those_there_are():
    assert strategy_named("median").title == "Median"
    with pytest.raises(UnknownStrategyError, match="'mode'; there are fedavg, fedprox, scaffold"):
        strategy_named("mode")


@pytest.mark.parametrize(
    ("parameters", "values", "words"),
    [
        (FedProxParameters, {"mu": -1}, r"mu lies in \[0, 1 / learning_rate\], not -1"),
        (FedProxParameters, {"mu": float("inf")}, r"mu lies in \[0, .*\], not inf"),
        (FedProxParameters, {"mu": float("nan")}, "mu lies in .*, not nan"),
        (FedProxParameters, {"mu": "much"}, "mu is a number, not 'much'"),
        (FedProxParameters, {"mu": True}, "mu is a number, not True"),
        (FedProxParameters, {"mu": None}, "mu is a number, not None"),
        (
            FedAdamParameters,
            {"server_learning_rate": 0},
            r"server_learning_rate lies in \(0, 100\)",
        ),
        (FedAdamParameters, {"beta_1": 1}, r"beta_1 lies in \[0, 1\), not 1"),
        (FedAdamParameters, {"beta_2": -0.1}, r"beta_2 lies in \[0, 1\), not -0.1"),
        (FedAdamParameters, {"tau": 1e-300}, r"tau lies in \[1e-12, 100\), not 1e-300"),
        (FedAdagradParameters, {"tau": float("inf")}, r"tau lies in \[1e-12, 100\), not inf"),
        (ScaffoldParameters, {"server_learning_rate": -1}, "server_learning_rate lies in"),
        (ScaffoldParameters, {"weighted_by_examples": 1}, "weighted_by_examples is true or false"),
        (MedianParameters, {"num_bad": -1}, "num_bad starts at 0, not -1"),
        (MedianParameters, {"num_bad": 1.5}, "num_bad is a whole number, not 1.5"),
        (TrimmedMeanParameters, {"num_bad": True}, "num_bad is a whole number, not True"),
        (TrimmedMeanParameters, {"num_bad": None}, "num_bad is a whole number, not None"),
        (MultiKrumParameters, {"num_kept": 0}, "num_kept starts at 1, not 0"),
        (MultiKrumParameters, {"num_kept": "all"}, "num_kept is a whole number, not 'all'"),
    ],
)
def test_parameters_out_of_range_are_refused_in_words(parameters, values, words):
    parameters()
    with pytest.raises(InvalidPlanError, match=words):
        parameters(**values)


def test_the_ends_of_a_range_that_belong_to_it_are_allowed():
    FedProxParameters(mu=0)
    FedAdamParameters(beta_1=0, beta_2=0.999, tau=1e-12)
    MultiKrumParameters(num_bad=0, num_kept=1)
    assert MultiKrumParameters().num_kept is None


@pytest.mark.parametrize("name", NAMES)
def test_a_form_finds_a_meaning_for_every_parameter(name):
    parameters = strategy_named(name).parameters
    assert all(field.metadata["meaning"] for field in fields(parameters))
    assert issubclass(parameters, StrategyParameters)


@pytest.mark.parametrize(
    ("strategy", "given", "chosen"),
    [
        ("fedavg", [], {}),
        ("fedprox", ["mu=0.5"], {"mu": 0.5}),
        ("multi_krum", ["num_bad=2", "num_kept=none"], {"num_bad": 2, "num_kept": None}),
        ("scaffold", ["weighted_by_examples=True"], {"weighted_by_examples": True}),
    ],
)
def test_parameters_are_read_as_a_command_line_has_them(strategy, given, chosen):
    found = strategy_named(strategy).read_parameters(given)
    assert found == chosen
    strategy_named(strategy).make_parameters(found)


@pytest.mark.parametrize(
    ("strategy", "given", "words"),
    [
        ("fedprox", ["mu"], "name=value, not 'mu'"),
        ("fedprox", ["=1"], "name=value, not '=1'"),
        ("fedprox", ["mu=1", "mu=2"], "mu is given twice"),
        ("fedprox", ["mu=strong"], "mu is a number, not 'strong'"),
        ("fedprox", ["mu=nan"], r"mu lies in \[0, 1 / learning_rate\], not nan"),
        ("median", ["num_bad=1.5"], "num_bad is a whole number, not '1.5'"),
        ("median", ["num_bad=none"], "num_bad is a whole number, not 'none'"),
        ("scaffold", ["weighted_by_examples=1"], "is true or false, not '1'"),
        ("median", ["mu=1"], "median has no parameter mu; its parameters: num_bad"),
    ],
)
def test_a_wrong_parameter_of_a_command_line_is_refused_in_words(strategy, given, words):
    chosen = strategy_named(strategy)
    with pytest.raises(InvalidPlanError, match=words):
        chosen.make_parameters(chosen.read_parameters(given))
