import pytest

from federated.errors import InvalidPlanError
from federated.screening_report import Case, Outcome, cases_of, run_cases, table, try_case
from tests.federated.builders import make_hospital, small_plan

HOSPITALS = {
    name: make_hospital(number, prefix=name)
    for name, number in zip("abcde", (150, 100, 60, 60, 60), strict=True)
}


def test_an_attack_is_caught_in_its_first_round_and_held_from_then_on():
    outcome = try_case(HOSPITALS, small_plan(num_rounds=3), Case(0, "scale_100", "a", 2))
    assert outcome.is_caught
    assert outcome.rounds_held == [2, 3]
    assert outcome.share_held == 1
    assert outcome.num_honest == 3 * 4 + 1  # the attacker was honest in round 1
    assert outcome.num_honest_held == 0
    assert outcome.auroc is not None


def test_an_attack_that_is_seen_late_is_not_caught():
    case = Case(0, "sign_flip", "a", 2)
    outcome = Outcome(case, num_rounds=5, num_honest=21, num_honest_held=0, rounds_held=[4, 5])
    assert not outcome.is_caught
    assert outcome.share_held == 0.5


def test_the_cases_are_honest_runs_and_every_attack_by_each_of_the_largest():
    cases = cases_of(HOSPITALS, seed=7, honest_runs=2, first_rounds=[1, 3], num_attackers=2)
    assert cases[:2] == [Case(7), Case(8)]
    assert len(cases) == 2 + 2 * 3 * 2
    assert {case.attacker for case in cases[2:]} == {"a", "b"}
    with pytest.raises(InvalidPlanError, match="of 5 hospitals, up to 5"):
        cases_of(HOSPITALS, seed=0, honest_runs=1, first_rounds=[1], num_attackers=6)


def test_the_table_tells_false_alarms_and_each_attack():
    plan = small_plan(num_rounds=1)
    cases = [Case(0), Case(1), Case(0, "random", "a", 1)]
    outcomes = run_cases(HOSPITALS, plan, cases, num_processes=1)
    lines = table(outcomes).splitlines()
    assert lines[0] == "Nobody bad: 0 of 10 updates held in 2 rounds, 0.00% (bar 2%)"
    assert lines[-1].split()[:5] == ["random", "1", "1/1", "100%", "0"]
