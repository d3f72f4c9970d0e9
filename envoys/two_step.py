"""The second step of a login: a code from an app on one's phone."""

import math
from base64 import b64encode
from io import BytesIO

import qrcode
from django.conf import settings
from django.db import transaction
from django.http import HttpRequest
from django.utils import timezone
from qrcode.image.svg import SvgPathImage

from envoys import audit, lockout
from envoys.errors import AccountRefusedError, LoginRefusedError, NotNowError
from envoys.logins import end_logins
from envoys.models import TwoStepDevice, User

WRONG_CODE = "This code is wrong, or has been used. Take the one that the app shows now."


class WrongCodeError(LoginRefusedError):
    """A code that does not let one in; the message says why."""


def is_required(user: User) -> bool:
    """Who runs the federation does so by two steps, unless the installation says otherwise."""
    return settings.REQUIRE_TOTP and user.runs_federation


def is_on(user: User) -> bool:
    return TwoStepDevice.objects.filter(user=user, confirmed=True).exists()


def check_password(
    request: HttpRequest, user: User, password: str, *, to: str, field: str = "password"
) -> None:
    """Ask once more for the password, of somebody who may sit at another's open session.

    Not within a transaction: what is counted and audited has to outlive the refusal.

    Args:
        to: what it is asked for, as the audit says when it is wrong.
        field: of the form or call, to say there what is wrong.
    Raises:
        AccountRefusedError: it is wrong; counted as a wrong password at the login is.
    """
    if lockout.is_locked(request, user):  # the answer to the request says until when
        raise AccountRefusedError({field: ["The account is locked for a while."]})
    if not user.check_password(password):
        lockout.count_failure(request, user)
        audit.record(user, f"refused: {to}", user)
        raise AccountRefusedError({field: ["This is not your password."]})


def check_person(request: HttpRequest, user: User, *, password: str, otp: str, to: str) -> None:
    """Ask for every step of the login again, before what outlives a session.

    Raises:
        AccountRefusedError: the password or the code (`otp`) is wrong or missing.
    """
    check_password(request, user, password, to=to)
    if not is_on(user):
        return
    if not otp:
        raise AccountRefusedError(
            {"otp": ["This account logs in by two steps: give the code too."]}
        )
    try:
        check_code(request, user, otp, to=to)
    except WrongCodeError as error:
        raise AccountRefusedError({"otp": [str(error)]}) from error


def check_code(request: HttpRequest, user: User, code: str, *, to: str = "") -> None:
    """Take a code of somebody whose password was right; it is used up.

    Args:
        to: what it is asked for, of somebody who is logged in; without it that is the login.
    Raises:
        WrongCodeError: it is wrong, or too soon after a wrong one; counted as a wrong password is.
    """
    if lockout.is_locked(request, user):  # the answer to the request says until when
        raise WrongCodeError("The account is locked for a while")
    with transaction.atomic():
        device = _locked(user, confirmed=True)
        _refuse_if_too_soon(device)
        is_right = device.verify_token(code)
    if not is_right:
        lockout.count_failure(request, user)
        if to:
            audit.record(user, f"refused: {to}", user)
        else:
            audit.record(None, "refused: second step of a login", user)
        raise WrongCodeError(WRONG_CODE)


def device_to_set_up(user: User) -> TwoStepDevice:
    """The device that waits for its first code; the same one until then.

    Raises:
        NotNowError: one is in use.
    """
    device = TwoStepDevice.objects.filter(user=user).first()
    if device is None:
        fresh = TwoStepDevice(user=user, confirmed=False)
        fresh.new_secret()
        device, _ = TwoStepDevice.objects.get_or_create(
            user=user, defaults={"confirmed": False, "secret": fresh.secret}
        )
    if device.confirmed:
        raise NotNowError("Two-step login is on: turn it off before you set up another app")
    return device


def turn_on(user: User, code: str) -> list[str]:
    """Ask for the second step from now on, once a first code shows that the app works.

    Every other session and token ends. Returns recovery codes, to be shown this once.

    Raises:
        WrongCodeError: the code is wrong; nothing has changed.
    """
    with transaction.atomic():
        device = _locked(user, confirmed=False)
        _refuse_if_too_soon(device)
        is_right = device.verify_token(code)
        if is_right:
            device.confirmed = True
            codes = device.new_recovery_codes()
            device.save()
            end_logins(user)
            audit.record(user, "turned on two-step login", user)
    if not is_right:
        raise WrongCodeError(WRONG_CODE)
    return codes


def new_recovery_codes(request: HttpRequest, user: User, code: str) -> list[str]:
    """Ten new codes instead of those from before. Raises WrongCodeError."""
    check_code(request, user, code, to="make recovery codes")
    with transaction.atomic():
        device = _locked(user, confirmed=True)
        codes = device.new_recovery_codes()
        device.save(update_fields=["recovery_sha256"])
        audit.record(user, "made recovery codes", user)
    return codes


def turn_off(request: HttpRequest, user: User, *, password: str, code: str) -> None:
    """Ask for no second step any more.

    Raises:
        NotNowError: this account needs it.
        AccountRefusedError, WrongCodeError: the password or the code is wrong.
    """
    if is_required(user):
        raise NotNowError("Whoever runs the federation logs in by two steps here")
    check_password(request, user, password, to="turn off two-step login")
    check_code(request, user, code, to="turn off two-step login")
    TwoStepDevice.objects.filter(user=user).delete()
    audit.record(user, "turned off two-step login", user)


@transaction.atomic
def reset(user: User, *, reset_by: User) -> None:
    """For somebody whose phone and recovery codes are lost; every login ends.

    Raises:
        NotNowError: there is nothing to reset, or it is their own: an open session that somebody
            has stolen would come to stay.
    """
    if user.pk == reset_by.pk:
        raise NotNowError(
            "Your own second step another administrator resets: what you can do yourself is under"
            " Security, in the menu under your name"
        )
    if not TwoStepDevice.objects.filter(user=user).delete()[0]:
        raise NotNowError("Two-step login is not on")
    end_logins(user)
    audit.record(reset_by, "reset two-step login", user)


def picture(device: TwoStepDevice) -> str:
    """What the app's camera reads, as an address of an image."""
    drawn = BytesIO()
    qrcode.make(device.config_url, image_factory=SvgPathImage, box_size=14).save(drawn)
    return f"data:image/svg+xml;base64,{b64encode(drawn.getvalue()).decode()}"


def _locked(user: User, *, confirmed: bool) -> TwoStepDevice:
    device = (
        TwoStepDevice.objects.select_for_update().filter(user=user, confirmed=confirmed).first()
    )
    if device is None:
        raise WrongCodeError("Two-step login was changed meanwhile: log in again")
    return device


def _refuse_if_too_soon(device: TwoStepDevice) -> None:
    is_allowed, why = device.verify_is_allowed()
    if not is_allowed:
        seconds = math.ceil((why["locked_until"] - timezone.now()).total_seconds())
        raise WrongCodeError(
            "After a wrong code the next is looked at a little later: try again in"
            f" {lockout.in_words(max(1, seconds))}."
        )
