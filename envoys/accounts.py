"""Logging in and out, asking for an account, and a new password."""

from typing import Any

from django import forms
from django.contrib.auth import update_session_auth_hash
from django.contrib.auth import views as auth_views
from django.contrib.auth.forms import AuthenticationForm, PasswordChangeForm
from django.http import HttpRequest, HttpResponse, HttpResponseRedirect
from django.shortcuts import redirect, render

from envoys import audit
from envoys.account_services import (
    ROLES_TO_ASK_FOR,
    AccountRefusedError,
    change_password,
    register_account,
)
from envoys.forms import TablerForm
from envoys.models import User


class LoginView(auth_views.LoginView):
    redirect_authenticated_user = True

    def form_valid(self, form: AuthenticationForm) -> HttpResponse:
        response = super().form_valid(form)
        audit.record(form.get_user(), "logged in", form.get_user())
        return response


class LogoutView(auth_views.LogoutView):
    def post(self, request: HttpRequest, *args: Any, **kwargs: Any) -> HttpResponse:
        if isinstance(request.user, User):
            audit.record(request.user, "logged out", request.user)
        return super().post(request, *args, **kwargs)


class PasswordForm(TablerForm, PasswordChangeForm):
    pass


class PasswordChangeView(auth_views.PasswordChangeView):
    """This session goes on; every other one, and every token, ends."""

    form_class = PasswordForm

    def form_valid(self, form: Any) -> HttpResponse:
        user = form.user
        passwords = form.cleaned_data
        try:
            change_password(
                user,
                old_password=passwords["old_password"],
                new_password=passwords["new_password1"],
            )
        except AccountRefusedError as error:
            form.add_error(None, str(error))
            return self.form_invalid(form)
        update_session_auth_hash(self.request, user)
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
        help_text="At least 8 characters, not all digits, and not a common one.",
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
