"""The whole federation in one process, top to bottom: the reference for the served one.

A served run takes the same steps (`federated.rounds`) on the same data, and ends in the same bits;
`python -m federated DIR` runs it on a cohort folder.
"""

from collections import deque
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field

import torch

from federated.aggregation import ClientUpdate
from federated.datasets import ClientDataset
from federated.params import Params, add, params_sha256
from federated.plan import TrainingPlan
from federated.rounds import (
    check_classes,
    classes_seen,
    client_update,
    first_params,
    first_server_state,
    next_params,
    takes_part,
)
from federated.scaling import FeatureScaling, feature_statistics, pooled_scaling
from federated.screening import RunMemory, Screening, screen_round

OnUpdate = Callable[[ClientUpdate, int], ClientUpdate]
OnScreening = Callable[[Mapping[str, Screening], int], None]


@dataclass(frozen=True)
class SimulationResult:
    """Where a run ends: what a model version holds.

    Attributes:
        client_ids: who took part, sorted.
        local_params: what the last round's training made of its base at each client whose update
            counted: the global model fine-tuned there.
    """

    params: Params
    scaling: FeatureScaling
    client_ids: tuple[str, ...]
    local_params: dict[str, Params] = field(default_factory=dict)

    @property
    def final_sha256(self) -> str:
        return params_sha256(self.params)


def simulate(
    datasets: Mapping[str, ClientDataset],
    plan: TrainingPlan,
    *,
    seed: int,
    on_round: Callable[[int], None] = lambda round_number: None,
    on_update: OnUpdate = lambda update, round_number: update,
    on_screening: OnScreening = lambda screenings, round_number: None,
    is_screened: bool = True,
) -> SimulationResult:
    """Train as the federation would, and return where the last round ends.

    Arguments and errors are those of `simulate_rounds`.
    """
    rounds = simulate_rounds(
        datasets,
        plan,
        seed=seed,
        on_round=on_round,
        on_update=on_update,
        on_screening=on_screening,
        is_screened=is_screened,
    )
    return deque(rounds, maxlen=1).pop()


def simulate_rounds(
    datasets: Mapping[str, ClientDataset],
    plan: TrainingPlan,
    *,
    seed: int,
    on_round: Callable[[int], None] = lambda round_number: None,
    on_update: OnUpdate = lambda update, round_number: update,
    on_screening: OnScreening = lambda screenings, round_number: None,
    is_screened: bool = True,
) -> Iterator[SimulationResult]:
    """Round 0 for the scaling, then rounds 1..n: where the federation is after each of these.

    Args:
        datasets: by client id; one with too few labelled patients sits out.
        on_round: told the number of each finished round.
        on_update: given each update and its round, returns what arrives of it (`attacks`).
        on_screening: told how each update stood to the others of its round.
        is_screened: whether what is odd is left out, as where the federation is served; nobody
            decides here, so that it stays out.
    Raises:
        EmptyRoundError: nobody can take part, or no update of a round counts.
        OneClassError: all outcomes of all hospitals are the same.
        TooFewUpdatesError: fewer take part than a robust strategy needs.
    """
    torch.set_num_threads(1)  # with more, sums are taken in another order: other bits
    client_ids = tuple(name for name in sorted(datasets) if takes_part(plan, datasets[name]))
    if len(client_ids) > 1:  # one alone may have one class, as some hospitals do
        check_classes(plan, (classes_seen(datasets[name]) for name in client_ids))
    scaling = pooled_scaling(feature_statistics(datasets[name]) for name in client_ids)
    params = first_params(plan, seed=seed)
    server_state = first_server_state(plan, params, num_clients=len(client_ids))
    client_states: dict[str, Params] = {}
    local_params: dict[str, Params] = {}
    memory = RunMemory() if is_screened else None
    for round_number in range(1, plan.num_rounds + 1):
        base_params = params
        params, server_state, counted = run_round(
            params,
            {name: datasets[name] for name in client_ids},
            plan,
            scaling,
            seed=seed,
            round_number=round_number,
            server_state=server_state,
            client_states=client_states,
            memory=memory,
            on_update=on_update,
            on_screening=on_screening,
        )
        if round_number == plan.num_rounds:
            local_params = {u.client_id: add(base_params, u.delta_params) for u in counted}
        on_round(round_number)
        yield SimulationResult(params, scaling, client_ids, dict(local_params))


def run_round(
    global_params: Params,
    datasets: Mapping[str, ClientDataset],
    plan: TrainingPlan,
    scaling: FeatureScaling,
    *,
    seed: int,
    round_number: int,
    server_state: Params,
    client_states: dict[str, Params],
    memory: RunMemory | None = None,
    on_update: OnUpdate = lambda update, round_number: update,
    on_screening: OnScreening = lambda screenings, round_number: None,
) -> tuple[Params, Params, list[ClientUpdate]]:
    """One exchange with every client: the next global parameters, server's state, what counted.

    Args:
        client_states: what each client remembers, by its id; replaced where its update counts.
        memory: what screening remembers of the run, likewise; None: nothing is screened.
    """
    updates = [
        on_update(
            client_update(
                plan,
                global_params,
                datasets[client_id],
                scaling,
                seed=seed,
                round_number=round_number,
                client_id=client_id,
                server_state=server_state,
                client_state=client_states.get(client_id),
            ),
            round_number,
        )
        for client_id in sorted(datasets)
    ]
    if memory is not None:
        screenings = screen_round(
            plan,
            lambda: updates,
            last_counted=memory.last_counted.get,
            held_since=memory.held_since,
        )
        on_screening(screenings, round_number)
        for client_id in sorted(screenings):
            if screenings[client_id].is_outlier:
                memory.held_since.setdefault(client_id, round_number)
        updates = [u for u in updates if not screenings[u.client_id].is_outlier]
    params, next_state = next_params(plan, global_params, updates, server_state)
    for update in updates:
        client_states[update.client_id] = update.client_state
        if memory is not None:
            memory.last_counted[update.client_id] = update.delta_params
    return params, next_state, updates
