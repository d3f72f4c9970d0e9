"""Pages of the second step of a login: the code, setting it up, and turning it off again."""

from typing import Any

from django import forms
from django.contrib import messages
from django.http import HttpRequest, HttpResponse
from django.shortcuts import redirect, render
from django.utils.http import url_has_allowed_host_and_scheme
from django.views.decorators.cache import never_cache
from django.views.decorators.http import require_http_methods, require_POST

from envoys import account_services, sessions, two_step
from envoys.errors import AccountRefusedError, LoginRefusedError, NotNowError
from envoys.forms import TablerForm
from envoys.models import ServiceToken, TwoStepDevice, User
from envoys.pages import UserRequest, errors_on, errors_shown


class CodeForm(TablerForm, forms.Form):
    code = forms.CharField(
        max_length=32,
        label="Code",
        help_text="The six digits that the app shows now.",
        widget=forms.TextInput(
            attrs={
                "autocomplete": "one-time-code",
                "autocapitalize": "none",
                "spellcheck": "false",
                "inputmode": "text",
            }
        ),
    )


class TurnOffForm(CodeForm):
    password = forms.CharField(
        strip=False,
        label="Your password",
        widget=forms.PasswordInput(attrs={"autocomplete": "current-password"}),
    )
    field_order = ("password", "code")


class LoginsEndForm(TablerForm, forms.Form):
    access_tokens = forms.BooleanField(
        required=False, label="Revoke the access tokens of my programs too"
    )


@never_cache
@require_http_methods(["GET", "POST"])
def login_code(request: HttpRequest) -> HttpResponse:
    """The second step: of somebody who has given the password, and is not logged in yet."""
    user = sessions.in_second_step(request)
    if user is None or not two_step.is_on(user):
        return redirect("login")
    form = CodeForm(request.POST or None)
    form.fields[
        "code"
    ].help_text = "The six digits that the app shows now, or one of your recovery codes."
    form.fields["code"].widget.attrs["autofocus"] = True
    if request.method == "POST" and form.is_valid():
        with errors_on(form):
            two_step.check_code(request, user, form.cleaned_data["code"])
        if form.is_valid():
            return _go_on(request, sessions.begin_session(request, user, two_steps=True))
    return render(request, "envoys/login_code.html", {"form": form, "person": user})


@never_cache
@require_http_methods(["GET", "POST"])
def login_set_up(request: HttpRequest) -> HttpResponse:
    """Set-up within a login, where an account needs two steps and has one."""
    user = sessions.in_second_step(request)
    if user is None or two_step.is_on(user):
        return redirect("login")
    form, codes = _set_up(request, user)
    if codes:
        user.refresh_from_db()
        target = sessions.begin_session(request, user, two_steps=True)
        return _codes(request, codes, next_url=_safe(request, target))
    return _set_up_page(request, user, form, is_needed=True)


@never_cache
@require_http_methods(["GET", "POST"])
def two_step_set_up(request: UserRequest) -> HttpResponse:
    if two_step.is_on(request.user):
        return redirect("account-security")
    form, codes = _set_up(request, request.user)
    if codes:
        request.user.refresh_from_db()
        sessions.keep_session(request, request.user, two_steps=True)
        return _codes(request, codes, next_url="")
    return _set_up_page(request, request.user, form, is_needed=False)


def _set_up(request: HttpRequest, user: User) -> tuple[CodeForm, list[str]]:
    """The form, and recovery codes once its code was right."""
    form, codes = CodeForm(request.POST or None), list[str]()
    two_step.device_to_set_up(user)
    if request.method == "POST" and form.is_valid():
        with errors_on(form):
            codes = two_step.turn_on(user, form.cleaned_data["code"])
    return form, codes


def _set_up_page(
    request: HttpRequest, user: User, form: CodeForm, *, is_needed: bool
) -> HttpResponse:
    device = two_step.device_to_set_up(user)
    secret = device.secret
    context = {
        "form": form,
        "picture": two_step.picture(device),
        "secret": " ".join(secret[at : at + 4] for at in range(0, len(secret), 4)),
        "config_url": device.config_url,
        "is_needed": is_needed,
    }
    return render(request, "envoys/two_step_set_up.html", context)


def _codes(request: HttpRequest, codes: list[str], *, next_url: str) -> HttpResponse:
    """Recovery codes, shown this once: nothing that could be asked for again holds them."""
    context = {"codes": codes, "next_url": next_url}
    return render(request, "envoys/two_step_codes.html", context)


def _safe(request: HttpRequest, target: str) -> str:
    is_ours = url_has_allowed_host_and_scheme(
        target, allowed_hosts={request.get_host()}, require_https=request.is_secure()
    )
    return target if is_ours else ""


def _go_on(request: HttpRequest, target: str) -> HttpResponse:
    return redirect(_safe(request, target) or "home")


@require_http_methods(["GET"])
def account_security(request: UserRequest) -> HttpResponse:
    return _security_page(request)


def _security_page(request: UserRequest, **forms: Any) -> HttpResponse:
    user = request.user
    device = TwoStepDevice.objects.filter(user=user, confirmed=True).first()
    context: dict[str, Any] = {
        "device": device,
        "is_required": two_step.is_required(user),
        "turn_off_form": TurnOffForm(auto_id="off_%s"),
        "codes_form": CodeForm(auto_id="codes_%s"),
        "logins_form": LoginsEndForm(),
        "num_tokens": ServiceToken.objects.filter(user=user).standing().count(),
    }
    return render(request, "envoys/account_security.html", context | forms)


@never_cache
@require_POST
def two_step_codes(request: UserRequest) -> HttpResponse:
    form = CodeForm(request.POST, auto_id="codes_%s")
    codes = list[str]()
    if form.is_valid():
        with errors_on(form):
            codes = two_step.new_recovery_codes(request, request.user, form.cleaned_data["code"])
    if codes:
        return _codes(request, codes, next_url="")
    return _security_page(request, codes_form=form)


@require_POST
def two_step_turn_off(request: UserRequest) -> HttpResponse:
    form = TurnOffForm(request.POST, auto_id="off_%s")
    if form.is_valid():
        try:
            two_step.turn_off(request, request.user, **form.cleaned_data)
        except AccountRefusedError as error:
            form.add_error("password", error.problems["password"])
        except LoginRefusedError as error:
            form.add_error("code", str(error))
        except NotNowError as error:
            messages.error(request, str(error))
            return redirect("account-security")
    if not form.is_valid():
        return _security_page(request, turn_off_form=form)
    messages.success(request, "Two-step login is off: your password alone lets you in.")
    return redirect("account-security")


@require_POST
def logins_end(request: UserRequest) -> HttpResponse:
    """Every other login ends; this session goes on."""
    form = LoginsEndForm(request.POST)
    form.is_valid()  # a box, ticked or not
    with errors_shown(request):
        account_services.end_own_logins(request.user, **form.cleaned_data)
        sessions.keep_session(request, request.user)
        messages.success(request, "Everywhere else you are logged out now.")
    return redirect("account-security")
