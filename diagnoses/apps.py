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

        work.register(Snapshot, export_diagnoses_task)
        datasets.register("diagnoses", SOURCE)
