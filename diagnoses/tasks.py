from celery import shared_task


@shared_task(acks_late=True, reject_on_worker_lost=True)
def export_diagnoses_task(snapshot_id: int) -> None:
    from diagnoses import services

    services.export_diagnoses(snapshot_id)


@shared_task(acks_late=True, reject_on_worker_lost=True)
def process_upload_task(upload_id: int) -> None:
    from diagnoses import services

    services.process_upload(upload_id)
