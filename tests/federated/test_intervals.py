from typing import Any

import numpy as np
import pytest

from federated.intervals import (
    Interval,
    Resampled,
    auprc_statistic,
    auroc_statistic,
    bootstrap,
    in_words,
    mean_statistic,
    resample,
    sample_weights,
)
from federated.metrics import measure

approx: Any = pytest.approx


def of_second(scores):
    return np.stack([1 - scores, scores], axis=1).astype(np.float32)


def interval_of(statistic, patients, **options):
    return bootstrap(statistic, patients, **options)


def width(interval):
    return interval.high - interval.low


def make_scored(num_rows, *, seed=0, noise=1.0):
    rng = np.random.default_rng(seed)
    labels = (rng.random(num_rows) < 0.3).astype(np.int8)
    logits = labels - 0.8 + noise * rng.normal(size=num_rows)
    return labels, of_second(1 / (1 + np.exp(-logits)))


@pytest.mark.parametrize("num_classes", [2, 3])
def test_statistics_of_the_rows_as_they_are_are_those_of_scikit_learn(num_classes):
    rng = np.random.default_rng(0)
    labels = rng.integers(0, num_classes, 200).astype(np.int8)
    probabilities = rng.dirichlet(np.ones(num_classes), 30).astype(np.float32)
    probabilities = probabilities[rng.integers(0, 30, 200)]  # ties
    expected = measure(labels, probabilities)
    once = np.ones((1, 200))
    assert auroc_statistic(labels, probabilities)(once) == approx([expected.auroc])
    assert auprc_statistic(labels, probabilities)(once) == approx([expected.auprc])


def test_a_weight_stands_for_so_many_copies_of_the_row():
    labels, probabilities = make_scored(60)
    probabilities = probabilities.round(1)
    weights = np.random.default_rng(1).integers(0, 4, (2, 60))
    for statistic, name in ((auroc_statistic, "auroc"), (auprc_statistic, "auprc")):
        expected = [
            getattr(measure(np.repeat(labels, times), np.repeat(probabilities, times, 0)), name)
            for times in weights
        ]
        assert statistic(labels, probabilities)(weights.astype(float)) == approx(expected)


def test_rows_of_one_patient_come_or_stay_away_together():
    patients = np.array([4, 4, 4, 9, 7], np.int32)
    first, *others = sample_weights(patients, num_resamples=500, seed=0)
    assert first.tolist() == [[1, 1, 1, 1, 1]]
    weights = np.concatenate(others)
    assert weights.shape == (500, 5)
    assert (weights[:, 0] == weights[:, 1]).all()
    assert (weights[:, 0] == weights[:, 2]).all()
    # Three patients are drawn each time, each once on average.
    assert (weights[:, [0, 3, 4]].sum(axis=1) == 3).all()
    assert weights.mean(axis=0) == approx(np.ones(5), abs=0.15)


def test_the_same_seed_draws_the_same_patients_and_another_others():
    patients = np.arange(30, dtype=np.int32)

    def drawn(seed):
        return np.concatenate(list(sample_weights(patients, num_resamples=5, seed=seed))[1:])

    assert (drawn("7:north") == drawn("7:north")).all()
    assert (drawn("7:north") != drawn("7:south")).any()


def test_of_a_hundred_intervals_ninety_five_cover_the_truth():
    rng = np.random.default_rng(2)
    patients = np.arange(80, dtype=np.int32)
    covered = 0
    for experiment in range(400):
        values = rng.normal(5.0, 2.0, 80)
        found = interval_of(mean_statistic(values), patients, num_resamples=300, seed=experiment)
        covered += found.low <= 5.0 <= found.high
    assert covered / 400 == approx(0.95, abs=0.03)


def test_the_interval_of_a_mean_is_as_wide_as_its_standard_error_says():
    values = np.repeat([0.0, 1.0], 50)
    found = interval_of(mean_statistic(values), np.arange(100, dtype=np.int32), seed=0)
    assert found.estimate == 0.5
    assert width(found) == approx(2 * 1.96 * 0.5 / 10, rel=0.1)


def test_a_patient_with_many_admissions_widens_the_interval():
    values = np.random.default_rng(3).normal(size=25).repeat(4)
    of_admissions = interval_of(mean_statistic(values), np.arange(100, dtype=np.int32), seed=0)
    of_patients = interval_of(mean_statistic(values), np.arange(100, dtype=np.int32) // 4, seed=0)
    assert of_patients.estimate == of_admissions.estimate
    assert width(of_patients) == approx(2 * width(of_admissions), rel=0.15)  # a quarter as many


def test_pairing_narrows_the_interval_of_a_difference():
    labels, ours = make_scored(300)
    theirs = of_second(np.clip(ours[:, 1] + np.random.default_rng(4).normal(0, 0.02, 300), 0, 1))
    patients = np.arange(300, dtype=np.int32)
    statistics = {
        "ours": auroc_statistic(labels, ours),
        "theirs": auroc_statistic(labels, theirs),
    }
    found = resample(statistics, patients, seed="7:north")
    alone = resample(statistics, patients, seed="another")
    paired = (found["ours"] - found["theirs"]).interval()
    unpaired = (found["ours"] - alone["theirs"]).interval()
    assert width(paired) < width(unpaired) / 3
    # The same bits, whether the two are resampled together or one by one.
    together = bootstrap(
        lambda weights: statistics["ours"](weights) - statistics["theirs"](weights),
        patients,
        seed="7:north",
    )
    assert together == paired


def test_two_positives_are_too_few_for_an_interval():
    labels = np.array([1, 1, *[0] * 50], np.int8)
    probabilities = of_second(np.linspace(0.9, 0.1, 52))
    patients = np.arange(52, dtype=np.int32)
    assert bootstrap(auroc_statistic(labels, probabilities), patients, seed=0) is None  # 1 in 7.4
    labels[:6] = 1
    found = interval_of(auroc_statistic(labels, probabilities), patients, seed=0)
    assert found == Interval(1.0, 1.0, 1.0)


@pytest.mark.parametrize("labels", [[], [1, 1, 1]], ids=["no row", "one class"])
def test_there_is_no_interval_of_what_is_undefined(labels):
    rows = np.array(labels, np.int8), of_second(np.linspace(0.1, 0.5, len(labels)))
    patients = np.arange(len(labels), dtype=np.int32)
    for statistic in (auroc_statistic(*rows), auprc_statistic(*rows)):
        assert bootstrap(statistic, patients, num_resamples=20, seed=0) is None
    assert bootstrap(mean_statistic(np.zeros(0)), np.zeros(0, np.int32), seed=0) is None


def test_an_interval_reaches_as_far_as_a_figure_outside_its_percentiles():
    drawn = np.linspace(0.03, 0.09, 101)
    below = Resampled(np.append(0.02, drawn)).interval()
    assert below == Interval(0.02, 0.02, approx(0.0885))
    above = Resampled(np.append(0.2, drawn)).interval()
    assert above == Interval(0.2, approx(0.0315), 0.2)
    # All resamples are above zero, and the difference itself is not.
    crossed = Resampled(np.append(-0.01, drawn)).interval()
    assert in_words(crossed).endswith("and this hospital's own: −0.01 (−0.01 to 0.09)")
    assert in_words(crossed).startswith("No difference can be told")


@pytest.mark.parametrize(
    ("difference", "sentence"),
    [
        (
            Interval(0.06, 0.03, 0.09),
            "The global model beats this hospital's own by 0.06 (0.03 to 0.09)",
        ),
        (
            Interval(-0.04, -0.07, -0.012),
            "The global model is worse than this hospital's own by 0.04 (0.01 to 0.07)",
        ),
        (
            Interval(0.01, -0.02, 0.04),
            "No difference can be told between the global model and this hospital's own:"
            " 0.01 (−0.02 to 0.04)",
        ),
        (
            Interval(-0.001, -0.004, 0.0),
            "No difference can be told between the global model and this hospital's own:"
            " 0.00 (0.00 to 0.00)",
        ),
        (
            Interval(0.005, 0.0016, 0.0094),
            "The global model beats this hospital's own by 0.005 (0.002 to 0.009)",
        ),
        (
            Interval(1e-6, 1e-7, 2e-6),
            "No difference can be told between the global model and this hospital's own:"
            " 0.00 (0.00 to 0.00)",
        ),
        (
            None,
            "No difference can be told between the global model and this hospital's own:"
            " too few patients",
        ),
    ],
)
def test_a_difference_is_told_in_a_sentence(difference, sentence):
    assert in_words(difference) == sentence


def test_a_difference_that_there_is_not_says_why():
    words = in_words(None, because="it has no such model")
    assert words == (
        "No difference can be told between the global model and this hospital's own:"
        " it has no such model"
    )


def test_a_lower_brier_score_beats_a_higher_one():
    words = in_words(
        Interval(-0.02, -0.03, -0.01),
        model="The fine-tuned model",
        other="the pooled one",
        higher_is_better=False,
    )
    assert words == "The fine-tuned model beats the pooled one by 0.02 (0.01 to 0.03)"
