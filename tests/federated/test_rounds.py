from dataclasses import replace

import numpy as np
import pytest

from federated.aggregation import ClientUpdate
from federated.errors import EmptyRoundError, NotFiniteError, ShapeMismatchError
from federated.features import TEST
from federated.params import params_sha256, subtract, under
from federated.rounds import (
    check_update,
    client_update,
    first_params,
    first_server_state,
    next_params,
    takes_part,
)
from federated.scaling import feature_statistics, pooled_scaling
from federated.schemas import feature_schema
from tests.federated.builders import (
    as_lists,
    make_dataset,
    make_hospital,
    make_params,
    small_plan,
)

GLOBAL = make_params(bias=[1, 2])
NOBODY_BAD = {"strategy_parameters": {"num_bad": 0}}


def update(*, num_examples=1, **delta_params):
    return ClientUpdate("north", make_params(**delta_params), num_examples)


def assert_near(first, second):
    assert sorted(first) == sorted(second)
    for name in first:
        np.testing.assert_allclose(first[name], second[name], atol=1e-6)


def trained(**changes):
    hospital = make_hospital(90)
    options = {"seed": 0, "round_number": 1, "client_id": "north", **changes}
    plan = options.pop("plan", small_plan())
    return client_update(
        plan,
        first_params(plan, seed=0),
        hospital,
        pooled_scaling([feature_statistics(hospital)]),
        **options,
    )


@pytest.mark.parametrize("network", ["logistic_regression", "shallow_network"])
def test_a_run_starts_from_parameters_that_its_seed_decides(network):
    plan = small_plan(network=network)
    first, again, other = (first_params(plan, seed=seed) for seed in (0, 0, 1))
    assert params_sha256(first) == params_sha256(again)
    assert (params_sha256(first) == params_sha256(other)) == (network == "logistic_regression")
    assert len(first["codes"]) == len(feature_schema("risk_tier").sparse_inputs)


@pytest.mark.parametrize(("target", "num_classes"), [("risk_tier", 3), ("readmitted_30d", 2)])
def test_a_model_has_as_many_outputs_as_its_target_has_classes(target, num_classes):
    assert first_params(small_plan(target=target), seed=0)["bias"].shape == (num_classes,)


def test_work_done_again_gives_the_same_bits_and_the_same_metrics():
    first, again = trained(), trained()
    assert params_sha256(first.delta_params) == params_sha256(again.delta_params)
    assert first.metrics == again.metrics
    assert set(first.metrics) == {
        "train_loss",
        "validation_loss",
        "validation_accuracy",
        "validation_auroc",
        "num_validation",
    }


@pytest.mark.parametrize("changes", [{"seed": 1}, {"round_number": 2}, {"client_id": "south"}])
def test_another_seed_round_or_hospital_sees_its_examples_in_another_order(changes):
    assert params_sha256(trained(**changes).delta_params) != params_sha256(trained().delta_params)


def test_the_metrics_are_those_of_the_model_that_the_round_started_from():
    assert trained().metrics["validation_loss"] == pytest.approx(np.log(3))  # it knew nothing yet


def test_the_next_parameters_are_those_that_the_plans_strategy_makes():
    updates = [update(bias=[4, 0]), update(num_examples=3, bias=[0, 4])]
    params, state = next_params(small_plan(), GLOBAL, updates)
    assert (as_lists(params), state) == ({"bias": [2, 5]}, {})
    params, state = next_params(small_plan(strategy="median", **NOBODY_BAD), GLOBAL, updates)
    assert (as_lists(params), state) == ({"bias": [3, 4]}, {})


def test_a_strategy_goes_on_from_its_state_of_the_last_round():
    plan = small_plan(
        strategy="fedadam", strategy_parameters={"beta_1": 0.5, "beta_2": 0.5, "tau": 1}
    )
    state = first_server_state(plan, GLOBAL, num_clients=3)
    assert as_lists(state) == {"m/bias": [0, 0], "v/bias": [1, 1]}
    for _ in range(2):
        _, state = next_params(plan, GLOBAL, [update(bias=[4, 0])], state)
    # m = 2, then 1 + 2; v = 0.5 + 8, then 4.25 + 8
    assert as_lists(state) == {"m/bias": [3, 0], "v/bias": [12.25, 0.25]}


def test_an_adaptive_server_of_the_smallest_tau_stays_finite_when_nothing_changes_any_more():
    plan = small_plan(strategy="fedadam", strategy_parameters={"beta_2": 0, "tau": 1e-12})
    params, state = GLOBAL, first_server_state(plan, GLOBAL, num_clients=2)
    for delta in (1e-23, 0.0, 0.0):  # whose square is 0 in float32
        params, state = next_params(plan, params, [update(bias=[delta, 0])] * 2, state)
    assert under("v", state)["bias"][0] == 0
    assert np.isfinite(params["bias"]).all()


@pytest.mark.parametrize(
    ("strategy", "parameters", "delta", "words"),
    [
        ("fedavg", {}, 3.4e38, "'bias' is not finite: choose a lower learning_rate"),
        (
            "scaffold",
            {"server_learning_rate": 50},
            1e37,
            "'bias' is not finite: choose a lower learning_rate or server_learning_rate",
        ),
        (
            "fedadagrad",  # the step is finite; the square of the change is not
            {},
            1e20,
            "'v/bias' is not finite: choose a lower learning_rate or server_learning_rate, or a"
            " higher tau",
        ),
    ],
)
def test_a_model_or_a_state_that_would_not_be_finite_is_refused_and_says_what_to_change(
    strategy, parameters, delta, words
):
    plan = small_plan(strategy=strategy, strategy_parameters=parameters)
    base = make_params(bias=[3e38, 0])
    state = first_server_state(plan, base, num_clients=1)

    def sent(value):
        control = {} if strategy != "scaffold" else make_params(bias=[0, 0])
        return [replace(update(bias=[value, 0]), delta_control=control)]

    next_params(plan, base, sent(1.0), state)
    with pytest.raises(NotFiniteError) as refused:
        next_params(plan, base, sent(delta), state)
    assert str(refused.value) == f"the next global model cannot be made, parameter {words}"


def test_a_state_that_is_missing_or_of_another_strategy_is_refused():
    plan = small_plan(strategy="fedadam")
    updates = [update(bias=[4, 0])]
    state = first_server_state(plan, GLOBAL, num_clients=1)
    next_params(plan, GLOBAL, updates, state)
    with pytest.raises(ShapeMismatchError, match="'m/bias' is missing"):
        next_params(plan, GLOBAL, updates)
    with pytest.raises(ShapeMismatchError, match="'m/bias' is not part of the model"):
        next_params(small_plan(), GLOBAL, updates, state)


def test_a_hospital_remembers_its_control_variate_and_sends_its_change():
    plan = small_plan(strategy="scaffold")
    state = first_server_state(plan, first_params(plan, seed=0), num_clients=1)
    first = trained(plan=plan, server_state=state)
    assert set(first.delta_control) == set(first.delta_params)
    assert_near(under("control", first.client_state), first.delta_control)  # it began at zero
    again = trained(plan=plan, server_state=state, client_state=first.client_state, round_number=2)
    assert_near(
        subtract(under("control", again.client_state), under("control", first.client_state)),
        again.delta_control,
    )
    assert trained().delta_control == trained().client_state == {}


def test_a_control_variate_that_is_missing_or_of_another_model_is_refused():
    plan = small_plan(strategy="scaffold")
    state = first_server_state(plan, first_params(plan, seed=0), num_clients=1)
    with pytest.raises(ShapeMismatchError, match="'control/bias' is missing"):
        trained(plan=plan)
    with pytest.raises(ShapeMismatchError, match="'control/codes' is missing"):
        trained(
            plan=plan, server_state=state, client_state=make_params(**{"control/bias": [0, 0, 0]})
        )
    trained(plan=plan, server_state=state)


@pytest.mark.parametrize(
    ("delta_control", "with_control", "words"),
    [
        ({}, True, "'control/bias' is missing"),
        (make_params(bias=[1]), True, "'control/bias' is float32"),
        (make_params(bias=[1, np.nan]), True, "'control/bias' is not finite"),
        (make_params(bias=[1, 2]), False, "'control/bias' is not part of the model"),
    ],
    ids=["missing", "shape", "nan", "not asked for"],
)
def test_a_control_variate_that_must_not_count_is_refused(delta_control, with_control, words):
    good = update(bias=[1, 2])
    check_update(GLOBAL, good)
    check_update(GLOBAL, replace(good, delta_control=GLOBAL), with_control=True)
    with pytest.raises((ShapeMismatchError, NotFiniteError), match=words):
        check_update(GLOBAL, replace(good, delta_control=delta_control), with_control=with_control)


@pytest.mark.parametrize(
    ("refused", "error", "words"),
    [
        (update(bias=[1, 2, 3]), ShapeMismatchError, "'bias' is float32"),
        (update(other=[1, 2]), ShapeMismatchError, "'bias' is missing"),
        (update(bias=[1, 2], other=[1]), ShapeMismatchError, "'other' is not part of the model"),
        (update(bias=[1, np.nan]), NotFiniteError, "'bias' is not finite"),
        (update(bias=[np.inf, 1]), NotFiniteError, "'bias' is not finite"),
        (update(bias=[1, 2], num_examples=0), EmptyRoundError, "north holds no example"),
        (update(bias=[1, 2], num_examples=-5), EmptyRoundError, "north holds no example"),
    ],
    ids=["shape", "name", "extra", "nan", "infinite", "no example", "negative"],
)
def test_an_update_that_must_not_count_is_refused_in_words(refused, error, words):
    check_update(GLOBAL, update(bias=[1, 2]))
    with pytest.raises(error, match=words):
        check_update(GLOBAL, refused)


def test_a_hospital_takes_part_from_the_smallest_number_of_labelled_patients():
    plan = small_plan(min_examples=20)
    enough = make_dataset([0] * 20)
    assert takes_part(plan, enough)
    assert not takes_part(plan, make_dataset([0] * 19))
    assert not takes_part(plan, make_dataset([0] * 19 + [-1]))
    assert not takes_part(plan, replace(enough, patients=np.zeros(20, np.int32)))  # one patient


def test_a_hospital_with_nobody_to_train_on_does_not_take_part():
    plan = small_plan(min_examples=1)
    assert takes_part(plan, make_dataset([0]))
    assert not takes_part(plan, make_dataset([0] * 30, splits=[TEST] * 30))
    assert not takes_part(small_plan(min_examples=0), make_dataset([]))
