from django.apps import AppConfig


class TrainingConfig(AppConfig):
    name = "training"
    verbose_name = "Training"
    default_auto_field = "django.db.models.BigAutoField"

    def ready(self) -> None:
        from envoys import work
        from training import services
        from training.models import Distribution, RoundAssignment, RunReport
        from training.tasks import distribute_version_task, report_run_task, train_clients_task

        work.register(
            RoundAssignment,
            train_clients_task,
            title="Training",
            retry=services.retry_assignment,
            failed=RoundAssignment.objects.failed_in_open_rounds,
        )
        work.register(Distribution, distribute_version_task, title="Delivery of a model")
        work.register(RunReport, report_run_task, title="Report", about="run__study")
