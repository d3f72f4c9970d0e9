from django.apps import AppConfig


class DiagnosesConfig(AppConfig):
    name = "diagnoses"
    verbose_name = "Diagnoses"
    default_auto_field = "django.db.models.BigAutoField"
