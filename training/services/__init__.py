"""What the director can be asked to do; pages, API, tasks and commands call these."""

from training.services.choices import (
    choice_in_use,
    chosen_version,
    overrule_choice,
    take_back_overruling,
)
from training.services.clients import receive_update, train_clients
from training.services.newest import newest_version, number_to_come, packaged_plan
from training.services.packages import (
    approve_package,
    base_model,
    package_envoys,
    package_training,
    refuse_package,
    revoke_approval,
    standing_approval,
)
from training.services.quarantine import reject_update, release_update
from training.services.reports import report_run, request_report
from training.services.retries import (
    drop_assignment,
    droppable_assignments,
    retry_assignment,
    retryable_assignments,
)
from training.services.rounds import aggregate_round, close_round
from training.services.runs import (
    aggregate_envoys,
    launch_training,
    participants_for,
    start_run,
    stop_run,
)
from training.services.studies import create_study, plan_for, study_for
from training.services.sweeper import advance_runs
from training.services.versions import active_version, deliver_version, distribute_version

__all__ = [
    "active_version",
    "advance_runs",
    "aggregate_envoys",
    "aggregate_round",
    "approve_package",
    "base_model",
    "choice_in_use",
    "chosen_version",
    "close_round",
    "create_study",
    "deliver_version",
    "distribute_version",
    "drop_assignment",
    "droppable_assignments",
    "launch_training",
    "newest_version",
    "number_to_come",
    "overrule_choice",
    "package_envoys",
    "package_training",
    "packaged_plan",
    "participants_for",
    "plan_for",
    "receive_update",
    "refuse_package",
    "reject_update",
    "release_update",
    "report_run",
    "request_report",
    "retry_assignment",
    "retryable_assignments",
    "revoke_approval",
    "standing_approval",
    "start_run",
    "stop_run",
    "study_for",
    "take_back_overruling",
    "train_clients",
]
