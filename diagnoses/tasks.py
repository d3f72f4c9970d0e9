from celery import shared_task


@shared_task(acks_late=True, reject_on_worker_lost=True)
def export_snapshot_task(snapshot_id: int) -> None:
    from diagnoses.models import Snapshot
    from federated.datasets import source_named

    # A row that is gone was erased with its hospital.
    for dataset in Snapshot.objects.filter(pk=snapshot_id).values_list("dataset", flat=True):
        source_named(dataset).export(snapshot_id)


@shared_task(acks_late=True, reject_on_worker_lost=True)
def process_upload_task(upload_id: int) -> None:
    from diagnoses import services

    services.process_upload(upload_id)
