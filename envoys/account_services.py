"""Accounts: asked for by a person, given by an administrator; logging in, and a new password."""

from dataclasses import dataclass
from typing import Any

from django.contrib.auth import authenticate, password_validation
from django.contrib.auth.models import update_last_login
from django.core.exceptions import ValidationError
from django.db import IntegrityError, transaction
from rest_framework_simplejwt.exceptions import TokenError
from rest_framework_simplejwt.settings import api_settings
from rest_framework_simplejwt.token_blacklist.models import BlacklistedToken, OutstandingToken
from rest_framework_simplejwt.tokens import RefreshToken
from rest_framework_simplejwt.utils import get_md5_hash_password

from envoys import audit
from envoys.access import ACTIONS, may
from envoys.models import User
from federated.errors import FederatedError

# An administrator is made by an administrator.
ROLES_TO_ASK_FOR = (User.Role.DOCTOR, User.Role.DATA_SCIENTIST, User.Role.PUBLIC_HEALTH)


class AccountRefusedError(FederatedError):
    """What is wrong with an account or a password: field -> texts."""

    def __init__(self, problems: dict[str, list[str]]) -> None:
        super().__init__(" ".join(text for texts in problems.values() for text in texts))
        self.problems = problems


class LoginRefusedError(FederatedError):
    """A wrong name, password or token, or an account that is not active."""


@dataclass(frozen=True)
class Tokens:
    """What a program shows instead of a password: for minutes, and to get the next."""

    access: str
    refresh: str
    user: User


@transaction.atomic
def open_tokens(*, username: str, password: str) -> Tokens:
    """Log a program in.

    Raises:
        LoginRefusedError: which of the possible reasons it was, a stranger is not told.
    """
    user = authenticate(username=username, password=password)
    if not isinstance(user, User):
        raise LoginRefusedError("Wrong username or password, or the account has not been activated")
    update_last_login(None, user)  # type: ignore[arg-type]
    audit.record(user, "logged in", user)
    return _tokens_of(user)


def _tokens_of(user: User) -> Tokens:
    refresh = RefreshToken.for_user(user)
    return Tokens(str(refresh.access_token), str(refresh), user)


@transaction.atomic
def refresh_tokens(text: str) -> Tokens:
    """Change a refresh token for new ones; it serves once.

    Raises:
        LoginRefusedError: it is used, revoked, expired or no token, or the password is a new one.
    """
    token = _refresh_token(text)
    user = User.objects.filter(pk=token.get(api_settings.USER_ID_CLAIM), is_active=True).first()
    if user is None:
        raise LoginRefusedError("The token's account is not active")
    if token.get(api_settings.REVOKE_TOKEN_CLAIM) != get_md5_hash_password(user.password):
        raise LoginRefusedError("The password has changed since: log in again")
    _use_up(token)
    return _tokens_of(user)


@transaction.atomic
def revoke_token(text: str) -> None:
    """Log a program out: its refresh token serves no more.

    Raises:
        LoginRefusedError: it is used, revoked, expired or no token.
    """
    token = _refresh_token(text)
    _use_up(token)
    user = User.objects.filter(pk=token.get(api_settings.USER_ID_CLAIM)).first()
    if user is not None:
        audit.record(user, "logged out", user)


def _refresh_token(text: str) -> RefreshToken:
    try:
        return RefreshToken(text)  # type: ignore[arg-type]
    except TokenError as error:
        raise LoginRefusedError(f"{error}: log in again") from error


def _use_up(token: RefreshToken) -> None:
    blacklisted: Any = token.blacklist()  # a pair, whatever its annotation says
    if not blacklisted[1]:  # somebody was faster with the same token
        raise LoginRefusedError("Token is blacklisted: log in again")


@transaction.atomic
def register_account(
    *, username: str, password: str, email: str, phone: str = "", role: str
) -> User:
    """Make an account that cannot log in until an administrator activates it.

    The role is a wish: the administrator who activates the account confirms it, and says which
    hospital a doctor belongs to.

    Raises:
        AccountRefusedError: what is wrong with which field, in words.
    """
    user = User(username=username, email=email, phone=phone, role=role, is_active=False)
    problems: dict[str, list[str]] = {}
    if role not in ROLES_TO_ASK_FOR:
        known = ", ".join(ROLES_TO_ASK_FOR)
        problems["role"] = [f"One can ask for these roles: {known}."]
    if not email:
        problems["email"] = ["An administrator answers to this address: it is needed."]
    try:
        user.full_clean(exclude=["password", "role"])
    except ValidationError as error:
        problems |= error.message_dict
    problems |= _problems_of_password(password, user)
    if problems:
        raise AccountRefusedError(problems)
    user.set_password(password)
    try:
        with transaction.atomic():
            user.save()
    except IntegrityError:  # somebody took the name since it was looked for
        taken = "A user with that username already exists."
        raise AccountRefusedError({"username": [taken]}) from None
    audit.record(user, "asked for an account", user)
    return user


def _problems_of_password(
    password: str, user: User, field: str = "password"
) -> dict[str, list[str]]:
    try:
        password_validation.validate_password(password, user)
    except ValidationError as error:
        return {field: list(error.messages)}
    return {}


@transaction.atomic
def change_password(user: User, *, old_password: str, new_password: str) -> None:
    """Take a new password, and end every session and token that the old one opened.

    Sessions and access tokens carry a hash of the password; refresh tokens are refused by name.

    Raises:
        AccountRefusedError: the old one is wrong, or the new one is too weak; it says why.
    """
    if not user.check_password(old_password):
        raise AccountRefusedError({"old_password": ["This is not your password."]})
    if problems := _problems_of_password(new_password, user, "new_password"):
        raise AccountRefusedError(problems)
    user.set_password(new_password)
    user.save(update_fields=["password"])
    end_tokens(user)
    audit.record(user, "changed password", user)


def end_tokens(user: User) -> None:
    """Refuse every refresh token that was given to this person."""
    standing = OutstandingToken.objects.filter(user=user, blacklistedtoken__isnull=True)
    BlacklistedToken.objects.bulk_create(
        (BlacklistedToken(token=token) for token in standing), ignore_conflicts=True
    )


def may_do(user: User) -> list[str]:
    """What a person may do, by the names of the access list."""
    return [each.name for each in ACTIONS if may(user, each.capability)]
