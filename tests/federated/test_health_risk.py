"""Risks of readings: with any inputs, with gaps, and calibrated."""

import math

import numpy as np
import pytest

from federated.architectures import initial_params
from federated.health_risk import RiskModel, assess, risks_of, to_values
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


def margin(model, **values):
    return float(model.margins(to_values([values]))[0])


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


@pytest.mark.parametrize("num_classes", [2, 3])
def test_a_network_gives_what_every_other_model_path_gives(num_classes):
    rng = np.random.default_rng(1)
    params = initial_params(
        "shallow_network",
        num_sparse=len(INPUT_NAMES),
        num_numeric=len(NUMERIC_INPUTS),
        num_classes=num_classes,
        rng=rng,
    )
    scaling = FeatureScaling(
        tuple(rng.normal(50, 10, len(NUMERIC_INPUTS))),
        tuple(rng.uniform(5, 50, len(NUMERIC_INPUTS))),
    )
    readings = random_readings(rng, 50)
    expected = predict_examples(params, scaling, [encode_reading(each) for each in readings])
    found = risks_of(RiskModel(params, scaling).margins(to_values(readings)), slope=1, intercept=0)
    assert found == pytest.approx(expected[:, -1], abs=1e-5)


def test_a_logistic_regression_does_so_wherever_there_is_no_gap():
    rng = np.random.default_rng(2)
    params = {
        "bias": rng.normal(0, 1, 2).astype(np.float32),
        "codes": rng.normal(0, 1, (len(INPUT_NAMES), 2)).astype(np.float32),
        "numeric": rng.normal(0, 1, (len(NUMERIC_INPUTS), 2)).astype(np.float32),
    }
    reading = {"cough": 1.0, "breathless": 0.0, "age": 0.5}  # one group whole, the others absent
    expected = predict_examples(params, UNSCALED, [encode_reading(reading)])[0, 1]
    found = risks_of(
        RiskModel(params, UNSCALED).margins(to_values([reading])), slope=1, intercept=0
    )
    assert found[0] == pytest.approx(expected, abs=1e-6)
    with_gap = {"cough": 1.0, "age": 0.5}
    expected = predict_examples(params, UNSCALED, [encode_reading(with_gap)])[0, 1]
    found = risks_of(
        RiskModel(params, UNSCALED).margins(to_values([with_gap])), slope=1, intercept=0
    )
    assert abs(found[0] - 0.5) < abs(expected - 0.5)


def test_a_number_missing_from_a_group_that_is_there_is_averaged_over():
    model = model_of({"cough": 2.0, "breathless": 4.0})
    # log-odds 2, variance 4 squared: MacKay's factor is 1 / sqrt(1 + pi 16 / 8)
    assert margin(model, cough=1) == pytest.approx(2 / math.sqrt(1 + 2 * math.pi))
    assert margin(model, cough=1, breathless=0) == 2


def test_the_second_weight_of_a_missing_number_counts_where_its_group_is_absent():
    model = model_of({"cough": 2.0, "breathless": 1.0, "breathless without vital signs": 3.0})
    assert margin(model, cough=1) == pytest.approx(2 / math.sqrt(1 + 2 * math.pi))
    with_heart = margin(model, cough=1, heart_rate=0, spo2=0, steps=0)
    assert with_heart == pytest.approx(2 / math.sqrt(1 + math.pi / 8))


def test_a_group_that_is_absent_altogether_is_no_gap():
    model = model_of({"cough": 2.0, "aqi": 4.0, "pm25": 4.0, "age": 4.0})
    assert margin(model, cough=1, breathless=0) == 2


@pytest.fixture(scope="module")
def trained():
    """The three synthetic nodes' model, a tenth the size of the real ones."""
    from federated.simulation import simulate

    schema = reading_schema("health_risk")
    datasets = {
        kind: build_readings(generate(kind, num_rows=300, seed=3).records, schema) for kind in KINDS
    }
    plan = make_plan(
        target="health_risk",
        study="health-risk",
        dataset="readings",
        strategy="scaffold",
        num_rounds=20,
        local_training=LocalTrainingConfig(local_epochs=2, batch_size=16, learning_rate=0.1),
    )
    result = simulate(datasets, plan, seed=0)
    return RiskModel(result.params, result.scaling), result.params, result.scaling


def log_loss(outcomes, risks):
    kept = np.clip(risks, 1e-7, 1 - 1e-7)
    return float(-np.where(outcomes == 1, np.log(kept), np.log(1 - kept)).mean())


@pytest.mark.parametrize("kind", KINDS)
def test_averaging_over_gaps_lowers_the_loss_and_leaves_whole_rows_alone(trained, kind):
    model, params, scaling = trained
    for gaps in (0.0, 0.3):
        records = generate(kind, num_rows=1000, seed=99, gaps=gaps).records
        outcomes = np.array([record.outcome for record in records])
        plain = predict_examples(params, scaling, [encode_reading(r.values) for r in records])[:, 1]
        averaged = risks_of(
            model.margins(to_values(r.values for r in records)), slope=1, intercept=0
        )
        if gaps:
            assert log_loss(outcomes, averaged) < log_loss(outcomes, plain)
        else:
            assert averaged == pytest.approx(plain, abs=1e-5)


def test_an_explanation_is_the_risk_less_the_risk_without_each_number():
    model = model_of({"cough": 2.0, "age": -1.0})
    found = assess(model, {"cough": 1, "breathless": 0, "age": 0.5}, slope=1, intercept=0)
    assert found.risk == pytest.approx(1 / (1 + math.exp(-1.5)))
    by_input = {driver.input: driver.change for driver in found.drivers}
    # Without the cough its weight is a gap: (0 - 0.5) / sqrt(1 + pi 4 / 8) remains.
    without_cough = 1 / (1 + math.exp(0.5 / math.sqrt(1 + math.pi / 2)))
    assert by_input == {
        "cough": pytest.approx(found.risk - without_cough),
        "age": pytest.approx(found.risk - 1 / (1 + math.exp(-2))),
        "breathless": 0,
    }
    assert [driver.input for driver in found.drivers] == ["cough", "age", "breathless"]


def test_one_reading_explained_is_the_same_as_its_variants_in_a_matrix():
    rng = np.random.default_rng(4)
    params = {
        "bias": rng.normal(0, 1, 2).astype(np.float32),
        "codes": rng.normal(0, 1, (len(INPUT_NAMES), 2)).astype(np.float32),
        "numeric": rng.normal(0, 1, (len(NUMERIC_INPUTS), 2)).astype(np.float32),
    }
    scaling = FeatureScaling(
        tuple(rng.normal(50, 10, len(NUMERIC_INPUTS))),
        tuple(rng.uniform(5, 50, len(NUMERIC_INPUTS))),
    )
    hidden = initial_params(
        "shallow_network",
        num_sparse=len(INPUT_NAMES),
        num_numeric=len(NUMERIC_INPUTS),
        num_classes=2,
        rng=rng,
    )
    for model in (RiskModel(params, scaling), RiskModel(hidden, scaling)):
        for reading in random_readings(rng, 30):
            first, without = model.margins_without_each(reading)
            variants = [
                {other: value for other, value in reading.items() if other != name}
                for name in reading
            ]
            expected = model.margins(to_values([reading, *variants]))
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
