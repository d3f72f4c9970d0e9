"""Accounts and what was done with them, for administrators; the workers, for who runs the federation.

Envoys are in `training.admin`, next to what can be done with them. What calls were answered
(`IdempotentCall`) is nowhere here: a patient may be in it.
"""

from typing import Any

from django import forms
from django.contrib import admin
from django.contrib.auth.admin import UserAdmin as DjangoUserAdmin
from django.contrib.auth.forms import AdminUserCreationForm, UserChangeForm
from django.contrib.auth.models import Group
from django.db import transaction
from django.db.models import QuerySet
from django.http import HttpRequest, HttpResponse
from django.shortcuts import redirect
from django.urls import reverse
from django.utils.html import format_html
from rest_framework_simplejwt.token_blacklist.models import BlacklistedToken, OutstandingToken

from envoys import audit, lockout, service_tokens, two_step
from envoys.access import Capability
from envoys.account_services import why_no_username
from envoys.admin_base import Rows, link, person_of, plain_json
from envoys.errors import NotNowError
from envoys.forgetting import forget_what_was_shown
from envoys.logins import end_logins
from envoys.models import AuditEvent, Envoy, ServiceToken, User, WorkerSign
from federated.errors import InvalidValueError
from federated.plain_text import check_plain

admin.site.unregister(Group)  # roles say who may what
admin.site.unregister(BlacklistedToken)
admin.site.unregister(OutstandingToken)


class OfAHospital(forms.BaseModelForm):
    """An active doctor without a hospital could do nothing: refused, with what to do."""

    def clean(self) -> dict[str, Any]:
        cleaned: dict[str, Any] = super().clean() or self.cleaned_data
        is_active = cleaned.get("is_active", True)  # the form for a new account does not ask
        if is_active and cleaned.get("role") == User.Role.DOCTOR and not cleaned.get("envoy"):
            self.add_error("envoy", "Choose the doctor's hospital before you activate the account.")
        return cleaned


class PlainWords(forms.BaseModelForm):
    """What is shown of a person reads as it is written."""

    def clean(self) -> dict[str, Any]:
        cleaned: dict[str, Any] = super().clean() or self.cleaned_data
        # A name that stands from before stays; another one must not look like somebody else's.
        if "username" in self.changed_data and (
            reason := why_no_username(cleaned.get("username") or "", of=self.instance)
        ):
            self.add_error("username", reason)
        for name in ("first_name", "last_name", "email", "phone"):
            try:
                check_plain(cleaned.get(name) or "", "This")
            except InvalidValueError as error:
                self.add_error(name, str(error))
        return cleaned


class AccountForm(OfAHospital, PlainWords, UserChangeForm):
    pass


class NewAccountForm(OfAHospital, PlainWords, AdminUserCreationForm):
    pass


@admin.register(User)
class UserAdmin(Rows, DjangoUserAdmin):
    capability = Capability.ACCOUNTS
    editable = (
        "username",
        "first_name",
        "last_name",
        "email",
        "phone",
        "role",
        "envoy",
        "is_active",
    )
    form = AccountForm
    add_form = NewAccountForm
    fieldsets = (
        (None, {"fields": ("username", "password")}),
        (
            "Access",
            {
                "fields": ("role", "envoy", "is_active", "is_locked"),
                "description": "Who asks for an account cannot log in before it is active. A doctor"
                " needs a hospital, and sees the patients of that one only. A new role or hospital"
                " ends the sessions and tokens of the account, its programs' too.",
            },
        ),
        ("Person", {"fields": ("first_name", "last_name", "email", "phone")}),
        ("Dates", {"fields": ("last_login", "date_joined")}),
    )
    add_fieldsets = (
        (
            None,
            {
                "fields": ("username", "usable_password", "password1", "password2"),
                "description": "A program needs no password: with password-based authentication"
                " disabled, the account acts by access tokens only, which you make for it.",
            },
        ),
        ("Access", {"fields": ("role", "envoy")}),
        ("Person", {"fields": ("first_name", "last_name", "email", "phone")}),
    )
    filter_horizontal = ()
    list_display = (
        "username",
        "role",
        link("envoy", "hospital"),
        "is_active",
        "logs_in_by",
        "last_login",
    )
    list_filter = ("is_active", "role", "envoy")
    list_select_related = ("envoy", "two_step")
    search_fields = ("username", "first_name", "last_name", "email")
    actions = ("unlock", "reset_two_step", "log_out_everywhere")

    @admin.display(description="logs in by")
    def logs_in_by(self, user: User) -> str:
        if user.is_program:
            return "access tokens only"
        device = getattr(user, "two_step", None)
        return "password and code" if device and device.confirmed else "password"

    @admin.display(description="locked", boolean=True)
    def is_locked(self, user: User) -> bool:
        """After too many wrong passwords or codes, for a while and from where they came."""
        return lockout.is_anywhere_locked(user)

    @admin.action(description="Unlock after too many wrong passwords or codes")
    def unlock(self, request: HttpRequest, rows: "QuerySet[User]") -> None:
        self.do_each(
            request,
            rows,
            lambda user: lockout.unlock(user, unlocked_by=person_of(request)),
            "can try again at once",
        )

    @admin.action(description="Reset two-step login, for a lost phone")
    def reset_two_step(self, request: HttpRequest, rows: "QuerySet[User]") -> None:
        self.do_each(
            request,
            rows,
            lambda user: two_step.reset(user, reset_by=person_of(request)),
            "logs in by the password alone, or sets it up anew where it is needed",
        )

    @admin.action(description="End all sessions and tokens, access tokens too")
    def log_out_everywhere(self, request: HttpRequest, rows: "QuerySet[User]") -> None:
        def end(user: User) -> None:
            end_logins(user)
            service_tokens.revoke_tokens_of(user, revoked_by=person_of(request))
            audit.record(person_of(request), "ended all logins", user)

        self.do_each(request, rows, end, "is logged out everywhere")

    def has_add_permission(self, request: HttpRequest, obj: Any = None) -> bool:
        return self.has_view_permission(request)

    def get_readonly_fields(self, request: HttpRequest, obj: Any = None) -> tuple[str, ...]:
        return ("last_login", "date_joined", "is_locked")

    def formfield_for_dbfield(self, db_field: Any, request: Any, **kwargs: Any) -> Any:
        field: Any = super().formfield_for_dbfield(db_field, request, **kwargs)
        if db_field.name == "envoy":
            field.queryset = Envoy.objects.standing()
            field.widget.can_add_related = field.widget.can_change_related = False
        return field

    def save_model(self, request: HttpRequest, obj: User, form: Any, change: bool) -> None:
        if obj.pk == request.user.pk and not (
            obj.is_active and obj.role == User.Role.ADMINISTRATOR
        ):
            raise NotNowError(
                "You cannot close your own account or give up your own role: another"
                " administrator can"
            )
        obj.save()
        action = "changed account" if change else "created account"
        if change and "is_active" in form.changed_data:
            action = "activated account" if obj.is_active else "closed account"
        if change and {"is_active", "role", "envoy", "username"} & set(form.changed_data):
            end_logins(obj)
        if change and {"is_active", "role", "envoy"} & set(form.changed_data):
            service_tokens.revoke_tokens_of(obj, revoked_by=person_of(request))
            forget_what_was_shown(obj)
        audit.record(person_of(request), action, obj)

    @transaction.atomic
    def user_change_password(
        self, request: HttpRequest, id: str, form_url: str = ""
    ) -> HttpResponse:
        if id == str(
            request.user.pk
        ):  # an open session that somebody has stolen would come to stay
            self.refuse(
                request, "Your own password you change here: the page asks for the old one."
            )
            return redirect("password_change")
        response = super().user_change_password(request, id, form_url)
        if request.method == "POST" and response.status_code == 302:
            user = User.objects.get(pk=id)
            end_logins(user)
            service_tokens.revoke_tokens_of(user, revoked_by=person_of(request))
            audit.record(person_of(request), "set password", user)
        return response


@admin.register(OutstandingToken)
class TokenAdmin(Rows):
    """Which tokens stand; the token itself would let one in as somebody else."""

    capability = Capability.ACCOUNTS
    shown = ("jti", "user", "created_at", "expires_at", "is_revoked")
    list_display = ("jti", "user", "created_at", "expires_at", "is_revoked")
    list_select_related = ("user", "blacklistedtoken")
    search_fields = ("user__username", "jti")
    ordering = ("-created_at", "-pk")
    actions = None

    @admin.display(description="revoked", boolean=True)
    def is_revoked(self, token: OutstandingToken) -> bool:
        return hasattr(token, "blacklistedtoken")


@admin.register(ServiceToken)
class ServiceTokenAdmin(Rows):
    """Access tokens of programs; they are made on the site's own page, which shows the key once."""

    capability = Capability.ACCOUNTS
    shown = (
        "name",
        "user",
        "key_start",
        plain_json("actions"),
        "created_by",
        "created_at",
        "expires_at",
        "last_used_at",
        "revoked_at",
    )
    list_display = (
        "name",
        link("user", "account"),
        "key_start",
        "expires_at",
        "last_used_at",
        "revoked_at",
    )
    list_select_related = ("user",)
    search_fields = ("name", "user__username", "key_start")
    actions = ("revoke",)

    @admin.action(description="Revoke")
    def revoke(self, request: HttpRequest, rows: "QuerySet[ServiceToken]") -> None:
        self.do_each(
            request,
            rows,
            lambda token: service_tokens.revoke_token(token, revoked_by=person_of(request)),
            "is revoked",
        )


@admin.register(AuditEvent)
class AuditEventAdmin(Rows):
    capability = Capability.ACCOUNTS
    shown = ("happened_at", "user", "action", "row")
    list_display = ("happened_at", link("user"), "action", "row")
    list_select_related = ("user",)
    list_filter = ("happened_at",)
    search_fields = ("user__username", "action", "target")
    search_help_text = "A username, an action, or a row such as envoy:1"
    actions = None

    @admin.display(description="row", ordering="target")
    def row(self, event: AuditEvent) -> str:
        """With a link where the admin holds such rows: it holds no patient."""
        name, _, key = event.target.partition(":")
        for model in self.admin_site._registry:
            if model._meta.model_name == name:
                page = f"admin:{model._meta.app_label}_{name}_change"
                return format_html('<a href="{}">{}</a>', reverse(page, args=[key]), event.target)
        return event.target


@admin.register(WorkerSign)
class WorkerSignAdmin(Rows):
    shown = ("hostname", "queues", "num_processes", "started_at", "seen_at")
    list_display = shown
    search_fields = ("hostname",)
    actions = None
