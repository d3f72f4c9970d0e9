import hashlib
import secrets
from base64 import b32decode, b32encode
from collections.abc import Iterator
from datetime import timedelta
from typing import Any, ClassVar, Self
from urllib.parse import quote, urlencode

from django.contrib.auth.models import AbstractUser, UserManager
from django.db import models
from django.utils import timezone
from django_otp.models import Device, ThrottlingMixin, TimestampMixin
from django_otp.oath import TOTP

from envoys.encryption import EncryptedTextField
from federated.targets import DIAGNOSES, READINGS
from federated.words import Words, words_of


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
    def words(self) -> Words:
        return words_of([self.dataset])

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
    # Every session and token carries it: raised, it ends them all at once.
    login_epoch = models.PositiveIntegerField(default=0)

    objects: ClassVar[AccountManager] = AccountManager()

    @property
    def is_doctor(self) -> bool:
        return self.role == self.Role.DOCTOR

    @property
    def runs_federation(self) -> bool:
        return self.role in (self.Role.DATA_SCIENTIST, self.Role.ADMINISTRATOR)

    @property
    def is_program(self) -> bool:
        """A service account: without a password it logs in nowhere, and acts by its tokens only."""
        return not self.has_usable_password()

    def get_session_auth_hash(self) -> str:
        return f"{super().get_session_auth_hash()}:{self.login_epoch}"

    def get_session_auth_fallback_hash(self) -> Iterator[str]:
        for each in super().get_session_auth_fallback_hash():
            yield f"{each}:{self.login_epoch}"


class TwoStepDevice(TimestampMixin, ThrottlingMixin, Device):
    """The app on somebody's phone that shows the code of the second step, and codes for its loss.

    After a wrong code the next is looked at after 1, 2, 4, … seconds.
    """

    name = None  # a person has one
    user = models.OneToOneField(User, on_delete=models.CASCADE, related_name="two_step")
    secret = EncryptedTextField()  # base32, as people type it
    last_step = models.BigIntegerField(default=-1)  # of the newest code taken: none serves twice
    drift = models.SmallIntegerField(default=0)  # by how many steps its clock is known to differ
    recovery_sha256 = models.JSONField(default=list)  # each code serves once

    NUM_RECOVERY_CODES = 10

    def __str__(self) -> str:
        return f"two-step login of user {self.user_id}"

    def get_throttle_factor(self) -> int:
        return 1

    def new_secret(self) -> None:
        self.secret = b32encode(secrets.token_bytes(20)).decode()

    def new_recovery_codes(self) -> list[str]:
        """Codes to write down, shown this once; those from before serve no more."""
        texts = [secrets.token_hex(8) for _ in range(self.NUM_RECOVERY_CODES)]
        self.recovery_sha256 = [hashlib.sha256(text.encode()).hexdigest() for text in texts]
        return [f"{text[:4]}-{text[4:8]}-{text[8:12]}-{text[12:]}" for text in texts]

    def verify_token(self, token: str) -> bool:
        """Whether a code is the app's or one of those for its loss; it is used up then.

        The row is to be locked by who calls: of two at once with one code, one gets in.
        """
        if not self.verify_is_allowed()[0]:
            return False
        text = "".join(token.split()).replace("-", "").lower()
        if not (self._use_app_code(text) or self._use_recovery_code(text)):
            self.throttle_increment()
            return False
        self.throttle_reset(commit=False)
        self.set_last_used_timestamp(commit=False)
        self.save()
        return True

    def _use_app_code(self, text: str) -> bool:
        if not (len(text) == 6 and text.isascii() and text.isdecimal()):
            return False
        totp = TOTP(b32decode(self.secret), drift=self.drift)
        if not totp.verify(int(text), tolerance=1, min_t=self.last_step + 1):
            return False
        self.last_step, self.drift = totp.t(), totp.drift
        return True

    def _use_recovery_code(self, text: str) -> bool:
        digest = hashlib.sha256(text.encode()).hexdigest()
        if digest not in self.recovery_sha256:
            return False
        self.recovery_sha256 = [each for each in self.recovery_sha256 if each != digest]
        return True

    @property
    def config_url(self) -> str:
        """What the app reads from the picture."""
        label = quote(f"TechLife FL:{self.user.username}")
        return f"otpauth://totp/{label}?" + urlencode(
            {"secret": self.secret, "issuer": "TechLife FL"}, quote_via=quote
        )


class AuditSeal(models.Model):
    """A batch of events, chained to the batches before it: see `envoys.audit_chain`."""

    number = models.PositiveIntegerField(unique=True)  # 1, 2, …
    num_events = models.PositiveIntegerField()
    head = models.CharField(max_length=64)  # sha256 of the head before it and of its events
    sealed_at = models.DateTimeField(auto_now_add=True)
    stored_at = models.DateTimeField(null=True)  # when its head was put into storage too

    class Meta:
        ordering = ["-number"]
        indexes = [
            models.Index(
                fields=["number"], condition=models.Q(stored_at=None), name="seals_not_stored"
            )
        ]

    def __str__(self) -> str:
        return f"seal {self.number}"


class AuditEvent(models.Model):
    """Who did or saw what, to which row. Appended to, never changed; pseudonyms only."""

    # Null: the installation itself, or nobody who was logged in.
    user = models.ForeignKey(
        User, null=True, on_delete=models.PROTECT, related_name="+", db_index=False
    )
    action = models.CharField(max_length=60)
    target = models.CharField(max_length=120)  # "<model>:<primary key>", or a list's route
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
            models.Index(fields=["happened_at", "id"], name="events_by_time"),
            models.Index(fields=["user", "happened_at", "id"], name="events_of_a_person"),
        ]

    def __str__(self) -> str:
        return f"{self.happened_at:%Y-%m-%d %H:%M} {self.action} {self.target}"

    @property
    def row(self) -> tuple[str, str] | None:
        """Kind and number of the row it is about; None for a list."""
        kind, _, number = self.target.partition(":")
        return (kind, number) if number.isdecimal() else None


class ServiceTokenQuerySet(models.QuerySet["ServiceToken"]):
    def visible_to(self, user: "User") -> Self:
        """An administrator's are all; who else may have one sees their own."""
        return self if user.role == User.Role.ADMINISTRATOR else self.filter(user=user)

    def standing(self) -> Self:
        return self.filter(revoked_at=None, expires_at__gt=timezone.now())

    def ending_soon(self) -> Self:
        return self.standing().filter(expires_at__lt=timezone.now() + ServiceToken.SOON)


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

    SOON = timedelta(days=14)

    objects = ServiceTokenQuerySet.as_manager()

    class Meta:
        ordering = ["-created_at", "-pk"]

    def __str__(self) -> str:
        return f"{self.name} ({self.key_start}…)"

    @property
    def is_expired(self) -> bool:
        return self.expires_at <= timezone.now()

    @property
    def is_standing(self) -> bool:
        return self.revoked_at is None and not self.is_expired

    @property
    def is_ending_soon(self) -> bool:
        """To be replaced before what uses it stops."""
        return self.is_standing and self.expires_at < timezone.now() + self.SOON


class IdempotentCall(models.Model):
    """A call that was sent with an `Idempotency-Key`, and its answer, to be given again."""

    user = models.ForeignKey(User, on_delete=models.CASCADE, related_name="+")
    # The person's hospital at the time: what was answered may be about its patients.
    envoy = models.ForeignKey(Envoy, null=True, on_delete=models.CASCADE, related_name="+")
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
