"""Access tokens for programs: for some actions of one account, and for a limited time."""

import hashlib
import secrets
from collections.abc import Iterable
from datetime import timedelta

from django.contrib.auth.hashers import UNUSABLE_PASSWORD_PREFIX
from django.db import transaction
from django.db.models import Q, QuerySet
from django.http import HttpRequest
from django.utils import timezone

from envoys import audit, two_step
from envoys.access import ACTIONS, Action, Capability, actions_of, may
from envoys.errors import AccountRefusedError, LoginRefusedError
from envoys.models import AuditEvent, ServiceToken, User
from federated.errors import InvalidValueError
from federated.plain_text import check_plain

PREFIX = "tlfl_"  # by which a key that was left somewhere is recognised
SHOWN_CHARACTERS = 12
DEFAULT_DAYS, MAX_DAYS = 90, 365
USE_WRITTEN_AFTER = timedelta(minutes=1)
REFUSED_USE = "refused: use access token"
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


def actions_for(user: User, *, made_by: User) -> list[Action]:
    """What a token of this account can be for, made by this person."""
    return [
        each
        for each in ACTIONS
        if any(not is_page(route) for route in each.routes)
        and each.name not in FOR_PEOPLE_ONLY
        and may(user, each.capability)
        and _may_be_given(each, user.pk, made_by.pk)
    ]


def _may_be_given(action: Action, user_id: int, made_by_id: int) -> bool:
    """Patients only by their doctor: a service account's token would show them to its maker."""
    return action.capability is not Capability.PATIENTS or user_id == made_by_id


def is_page(route: str) -> bool:
    return not route.partition(" ")[2].startswith(("api:", "published:"))


def accounts_for(user: User) -> "QuerySet[User]":
    """Whose tokens somebody may make: their own, and an administrator those of programs."""
    programs = Q(password__startswith=UNUSABLE_PASSWORD_PREFIX, is_active=True)
    is_theirs = Q(pk=user.pk)
    if user.role == User.Role.ADMINISTRATOR:
        is_theirs |= programs
    return User.objects.filter(is_theirs).select_related("envoy").order_by("username")


def ask_for_token(
    request: HttpRequest,
    *,
    password: str,
    otp: str = "",
    name: str,
    user: User,
    actions: Iterable[str],
    days: int = DEFAULT_DAYS,
    made_by: User,
) -> tuple[ServiceToken, str]:
    """As `make_token`, once who asks has shown again who they are: a token outlives a session.

    Not within a transaction: what is counted and audited has to outlive the refusal.

    Raises:
        AccountRefusedError: the password or code is wrong, or what is wrong with which field.
    """
    two_step.check_person(request, made_by, password=password, otp=otp, to="make an access token")
    return make_token(name=name, user=user, actions=actions, days=days, made_by=made_by)


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
    known = {each.name for each in actions_for(user, made_by=made_by)}
    asked = sorted(set(actions))
    problems: dict[str, list[str]] = {}
    if not name.strip():
        problems["name"] = ["Say what it is for: by its name it is found again."]
    try:
        check_plain(name, "the name")
    except InvalidValueError as error:
        problems["name"] = [str(error)]
    if not accounts_for(made_by).filter(pk=user.pk).exists():
        problems["account"] = ["Choose your own account or a service account."]
    if not asked:
        problems["actions"] = ["Choose what the program may do."]
    elif unknown := [each for each in asked if each not in known]:
        problems["actions"] = [
            f"A token of this account cannot be for: {', '.join(unknown)}."
            " What is about patients a doctor's own token is for."
        ]
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
    if reason := _why_ended(token):
        _record_refused_use(token)
        raise LoginRefusedError(reason)
    now = timezone.now()
    if token.last_used_at is None or now - token.last_used_at > USE_WRITTEN_AFTER:
        ServiceToken.objects.filter(pk=token.pk).update(last_used_at=now)
    return token


def _why_ended(token: ServiceToken) -> str:
    if token.revoked_at is not None:
        return f"The access token {token} has been revoked: make a new one"
    if token.is_expired:
        return f"The access token {token} ended on {token.expires_at:%Y-%m-%d}: make a new one"
    if not token.user.is_active:
        return f"The account of the access token {token} is closed"
    return ""


def _record_refused_use(token: ServiceToken) -> None:
    """At most once a minute, as a use is: a program that was forgotten asks for ever."""
    since = timezone.now() - USE_WRITTEN_AFTER
    written = AuditEvent.objects.filter(
        action=REFUSED_USE, target=f"servicetoken:{token.pk}", happened_at__gte=since
    )
    if not written.exists():
        audit.record(None, REFUSED_USE, token)


def allows(token: ServiceToken, view_name: str, method: str) -> bool:
    """Whether a route is of an action that the token is for; what its account may, counts too."""
    return any(
        each.name in token.actions
        and each.name not in FOR_PEOPLE_ONLY
        and _may_be_given(each, token.user_id, token.created_by_id)
        for each in actions_of(view_name, method)
        if may(token.user, each.capability)
    )


def _sha256(key: str) -> str:
    """Of 256 random bits: nothing slower is needed, as it would be for a password."""
    return hashlib.sha256(key.encode()).hexdigest()
