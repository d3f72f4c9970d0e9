import json
import re
from dataclasses import fields, replace
from typing import Any

import pytest

from federated.errors import (
    InvalidPlanError,
    UnknownNetworkError,
    UnknownStrategyError,
    UnknownTargetError,
)
from federated.icd import vocabulary_sha256
from federated.plan import (
    LEAVES_THE_HOSPITAL,
    LocalTrainingConfig,
    TrainingPlan,
    make_plan,
    plan_sha256,
)
from federated.rounds import client_update, first_params
from federated.scaling import feature_statistics, pooled_scaling
from federated.schemas import feature_schema
from tests.federated.builders import make_hospital

PLAN = make_plan(target="risk_tier")
CHANGES: dict[str, Any] = {
    "study": "other-study",
    "dataset": "wearables",
    "target": "readmitted_30d",
    "target_definition": "Another one.",
    "network": "shallow_network",
    "strategy": None,  # see below: it changes with its parameters
    "strategy_parameters": None,
    "num_rounds": 11,
    "local_training": LocalTrainingConfig(local_epochs=7),
    "min_examples": 21,
    "min_contributors": 4,
    "schema_sha256": "0" * 64,
    "vocabulary_sha256": "0" * 64,
    "leaves_the_hospital": ("everything",),
    "stays_in_the_hospital": (),
}


def through_json(plan):
    return json.loads(json.dumps(plan.to_json()))


@pytest.mark.parametrize(
    "plan",
    [
        PLAN,
        make_plan(
            target="died_in_hospital",
            network="shallow_network",
            num_rounds=3,
            local_training=LocalTrainingConfig(1, 8, 0.1, 0.01),
        ),
        make_plan(target="risk_tier", strategy="fedyogi", strategy_parameters={"tau": 1}),
        make_plan(target="risk_tier", strategy="multi_krum"),
        make_plan(target="risk_tier", strategy="scaffold"),
    ],
)
def test_a_plan_comes_back_from_json_as_it_was(plan):
    back = TrainingPlan.from_json(through_json(plan))
    assert back == plan
    assert back.sha256 == plan.sha256 == plan_sha256(through_json(plan))


def test_a_plan_names_definition_inputs_and_vocabulary():
    assert PLAN.target_definition.startswith("As given by the source.")
    assert PLAN.schema_sha256 == feature_schema("risk_tier").sha256
    assert PLAN.vocabulary_sha256 == vocabulary_sha256()


def test_every_field_is_among_the_changes_tried_below():
    assert set(CHANGES) == {field.name for field in fields(TrainingPlan)}


@pytest.mark.parametrize("name", sorted(set(CHANGES) - {"strategy", "strategy_parameters"}))
def test_another_value_of_any_field_is_another_hash(name):
    assert replace(PLAN, **{name: CHANGES[name]}).sha256 != PLAN.sha256


@pytest.mark.parametrize("name", [field.name for field in fields(LocalTrainingConfig)])
def test_another_way_to_train_is_another_hash(name):
    value: Any = 0.5 if name.endswith(("rate", "decay")) else 9
    config = replace(PLAN.local_training, **{name: value})
    assert replace(PLAN, local_training=config).sha256 != PLAN.sha256


def test_another_strategy_or_parameter_of_it_is_another_hash():
    chosen: list[dict[str, Any]] = [
        {},
        {"strategy": "fedprox"},
        {"strategy": "fedprox", "strategy_parameters": {"mu": 1}},
        {"strategy": "fedadam"},
        {"strategy": "fedyogi"},
    ]
    assert len({make_plan(target="risk_tier", **one).sha256 for one in chosen}) == len(chosen)


def test_defaults_stand_in_the_plan_and_are_not_another_hash():
    plan = make_plan(target="risk_tier", strategy="fedprox")
    assert plan.to_json()["strategy_parameters"] == {"mu": 0.01}
    assert PLAN.to_json()["strategy_parameters"] == {}
    for mu in (1, 1.0):
        same = make_plan(target="risk_tier", strategy="fedprox", strategy_parameters={"mu": mu})
        assert same.to_json()["strategy_parameters"] == {"mu": 1.0}
        assert json.dumps(same.to_json()["strategy_parameters"]) == '{"mu": 1.0}'


def test_a_plan_names_every_metric_that_leaves_the_hospital_with_an_update():
    said = " ".join(PLAN.leaves_the_hospital)
    dataset = make_hospital(200)
    metrics = client_update(
        PLAN,
        first_params(PLAN, seed=0),
        dataset,
        pooled_scaling([feature_statistics(dataset)]),
        seed=0,
        round_number=1,
        client_id="north",
    ).metrics
    words = {
        "train_loss": "number of training examples and the mean loss on them",
        "validation_loss": "the mean loss and AUROC",
        "validation_auroc": "the mean loss and AUROC",
        "validation_accuracy": "the accuracy",
        "num_validation": "on the hospital's validation patients, if they are 10 or more, the number",
    }
    assert set(metrics) == set(words)
    for name, phrase in words.items():
        assert phrase in said, name


def test_a_plan_on_readings_says_what_a_release_takes_besides_and_speaks_of_people():
    plan = make_plan(target="health_risk", dataset="readings", strategy="scaffold")
    said = " ".join(plan.leaves_the_hospital + plan.stays_in_the_hospital)
    for phrase in (
        "each input's mean, deviation and histogram, in bins of 10 people or more",
        "sums to calibrate it by and histograms of its scores",
        "on the node's validation people, if they are 10 or more, the number of their readings",
        "the node's control variate",
        "every reading of every person",
    ):
        assert phrase in said
    for word in ("patient", "admission", "hospital"):
        assert word not in said
    # What hospitals have approved keeps its hash.
    assert PLAN.leaves_the_hospital == LEAVES_THE_HOSPITAL
    assert PLAN.stays_in_the_hospital == ("every row of every patient",)
    assert TrainingPlan.from_json(plan.to_json()) == plan


def test_a_plan_says_when_control_variates_leave_the_hospital():
    said = [
        sum("control variate" in line for line in plan.leaves_the_hospital)
        for plan in (PLAN, make_plan(target="risk_tier", strategy="scaffold"))
    ]
    assert said == [0, 1]


@pytest.mark.parametrize(
    ("strategy", "parameters", "words"),
    [
        ("fedavg", {"mu": 1}, "fedavg has no parameter mu; its parameters: none"),
        ("fedprox", {"nu": 1}, "fedprox has no parameter nu; its parameters: mu"),
        ("fedprox", {"mu": -0.1}, r"mu lies in \[0, 1 / learning_rate\], not -0.1"),
    ],
)
def test_parameters_that_a_strategy_does_not_have_are_refused(strategy, parameters, words):
    make_plan(target="risk_tier", strategy=strategy)
    with pytest.raises(InvalidPlanError, match=words):
        make_plan(target="risk_tier", strategy=strategy, strategy_parameters=parameters)


def test_a_proximal_step_beyond_the_global_model_is_refused():
    def plan(mu):
        return make_plan(
            target="risk_tier",
            strategy="fedprox",
            strategy_parameters={"mu": mu},
            local_training=LocalTrainingConfig(learning_rate=0.5),
        )

    plan(2.0)
    for mu in (2.1, 1e9):
        with pytest.raises(InvalidPlanError) as refused:
            plan(mu)
        assert str(refused.value) == (
            f"mu lies in [0, 1 / learning_rate], which is [0, 2], not {mu:g}"
        )


def test_parameters_of_another_strategy_are_refused():
    with pytest.raises(InvalidPlanError, match="StrategyParameters are no parameters of fedprox"):
        replace(PLAN, strategy="fedprox")


def test_the_hash_does_not_depend_on_the_order_of_keys():
    plain = PLAN.to_json()
    assert plan_sha256(dict(reversed(plain.items()))) == PLAN.sha256


@pytest.mark.parametrize(
    ("plain", "words"),
    [
        ({"upload_rows": True}, "a plan with missing or unknown fields: upload_rows"),
        ({"seed": None}, "a plan with missing or unknown fields: seed"),
        ({"local_training": {"optimizer": "adam"}}, "local_training with .*optimizer"),
        ({"local_training": {}}, "local_training with .*batch_size"),
        ({"local_training": None}, "local_training is no JSON object"),
        ({"strategy": "fedprox"}, "strategy_parameters with .*mu"),
        ({"strategy_parameters": {"mu": 0.1}}, "strategy_parameters with .*mu"),
        ({"strategy_parameters": None}, "strategy_parameters is no JSON object"),
        ({"num_rounds": 0}, "num_rounds is a whole number from 1, not 0"),
        ({"num_rounds": "3"}, "num_rounds is a whole number from 1, not '3'"),
        ({"num_rounds": True}, "num_rounds is a whole number from 1, not True"),
        ({"min_examples": 1.5}, "min_examples is a whole number from 0, not 1.5"),
        ({"min_contributors": -1}, "min_contributors is a whole number from 0, not -1"),
        (
            {"local_training": PLAN.to_json()["local_training"] | {"batch_size": "128"}},
            "batch_size is a whole number, not '128'",
        ),
    ],
)
def test_a_plan_with_another_field_or_out_of_range_is_refused(plain, words):
    TrainingPlan.from_json(PLAN.to_json())
    with pytest.raises(InvalidPlanError, match=words):
        TrainingPlan.from_json(PLAN.to_json() | plain)


@pytest.mark.parametrize("name", sorted(CHANGES))
def test_a_plan_without_one_of_its_fields_is_refused(name):
    plain = PLAN.to_json()
    del plain[name]
    with pytest.raises(InvalidPlanError, match=f"missing or unknown fields: {name}"):
        TrainingPlan.from_json(plain)


def test_what_is_no_object_is_no_plan():
    with pytest.raises(InvalidPlanError, match="a plan is no JSON object"):
        TrainingPlan.from_json([])  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("values", "words"),
    [
        ({"local_epochs": 0}, "local_epochs starts at 1, not 0"),
        ({"local_epochs": True}, "local_epochs is a whole number, not True"),
        ({"local_epochs": 2.0}, "local_epochs is a whole number, not 2.0"),
        ({"local_epochs": None}, "local_epochs is a whole number, not None"),
        ({"batch_size": 0}, "batch_size lies between 1 and 2147483647, not 0"),
        ({"batch_size": "16"}, "batch_size is a whole number, not '16'"),
        ({"learning_rate": 0.0}, "learning_rate lies in (0, 100), not 0.0"),
        ({"learning_rate": -0.1}, "learning_rate lies in (0, 100), not -0.1"),
        ({"learning_rate": 100.0}, "learning_rate lies in (0, 100), not 100.0"),
        ({"learning_rate": float("nan")}, "learning_rate lies in (0, 100), not nan"),
        ({"learning_rate": float("inf")}, "learning_rate lies in (0, 100), not inf"),
        ({"learning_rate": "0.3"}, "learning_rate is a number, not '0.3'"),
        ({"learning_rate": True}, "learning_rate is a number, not True"),
        ({"weight_decay": -0.1}, "weight_decay lies in [0, 1), not -0.1"),
        ({"weight_decay": 1.0}, "weight_decay lies in [0, 1), not 1.0"),
        ({"weight_decay": float("nan")}, "weight_decay lies in [0, 1), not nan"),
        ({"weight_decay": [0.1]}, "weight_decay is a number, not [0.1]"),
        (
            {"learning_rate": 2.0, "weight_decay": 0.5},
            "learning_rate times weight_decay is below 1, not 2 times 0.5, which is 1",
        ),
    ],
)
def test_a_wrong_parameter_of_local_training_is_named_with_what_it_is_and_may_be(values, words):
    LocalTrainingConfig(local_epochs=1, batch_size=1, learning_rate=99.9, weight_decay=0.0)
    LocalTrainingConfig(learning_rate=2.0, weight_decay=0.49)
    with pytest.raises(InvalidPlanError, match=re.escape(words)):
        LocalTrainingConfig(**values)


def test_a_whole_learning_rate_is_the_same_plan_as_its_float():
    one = [LocalTrainingConfig(learning_rate=rate, weight_decay=0) for rate in (1, 1.0)]
    hashes = {replace(PLAN, local_training=config).sha256 for config in one}
    assert len(hashes) == 1


@pytest.mark.parametrize(
    ("values", "error"),
    [
        ({"target": "mortality"}, UnknownTargetError),
        ({"network": "transformer"}, UnknownNetworkError),
        ({"strategy": "majority vote"}, UnknownStrategyError),
    ],
)
def test_a_plan_that_names_what_there_is_not_is_refused(values, error):
    with pytest.raises(error, match="there are"):
        make_plan(**{"target": "risk_tier", **values})
    with pytest.raises(error, match="there are"):
        TrainingPlan.from_json(PLAN.to_json() | values)
