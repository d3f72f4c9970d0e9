from django.apps import AppConfig


class InferenceConfig(AppConfig):
    name = "inference"
    verbose_name = "Inference"
    default_auto_field = "django.db.models.BigAutoField"

    def ready(self) -> None:
        from envoys import work
        from inference.models import InferenceRun
        from inference.services import enqueue_inference

        work.register(InferenceRun, enqueue_inference)
