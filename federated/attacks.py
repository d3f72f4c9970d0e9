"""What a bad hospital might send, to try the robust strategies on.

Each attack alters an honest update, its control variate included; whoever sends it has not lied
about its examples.
"""

from collections.abc import Callable, Collection
from dataclasses import replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from federated.aggregation import ClientUpdate
from federated.errors import UnknownAttackError
from federated.seeds import rng_for

Attack = Callable[[ClientUpdate, np.random.Generator], ClientUpdate]


def flip_sign(update: ClientUpdate, rng: np.random.Generator) -> ClientUpdate:
    """Send the opposite of what was learned."""
    return _altered(update, lambda value: -value)


def scale_up(update: ClientUpdate, rng: np.random.Generator) -> ClientUpdate:
    """Send a hundred times what was learned."""
    return _altered(update, lambda value: np.float32(100) * value)


def randomize(update: ClientUpdate, rng: np.random.Generator) -> ClientUpdate:
    """Send normal noise of standard deviation 1: far more than a round's honest change."""
    return _altered(update, lambda value: rng.normal(size=value.shape).astype(np.float32))


_ATTACKS: dict[str, Attack] = {"sign_flip": flip_sign, "scale_100": scale_up, "random": randomize}


def attacks() -> tuple[str, ...]:
    return tuple(_ATTACKS)


def attack_by(name: str, client_ids: Collection[str], *, seed: int) -> Callable[..., ClientUpdate]:
    """An attack by some clients and by no other, for `simulation.simulate(on_update=…)`.

    Raises:
        UnknownAttackError: it says what there is.
    """
    if name not in _ATTACKS:
        raise UnknownAttackError(f"no attack is called {name!r}; there are {', '.join(_ATTACKS)}")

    def on_update(update: ClientUpdate, round_number: int) -> ClientUpdate:
        if update.client_id not in client_ids:
            return update
        rng = rng_for("attack", name, seed, round_number, update.client_id)
        return _ATTACKS[name](update, rng)

    return on_update


def _altered(update: ClientUpdate, alter: Callable[[NDArray[Any]], NDArray[Any]]) -> ClientUpdate:
    return replace(
        update,
        delta_params={name: alter(value) for name, value in sorted(update.delta_params.items())},
        delta_control={name: alter(value) for name, value in sorted(update.delta_control.items())},
    )
