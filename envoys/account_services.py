"""Accounts: asked for by a person, given by an administrator; logging in, and a new password."""

from dataclasses import dataclass
from typing import Any

from django.contrib.auth import authenticate, password_validation
from django.contrib.auth.models import update_last_login
from django.core.exceptions import ValidationError
from django.db import IntegrityError, transaction
from django.http import HttpRequest
from rest_framework_simplejwt.exceptions import TokenError
from rest_framework_simplejwt.settings import api_settings
from rest_framework_simplejwt.token_blacklist.models import OutstandingToken
from rest_framework_simplejwt.tokens import RefreshToken
from rest_framework_simplejwt.utils import get_md5_hash_password

from envoys import audit, lockout, service_tokens, two_step
from envoys.access import ACTIONS, may
from envoys.errors import AccountRefusedError, CodeNeededError, LoginRefusedError
from envoys.logins import end_logins
from envoys.models import User
from federated.errors import InvalidValueError
from federated.plain_text import check_plain

# An administrator is made by an administrator.
ROLES_TO_ASK_FOR = (User.Role.DOCTOR, User.Role.DATA_SCIENTIST, User.Role.PUBLIC_HEALTH)


@dataclass(frozen=True)
class Tokens:
    """What a program shows instead of a password: for minutes, and to get the next."""

    access: str
    refresh: str
    user: User


def open_tokens(*, request: HttpRequest, username: str, password: str, otp: str = "") -> Tokens:
    """Log a program in.

    Args:
        request: where it comes from counts, when it is wrong.
        otp: the code of the second step, for accounts that have one.
    Raises:
        LoginRefusedError: which of the possible reasons it was, a stranger is not told.
        CodeNeededError: the password was right, and a code is missing.
    """
    user = authenticate(request, username=username, password=password)
    if not isinstance(user, User):
        record_refused_login(username)
        raise LoginRefusedError("Wrong username or password, or the account has not been activated")
    two_steps = two_step.is_on(user)
    if two_steps and not otp:
        raise CodeNeededError("This account logs in by two steps: send the app's code as `otp`")
    if two_steps:
        two_step.check_code(request, user, otp)
    elif two_step.is_required(user):
        raise CodeNeededError(
            "This account has to log in by two steps: log in on the site once, to set it up"
        )
    with transaction.atomic():
        update_last_login(None, user)  # type: ignore[arg-type]
        lockout.forget_failures(request, user)
        audit.record(user, "logged in", user)
        return _tokens_of(user, two_steps=two_steps)


def record_refused_login(username: str) -> None:
    """Of an account that there is, by its number; who it was that tried is not known."""
    if "\0" in username:  # no name, and no text to a database
        return
    user = User.objects.filter(username=username).first()
    if user is not None:
        audit.record(None, "refused: log in", user)


def _tokens_of(user: User, *, two_steps: bool) -> Tokens:
    refresh = RefreshToken.for_user(user)
    # The row serves to refuse it later, and needs its number only: who reads it is not let in.
    OutstandingToken.objects.filter(jti=refresh["jti"]).update(token="")
    refresh["epoch"], refresh["two_step"] = user.login_epoch, two_steps
    return Tokens(str(refresh.access_token), str(refresh), user)


def refresh_tokens(text: str) -> Tokens:
    """Change a refresh token for new ones; it serves once.

    One that comes a second time has been copied, and nobody can tell by whom: then every login of
    the account ends.

    Raises:
        LoginRefusedError: it is used, revoked, expired or no token, or the password is a new one.
    """
    token = _refresh_token(text)
    user, two_steps = _login_of(token)
    with transaction.atomic():
        tokens = _tokens_of(user, two_steps=two_steps) if _use_up(token) else None
        if tokens is None:
            end_logins(user)
            audit.record(None, "refused: reused token", user)
    if tokens is None:
        raise LoginRefusedError(
            "This token has been used before, so that somebody else may have it; every login of the"
            " account has been ended: log in again"
        )
    return tokens


def _login_of(token: RefreshToken) -> tuple[User, bool]:
    """Whose login a token belongs to, while it stands, and whether it was by two steps."""
    user = User.objects.filter(pk=token.get(api_settings.USER_ID_CLAIM), is_active=True).first()
    if user is None:
        raise LoginRefusedError("The token's account is not active")
    if token.get(api_settings.REVOKE_TOKEN_CLAIM) != get_md5_hash_password(user.password):
        raise LoginRefusedError("The password has changed since: log in again")
    if token.get("epoch", 0) != user.login_epoch:
        raise LoginRefusedError("This login has been ended: log in again")
    two_steps = bool(token.get("two_step"))
    if two_step.is_required(user) and not two_steps:
        raise CodeNeededError("This account logs in by two steps: log in again, with `otp`")
    return user, two_steps


@transaction.atomic
def revoke_token(text: str) -> None:
    """Log a program out: its refresh token serves no more.

    Raises:
        LoginRefusedError: it is used, revoked, expired or no token.
    """
    token = _refresh_token(text)
    if not _use_up(token):
        raise LoginRefusedError("This token has been used or revoked: log in again")
    user = User.objects.filter(pk=token.get(api_settings.USER_ID_CLAIM)).first()
    if user is not None:
        audit.record(user, "logged out", user)


class _RefreshToken(RefreshToken):
    """One that is ours and has not run out; whether it was used is asked where it is used up."""

    def check_blacklist(self) -> None:
        pass


def _refresh_token(text: str) -> RefreshToken:
    try:
        return _RefreshToken(text)  # type: ignore[arg-type]
    except TokenError as error:
        raise LoginRefusedError(f"{error}: log in again") from error


def _use_up(token: RefreshToken) -> bool:
    """Whether it had not been used or revoked; of two who come at once, one is told so."""
    blacklisted: Any = token.blacklist()  # a pair, whatever its annotation says
    return bool(blacklisted[1])


def why_no_username(username: str, *, of: User | None = None) -> str:
    """Why a name cannot be somebody's: one that looks like another's could be taken for it.

    Args:
        of: whose name it is to be, where the account is there already.
    """
    if not username.isascii():
        return "A username has letters from a to z, digits and @ . + - _"
    others = User.objects.exclude(pk=of.pk) if of and of.pk else User.objects.all()
    if others.filter(username__iexact=username).exclude(username=username).exists():
        return "A user with that username already exists, in other capitals."
    return ""


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
    if reason := why_no_username(username):
        problems["username"] = [reason]
    if role not in ROLES_TO_ASK_FOR:
        known = ", ".join(ROLES_TO_ASK_FOR)
        problems["role"] = [f"One can ask for these roles: {known}."]
    if not email:
        problems["email"] = ["An administrator answers to this address: it is needed."]
    try:
        user.full_clean(exclude=["password", "role"])
    except ValidationError as error:
        problems |= error.message_dict
    for field, text, what in (
        ("phone", phone, "the phone number"),
        ("email", email, "the address"),
    ):
        try:
            check_plain(text, what)
        except InvalidValueError as error:
            problems[field] = [str(error)]
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


def change_password(
    request: HttpRequest, user: User, *, old_password: str, new_password: str
) -> None:
    """Take a new password, and end every session and token, those of programs too.

    Raises:
        AccountRefusedError: the old one is wrong, or the new one is too weak; it says why.
    """
    two_step.check_password(request, user, old_password, to="change password", field="old_password")
    if problems := _problems_of_password(new_password, user, "new_password"):
        raise AccountRefusedError(problems)
    user.set_password(new_password)
    with transaction.atomic():
        user.save(update_fields=["password"])
        end_logins(user)
        service_tokens.revoke_tokens_of(user, revoked_by=user)
        audit.record(user, "changed password", user)


@transaction.atomic
def end_own_logins(user: User, *, access_tokens: bool) -> None:
    """End every session and token of a person's logins, and if asked their programs' tokens."""
    end_logins(user)
    if access_tokens:
        service_tokens.revoke_tokens_of(user, revoked_by=user)
    audit.record(user, "ended all logins", user)


def may_do(user: User) -> list[str]:
    """What a person may do, by the names of the access list."""
    return [each.name for each in ACTIONS if may(user, each.capability)]
