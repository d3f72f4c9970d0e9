"""How the newest model of readings was trained, node by node."""

from dataclasses import dataclass
from typing import Any

from envoys.models import Envoy, User
from federated.targets import READINGS
from training.models import ReceivedUpdate, TrainingRun
from training.progress import Curves, curves_of


@dataclass(frozen=True)
class NodeLosses:
    name: str
    kind: str
    train_loss: list[float | None]  # of each round, on the node's own training rows


@dataclass(frozen=True)
class HealthTraining:
    """The newest finished run of a study of readings.

    Attributes:
        rounds: from 1; `nodes` has a loss for each.
        curves: the global model after each round, on the nodes' validation rows.
        active_run: one that is under way.
    """

    run: TrainingRun
    rounds: list[int]
    nodes: list[NodeLosses]
    curves: Curves
    active_run: TrainingRun | None

    def losses_by_round(self) -> list[tuple[int, list[float | None]]]:
        """As rows of a table: the round, then each node's loss."""
        columns = [node.train_loss for node in self.nodes]
        return [(number, [c[i] for c in columns]) for i, number in enumerate(self.rounds)]

    def charts(self) -> dict[str, Any]:
        return {
            **self.curves.as_json(),
            "rounds": self.rounds,
            "nodes": [{"name": n.name, "train_loss": n.train_loss} for n in self.nodes],
        }


def newest_training(user: User) -> HealthTraining | None:
    """What this person may see of it; None before the first run has finished."""
    runs = TrainingRun.objects.visible_to(user).filter(study__dataset=READINGS)
    runs = runs.select_related("study")
    run = runs.filter(status=TrainingRun.Status.FINISHED).order_by("-finished_at", "-pk").first()
    if run is None:
        return None
    visible_ids = set(Envoy.objects.visible_to(user).values_list("pk", flat=True))
    participants = list(run.participants.select_related("envoy"))
    rounds = {training_round.number: training_round for training_round in run.rounds.all()}
    numbers = list(range(1, run.num_rounds + 1))
    losses: dict[tuple[int, int], float | None] = {
        (envoy_id, number): metrics.get("train_loss")
        for envoy_id, number, metrics in ReceivedUpdate.objects.filter(
            assignment__training_round__run=run,
            assignment__envoy__in=visible_ids,
            verdict=ReceivedUpdate.Verdict.ACCEPTED,
        ).values_list("assignment__envoy_id", "assignment__training_round__number", "metrics")
    }
    return HealthTraining(
        run=run,
        rounds=numbers,
        nodes=[
            NodeLosses(
                each.envoy.name,
                each.envoy.get_kind_display(),
                [losses.get((each.envoy_id, number)) for number in numbers],
            )
            for each in participants
            if each.envoy_id in visible_ids and not each.sits_out_because
        ],
        curves=curves_of(run, participants, rounds, visible_ids),
        active_run=runs.active().first(),
    )
