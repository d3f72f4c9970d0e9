from django.apps import AppConfig


class DiagnosesConfig(AppConfig):
    name = "diagnoses"
    verbose_name = "Diagnoses"
    default_auto_field = "django.db.models.BigAutoField"

    def ready(self) -> None:
        from diagnoses.datasets import SOURCE
        from diagnoses.models import Snapshot
        from diagnoses.tasks import export_diagnoses_task
        from envoys import work
        from federated import datasets

        def enqueue_exports(snapshot_ids: list[int]) -> None:
            for snapshot_id in snapshot_ids:
                export_diagnoses_task.delay(snapshot_id)

        work.register(Snapshot, enqueue_exports)
        datasets.register("diagnoses", SOURCE)
