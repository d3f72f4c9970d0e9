import sys
from dataclasses import replace

import pytest

from federated import default_scan
from federated.default_scan import DEFAULT, POINTS, main, scan
from federated.features import TEST
from federated.plan import make_plan
from federated.pooled_baseline import after_each_round
from tests.federated.builders import make_hospital, make_hospitals


def test_each_point_is_the_default_plan_but_for_its_own_epochs_batches_and_rate():
    hospitals = {name: make_hospital(300, prefix=name) for name in ("north", "south")}
    found = list(scan(hospitals, target="risk_tier", num_rounds=1, seed=3))
    assert [model.plan.local_training for _, model in found] == [*POINTS, DEFAULT]
    assert [seed for seed, _ in found] == [3] * len(POINTS) + [4]
    assert found[0][1].plan == make_plan(target="risk_tier", num_rounds=1)
    *_, same = after_each_round(hospitals, found[1][1].plan, seed=3)
    assert found[1][1].validation_loss == same.validation_loss
    assert len({model.validation_loss for _, model in found}) == len(found)


def test_no_test_patient_is_looked_at(monkeypatch, capsys):
    """Every test patient's outcome is another; the figures are the same."""
    hospitals = make_hospitals()
    changed = {
        name: replace(
            each, labels=((each.labels + (each.splits == TEST)) % 3).astype(each.labels.dtype)
        )
        for name, each in hospitals.items()
    }
    monkeypatch.setattr(sys, "argv", ["scan-defaults", "--data", ".", "--rounds", "1"])
    printed = []
    for datasets in (hospitals, changed):
        monkeypatch.setattr(default_scan, "read_datasets", lambda data, target, d=datasets: d)
        main()
        printed.append(capsys.readouterr().out)
    assert printed[0] == printed[1]
    head, columns, *lines = printed[0].splitlines()
    assert head == "risk_tier, 1 rounds: loss (nats) and AUROC on validation patients"
    assert columns.split() == ["epochs", "batch", "rate", "seed", "loss", "AUROC"]
    assert lines[0].split()[:4] == ["3", "128", "0.3", "0"]
    *_, default = after_each_round(hospitals, make_plan(target="risk_tier", num_rounds=1), seed=0)
    assert float(lines[0].split()[4]) == pytest.approx(default.validation_loss, abs=1e-5)
