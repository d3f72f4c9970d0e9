import hashlib

import numpy as np
import pytest

from federated.seeds import rng_for


def draws(*parts: str | int) -> list[float]:
    return rng_for(*parts).random(3).tolist()


def test_equal_parts_draw_equal_numbers():
    assert draws(0, 1, "north") == draws(0, 1, "north")


@pytest.mark.parametrize("other", [(1, 1, "north"), (0, 2, "north"), (0, 1, "south"), (0, 1)])
def test_another_seed_round_or_hospital_draws_other_numbers(other):
    assert draws(*other) != draws(0, 1, "north")


def test_parts_do_not_run_into_each_other():
    assert draws(1, 12, "a") != draws(11, 2, "a")


def test_the_seed_is_the_sha256_of_the_parts_so_that_every_process_has_the_same():
    digest = hashlib.sha256(b"7\x003\x00north").digest()
    by_hand = np.random.default_rng(int.from_bytes(digest[:16], "big"))
    assert draws(7, 3, "north") == by_hand.random(3).tolist()
