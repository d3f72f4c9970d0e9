from typing import Any

import numpy as np
import pytest
from sklearn.metrics import average_precision_score, roc_auc_score

from federated.histograms import (
    NUM_BINS,
    HistogramError,
    ScoreHistogram,
    _spread,
    fixed_bins,
    merge_small_bins,
    pooled_ranking,
    score_histograms,
)
from federated.metrics import measure

approx: Any = pytest.approx

# Test patients per hospital of diabetes130, 15 % of its rows.
HOSPITALS = (610, 840, 833, 1645, 1824, 3779, 1026, 875)


def of_second(scores):
    return np.stack([1 - scores, scores], axis=1).astype(np.float32)


def make_hospital(num_rows, rng, *, prevalence=0.11, distance=0.55, spread=0.6):
    """Rows (labels, probabilities, patients) of fewer patients, with a level of its own."""
    labels = (rng.random(num_rows) < prevalence * rng.uniform(0.7, 1.3)).astype(np.int8)
    level = np.log(prevalence / (1 - prevalence)) + rng.normal(0, 0.2)
    logits = level + spread * (rng.normal(size=num_rows) + distance * labels)
    patients = rng.integers(0, num_rows, num_rows).astype(np.int32)
    return labels, of_second(1 / (1 + np.exp(-logits))), patients


def ranked(*hospitals):
    """Of rows, or of what was released of them."""
    return pooled_ranking(
        [
            released if isinstance(released[0], ScoreHistogram) else score_histograms(*released)
            for released in hospitals
        ]
    )


def pooled_rows(hospitals):
    labels, probabilities, _ = zip(*hospitals, strict=True)
    return np.concatenate(labels), np.concatenate(probabilities)


def in_bins(*positives_and_negatives, starts):
    positives, negatives = np.array(positives_and_negatives, float).T
    return (ScoreHistogram(np.array(starts), positives[np.newaxis], negatives[np.newaxis]),)


@pytest.mark.parametrize(
    ("probability", "expected"),
    # A sixteenth of a logit a bin, from -8 to 8.
    [(0.5, 128), (1 / (1 + np.exp(0.01)), 127), (1 / (1 + np.exp(-1.0)), 144), (0, 0), (1, 255)],
)
def test_bins_are_a_sixteenth_of_a_logit_wide(probability, expected):
    assert fixed_bins(np.array([probability])) == [expected]


def test_neighbours_are_merged_from_the_top_until_ten_patients_are_in_a_bin():
    bins = np.repeat([0, 2, 3, 5], [4, 12, 6, 5])
    # The five of bin 5 need bin 3; the twelve of bin 2 suffice; the four left join them.
    assert merge_small_bins(bins, np.arange(27), num_bins=6).tolist() == [0, 3]


def test_a_patient_with_many_admissions_counts_once():
    bins = np.repeat([0, 1], [10, 10])
    assert merge_small_bins(bins, np.arange(20), num_bins=2).tolist() == [0, 1]
    patients = np.append(np.arange(10), [10] * 10)
    assert merge_small_bins(bins, patients, num_bins=2).tolist() == [0]


def test_a_hospital_of_nine_patients_releases_nothing_and_counts_for_nothing():
    rng = np.random.default_rng(0)
    (small,) = score_histograms(
        np.array([0, 1, 0] * 6), of_second(rng.random(18)), np.arange(18) // 2, num_resamples=3
    )
    assert small.positives.shape == small.negatives.shape == (4, 0)
    large = score_histograms(*make_hospital(500, rng), num_resamples=3)
    assert ranked((small,), large).auroc.value == ranked(large).auroc.value
    assert ranked((small,)).auroc is None


def test_no_released_bin_is_of_fewer_than_ten_patients():
    labels, probabilities, patients = make_hospital(2000, np.random.default_rng(1))
    patients //= 3
    (histogram,) = score_histograms(labels, probabilities, patients)
    bins = fixed_bins(probabilities[:, 1])
    for start, end in zip(histogram.starts, histogram.ends, strict=True):
        assert len(np.unique(patients[(start <= bins) & (bins < end)])) >= 10
    assert histogram.positives.sum() == labels.sum()
    assert histogram.negatives.sum() == (labels == 0).sum()


def test_of_pairs_in_one_bin_half_are_counted():
    # Of 10 × 30 pairs, 4 × 14 + 6 × 6 share a bin, and 6 × 14 are ranked right.
    found = ranked(in_bins((4, 14), (6, 6), (0, 10), starts=[0, 1, 2])).auroc
    assert (found.low, found.high) == (approx(84 / 300), approx((84 + 92) / 300))
    assert found.value == approx((84 + 46) / 300)
    assert found.error_bound == approx(46 / 300)
    assert str(found) == "0.4333 (binning: 0.2800 to 0.5867)"


def test_bins_merged_differently_can_be_ranked_where_they_do_not_overlap():
    fine = in_bins((0, 10), (10, 0), starts=[0, 128])
    coarse = in_bins((0, 10), (10, 0), starts=[0, 192])
    found = ranked(fine, coarse).auroc
    # Only the positives of one and the negatives of the other may overlap: 100 of 400 pairs.
    assert (found.low, found.high) == (approx(3 / 4), approx(1))
    # The others' negatives say where those of the wide bin are: mostly below 128.
    assert 7 / 8 < found.value < 1


def test_precision_is_followed_through_a_bin():
    # All in one: positives and negatives evenly mixed, 1 in 4. Best: all ten positives on top.
    # Worst: all below thirty negatives; the first has a precision of 1/31, the last of 10/40.
    found = ranked(in_bins((10, 30), starts=[0])).auprc
    assert found.value == approx(1 / 4, abs=0.05)
    assert found.high == 1
    worst = np.mean([rank / (30 + rank) for rank in range(1, 11)])
    assert worst - 0.02 < found.low <= worst


@pytest.mark.parametrize("sizes", [HOSPITALS, (400, 800, 2000, 20_000)], ids=["eight", "unequal"])
@pytest.mark.parametrize("seed", range(5))
def test_figures_are_within_three_thousandths_of_those_of_the_pooled_scores(sizes, seed):
    rng = np.random.default_rng(seed)
    hospitals = [make_hospital(num_rows, rng) for num_rows in sizes]
    found = ranked(*hospitals)
    labels, probabilities = pooled_rows(hospitals)
    auroc = roc_auc_score(labels, probabilities[:, 1])
    auprc = average_precision_score(labels, probabilities[:, 1])
    assert found.auroc.value == approx(auroc, abs=0.001)
    assert found.auprc.value == approx(auprc, abs=0.003)
    assert found.auroc.low <= auroc <= found.auroc.high
    assert found.auprc.low <= auprc <= found.auprc.high


@pytest.mark.parametrize("seed", range(3))
def test_bounds_hold_of_a_rare_outcome_whose_precision_few_patients_decide(seed):
    rng = np.random.default_rng(seed)
    hospitals = [
        make_hospital(num_rows, rng, prevalence=0.02, distance=1.5, spread=1.2)
        for num_rows in HOSPITALS
    ]
    found = ranked(*hospitals)
    labels, probabilities = pooled_rows(hospitals)
    assert found.auroc.value == approx(roc_auc_score(labels, probabilities[:, 1]), abs=0.003)
    auprc = average_precision_score(labels, probabilities[:, 1])
    assert found.auprc.low <= auprc <= found.auprc.high
    assert found.auprc.value == approx(auprc, abs=found.auprc.error_bound)
    assert found.auprc.error_bound < 0.15  # else it would say nothing


def test_of_a_rare_outcome_the_figure_errs_to_neither_side():
    errors = []
    for seed in range(12):
        rng = np.random.default_rng(seed)
        hospitals = [
            make_hospital(num_rows, rng, prevalence=0.02, distance=1.5, spread=1.2)
            for num_rows in HOSPITALS
        ]
        labels, probabilities = pooled_rows(hospitals)
        auprc = average_precision_score(labels, probabilities[:, 1])
        errors.append(ranked(*hospitals).auprc.value - auprc)
    assert abs(np.mean(errors)) < 0.003
    assert np.median(np.abs(errors)) < 0.01


def test_where_merging_stopped_nine_patients_at_most_lie_above_the_first_fixed_bin():
    # All hundred negatives in fixed bin 128, and the positives above: whom merging would have
    # made a bin of their own, had they been ten.
    (released,) = in_bins((0, 500), (9, 100), starts=[0, 128])
    positives, negatives = _spread((released,))
    assert (positives + negatives)[0, 129:].sum() <= 9 + 1e-9
    assert (positives.sum(), negatives.sum()) == (approx(9), approx(600))


def test_figures_of_three_classes_are_means_of_one_against_the_rest():
    rng = np.random.default_rng(3)
    hospitals = []
    for num_rows in (400, 3000):
        labels = rng.choice(3, num_rows, p=[0.6, 0.29, 0.11]).astype(np.int8)
        logits = rng.normal(size=(num_rows, 3)) + np.eye(3)[labels] + [1, 0.3, -0.7]
        probabilities = np.exp(logits) / np.exp(logits).sum(axis=1, keepdims=True)
        hospitals.append((labels, probabilities.astype(np.float32), np.arange(num_rows)))
    found = ranked(*hospitals)
    pooled = measure(*pooled_rows(hospitals))
    assert found.auroc.value == approx(pooled.auroc, abs=0.003)
    assert found.auprc.value == approx(pooled.auprc, abs=0.003)


def test_a_rule_of_three_values_is_all_ties():
    rng = np.random.default_rng(4)
    hospitals = []
    for num_rows in HOSPITALS:
        scores = np.array([0.06, 0.09, 0.12])[rng.choice(3, num_rows, p=[0.05, 0.25, 0.7])]
        labels = (rng.random(num_rows) < scores).astype(np.int8)
        hospitals.append((labels, of_second(scores), np.arange(num_rows)))
    found = ranked(*hospitals)
    pooled = measure(*pooled_rows(hospitals))
    assert found.auroc.value == approx(pooled.auroc, abs=0.003)
    assert found.auprc.value == approx(pooled.auprc, abs=0.003)


def test_figures_are_undefined_where_a_class_does_not_occur():
    _, probabilities, patients = make_hospital(50, np.random.default_rng(5))
    nobody = score_histograms(np.zeros(50, np.int8), probabilities, patients)
    assert ranked(nobody).auroc is None
    assert ranked(nobody).auprc is None
    assert ranked().auroc is None


def test_resamples_of_hospitals_give_the_interval_of_the_pooled_figure():
    rng = np.random.default_rng(6)
    hospitals = [make_hospital(num_rows, rng) for num_rows in (600, 1500)]

    found = ranked(
        *(
            score_histograms(*hospital, num_resamples=400, seed=f"7:{number}")
            for number, hospital in enumerate(hospitals)
        )
    )
    assert found.auroc.value == approx(ranked(*hospitals).auroc.value)
    interval = found.auroc.interval()
    # Hanley & McNeil 1982: the standard error of this AUROC, if patients came once each.
    labels, probabilities = pooled_rows(hospitals)
    auroc, positives = roc_auc_score(labels, probabilities[:, 1]), labels.sum()
    negatives = len(labels) - positives
    variance = (
        auroc * (1 - auroc)
        + (positives - 1) * (auroc / (2 - auroc) - auroc**2)
        + (negatives - 1) * (2 * auroc**2 / (1 + auroc) - auroc**2)
    ) / (positives * negatives)
    assert interval.high - interval.low == approx(2 * 1.96 * variance**0.5, rel=0.2)
    assert interval.low < auroc < interval.high


def test_the_same_patients_are_drawn_for_each_model():
    labels, probabilities, patients = make_hospital(800, np.random.default_rng(8))
    noise = np.random.default_rng(9).normal(0, 0.01, 800)
    nearly = of_second(np.clip(probabilities[:, 1] + noise, 0, 1))

    def resampled(scores, seed):
        released = score_histograms(labels, scores, patients, num_resamples=300, seed=seed)
        return ranked(released).auroc.resampled

    paired = (resampled(nearly, "7:north") - resampled(probabilities, "7:north")).interval()
    unpaired = (resampled(nearly, "7:north") - resampled(probabilities, "8:north")).interval()
    assert paired.high - paired.low < (unpaired.high - unpaired.low) / 2


@pytest.mark.parametrize(
    ("starts", "positives", "negatives", "problem"),
    [
        ([1], [5.0], [9.0], "do not cover"),
        ([0, 0], [5.0, 5.0], [9.0, 9.0], "do not cover"),
        ([0, NUM_BINS], [5.0, 5.0], [9.0, 9.0], "do not cover"),
        ([0, 5], [5.0], [9.0], r"counts \(1, 1\) and \(1, 1\) for 2 bins"),
        ([0], [-1.0], [20.0], "negative or not finite"),
        ([0], [np.nan], [20.0], "negative or not finite"),
        ([0], [4.0], [5.0], "fewer than 10 patients"),
    ],
)
def test_what_is_no_histogram_is_refused(starts, positives, negatives, problem):
    with pytest.raises(HistogramError, match=problem):
        ScoreHistogram(np.array(starts), np.array([positives]), np.array([negatives]))


def test_hospitals_have_to_send_equally_many_samples():
    hospital = make_hospital(50, np.random.default_rng(9))
    with pytest.raises(HistogramError, match=r"\[1, 6\] samples"):
        ranked(score_histograms(*hospital), score_histograms(*hospital, num_resamples=5))


def test_scores_that_are_not_finite_are_refused():
    labels, probabilities, patients = make_hospital(50, np.random.default_rng(9))
    probabilities[3] = np.nan
    with pytest.raises(HistogramError, match="not finite"):
        score_histograms(labels, probabilities, patients)
