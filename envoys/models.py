import secrets
from datetime import timedelta
from typing import Any, ClassVar, Self

from django.contrib.auth.models import AbstractUser, UserManager
from django.db import models
from django.utils import timezone

from envoys.encryption import EncryptedTextField
from federated.targets import DIAGNOSES, READINGS


def new_serial_id() -> str:
    return secrets.token_hex(8)


class EnvoyQuerySet(models.QuerySet["Envoy"]):
    def active(self) -> Self:
        return self.filter(status=Envoy.Status.ACTIVE)

    def standing(self) -> Self:
        """Without those that were deleted, of which only the name in old runs remains."""
        return self.exclude(status=Envoy.Status.DELETED)

    def with_dataset(self, dataset: str) -> Self:
        """Those whose rows a study of this dataset can train on."""
        kinds = [kind for kind in Envoy.Kind if kind.dataset == dataset]
        return self.filter(kind__in=kinds)

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
    """A hospital's registered participant, or a node's; inside a round it is a client."""

    class Kind(models.TextChoices):
        HOSPITAL = "HOSPITAL", "Hospital"
        WEARABLES = "WEARABLES", "Wearables"
        ENVIRONMENT = "ENVIRONMENT", "Air and weather"
        CLINIC = "CLINIC", "Clinic readings"

        @property
        def dataset(self) -> str:
            """Under which name studies find its rows, see `federated.datasets`."""
            return DIAGNOSES if self is Envoy.Kind.HOSPITAL else READINGS

    class Placement(models.TextChoices):
        HOSTED = "HOSTED", "Hosted here"
        REMOTE = "REMOTE", "At the hospital"

    class Status(models.TextChoices):
        ACTIVE = "ACTIVE", "Active"
        SUSPENDED = "SUSPENDED", "Suspended"
        DELETED = "DELETED", "Deleted"

    name = models.CharField(max_length=200, unique=True)
    slug = models.SlugField(max_length=80, unique=True)
    serial_id = models.CharField(max_length=32, unique=True, default=new_serial_id)
    kind = models.CharField(max_length=16, choices=Kind.choices, default=Kind.HOSPITAL)
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
    def dataset(self) -> str:
        return self.Kind(self.kind).dataset

    @property
    def storage_prefix(self) -> str:
        return self.prefix.strip("/") or f"envoys/{self.slug}"

    @property
    def known_as(self) -> tuple[str, str]:
        """Name and slug as old records have them: a deleted hospital's are free for another."""
        return (
            self.name.removesuffix(f" (deleted, no. {self.pk})"),
            self.slug.removesuffix(f"-deleted-{self.pk}"),
        )

    def mark_deleted(self) -> None:
        """Free name and slug; its objects stay where they are until they are erased."""
        self.status = self.Status.DELETED
        self.prefix = self.storage_prefix
        self.name = f"{self.name[:170]} (deleted, no. {self.pk})"
        self.slug = f"{self.slug[:60]}-deleted-{self.pk}"


class AccountManager(UserManager["User"]):
    use_in_migrations = False

    def create_superuser(self, *args: Any, **values: Any) -> "User":
        """The first account of an installation (`createsuperuser`): an administrator."""
        return super().create_superuser(*args, role=User.Role.ADMINISTRATOR, **values)


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

    objects: ClassVar[AccountManager] = AccountManager()

    @property
    def is_doctor(self) -> bool:
        return self.role == self.Role.DOCTOR

    @property
    def runs_federation(self) -> bool:
        return self.role in (self.Role.DATA_SCIENTIST, self.Role.ADMINISTRATOR)


class AuditSeal(models.Model):
    """A batch of events, chained to the batches before it: see `envoys.audit_chain`."""

    number = models.PositiveIntegerField(unique=True)  # 1, 2, …
    num_events = models.PositiveIntegerField()
    head = models.CharField(max_length=64)  # sha256 of the head before it and of its events
    sealed_at = models.DateTimeField(auto_now_add=True)
    stored_at = models.DateTimeField(null=True)  # when its head was put into storage too

    class Meta:
        ordering = ["-number"]

    def __str__(self) -> str:
        return f"seal {self.number}"


class AuditEvent(models.Model):
    """Who did or saw what, to which row. Appended to, never changed; pseudonyms only."""

    user = models.ForeignKey(User, null=True, on_delete=models.PROTECT, related_name="+")
    action = models.CharField(max_length=60)
    target = models.CharField(max_length=120)  # "<model>:<primary key>"
    happened_at = models.DateTimeField(auto_now_add=True)
    # The one thing that is added later, once.
    seal = models.ForeignKey(
        AuditSeal, null=True, on_delete=models.PROTECT, related_name="events", db_index=False
    )

    class Meta:
        ordering = ["-happened_at", "-pk"]
        indexes = [
            models.Index(fields=["target", "happened_at"]),
            models.Index(fields=["seal", "id"], name="events_of_a_seal"),
        ]

    def __str__(self) -> str:
        return f"{self.happened_at:%Y-%m-%d %H:%M} {self.action} {self.target}"


class ServiceToken(models.Model):
    """What a program shows instead of a password: for some actions, and for a limited time."""

    name = models.CharField(max_length=80)
    user = models.ForeignKey(User, on_delete=models.PROTECT, related_name="service_tokens")
    key_sha256 = models.CharField(max_length=64, unique=True)  # the key itself is shown once
    key_start = models.CharField(max_length=12)  # by which a person knows it again
    actions = models.JSONField(default=list)  # names of the access list; nothing else is allowed
    created_by = models.ForeignKey(User, on_delete=models.PROTECT, related_name="+")
    created_at = models.DateTimeField(auto_now_add=True)
    expires_at = models.DateTimeField()
    last_used_at = models.DateTimeField(null=True)
    revoked_at = models.DateTimeField(null=True)

    class Meta:
        ordering = ["-created_at", "-pk"]

    def __str__(self) -> str:
        return f"{self.name} ({self.key_start}…)"


class IdempotentCall(models.Model):
    """A call that was sent with an `Idempotency-Key`, and its answer, to be given again."""

    user = models.ForeignKey(User, on_delete=models.CASCADE, related_name="+")
    key = models.CharField(max_length=200)
    fingerprint = models.CharField(max_length=64)  # of method, path and body
    status_code = models.PositiveSmallIntegerField(default=0)  # 0: still being worked on
    answer = EncryptedTextField(blank=True)  # JSON; a patient may be in it
    location = models.CharField(max_length=300, blank=True)  # the header, where there was one
    created_at = models.DateTimeField(auto_now_add=True)

    class Meta:
        constraints = [models.UniqueConstraint(fields=["user", "key"], name="one_call_per_key")]

    def __str__(self) -> str:
        return f"call {self.pk}"


class WorkerSign(models.Model):
    """The newest sign of life of a worker: one row a worker, renewed every few seconds."""

    hostname = models.CharField(max_length=120, unique=True)
    queues = models.JSONField(default=list)
    num_processes = models.PositiveIntegerField(default=1)
    started_at = models.DateTimeField()
    seen_at = models.DateTimeField()

    SILENT_AFTER = timedelta(seconds=45)  # three signs and a half

    class Meta:
        ordering = ["hostname"]

    def __str__(self) -> str:
        return self.hostname

    @property
    def is_silent(self) -> bool:
        return timezone.now() - self.seen_at > self.SILENT_AFTER
