"""Who did or saw what. One plain insert; rows are named by kind and primary key, never by name."""

from django.db import models

from envoys.models import AuditEvent, User


def record(user: User | None, action: str, row: models.Model) -> AuditEvent:
    """Write down that `user` (or the system, None) did `action` to `row`."""
    return AuditEvent.objects.create(
        user=user, action=action, target=f"{row._meta.model_name}:{row.pk}"
    )
