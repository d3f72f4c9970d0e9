"""What the director can be asked to do; pages, API, tasks and commands call these."""

from training.services.clients import receive_update, train_clients
from training.services.packages import (
    approve_package,
    base_model,
    package_training,
    revoke_approval,
    standing_approval,
)
from training.services.reports import report_run, request_report
from training.services.rounds import aggregate_round, close_round
from training.services.runs import (
    aggregate_envoys,
    launch_training,
    plan_for,
    start_run,
    stop_run,
    study_for,
)
from training.services.sweeper import advance_runs
from training.services.versions import active_version, deliver_version, distribute_version

__all__ = [
    "active_version",
    "advance_runs",
    "aggregate_envoys",
    "aggregate_round",
    "approve_package",
    "base_model",
    "close_round",
    "deliver_version",
    "distribute_version",
    "launch_training",
    "package_training",
    "plan_for",
    "receive_update",
    "report_run",
    "request_report",
    "revoke_approval",
    "standing_approval",
    "start_run",
    "stop_run",
    "study_for",
    "train_clients",
]
