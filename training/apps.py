from django.apps import AppConfig


class TrainingConfig(AppConfig):
    name = "training"
    verbose_name = "Training"
    default_auto_field = "django.db.models.BigAutoField"

    def ready(self) -> None:
        from envoys import work
        from training.models import Distribution, RunReport
        from training.tasks import distribute_version_task, report_run_task

        work.register(Distribution, distribute_version_task)
        work.register(RunReport, report_run_task)
