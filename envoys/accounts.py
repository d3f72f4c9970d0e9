"""Logging in and out, asking for an account, and a new password."""

from typing import Any

from django import forms
from django.conf import settings
from django.contrib.auth import views as auth_views
from django.contrib.auth.forms import AuthenticationForm, PasswordChangeForm
from django.http import HttpRequest, HttpResponse, HttpResponseRedirect
from django.shortcuts import redirect, render

from envoys import audit, sessions, two_step
from envoys.account_services import (
    ROLES_TO_ASK_FOR,
    change_password,
    record_refused_login,
    register_account,
)
from envoys.errors import AccountRefusedError
from envoys.forms import TablerForm
from envoys.models import User


class LoginView(auth_views.LoginView):
    """The first step of a login, and the only one where an account needs no second."""

    redirect_authenticated_user = True

    def form_valid(self, form: AuthenticationForm) -> HttpResponse:
        user = form.get_user()
        assert isinstance(user, User)
        if sessions.owes_second_step(user):
            sessions.begin_second_step(self.request, user, next_url=self.get_redirect_url())
            return redirect("login-code" if two_step.is_on(user) else "login-set-up")
        sessions.begin_session(self.request, user, two_steps=False)
        return HttpResponseRedirect(self.get_success_url())

    def form_invalid(self, form: AuthenticationForm) -> HttpResponse:
        record_refused_login(form.data.get("username", ""))
        return super().form_invalid(form)


# What the validators of the settings ask for, as people say it.
PASSWORD_RULES = (
    f"At least {settings.PASSWORD_MIN_LENGTH} characters, not all digits, not a common password, and"
    " not like your name or address. A few words that do not belong together do well."
)


class LogoutView(auth_views.LogoutView):
    def post(self, request: HttpRequest, *args: Any, **kwargs: Any) -> HttpResponse:
        if isinstance(request.user, User):
            audit.record(request.user, "logged out", request.user)
        return super().post(request, *args, **kwargs)


class PasswordForm(TablerForm, PasswordChangeForm):
    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self.fields["new_password1"].help_text = PASSWORD_RULES

    def clean_old_password(self) -> str:
        """Looked at by the service, which counts the wrong ones."""
        return str(self.cleaned_data["old_password"])


class PasswordChangeView(auth_views.PasswordChangeView):
    """This session goes on; every other one, and every token, programs' too, ends."""

    form_class = PasswordForm

    def form_valid(self, form: Any) -> HttpResponse:
        user = form.user
        passwords = form.cleaned_data
        try:
            change_password(
                self.request,
                user,
                old_password=passwords["old_password"],
                new_password=passwords["new_password1"],
            )
        except AccountRefusedError as error:
            for field, texts in error.problems.items():
                form.add_error(field if field in form.fields else None, texts)
            return self.form_invalid(form)
        sessions.keep_session(self.request, user)
        return HttpResponseRedirect(self.get_success_url())


class AccountForm(TablerForm, forms.Form):
    username = forms.CharField(
        max_length=150,
        help_text="Letters, digits and @ . + - _",
        widget=forms.TextInput(attrs={"autocomplete": "username", "autocapitalize": "none"}),
    )
    role = forms.ChoiceField(
        choices=[
            ("", "Choose what you do"),
            *((role.value, role.label) for role in ROLES_TO_ASK_FOR),
        ],
        label="You are a",
    )
    email = forms.EmailField(
        help_text="An administrator answers to this address.",
        widget=forms.EmailInput(attrs={"autocomplete": "email"}),
    )
    phone = forms.CharField(
        max_length=32,
        required=False,
        help_text="If an administrator may call you.",
        widget=forms.TextInput(attrs={"type": "tel", "autocomplete": "tel"}),
    )
    password = forms.CharField(
        strip=False,
        help_text=PASSWORD_RULES,
        widget=forms.PasswordInput(attrs={"autocomplete": "new-password"}),
    )
    password_again = forms.CharField(
        strip=False,
        label="The same password again",
        widget=forms.PasswordInput(attrs={"autocomplete": "new-password"}),
    )

    def clean(self) -> dict[str, Any]:
        cleaned: dict[str, Any] = super().clean() or self.cleaned_data
        again = cleaned.pop("password_again", None)
        if again is not None and again != cleaned.get("password", again):
            self.add_error("password_again", "The two passwords differ.")
        return cleaned


def account_register(request: HttpRequest) -> HttpResponse:
    if request.user.is_authenticated:
        return redirect("home")
    form = AccountForm(request.POST or None)
    if request.method == "POST" and form.is_valid():
        try:
            register_account(**form.cleaned_data)
        except AccountRefusedError as error:
            for field, texts in error.problems.items():
                form.add_error(field if field in form.fields else None, texts)
        else:
            return redirect("account-registered")
    return render(request, "envoys/account_register.html", {"form": form})


def account_registered(request: HttpRequest) -> HttpResponse:
    return render(request, "envoys/account_registered.html")
