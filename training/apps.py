from django.apps import AppConfig


class TrainingConfig(AppConfig):
    name = "training"
    verbose_name = "Training"
    default_auto_field = "django.db.models.BigAutoField"

    def ready(self) -> None:
        from envoys import work
        from training.models import Distribution, RunReport
        from training.services.reports import enqueue_reports
        from training.services.versions import enqueue_distributions

        work.register(Distribution, enqueue_distributions)
        work.register(RunReport, enqueue_reports)
