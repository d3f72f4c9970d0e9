from django.apps import AppConfig


class PublicHealthConfig(AppConfig):
    name = "publichealth"
    verbose_name = "Public health"
    default_auto_field = "django.db.models.BigAutoField"

    def ready(self) -> None:
        from envoys import work
        from federated import datasets
        from inference.services import erasure
        from publichealth.datasets import SOURCE
        from publichealth.models import DriftCheck, Reading, Serving
        from publichealth.services.drift import forget_trained_on
        from publichealth.tasks import check_drift_task, prepare_serving_task

        work.register(
            Serving,
            prepare_serving_task,
            title="Preparation for serving",
            about="version__study",
        )
        work.register(DriftCheck, check_drift_task, title="Drift check")
        datasets.register("readings", SOURCE)
        erasure.register(DriftCheck, title="Drift checks")
        erasure.register(Reading, title="Readings", is_of_people=True)
        erasure.register_forgetting(forget_trained_on)
