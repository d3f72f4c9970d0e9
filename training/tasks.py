"""Doors from the queue: ids in, one service, safe to deliver twice."""

from celery import shared_task

from training.models import TrainingRound


@shared_task(acks_late=True, reject_on_worker_lost=True)
def train_clients_task(assignment_ids: list[int]) -> None:
    from training import services

    services.train_clients(assignment_ids)


@shared_task(acks_late=True, reject_on_worker_lost=True)
def close_round_task(round_id: int) -> None:
    from training import services

    services.close_round(TrainingRound.objects.select_related("run").get(pk=round_id))


@shared_task(acks_late=True, reject_on_worker_lost=True)
def aggregate_round_task(round_id: int) -> None:
    from training import services

    services.aggregate_round(TrainingRound.objects.get(pk=round_id))


@shared_task
def advance_runs_task() -> None:
    from training import services

    services.advance_runs()


@shared_task(acks_late=True, reject_on_worker_lost=True)
def distribute_version_task(distribution_id: int) -> None:
    from training import services

    services.deliver_version(distribution_id)


@shared_task(acks_late=True, reject_on_worker_lost=True)
def report_run_task(report_id: int) -> None:
    from training import services

    services.report_run(report_id)


@shared_task
def check_rounds_task() -> None:
    from training.services import checking

    checking.check_often()


@shared_task
def remove_old_objects_task() -> None:
    from training.services import retention

    retention.remove_old_objects()
