"""Access tokens for programs: for some actions of one account, and for a limited time."""

import hashlib
import secrets
from collections.abc import Iterable
from datetime import timedelta

from django.contrib.auth.hashers import UNUSABLE_PASSWORD_PREFIX
from django.db import transaction
from django.db.models import Q, QuerySet
from django.utils import timezone

from envoys import audit
from envoys.access import ACTIONS, Action, actions_of, may
from envoys.errors import AccountRefusedError, LoginRefusedError
from envoys.models import ServiceToken, User

PREFIX = "tlfl_"  # by which a key that was left somewhere is recognised
SHOWN_CHARACTERS = 12
DEFAULT_DAYS, MAX_DAYS = 90, 365
USE_WRITTEN_AFTER = timedelta(minutes=1)
# What opens or closes accounts and logins: a program that is given away must not give more away.
FOR_PEOPLE_ONLY = frozenset(
    {
        "log in",
        "log out",
        "ask for an account",
        "change one's password",
        "end one's logins",
        "see access tokens",
        "make an access token",
        "revoke an access token",
    }
)


def actions_for(user: User) -> list[Action]:
    """What a token of this account can be for."""
    return [
        each
        for each in ACTIONS
        if any(not is_page(route) for route in each.routes)
        and each.name not in FOR_PEOPLE_ONLY
        and may(user, each.capability)
    ]


def is_page(route: str) -> bool:
    return not route.partition(" ")[2].startswith(("api:", "published:"))


def accounts_for(user: User) -> "QuerySet[User]":
    """Whose tokens somebody may make: their own, and an administrator those of programs."""
    programs = Q(password__startswith=UNUSABLE_PASSWORD_PREFIX, is_active=True)
    is_theirs = Q(pk=user.pk)
    if user.role == User.Role.ADMINISTRATOR:
        is_theirs |= programs
    return User.objects.filter(is_theirs).select_related("envoy").order_by("username")


@transaction.atomic
def make_token(
    *, name: str, user: User, actions: Iterable[str], days: int = DEFAULT_DAYS, made_by: User
) -> tuple[ServiceToken, str]:
    """A token, and its key, which nobody can read again.

    Args:
        actions: names of the access list.
        days: until it ends, 1 to 365.
    Raises:
        AccountRefusedError: what is wrong with which field.
    """
    known, asked = {each.name for each in actions_for(user)}, sorted(set(actions))
    problems: dict[str, list[str]] = {}
    if not name.strip():
        problems["name"] = ["Say what it is for: by its name it is found again."]
    if not accounts_for(made_by).filter(pk=user.pk).exists():
        problems["account"] = ["Choose your own account or a service account."]
    if not asked:
        problems["actions"] = ["Choose what the program may do."]
    elif unknown := [each for each in asked if each not in known]:
        problems["actions"] = [f"A token of this account cannot be for: {', '.join(unknown)}."]
    if not 1 <= days <= MAX_DAYS:
        problems["days"] = [f"A token lasts 1 to {MAX_DAYS} days."]
    if problems:
        raise AccountRefusedError(problems)
    key = PREFIX + secrets.token_urlsafe(32)
    token = ServiceToken.objects.create(
        name=name.strip(),
        user=user,
        key_sha256=_sha256(key),
        key_start=key[:SHOWN_CHARACTERS],
        actions=asked,
        created_by=made_by,
        expires_at=timezone.now() + timedelta(days=days),
    )
    audit.record(made_by, "made access token", token)
    return token, key


@transaction.atomic
def revoke_token(token: ServiceToken, *, revoked_by: User) -> None:
    """End a token at once; done twice it was done once."""
    if ServiceToken.objects.filter(pk=token.pk, revoked_at=None).update(revoked_at=timezone.now()):
        token.refresh_from_db()
        audit.record(revoked_by, "revoked access token", token)


def revoke_tokens_of(user: User, *, revoked_by: User) -> None:
    for token in ServiceToken.objects.filter(user=user).standing():
        revoke_token(token, revoked_by=revoked_by)


def token_of_key(key: str) -> ServiceToken:
    """Whose key this is; that it was used is written down, at most once a minute.

    Raises:
        LoginRefusedError: it is nobody's, revoked or expired, or the account is closed.
    """
    found = ServiceToken.objects.select_related("user__envoy").filter(key_sha256=_sha256(key))
    token = found.first()
    if token is None:
        raise LoginRefusedError("There is no such access token: check what the program sends")
    if token.revoked_at is not None:
        raise LoginRefusedError(f"The access token {token} has been revoked: make a new one")
    if token.is_expired:
        raise LoginRefusedError(
            f"The access token {token} ended on {token.expires_at:%Y-%m-%d}: make a new one"
        )
    if not token.user.is_active:
        raise LoginRefusedError(f"The account of the access token {token} is closed")
    now = timezone.now()
    if token.last_used_at is None or now - token.last_used_at > USE_WRITTEN_AFTER:
        ServiceToken.objects.filter(pk=token.pk).update(last_used_at=now)
    return token


def allows(token: ServiceToken, view_name: str, method: str) -> bool:
    """Whether a route is of an action that the token is for; what its account may, counts too."""
    return any(
        each.name in token.actions and each.name not in FOR_PEOPLE_ONLY
        for each in actions_of(view_name, method)
        if may(token.user, each.capability)
    )


def _sha256(key: str) -> str:
    """Of 256 random bits: nothing slower is needed, as it would be for a password."""
    return hashlib.sha256(key.encode()).hexdigest()
