from django.apps import AppConfig


class InferenceConfig(AppConfig):
    name = "inference"
    verbose_name = "Inference"
    default_auto_field = "django.db.models.BigAutoField"

    def ready(self) -> None:
        from envoys import work
        from inference.models import InferenceRun
        from inference.tasks import predict_envoy_task

        work.register(InferenceRun, predict_envoy_task)
