from django.apps import AppConfig


class EnvoysConfig(AppConfig):
    name = "envoys"
    verbose_name = "Who takes part"
    default_auto_field = "django.db.models.BigAutoField"

    def ready(self) -> None:
        from envoys.token_keys import use_every_key

        use_every_key()
