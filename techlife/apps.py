from django.apps import AppConfig


class TechlifeConfig(AppConfig):
    """Holds no rows; installed for its management commands."""

    name = "techlife"
