from django.apps import AppConfig


class InferenceConfig(AppConfig):
    name = "inference"
    verbose_name = "Inference"
    default_auto_field = "django.db.models.BigAutoField"

    def ready(self) -> None:
        from diagnoses.models import PatientErasure
        from envoys import work
        from inference.models import Erasure, InferenceRun
        from inference.tasks import erase_envoy_task, erase_patient_task, predict_envoy_task

        work.register(InferenceRun, predict_envoy_task, title="Inference")
        work.register(Erasure, erase_envoy_task, title="Erasure", for_deleted=True)
        work.register(PatientErasure, erase_patient_task, title="Erasure of a patient")
