"""How updates become the next global model: one paper, one function, chosen per run.

A strategy's `aggregate` is a pure function of the global parameters, the server's state, the
updates (sorted by client id) and the strategy's parameters, and returns new parameters and state.
The state is arrays by name, so that it is stored as parameters are.
"""

from collections.abc import Callable, Iterable
from dataclasses import dataclass, fields
from typing import Any

from federated.aggregation import ClientUpdate
from federated.errors import InvalidPlanError, UnknownStrategyError
from federated.params import Params
from federated.strategies.averaging import FedProxParameters, fedavg, fedprox
from federated.strategies.parameters import StrategyParameters, read_value
from federated.strategies.robust import (
    MedianParameters,
    MultiKrumParameters,
    TrimmedMeanParameters,
    median,
    multi_krum,
    trimmed_mean,
)
from federated.strategies.scaffold import ScaffoldParameters, first_control, scaffold
from federated.strategies.server_optimizers import (
    FedAdagradParameters,
    FedAdamParameters,
    fedadagrad,
    fedadam,
    fedyogi,
    first_moments,
)

__all__ = [
    "FedAdagradParameters",
    "FedAdamParameters",
    "FedProxParameters",
    "MedianParameters",
    "MultiKrumParameters",
    "ScaffoldParameters",
    "Strategy",
    "StrategyParameters",
    "TrimmedMeanParameters",
    "strategies",
    "strategy_named",
]


def _no_state(global_params: Params, parameters: StrategyParameters, num_clients: int) -> Params:
    return {}


@dataclass(frozen=True)
class Strategy:
    """How updates become the next global model.

    `first_state` is the server's before round 1, given the number of clients of the run.
    `needs_plain_updates`: it looks at single updates, so secure aggregation must refuse it.
    `uses_controls`: clients correct their steps by control variates, and send their change.
    """

    name: str
    title: str
    aggregate: Callable[[Params, Params, Iterable[ClientUpdate], Any], tuple[Params, Params]]
    parameters: type[StrategyParameters] = StrategyParameters
    first_state: Callable[[Params, Any, int], Params] = _no_state
    needs_plain_updates: bool = False
    uses_controls: bool = False

    @property
    def has_state(self) -> bool:
        """Whether the server remembers anything from round to round."""
        return self.first_state is not _no_state

    def make_parameters(self, chosen: dict[str, Any]) -> StrategyParameters:
        """Those chosen, and defaults for the others.

        Raises:
            InvalidPlanError: names what is unknown, of another type or out of range.
        """
        known = {field.name for field in fields(self.parameters)}
        if odd := sorted(set(chosen) - known):
            has = ", ".join(sorted(known)) or "none"
            raise InvalidPlanError(
                f"{self.name} has no parameter {', '.join(odd)}; its parameters: {has}"
            )
        return self.parameters(**chosen)

    def read_parameters(self, given: Iterable[str]) -> dict[str, Any]:
        """What `name=value` on a command line chooses, for `make_parameters`.

        Raises:
            InvalidPlanError: names what is not of that form, given twice or of another type.
        """
        known = {field.name: field for field in fields(self.parameters)}
        chosen: dict[str, Any] = {}
        for text in given:
            name, is_assignment, value = text.partition("=")
            if not name or not is_assignment:
                raise InvalidPlanError(f"a parameter is given as name=value, not {text!r}")
            if name in chosen:
                raise InvalidPlanError(f"{name} is given twice")
            # An unknown name is refused by `make_parameters`, which says what there is.
            chosen[name] = read_value(known[name], value) if name in known else value
        return chosen


_STRATEGIES = (
    Strategy("fedavg", "FedAvg", fedavg),
    Strategy("fedprox", "FedProx", fedprox, FedProxParameters),
    Strategy(
        "scaffold", "SCAFFOLD", scaffold, ScaffoldParameters, first_control, uses_controls=True
    ),
    Strategy("fedadagrad", "FedAdagrad", fedadagrad, FedAdagradParameters, first_moments),
    Strategy("fedadam", "FedAdam", fedadam, FedAdamParameters, first_moments),
    Strategy("fedyogi", "FedYogi", fedyogi, FedAdamParameters, first_moments),
    Strategy("median", "Median", median, MedianParameters, needs_plain_updates=True),
    Strategy(
        "trimmed_mean",
        "Trimmed mean",
        trimmed_mean,
        TrimmedMeanParameters,
        needs_plain_updates=True,
    ),
    Strategy("multi_krum", "Multi-Krum", multi_krum, MultiKrumParameters, needs_plain_updates=True),
)


def strategies() -> tuple[Strategy, ...]:
    return _STRATEGIES


def strategy_named(name: str) -> Strategy:
    """Raises UnknownStrategyError, which says what there is."""
    for strategy in _STRATEGIES:
        if strategy.name == name:
            return strategy
    known = ", ".join(strategy.name for strategy in _STRATEGIES)
    raise UnknownStrategyError(f"no strategy is called {name!r}; there are {known}")
