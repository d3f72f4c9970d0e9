import numpy as np
import pytest

from federated.aggregation import ClientUpdate
from federated.attacks import attack_by, attacks
from federated.errors import UnknownAttackError
from tests.federated.builders import as_lists, make_params


def update(client_id="north"):
    return ClientUpdate(
        client_id,
        make_params(bias=[1, -2], codes=[[0.5]]),
        7,
        {"train_loss": 0.5},
        delta_control=make_params(bias=[3, 4], codes=[[5]]),
    )


@pytest.mark.parametrize(
    ("name", "delta_params", "delta_control"),
    [
        (
            "sign_flip",
            {"bias": [-1, 2], "codes": [[-0.5]]},
            {"bias": [-3, -4], "codes": [[-5]]},
        ),
        (
            "scale_100",
            {"bias": [100, -200], "codes": [[50]]},
            {"bias": [300, 400], "codes": [[500]]},
        ),
    ],
)
def test_an_attack_alters_whatever_is_learned_and_nothing_else(name, delta_params, delta_control):
    bad = attack_by(name, {"north"}, seed=0)(update(), 1)
    assert as_lists(bad.delta_params) == delta_params
    assert as_lists(bad.delta_control) == delta_control
    assert (bad.client_id, bad.num_examples, bad.metrics) == ("north", 7, {"train_loss": 0.5})
    assert as_lists(update().delta_params) == {"bias": [1, -2], "codes": [[0.5]]}


def test_random_updates_differ_by_round_and_are_the_same_again():
    attack = attack_by("random", {"north"}, seed=0)
    first, again, later = (as_lists(attack(update(), number).delta_params) for number in (1, 1, 2))
    assert first == again != later
    wide = ClientUpdate("north", {"codes": np.zeros((100, 100), np.float32)}, 1)
    noise = attack(wide, 1).delta_params["codes"]
    assert noise.dtype == np.float32
    assert (noise.mean(), noise.std()) == pytest.approx((0, 1), abs=0.05)


@pytest.mark.parametrize("name", attacks())
def test_a_good_hospital_sends_what_it_learned(name):
    good = update("south")
    assert attack_by(name, {"north", "west"}, seed=0)(good, 1) is good


def test_an_unknown_attack_is_refused_with_those_there_are():
    with pytest.raises(UnknownAttackError, match="'bribery'; there are sign_flip, scale_100"):
        attack_by("bribery", {"north"}, seed=0)
