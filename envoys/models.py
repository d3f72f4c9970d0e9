import secrets
from typing import Self

from django.contrib.auth.models import AbstractUser
from django.db import models


def new_serial_id() -> str:
    return secrets.token_hex(8)


class EnvoyQuerySet(models.QuerySet["Envoy"]):
    def active(self) -> Self:
        return self.filter(status=Envoy.Status.ACTIVE)

    def visible_to(self, user: "User") -> Self:
        """Every envoy for who runs the federation, a doctor's own, none for a stranger."""
        if user.role in (
            User.Role.DATA_SCIENTIST,
            User.Role.PUBLIC_HEALTH,
            User.Role.ADMINISTRATOR,
        ):
            return self
        return self.filter(pk=user.envoy_id) if user.envoy_id else self.none()


class Envoy(models.Model):
    """A hospital's registered participant; inside a round it is a client."""

    class Placement(models.TextChoices):
        HOSTED = "HOSTED", "Hosted here"
        REMOTE = "REMOTE", "At the hospital"

    class Status(models.TextChoices):
        ACTIVE = "ACTIVE", "Active"
        SUSPENDED = "SUSPENDED", "Suspended"

    name = models.CharField(max_length=200, unique=True)
    slug = models.SlugField(max_length=80, unique=True)
    serial_id = models.CharField(max_length=32, unique=True, default=new_serial_id)
    placement = models.CharField(max_length=16, choices=Placement.choices, default=Placement.HOSTED)
    bucket = models.CharField(max_length=63, blank=True)  # empty: the folder store
    prefix = models.CharField(max_length=200, blank=True)  # empty: envoys/<slug>
    region = models.CharField(max_length=40, default="eu-north-1")
    queue = models.CharField(max_length=80, blank=True)  # empty: the shared queue
    status = models.CharField(max_length=16, choices=Status.choices, default=Status.ACTIVE)
    last_seen_at = models.DateTimeField(null=True, blank=True)
    created_at = models.DateTimeField(auto_now_add=True)

    objects = EnvoyQuerySet.as_manager()

    class Meta:
        ordering = ["name"]

    def __str__(self) -> str:
        return self.name

    @property
    def storage_prefix(self) -> str:
        return self.prefix.strip("/") or f"envoys/{self.slug}"


class User(AbstractUser):
    """A person with one role; a doctor belongs to one hospital."""

    class Role(models.TextChoices):
        DOCTOR = "doctor", "Doctor"
        DATA_SCIENTIST = "data_scientist", "Data scientist"
        PUBLIC_HEALTH = "public_health", "Public-health officer"
        ADMINISTRATOR = "administrator", "Administrator"

    role = models.CharField(max_length=20, choices=Role.choices, default=Role.DOCTOR)
    envoy = models.ForeignKey(
        Envoy, null=True, blank=True, on_delete=models.PROTECT, related_name="users"
    )
    phone = models.CharField(max_length=32, blank=True)

    @property
    def is_doctor(self) -> bool:
        return self.role == self.Role.DOCTOR

    @property
    def runs_federation(self) -> bool:
        return self.role in (self.Role.DATA_SCIENTIST, self.Role.ADMINISTRATOR)


class AuditEvent(models.Model):
    """Who did or saw what, to which row. Appended to, never changed; pseudonyms only."""

    user = models.ForeignKey(User, null=True, on_delete=models.PROTECT, related_name="+")
    action = models.CharField(max_length=60)
    target = models.CharField(max_length=120)  # "<model>:<primary key>"
    happened_at = models.DateTimeField(auto_now_add=True)

    class Meta:
        ordering = ["-happened_at", "-pk"]
        indexes = [models.Index(fields=["target", "happened_at"])]

    def __str__(self) -> str:
        return f"{self.happened_at:%Y-%m-%d %H:%M} {self.action} {self.target}"
