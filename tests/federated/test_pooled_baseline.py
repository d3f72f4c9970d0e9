import json
import sys
from dataclasses import replace

import numpy as np
import pytest

from federated.errors import FederatedError
from federated.features import TEST, TRAIN, VALIDATION
from federated.metrics import auroc
from federated.pooled_baseline import after_each_round, compare_with_best_pooled, main, table
from federated.prediction import predict_rows
from federated.simulation import simulate
from tests.federated.builders import make_hospitals, small_plan


def with_other_outcomes(hospitals, split):
    """On one side of the split the codes say another tier than everywhere else."""
    return {
        name: replace(
            dataset,
            labels=np.where(dataset.splits == split, (dataset.labels + 1) % 3, dataset.labels),
        )
        for name, dataset in hospitals.items()
    }


def compare(hospitals, *, learning_rates=(0.01, 0.5), max_rounds=3):
    return compare_with_best_pooled(
        hospitals, small_plan(), seed=0, learning_rates=learning_rates, max_rounds=max_rounds
    )


@pytest.mark.parametrize("strategy", ["fedavg", "scaffold", "fedadam"])
def test_a_model_on_the_way_is_that_of_a_run_of_so_many_rounds(strategy):
    hospitals = make_hospitals()
    models = list(after_each_round(hospitals, small_plan(strategy=strategy, num_rounds=3), seed=5))
    assert [model.num_rounds for model in models] == [1, 2, 3]
    for model in models:
        plan = small_plan(strategy=strategy, num_rounds=model.num_rounds)
        run = simulate(hospitals, plan, seed=5)
        for name, value in run.params.items():
            np.testing.assert_array_equal(model.params[name], value)


def test_the_rate_and_the_round_of_the_lowest_validation_loss_are_chosen():
    learnable = compare(make_hospitals())
    for name in ("pooled", "federated"):
        chosen = learnable.models[f"{name}, chosen"]
        assert (chosen.plan.local_training.learning_rate, chosen.num_rounds) == (0.5, 3)
    misleading = compare(with_other_outcomes(make_hospitals(), VALIDATION))
    for name in ("pooled", "federated"):
        chosen = misleading.models[f"{name}, chosen"]  # the less is learnt the better
        assert (chosen.plan.local_training.learning_rate, chosen.num_rounds) == (0.01, 1)


def test_the_outcomes_of_test_patients_change_no_choice():
    found, other = compare(make_hospitals()), compare(with_other_outcomes(make_hospitals(), TEST))
    assert found.to_json()["tried"] == other.to_json()["tried"]
    assert found.figures != other.figures


def test_the_models_as_planned_are_those_of_the_plan():
    hospitals = make_hospitals()
    found = compare(hospitals)
    run = simulate(hospitals, small_plan(), seed=0)
    labels, probabilities = [], []
    for dataset in (hospitals[name] for name in sorted(hospitals)):
        rows = dataset.rows(TEST)
        labels.append(dataset.labels[rows])
        probabilities.append(predict_rows(run.params, run.scaling, dataset, rows))
    expected = auroc(np.concatenate(labels), np.concatenate(probabilities))
    assert found.figures["federated, as planned"].auroc == expected


@pytest.mark.parametrize(("split", "part"), [(VALIDATION, "validation"), (TEST, "test")])
def test_of_fewer_than_ten_patients_nothing_is_told(split, part):
    hospitals = {
        name: replace(dataset, splits=np.where(dataset.splits == split, TRAIN, dataset.splits))
        for name, dataset in make_hospitals().items()
    }
    with pytest.raises(FederatedError, match=f"fewer than ten {part} patients"):
        compare(hospitals)


def test_what_was_tried_and_what_was_chosen_are_printed(tmp_path, monkeypatch, capsys):
    hospitals = make_hospitals()
    lines = table(compare(hospitals)).splitlines()
    assert [line.split()[0] for line in lines[1:5]] == [
        "pooled",
        "pooled",
        "federated",
        "federated",
    ]
    assert "pooled, chosen" in lines[-3]
    report = tmp_path / "report.json"
    monkeypatch.setattr("federated.pooled_baseline.read_datasets", lambda data, target: hospitals)
    options = ["--data", ".", "--max-rounds", "1", "--learning-rates", "0.3", "--rounds", "1"]
    monkeypatch.setattr(sys, "argv", ["pooled-best", *options, "--json", str(report)])
    main()
    assert "federated, as planned" in capsys.readouterr().out
    assert len(json.loads(report.read_text())["tried"]["pooled"]) == 1


def test_a_folder_that_is_no_cohort_is_refused_in_words(monkeypatch, capsys):
    monkeypatch.setattr(sys, "argv", ["pooled-best", "--data", "nowhere"])
    with pytest.raises(SystemExit):
        main()
    assert "pooled-best: nowhere: no cohort" in capsys.readouterr().err
