from django.apps import AppConfig


class DiagnosesConfig(AppConfig):
    name = "diagnoses"
    verbose_name = "Diagnoses"
    default_auto_field = "django.db.models.BigAutoField"

    def ready(self) -> None:
        from diagnoses.datasets import SOURCE
        from diagnoses.models import Snapshot, Upload
        from diagnoses.tasks import export_snapshot_task, process_upload_task
        from envoys import work
        from federated import datasets

        work.register(Snapshot, export_snapshot_task, title="Export")
        work.register(Upload, process_upload_task, title="Upload")
        datasets.register("diagnoses", SOURCE)
