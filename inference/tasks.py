from celery import shared_task


@shared_task(acks_late=True, reject_on_worker_lost=True)
def predict_envoy_task(inference_run_id: int) -> None:
    from inference import services

    services.predict_envoy(inference_run_id)


@shared_task(acks_late=True, reject_on_worker_lost=True)
def erase_envoy_task(erasure_id: int) -> None:
    from inference import services

    services.erase_envoy(erasure_id)


@shared_task(acks_late=True, reject_on_worker_lost=True)
def erase_patient_task(erasure_id: int) -> None:
    from inference import services

    services.finish_patient_erasure(erasure_id)
