from celery import shared_task


@shared_task(acks_late=True, reject_on_worker_lost=True)
def prepare_serving_task(serving_id: int) -> None:
    from publichealth.services import serving

    serving.prepare_serving(serving_id)


@shared_task(acks_late=True, reject_on_worker_lost=True)
def check_drift_task(check_id: int) -> None:
    from publichealth.services import drift

    drift.check_drift(check_id)


@shared_task(acks_late=True, reject_on_worker_lost=True)
def watch_readings_task() -> None:
    """Beat, every few seconds: what nobody has to ask for."""
    from publichealth.services import drift, readings, serving, surveillance

    serving.request_missing_servings()
    drift.request_due_checks()
    readings.remove_old_readings()
    surveillance.count_hours_again()
