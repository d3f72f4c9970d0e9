import pytest

from federated.attack_report import (
    NO_ATTACK,
    STRATEGIES,
    Trial,
    moves,
    pooled_auroc,
    run_trials,
    table,
)
from federated.attacks import attacks
from federated.features import TEST
from federated.simulation import simulate
from tests.federated.builders import make_hospital, small_plan


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


def test_of_under_ten_test_patients_no_auroc_is_told():
    few, enough = make_hospital(30, prefix="s"), make_hospital(100, prefix="s")
    result = simulate({"s": enough}, small_plan(), seed=0)
    assert len(few.rows(TEST)) < 10 <= len(enough.rows(TEST))
    assert pooled_auroc({"s": enough}, result) is not None
    assert pooled_auroc({"s": few}, result) is None
    assert pooled_auroc({"s": few, "t": few}, result) is not None  # 16 together


def test_every_strategy_is_tried_under_every_attack_by_each_attacker():
    # The bad one has more examples than the others together, which FedAvg believes it.
    datasets = {
        name: make_hospital(num_patients, prefix=name)
        for name, num_patients in zip("abcde", (200, 40, 40, 40, 40), strict=True)
    }
    trials = run_trials(
        datasets, target="risk_tier", num_rounds=1, seed=0, num_attackers=1, num_processes=1
    )
    assert len(trials) == len(STRATEGIES) * (1 + len(attacks()))
    assert len({trial.attacker for trial in trials}) == 2  # nobody, and the largest hospital
    for attack in ("sign_flip", "random"):
        (damage,) = moves(trials, "fedavg", attack).values()
        for robust in STRATEGIES[1:]:
            (move,) = moves(trials, robust, attack).values()
            assert damage is not None
            assert move is not None
            assert abs(damage) > abs(move) + 0.05, (attack, robust)
    lines = table(trials).splitlines()
    assert [line.split()[0] for line in lines[1:]] == list(STRATEGIES)
