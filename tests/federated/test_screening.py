import math

import numpy as np
import pytest

from federated.aggregation import ClientUpdate
from federated.attacks import attack_by
from federated.params import params_sha256
from federated.plan import make_plan
from federated.rounds import first_params, next_params
from federated.screening import screen_round
from federated.simulation import simulate
from tests.federated.builders import make_hospital, make_params, small_plan

PLAN = small_plan(num_rounds=1)
HOSPITALS = {name: make_hospital(60, prefix=name) for name in "abcde"}


def update_of(name, delta, *, control=None):
    return ClientUpdate(
        name,
        make_params(w=delta),
        num_examples=10,
        delta_control=make_params(w=control) if control else {},
    )


def screen(deltas, *, before=None, held_since=None, trusted=None, plan=PLAN, controls=None):
    updates = [
        update_of(name, delta, control=(controls or {}).get(name)) for name, delta in deltas.items()
    ]
    return screen_round(
        plan,
        lambda: iter(updates),
        last_counted=lambda name: make_params(w=before[name]) if name in (before or {}) else None,
        held_since=held_since or {},
        trusted=trusted or {},
    )


# --- By hand -----------------------------------------------------------------------------------


def test_a_length_is_compared_with_the_upper_quartile_of_the_others():
    found = screen({"a": [1, 0], "b": [3, 0], "c": [2, 0], "d": [0, 22]})
    # Of 1, 2, 3 the upper quartile is 2.5; of 2, 3, 22 it is 12.5.
    assert found["d"].norm_ratio == pytest.approx(22 / 2.5)
    assert found["a"].norm_ratio == pytest.approx(1 / 12.5)
    assert [name for name, screening in found.items() if screening.is_outlier] == ["d"]
    assert found["d"].reason.startswith("its change is 8.8 times as long as the others'")


def test_five_times_the_others_is_usual_and_more_is_not():
    at_most = screen({"a": [1], "b": [1], "c": [1], "d": [5]})
    beyond = screen({"a": [1], "b": [1], "c": [1], "d": [5.01]})
    assert not at_most["d"].is_outlier
    assert beyond["d"].is_outlier


def test_a_direction_is_compared_with_the_sum_of_the_others_however_long_they_are():
    found = screen({"a": [1, 0], "b": [0, 5], "c": [3, 3], "d": [-2, 0]})
    diagonal = math.sqrt(0.5)
    # The others of d point along (1 + √½, 1 + √½), those of a along (√½ - 1, 1 + √½).
    assert found["d"].others_cosine == pytest.approx(-diagonal)
    assert found["a"].others_cosine == pytest.approx(
        (diagonal - 1) / math.hypot(diagonal - 1, 1 + diagonal)
    )


def test_who_points_away_from_others_who_agree_is_odd():
    agreeing = {"a": [1, 0], "b": [1, 0.1], "c": [1, -0.1], "d": [1, 0.2]}
    found = screen({**agreeing, "e": [-1, 0]})
    assert [name for name, screening in found.items() if screening.is_outlier] == ["e"]
    assert found["e"].reason.startswith("it points away from the others: its cosine")


def test_where_nobody_agrees_nobody_is_odd():
    found = screen({"a": [1, 0], "b": [-1, 0], "c": [0, 1], "d": [0, -1]})
    assert found["a"].others_cosine == pytest.approx(-1)
    assert not any(screening.is_outlier for screening in found.values())


def test_who_turns_round_is_odd_even_where_the_hospitals_pull_against_each_other():
    before = {"a": [1, 0], "b": [-1, 0], "c": [0, 1], "d": [0, -1]}
    now = {**before, "a": [-1, 0.1]}
    found = screen(now, before=before)
    assert [name for name, screening in found.items() if screening.is_outlier] == ["a"]
    assert found["a"].own_cosine == pytest.approx(-1 / math.hypot(1, 0.1))
    assert found["a"].own_median == pytest.approx(1)
    assert "it has turned round" in found["a"].reason


def test_where_all_turn_round_the_model_has_gone_too_far_and_nobody_is_odd():
    before = {name: [1, 0] for name in "abcd"}
    found = screen({name: [-1, 0] for name in "abcd"}, before=before)
    assert not any(screening.is_outlier for screening in found.values())


def test_who_points_as_before_is_not_odd_though_the_others_point_elsewhere():
    now = {"a": [1, 0], "b": [1, 0.1], "c": [1, -0.1], "d": [-1, 0]}
    found = screen(now, before=now)
    assert found["d"].others_cosine < -0.9
    assert not found["d"].is_outlier


def test_of_three_nobody_can_say_which_is_the_odd_one():
    found = screen({"a": [1, 0], "b": [1, 0], "c": [-100, 0]})
    assert not any(screening.is_outlier for screening in found.values())
    assert found["c"].norm_ratio is None


def test_who_waits_for_a_decision_is_held_and_no_measure_for_the_others():
    deltas = {"a": [1, 0], "b": [1, 0], "c": [1, 0], "d": [1, 0], "e": [-900, 0]}
    found = screen(deltas, held_since={"e": 2})
    assert [name for name, screening in found.items() if screening.is_outlier] == ["e"]
    assert found["e"].reason.startswith("its update of round 2 waits for a decision")
    assert found["a"].others_cosine == pytest.approx(1)
    assert found["a"].norm_ratio == pytest.approx(1)
    with_three = screen({name: deltas[name] for name in "abce"}, held_since={"e": 2})
    assert with_three["a"].norm_ratio is None
    assert with_three["e"].is_outlier


def test_who_is_trusted_may_be_twice_as_long_as_what_was_looked_at():
    for length, is_held in ((200, False), (201, True)):
        found = screen({"a": [1], "b": [1], "c": [1], "d": [length]}, trusted={"d": 100.0})
        assert found["d"].norm_ratio == pytest.approx(length)
        assert found["d"].is_outlier is is_held


def test_who_is_trusted_may_point_anywhere():
    deltas = {"a": [1], "b": [1], "c": [1], "d": [-1]}
    assert screen(deltas)["d"].is_outlier
    assert not screen(deltas, trusted={"d": 1.0})["d"].is_outlier


def test_what_is_too_short_to_move_anything_may_point_anywhere():
    before = {name: [1, 0] for name in "abcd"}
    short, long = ({**before, "d": [-length, 0]} for length in (0.09, 0.11))
    assert not screen(short, before=before)["d"].is_outlier
    assert screen(long, before=before)["d"].is_outlier


def test_no_change_at_all_is_harmless_and_divides_by_nothing():
    found = screen({"a": [1, 0], "b": [1, 0], "c": [1, 0], "d": [0, 0]})
    assert found["d"].norm_ratio == 0
    assert found["d"].others_cosine == 0
    assert not any(screening.is_outlier for screening in found.values())
    nothing = screen({name: [0, 0] for name in "abcd"})
    assert nothing["a"].norm_ratio is None


def test_with_control_variates_a_first_update_is_compared_by_direction_and_later_ones_by_length():
    plan = small_plan(strategy="scaffold")
    now = {"a": [1, 0], "b": [1, 0.1], "c": [1, -0.1], "d": [-1, 0]}
    controls = {"a": [1, 0], "b": [1, 0], "c": [51, 0], "d": [1, 0]}
    first = screen(now, plan=plan, controls=controls)
    assert first["c"].control_ratio == pytest.approx(51)
    assert first["c"].reason.startswith("its control variate's change is 51.0 times as long")
    assert first["d"].reason.startswith("it points away from the others")
    # They take a hospital's own pull out, so that what is left may turn.
    later = screen(now, before={**now, "d": [1, 0]}, plan=plan, controls=controls)
    assert [name for name, found in later.items() if found.is_outlier] == ["c"]


def test_nodes_that_measure_different_things_are_compared_by_length_alone():
    plan = make_plan(target="health_risk", study="health-risk", dataset="readings")
    found = screen({"a": [1, 0], "b": [1, 0], "c": [1, 0], "d": [-1, 0], "e": [-9, 0]}, plan=plan)
    assert [name for name, screening in found.items() if screening.is_outlier] == ["e"]


def test_figures_are_json_to_four_digits():
    found = screen({"a": [1, 0], "b": [2, 1], "c": [3, 0], "d": [1, 1]})
    figures = found["b"].figures_to_json()
    assert figures["norm_ratio"] == pytest.approx(math.sqrt(5) / 2.207, rel=1e-3)
    assert figures["own_cosine"] is None
    assert "reason" not in figures


# --- In a run ----------------------------------------------------------------------------------


def simulate_with(attack, attacker="b", *, first_round=1, num_rounds=3, **options):
    held = {}

    def on_update(update, round_number):
        if round_number < first_round:
            return update
        return attack_by(attack, {attacker}, seed=0)(update, round_number)

    def on_screening(screenings, round_number):
        held[round_number] = sorted(n for n, found in screenings.items() if found.is_outlier)

    result = simulate(
        HOSPITALS,
        small_plan(num_rounds=num_rounds),
        seed=0,
        on_update=on_update,
        on_screening=on_screening,
        **options,
    )
    return result, held


@pytest.mark.parametrize("attack", ["sign_flip", "scale_100", "random"])
def test_an_attacker_is_held_from_its_first_bad_update_on_and_nobody_else_is(attack):
    result, held = simulate_with(attack)
    assert held == {1: ["b"], 2: ["b"], 3: ["b"]}
    assert sorted(result.local_params) == ["a", "c", "d", "e"]


def test_a_hospital_that_turns_bad_later_is_held_from_then_on():
    _, held = simulate_with("sign_flip", first_round=3, num_rounds=4)
    assert held == {1: [], 2: [], 3: ["b"], 4: ["b"]}


def test_the_next_model_is_made_of_the_others_updates():
    arrived = []

    def on_update(update, round_number):
        arrived.append(attack_by("sign_flip", {"b"}, seed=0)(update, round_number))
        return arrived[-1]

    result = simulate(HOSPITALS, PLAN, seed=0, on_update=on_update)
    others = [update for update in arrived if update.client_id != "b"]
    expected, _ = next_params(PLAN, first_params(PLAN, seed=0), others)
    assert PLAN.num_rounds == 1
    assert result.final_sha256 == params_sha256(expected)


def test_unscreened_everything_counts():
    result, held = simulate_with("scale_100", is_screened=False)
    assert held == {}
    assert sorted(result.local_params) == list("abcde")
    honest = simulate(HOSPITALS, small_plan(num_rounds=3), seed=0)
    largest = max(float(np.abs(value).max()) for value in result.params.values())
    assert largest > 5 * max(float(np.abs(value).max()) for value in honest.params.values())
