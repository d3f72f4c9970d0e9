from django.apps import AppConfig


class EnvoysConfig(AppConfig):
    name = "envoys"
    verbose_name = "Who takes part"
    default_auto_field = "django.db.models.BigAutoField"
