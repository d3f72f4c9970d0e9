import json
import sys
from functools import partial

import numpy as np
import pytest
from sklearn.metrics import average_precision_score, roc_auc_score

from federated import histogram_error
from federated.histogram_error import (
    DrawnCase,
    draw_hospital,
    errors_of_draws,
    histogram_errors,
    main,
    table_of_draws,
    why_nothing,
)
from federated.histograms import pooled_ranking, score_histograms
from federated.plan import make_plan
from tests.federated.builders import make_hospital, make_hospitals

approx = pytest.approx
SMALL = DrawnCase("two small hospitals", (300, 500), 0.2, 1.0, 0.8, num_draws=3)


def of_second(scores):
    return np.stack([1 - scores, scores], axis=1).astype(np.float32)


def draw(case=SMALL):
    rng = np.random.default_rng(0)
    return [draw_hospital(num_rows, case, rng) for num_rows in case.sizes]


def test_the_exact_figures_are_those_of_all_scores_and_the_binned_ones_what_is_reported():
    hospitals = draw()
    auroc, auprc = histogram_errors(hospitals, num_shuffles=2)
    labels = np.concatenate([rows[0] for rows in hospitals])
    scores = np.concatenate([rows[1][:, 1] for rows in hospitals])
    released = pooled_ranking([score_histograms(*rows) for rows in hospitals])
    assert released.auroc is not None
    assert released.auprc is not None
    assert (auroc.figure, auroc.exact) == ("AUROC", approx(roc_auc_score(labels, scores)))
    assert (auprc.figure, auprc.exact) == ("AUPRC", approx(average_precision_score(labels, scores)))
    assert auroc.binned == released.auroc.value
    assert (auprc.low, auprc.high) == (released.auprc.low, released.auprc.high)
    assert auprc.error == released.auprc.value - auprc.exact


def test_bins_merged_over_all_hospitals_are_those_of_one_hospital_with_all_rows():
    (rows,) = draw(DrawnCase("one", (600,), 0.2, 1.0, 0.8, 1))
    for found in histogram_errors([rows], num_shuffles=1):
        assert found.merged_together == found.binned
    both = histogram_errors([rows, rows], num_shuffles=1)
    assert both[0].merged_together != both[0].binned


def test_outcomes_change_places_within_a_bin_and_nowhere_else():
    # Ten patients of each score are a bin: whoever has the outcome there, no figure changes.
    scores = np.repeat([0.1, 0.3, 0.6], 10)
    labels = (np.arange(30) % 3 == 0).astype(np.int8)
    tied = (labels, of_second(scores), np.arange(30))
    assert [found.spread for found in histogram_errors([tied], num_shuffles=5)] == [0, 0]
    # Patients of one hospital stay there: what is tied in each is so for both together.
    assert [found.spread for found in histogram_errors([tied, tied], num_shuffles=5)] == [0, 0]
    # Ten of different scores are one bin of five positives: AUROC over 25 pairs has the standard
    # deviation sqrt((5 + 5 + 1) / (12 · 25)) if every order is as likely.
    mixed = (
        (np.arange(10) % 2).astype(np.int8),
        of_second(np.linspace(0.2, 0.8, 10)),
        np.arange(10),
    )
    auroc, _ = histogram_errors([mixed], num_shuffles=2000)
    assert auroc.spread == approx(np.sqrt(11 / 300), rel=0.05)


def test_a_class_that_does_not_occur_leaves_nothing_to_compare():
    labels, probabilities, patients = draw()[0]
    assert histogram_errors([(np.zeros_like(labels), probabilities, patients)]) == []


def test_of_the_draws_the_largest_and_the_median_error_are_printed():
    draws = errors_of_draws(SMALL)
    assert len(draws) == 3
    errors = [abs(auprc.error) for _, auprc in draws]
    line = table_of_draws({SMALL.name: draws}).splitlines()[2]
    assert line.startswith("two small hospitals")
    assert f"{np.median(errors):.4f}" in line
    assert f"{max(errors):.4f}" in line


def test_a_run_is_measured_on_validation_and_on_test_patients(tmp_path, monkeypatch, capsys):
    hospitals = {name: make_hospitals()[name] for name in ("north", "west", "south")}
    monkeypatch.setattr(histogram_error, "read_datasets", lambda data, target: hospitals)
    report = tmp_path / "report.json"
    options = ["--data", ".", "--rounds", "1", "--json", str(report)]
    monkeypatch.setattr(sys, "argv", ["histogram-error", *options])
    main()
    assert capsys.readouterr().out.startswith("The global model of risk_tier")
    found = json.loads(report.read_text())
    assert [one["figure"] for one in found["validation"]] == ["AUROC", "AUPRC"]
    assert found["validation"] != found["test"]


def test_where_there_is_nothing_to_compare_the_table_says_why(tmp_path, monkeypatch, capsys):
    """Twelve patients a hospital leave under ten on either side of the split."""
    small = {name: make_hospital(12, prefix=name) for name in ("north", "west", "south")}
    monkeypatch.setattr(histogram_error, "read_datasets", lambda data, target: small)
    plan = partial(make_plan, min_examples=1)
    monkeypatch.setattr("federated.plan.make_plan", plan)
    monkeypatch.setattr(sys, "argv", ["histogram-error", "--data", ".", "--rounds", "1"])
    main()
    lines = capsys.readouterr().out.splitlines()[2:]
    assert [line.split()[0] for line in lines] == ["validation", "test"]
    assert all("nothing to compare: " in line for line in lines)


def test_the_reason_is_the_outcome_or_the_number_of_patients():
    labels, probabilities, patients = draw()[0]
    few = (labels[:9], probabilities[:9], np.arange(9))
    assert len(np.unique(labels[:9])) == 2
    alike = np.zeros_like(labels)
    cases = [
        ([(alike, probabilities, patients)], "1 of 2 outcomes happened to nobody"),
        ([few, few], "no hospital has 10 patients whose outcome is known"),
        ([(alike, probabilities, patients), few], "do not have every outcome"),
    ]
    for hospitals, words in cases:
        assert histogram_errors(hospitals, num_shuffles=1) == []
        assert words in why_nothing(hospitals)


def test_without_data_scores_are_drawn(monkeypatch, capsys):
    monkeypatch.setattr(histogram_error, "DRAWN_CASES", (SMALL,))
    monkeypatch.setattr(sys, "argv", ["histogram-error"])
    main()
    assert SMALL.name in capsys.readouterr().out


def test_a_folder_that_is_no_cohort_is_refused_in_words(monkeypatch, capsys):
    monkeypatch.setattr(sys, "argv", ["histogram-error", "--data", "nowhere"])
    with pytest.raises(SystemExit):
        main()
    assert "histogram-error: nowhere: no cohort" in capsys.readouterr().err
