import pytest

from federated.attack_report import NO_ATTACK, STRATEGIES, Trial, moves, run_trials, table
from federated.attacks import attacks
from tests.federated.builders import make_hospital


def test_a_move_is_the_difference_to_the_same_strategy_without_an_attack():
    trials = [
        Trial("fedavg", NO_ATTACK, "", 0.7),
        Trial("median", NO_ATTACK, "", 0.65),
        Trial("fedavg", "sign_flip", "north", 0.5),
        Trial("median", "sign_flip", "north", 0.64),
        Trial("fedavg", "sign_flip", "south", None),
    ]
    found = moves(trials, "fedavg", "sign_flip")
    assert found["north"] == pytest.approx(-0.2)
    assert found["south"] is None
    assert moves(trials, "median", "sign_flip")["north"] == pytest.approx(-0.01)


def test_every_strategy_is_tried_under_every_attack_by_each_attacker():
    datasets = {name: make_hospital(60, prefix=name) for name in "abcde"}
    trials = run_trials(
        datasets, target="risk_tier", num_rounds=1, seed=0, num_attackers=1, num_processes=1
    )
    assert len(trials) == len(STRATEGIES) * (1 + len(attacks()))
    assert len({trial.attacker for trial in trials}) == 2  # nobody, and the largest hospital
    lines = table(trials).splitlines()
    assert [line.split()[0] for line in lines[1:]] == list(STRATEGIES)
