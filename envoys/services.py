"""Hospitals invited, changed and sent on leave; deleting one is `inference.services.erasure`."""

import re

from django.conf import settings
from django.db import IntegrityError, transaction

from envoys import audit
from envoys.errors import NotNowError, StorageError
from envoys.models import Envoy, User
from envoys.storage import bucket_of, check_key, envoy_storage, has_objects
from federated.cohorts.layouts import client_id_of
from federated.errors import FederatedError, InvalidValueError
from federated.plain_text import check_plain

# What the director itself keeps at the top of its bucket, which may be the envoys' too.
DIRECTORS_FOLDERS = frozenset({"updates", "global_model", "studies", "audit"})
BUCKET_NAME = re.compile(r"[a-z0-9][a-z0-9.-]{1,61}[a-z0-9]")
REGION_NAME = re.compile(r"[a-z0-9-]{1,40}")
QUEUE_NAME = re.compile(r"[A-Za-z0-9_.-]{0,80}")
MAX_NAME_LENGTH = 200


class InvalidEnvoyError(FederatedError):
    """A name or a place that a hospital cannot have; the message says why."""


def create_envoy(
    *,
    name: str,
    created_by: User | None,
    bucket: str = "",
    prefix: str = "",
    region: str = "",
    queue: str = "",
    kind: str = Envoy.Kind.HOSPITAL,
    may_hold_objects: bool = False,
) -> Envoy:
    """Invite a hospital, or a node of readings.

    Its slug, which its objects and seeds are named by, never changes, nor does its kind.

    Args:
        bucket: empty for the default one.
        prefix: empty for `envoys/<slug>`.
        region: empty for the default one.
        queue: empty for the shared one.
        kind: an `Envoy.Kind`: what its rows are.
        may_hold_objects: it is one that was here before, whose rows are written anew.
    Raises:
        InvalidEnvoyError: a value that it cannot have, or that another hospital has.
        NotNowError: what a deleted hospital left at this place is still being erased, or something
            else lies there.
        StorageError: nobody can say what lies there.
    """
    name = _checked_name(name, None)
    envoy = Envoy(
        name=name,
        slug=_free_slug(name),
        bucket=bucket.strip(),
        prefix=_without_last_slash(prefix),
        region=region.strip() or settings.AWS_REGION,
        queue=queue.strip(),
        kind=kind,
    )
    _check_settings(envoy)
    _check_place(envoy)
    if not may_hold_objects:
        _refuse_taken_place(envoy)
    try:
        with transaction.atomic():
            envoy.save(force_insert=True)
            audit.record(created_by, "created envoy", envoy)
    except IntegrityError:  # somebody else was faster
        raise InvalidEnvoyError(f"there is a hospital {name} already") from None
    return envoy


def edit_envoy(
    envoy: Envoy,
    *,
    edited_by: User | None,
    name: str | None = None,
    bucket: str | None = None,
    prefix: str | None = None,
    region: str | None = None,
    queue: str | None = None,
) -> Envoy:
    """Change what is given. Where its objects lie can change only while there are none.

    Raises:
        InvalidEnvoyError: a value that it cannot have, or that another hospital has.
        NotNowError: it is deleted, its storage has been used, or something lies at the new place.
        StorageError: nobody can say what lies there.
    """
    changed = Envoy.objects.get(pk=envoy.pk)
    if changed.status == Envoy.Status.DELETED:
        raise NotNowError(f"{envoy} is deleted")
    if name is not None:
        changed.name = _checked_name(name, envoy)
    for field, value in (("bucket", bucket), ("region", region), ("queue", queue)):
        if value is not None:
            setattr(changed, field, value.strip())
    changed.region = changed.region or settings.AWS_REGION
    if prefix is not None:
        changed.prefix = _without_last_slash(prefix)
    _check_settings(changed)
    if _place(changed) != _place(envoy):
        _check_place(changed)
        _refuse_move(envoy)
        _refuse_taken_place(changed)
    try:
        with transaction.atomic():
            changed.save(update_fields=["name", "bucket", "prefix", "region", "queue"])
            audit.record(edited_by, "edited envoy", envoy)
    except IntegrityError:
        raise InvalidEnvoyError(f"there is a hospital {changed.name} already") from None
    return changed


def suspend_envoy(envoy: Envoy, *, suspended_by: User | None) -> Envoy:
    """From the next launch on it takes no part; a run under way goes on with it.

    Raises:
        NotNowError: it is suspended, or deleted.
    """
    return _change_status(
        envoy, Envoy.Status.ACTIVE, Envoy.Status.SUSPENDED, suspended_by, "suspended envoy"
    )


def resume_envoy(envoy: Envoy, *, resumed_by: User | None) -> Envoy:
    """Let a suspended hospital take part again.

    Raises:
        NotNowError: it is not suspended.
    """
    return _change_status(
        envoy, Envoy.Status.SUSPENDED, Envoy.Status.ACTIVE, resumed_by, "resumed envoy"
    )


def _change_status(
    envoy: Envoy, before: Envoy.Status, after: Envoy.Status, user: User | None, action: str
) -> Envoy:
    with transaction.atomic():
        if not Envoy.objects.filter(pk=envoy.pk, status=before).update(status=after):
            envoy.refresh_from_db(fields=["status"])
            raise NotNowError(f"{envoy} is {envoy.get_status_display().lower()}")
        envoy.status = after
        audit.record(user, action, envoy)
    return envoy


def _checked_name(name: str, envoy: Envoy | None) -> str:
    name = " ".join(name.split())
    try:
        check_plain(name, "the name")
    except InvalidValueError as error:
        raise InvalidEnvoyError(str(error)) from None
    if not name or len(name) > MAX_NAME_LENGTH:
        raise InvalidEnvoyError(f"a hospital's name has 1 to {MAX_NAME_LENGTH} characters")
    if name.isdigit():
        raise InvalidEnvoyError(
            f"{name} cannot be a hospital's name: calls would take it for a number. Add a word"
        )
    others = Envoy.objects.exclude(pk=envoy.pk) if envoy else Envoy.objects.all()
    if others.filter(name__iexact=name).exists():
        raise InvalidEnvoyError(f"there is a hospital {name} already")
    return name


def _free_slug(name: str) -> str:
    slug = client_id_of(name)
    namesake = Envoy.objects.filter(slug=slug).first()
    if namesake:
        raise InvalidEnvoyError(
            f"the name {name} is too like that of the hospital {namesake}: its objects would be"
            f" named {slug} too. Add a word, as the town"
        )
    return slug


def _check_settings(envoy: Envoy) -> None:
    if envoy.kind not in Envoy.Kind.values:
        raise InvalidEnvoyError(
            f"{envoy.kind!r} is no kind of envoy: there are {', '.join(Envoy.Kind.values)}"
        )
    if envoy.bucket and (not BUCKET_NAME.fullmatch(envoy.bucket) or ".." in envoy.bucket):
        raise InvalidEnvoyError(
            f"{envoy.bucket!r} cannot be a bucket: it has 3 to 63 lower-case letters, digits,"
            " hyphens and single dots, a letter or digit first and last"
        )
    if not REGION_NAME.fullmatch(envoy.region):
        raise InvalidEnvoyError(
            f"{envoy.region!r} cannot be a region: it is a name such as eu-north-1"
        )
    if not QUEUE_NAME.fullmatch(envoy.queue):
        raise InvalidEnvoyError(
            f"{envoy.queue!r} cannot be a queue: it has letters, digits, hyphens, dots and"
            " underscores"
        )


def _without_last_slash(prefix: str) -> str:
    return prefix.strip().rstrip("/") if prefix.strip("/ ") else prefix.strip()


def _check_place(envoy: Envoy) -> None:
    """Refuse a prefix that leads out of the bucket, or into somebody else's part of it."""
    prefix = envoy.storage_prefix
    if envoy.prefix:
        try:
            check_key(envoy.prefix)
        except StorageError:
            raise InvalidEnvoyError(
                f"{envoy.prefix!r} cannot be a prefix: it takes names joined by single slashes,"
                " without '..', a leading slash or a backslash"
            ) from None
    if len(prefix) > MAX_NAME_LENGTH:
        raise InvalidEnvoyError(f"a prefix has at most {MAX_NAME_LENGTH} characters")
    first, *rest = prefix.split("/")
    # Folded: some file systems take Audit and audit for one folder.
    if first.casefold() in DIRECTORS_FOLDERS or (first.casefold() == "envoys" and not rest):
        raise InvalidEnvoyError(
            f"{prefix!r} cannot be a prefix: the director's own objects lie there"
        )
    for other in Envoy.objects.exclude(pk=envoy.pk):
        if bucket_of(other) != bucket_of(envoy) or not _overlap(prefix, other.storage_prefix):
            continue
        if other.status == Envoy.Status.DELETED:
            raise NotNowError(
                f"the objects of a deleted hospital at {other.storage_prefix} are still being"
                " erased: try again once they are, or choose another prefix"
            )
        raise InvalidEnvoyError(
            f"the prefix {prefix} and that of {other}, {other.storage_prefix}, overlap in one"
            " bucket: each hospital's objects need a place of their own"
        )


def _overlap(prefix: str, other: str) -> bool:
    # Lower-case: some file systems take Oslo and oslo for one folder.
    one, two = f"{prefix.lower()}/", f"{other.lower()}/"
    return one.startswith(two) or two.startswith(one)


def _place(envoy: Envoy) -> tuple[str, str]:
    return bucket_of(envoy), envoy.storage_prefix


def _refuse_move(envoy: Envoy) -> None:
    """Nothing moves objects: once there are some, the place stays."""
    if has_objects(envoy_storage(envoy)):
        bucket, prefix = _place(envoy)
        raise NotNowError(
            f"the objects of {envoy} lie in {bucket} at {prefix}, and would be out of sight:"
            " bucket and prefix can change only before anything is stored there"
        )


def _refuse_taken_place(envoy: Envoy) -> None:
    """Whoever has a place may have all of it erased: nobody gets one where something lies."""
    if has_objects(envoy_storage(envoy)):
        bucket, prefix = _place(envoy)
        raise NotNowError(
            f"something lies in {bucket} at {prefix} already, and would be the hospital's from now"
            " on: choose another prefix, or have it removed there first"
        )
