"""Risks of readings: with any inputs, with gaps, and calibrated."""

import math

import numpy as np
import pytest

from federated.architectures import initial_params
from federated.drift import distributions
from federated.errors import UnusedInputsError
from federated.features import TRAIN, VALIDATION
from federated.health_risk import (
    RiskModel,
    View,
    assess,
    nearest_views,
    risks_of,
    to_values,
    views_of,
)
from federated.plan import LocalTrainingConfig, make_plan
from federated.prediction import predict_examples
from federated.readings import (
    INPUT_NAMES,
    INPUTS,
    NUMERIC_INPUTS,
    build_readings,
    encode_reading,
    reading_schema,
)
from federated.recalibration import (
    NodeMargins,
    Recalibration,
    best_threshold,
    fit_line,
    recalibrate,
)
from federated.scaling import FeatureScaling
from federated.synthetic_readings import KINDS, generate

UNSCALED = FeatureScaling((0.0,) * len(NUMERIC_INPUTS), (1.0,) * len(NUMERIC_INPUTS))


def model_of(weights, *, bias=0.0, codes=None):
    """By numeric input, and by input whose absence has a weight of its own."""
    params = {
        "bias": np.array([0, bias], np.float32),
        "codes": np.zeros((len(INPUT_NAMES), 2), np.float32),
        "numeric": np.zeros((len(NUMERIC_INPUTS), 2), np.float32),
    }
    for name, weight in weights.items():
        params["numeric"][NUMERIC_INPUTS.index(name), 1] = weight
    for name, weight in (codes or {}).items():
        params["codes"][INPUT_NAMES.index(name), 1] = weight
    return RiskModel(params, UNSCALED)


def view_of(*always, sometimes=(), num_rows=1000):
    return View(frozenset([*always, *sometimes]), frozenset(always), num_rows)


AS_IT_IS = {"slope": 1.0, "intercept": 0.0}


def logit(risk):
    return math.log(risk / (1 - risk))


def odds(model, view, **values):
    """Log-odds of the risk of one reading."""
    return logit(assess(model, values, views=[view], **AS_IT_IS).risk)


def random_readings(rng, num_readings):
    """Whole groups are missing, and values one by one."""
    readings = []
    for _ in range(num_readings):
        names = [name for name in INPUT_NAMES if rng.random() < rng.choice([0.1, 0.5, 0.95])]
        chosen = {each.name: each for each in INPUTS if each.name in names or each.name == "age"}
        readings.append(
            {
                name: float(rng.integers(0, 2))
                if each.is_flag
                else rng.uniform(each.low, each.high)
                for name, each in chosen.items()
            }
        )
    return readings


def random_scaling(rng):
    return FeatureScaling(
        tuple(rng.normal(50, 10, len(NUMERIC_INPUTS))),
        tuple(rng.uniform(5, 50, len(NUMERIC_INPUTS))),
    )


def random_linear(rng):
    return {
        "bias": rng.normal(0, 1, 2).astype(np.float32),
        "codes": rng.normal(0, 1, (len(INPUT_NAMES), 2)).astype(np.float32),
        "numeric": rng.normal(0, 1, (len(NUMERIC_INPUTS), 2)).astype(np.float32),
    }


def random_network(rng, num_classes):
    return initial_params(
        "shallow_network",
        num_sparse=len(INPUT_NAMES),
        num_numeric=len(NUMERIC_INPUTS),
        num_classes=num_classes,
        rng=rng,
    )


# Kinds of nodes


def test_nodes_of_the_same_inputs_are_one_kind():
    def node(num_rows, **num_known):
        return {
            name: {"num_rows": num_rows, "num_readings": known} for name, known in num_known.items()
        }

    views = views_of(
        [node(900, age=900, bmi=900), node(100, age=100, bmi=94), node(50, age=50, aqi=20), {}]
    )
    assert views == (
        view_of("age", sometimes=["bmi"], num_rows=1000),
        view_of("age", sometimes=["aqi"], num_rows=50),
    )
    assert views_of([node(1000, age=995, bmi=994)])[0].always == {"age"}


def test_the_nearest_view_uses_most_and_then_misses_least():
    small, large, air = view_of("age", "cough"), view_of("age", "aqi", "smoker"), view_of("pm25")
    views = [small, large, air]
    assert nearest_views(views, ["age"]) == [small]
    assert nearest_views(views, ["aqi", "age", "pm25"]) == [large]
    assert nearest_views(views, ["cough", "pm25"]) == [air]
    even = view_of("age", "spo2")
    assert nearest_views([*views, even], ["age"]) == [small, even]
    with pytest.raises(UnusedInputsError, match="trained without bmi"):
        nearest_views(views, ["bmi"])


def test_views_as_near_are_averaged_by_their_rows():
    model = model_of({"cough": 2.0, "smoker": -2.0, "age": 1.0})
    first, second = view_of("age", "cough", num_rows=300), view_of("age", "smoker", num_rows=100)
    reading = {"age": 1.0, "cough": 1.0, "smoker": 1.0, "bmi": 30.0}
    found = assess(model, reading, views=[first, second], slope=1, intercept=0)
    assert found.risk == pytest.approx(0.75 / (1 + math.exp(-3)) + 0.25 / (1 + math.exp(1)))
    assert found.ignored == ["bmi"]
    assert {driver.input for driver in found.drivers} == {"age", "cough", "smoker"}


# Risks


@pytest.mark.parametrize("num_classes", [2, 3])
@pytest.mark.parametrize("has_hidden_layer", [True, False])
def test_a_whole_row_of_a_node_is_as_every_other_model_path_has_it(num_classes, has_hidden_layer):
    rng = np.random.default_rng(1)
    params = random_network(rng, num_classes)
    if not has_hidden_layer:
        params = {
            name: value[..., :num_classes]
            for name, value in params.items()
            if not name.startswith("output")
        }
    scaling = random_scaling(rng)
    model = RiskModel(params, scaling)
    for reading in random_readings(rng, 50):
        expected = predict_examples(params, scaling, [encode_reading(reading)])[0, -1]
        found = assess(model, reading, views=[view_of(*reading)], **AS_IT_IS)
        assert found.risk == pytest.approx(expected, abs=1e-5)


def test_what_a_node_sometimes_knew_is_as_it_was_trained_where_it_is_missing():
    rng = np.random.default_rng(2)
    params = random_linear(rng)
    view = view_of("cough", "age", sometimes=["breathless", "bmi"])
    expected = predict_examples(params, UNSCALED, [encode_reading({"cough": 1, "age": 0.5})])[0, 1]
    found = odds(RiskModel(params, UNSCALED), view, cough=1, age=0.5)
    assert found == pytest.approx(logit(expected), abs=1e-5)


def test_what_a_node_always_knew_is_averaged_over_where_it_is_missing():
    model = model_of({"cough": 2.0, "breathless": 4.0}, codes={"breathless": 5.0, "aqi": 0.5})
    clinic = view_of("cough", "breathless", "heart_rate", "spo2", "steps")
    # log-odds 2 and the sign for the AQI, which no row knew; variance 4 squared: MacKay's factor
    # is 1 / sqrt(1 + pi 16 / 8)
    assert odds(model, clinic, cough=1) == pytest.approx(2.5 / math.sqrt(1 + 2 * math.pi))
    assert odds(model, clinic, cough=1, breathless=0) == pytest.approx(2.5)


def test_an_input_of_no_group_is_averaged_over_too():
    model = model_of({"cough": 2.0, "age": 4.0})
    found = odds(model, view_of("cough", "age"), cough=1)
    assert found == pytest.approx(2 / math.sqrt(1 + 2 * math.pi))


def test_it_is_the_calibrated_risk_that_is_averaged():
    model = model_of({"cough": 2.0, "age": 1.0})
    found = assess(model, {"cough": 1}, views=[view_of("cough", "age")], slope=4, intercept=1)
    assert logit(found.risk) == pytest.approx(9 / math.sqrt(1 + 2 * math.pi))


def test_a_group_is_absent_where_the_view_has_none_of_it_and_not_the_reading():
    model = model_of({"cough": 2.0, "cough without vital signs": 3.0})
    assert odds(model, view_of("cough", "steps"), cough=1) == pytest.approx(2)
    assert odds(model, view_of("cough", "age"), cough=1) == pytest.approx(5)


def test_what_the_view_has_not_got_counts_for_nothing():
    model = model_of({"cough": 2.0, "bmi": 3.0})
    assert odds(model, view_of("cough"), cough=1, bmi=50) == pytest.approx(2)


@pytest.fixture(scope="module")
def trained():
    """A model of the three synthetic nodes as `demo_health` trains it: assesses a reading."""
    from federated.simulation import simulate

    schema = reading_schema("health_risk")
    datasets = {
        kind: build_readings(generate(kind, num_rows=2000, seed=0).records, schema)
        for kind in KINDS
    }
    plan = make_plan(
        target="health_risk",
        study="health-risk",
        dataset="readings",
        strategy="scaffold",
        strategy_parameters={"server_learning_rate": 2.0},
        num_rounds=20,
        local_training=LocalTrainingConfig(local_epochs=2, batch_size=16, learning_rate=0.1),
    )
    result = simulate(datasets, plan, seed=0)
    model, views, nodes = RiskModel(result.params, result.scaling), [], []
    for dataset in datasets.values():
        values = dataset.numeric[:, : len(INPUT_NAMES)].astype(np.float64)
        (view,) = views_of([distributions(values[dataset.splits == TRAIN])])
        views.append(view)
        rows = dataset.splits == VALIDATION
        nodes.append(
            NodeMargins(
                model.margins(values[rows], view),
                dataset.labels[rows] == 1,
                dataset.patients[rows],
            )
        )
    line = recalibrate(nodes)
    return lambda reading: assess(
        model, reading, views=views, slope=line.slope, intercept=line.intercept
    )


def log_loss(outcomes, risks):
    kept = np.clip(risks, 1e-7, 1 - 1e-7)
    return float(-np.where(outcomes == 1, np.log(kept), np.log(1 - kept)).mean())


@pytest.mark.parametrize("kind", KINDS)
def test_a_part_of_a_row_is_not_answered_worse_than_the_mean_would_be(trained, kind):
    records = generate(kind, num_rows=2000, seed=77).records
    outcomes = np.array([record.outcome for record in records])
    constant = log_loss(outcomes, np.full(len(outcomes), outcomes.mean()))
    rng = np.random.default_rng(0)
    names = list(records[0].values)
    losses = []
    for num_known in (1, 2, len(names) // 2, len(names) - 1, len(names)):
        risks = [
            trained({name: record.values[name] for name in rng.permutation(names)[:num_known]}).risk
            for record in records
        ]
        losses.append(log_loss(outcomes, np.array(risks)))
    assert losses[0] <= constant + 0.02
    assert losses == sorted(losses, reverse=True)  # the more is known, the better


def test_one_number_makes_nobody_certain(trained):
    assert 0.2 < trained({"age": 45}).risk < 0.95
    for name, value in {"cough": 1, "aqi": 60, "pm25": 20}.items():
        assert 0.05 < trained({name: value}).risk < 0.95
    with pytest.raises(UnusedInputsError):
        trained({"bmi": 30})  # no synthetic node has one


def test_an_explanation_is_the_risk_less_the_risk_without_each_number():
    model = model_of({"cough": 2.0, "age": -1.0})
    found = assess(
        model,
        {"cough": 1, "breathless": 0, "age": 0.5},
        views=[view_of("cough", "breathless", sometimes=["age"]), view_of("cough")],
        slope=1,
        intercept=0,
    )
    assert found.risk == pytest.approx(1 / (1 + math.exp(-1.5)))
    by_input = {driver.input: driver.change for driver in found.drivers}
    # Without the cough its weight is a gap: (0 - 0.5) / sqrt(1 + pi 4 / 8) remains. Age is none,
    # and without it the view is still the same.
    without_cough = 1 / (1 + math.exp(0.5 / math.sqrt(1 + math.pi / 2)))
    assert by_input == {
        "cough": pytest.approx(found.risk - without_cough),
        "age": pytest.approx(found.risk - 1 / (1 + math.exp(-2))),
        "breathless": 0,
    }
    assert [driver.input for driver in found.drivers] == ["cough", "age", "breathless"]


def test_one_reading_explained_is_the_same_as_its_variants_in_a_matrix():
    rng = np.random.default_rng(4)
    scaling = random_scaling(rng)
    line = {"slope": 2.0, "intercept": -0.5}
    view = view_of(*INPUT_NAMES[:12], sometimes=INPUT_NAMES[12:17])
    for params in (random_linear(rng), random_network(rng, 2)):
        model = RiskModel(params, scaling)
        for reading in random_readings(rng, 30):
            first, without = model.risk_without_each(reading, view, **line)
            variants = [
                {other: value for other, value in reading.items() if other != name}
                for name in reading
            ]
            expected = model.risks(to_values([reading, *variants]), view, **line)
            assert [first, *without] == pytest.approx(expected.tolist(), abs=1e-9)


def test_no_log_odds_overflows():
    assert risks_of(np.array([-1e6, 1e6]), slope=3, intercept=0).tolist() == [
        pytest.approx(0, abs=1e-300),
        1,
    ]


# Calibration


def node_of(margins, is_positive):
    margins = np.asarray(margins, float)
    return NodeMargins(margins, np.asarray(is_positive, bool), np.arange(len(margins)))


def drawn_node(num_rows, *, slope, intercept, seed):
    rng = np.random.default_rng(seed)
    margins = rng.normal(0, 2, num_rows)
    risks = 1 / (1 + np.exp(-(slope * margins + intercept)))
    return node_of(margins, rng.random(num_rows) < risks)


def test_the_line_is_found_again_that_the_outcomes_were_drawn_from():
    nodes = [drawn_node(10_000, slope=0.5, intercept=-1.0, seed=seed) for seed in (1, 2)]
    found = recalibrate(nodes)
    assert found.slope == pytest.approx(0.5, abs=0.03)
    assert found.intercept == pytest.approx(-1.0, abs=0.06)
    assert found.num_rows == 20_000


def test_pooled_sums_give_the_line_of_all_rows_together():
    nodes = [drawn_node(200, slope=2.0, intercept=0.5, seed=seed) for seed in (1, 2, 3)]
    together = node_of(
        np.concatenate([node.margins for node in nodes]),
        np.concatenate([node.is_positive for node in nodes]),
    )
    assert fit_line(nodes) == pytest.approx(fit_line([together]), abs=1e-9)


@pytest.mark.parametrize("distance", [1e-6, 1.0, 1e3])
def test_outcomes_that_can_be_parted_give_a_finite_line(distance):
    margins = np.concatenate([np.full(20, -distance), np.full(20, distance)])
    found = recalibrate([node_of(margins, margins > 0)])
    assert 0 < found.slope < 100
    assert abs(found.intercept) < 1
    assert found.threshold == 0.5


def test_equal_log_odds_give_the_share_with_the_outcome():
    found = recalibrate([node_of(np.full(40, 3.0), [True] * 10 + [False] * 30)])
    assert found.slope * 3 + found.intercept == pytest.approx(math.log(10 / 30), abs=1e-6)


def test_a_model_that_ranks_the_wrong_way_tells_everybody_the_mean():
    node = drawn_node(2000, slope=-2.0, intercept=0.0, seed=1)
    found = recalibrate([node])
    share = node.is_positive.mean()
    assert (found.slope, found.intercept) == (0, pytest.approx(math.log(share / (1 - share))))


@pytest.mark.parametrize("num_positive", [0, 9, 91, 100])
def test_with_too_few_of_an_outcome_the_model_stays_as_it_is(num_positive):
    is_positive = np.arange(100) < num_positive
    node = node_of(np.linspace(-3, 3, 100), is_positive)
    assert recalibrate([node]) == Recalibration(1, 0, 0.5, num_rows=100)


def test_a_node_of_few_subjects_sends_nothing():
    few = NodeMargins(np.linspace(-3, 3, 100), np.arange(100) % 2 == 0, np.arange(100) // 12)
    assert recalibrate([few]) == Recalibration()
    many = drawn_node(200, slope=1.0, intercept=0.0, seed=1)
    assert recalibrate([few, many]) == recalibrate([many])


def histogram_of(risks, is_positive):
    risks = np.asarray(risks)
    return node_of(np.log(risks / (1 - risks)), is_positive).histogram(slope=1, intercept=0)


def test_a_histogram_tells_of_no_fewer_than_ten_subjects():
    rng = np.random.default_rng(1)
    for num_rows in (10, 19, 25, 200):
        margins = rng.normal(rng.normal(0, 2), 2, num_rows)
        found = node_of(margins, margins > 0).histogram(slope=1, intercept=0)
        counts = (found.positives + found.negatives)[0]
        assert counts.sum() == num_rows
        assert counts.min() >= 10


def test_the_threshold_parts_the_outcomes_where_balanced_accuracy_is_best():
    # Of the many negatives a few reach 0.25; the few positives lie at 0.2 and above.
    risks = [0.05] * 400 + [0.25] * 20 + [0.2] * 20 + [0.4] * 20
    is_positive = [False] * 420 + [True] * 40
    found = best_threshold([histogram_of(risks, is_positive)])
    assert 0.05 < found <= 0.2


def test_of_equally_good_thresholds_the_nearest_to_a_half_is_taken():
    risks = [0.1] * 50 + [0.9] * 50
    assert best_threshold([histogram_of(risks, [False] * 50 + [True] * 50)]) == 0.5
    risks = [0.1] * 50 + [0.3] * 50
    found = best_threshold([histogram_of(risks, [False] * 50 + [True] * 50)])
    assert 0.27 < found <= 0.3


def test_without_a_histogram_a_half_is_high():
    assert best_threshold([]) == 0.5
