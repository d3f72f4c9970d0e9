"""What the admin of every row shares: who sees it, what of it may be changed, and links."""

import json
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from typing import Any

from django.contrib import admin, messages
from django.db import models
from django.db.models import QuerySet
from django.http import HttpRequest, HttpResponse, HttpResponseRedirect
from django.urls import reverse
from django.utils.html import format_html
from django.utils.safestring import SafeString

from envoys import audit, work
from envoys.access import Capability, may
from envoys.models import User
from envoys.work import LeasedWork
from federated.errors import FederatedError
from federated.small_counts import shown

Column = Callable[[Any], Any]


class Rows(admin.ModelAdmin):
    """Rows to look at. Only the fields named `editable` can be changed, and nothing deleted.

    A row says what happened; to change it here would only change what it says.
    """

    capability = Capability.FEDERATION
    shown: tuple[Any, ...] = ()
    editable: tuple[str, ...] = ()
    list_per_page = 50
    show_full_result_count = False

    def has_module_permission(self, request: HttpRequest) -> bool:
        return may(request.user, self.capability)

    def has_view_permission(self, request: HttpRequest, obj: Any = None) -> bool:
        return may(request.user, self.capability)

    def has_change_permission(self, request: HttpRequest, obj: Any = None) -> bool:
        return bool(self.editable) and self.has_view_permission(request)

    def has_add_permission(self, request: HttpRequest, obj: Any = None) -> bool:
        return False

    def has_delete_permission(self, request: HttpRequest, obj: Any = None) -> bool:
        return False

    def get_queryset(self, request: HttpRequest) -> "QuerySet[Any]":
        return self.visible(super().get_queryset(request), person_of(request))

    def visible(self, rows: "QuerySet[Any]", user: User) -> "QuerySet[Any]":
        return rows.visible_to(user) if hasattr(rows, "visible_to") else rows

    def get_fields(self, request: HttpRequest, obj: Any = None) -> Any:
        return self.shown

    def get_readonly_fields(self, request: HttpRequest, obj: Any = None) -> Any:
        editable = self.editable if self.has_change_permission(request, obj) else ()
        return [name for name in self.shown if name not in editable]

    def changeform_view(self, request: HttpRequest, *args: Any, **kwargs: Any) -> Any:
        """What a service refuses is said in its words; nothing of it is kept then."""
        try:
            return super().changeform_view(request, *args, **kwargs)
        except FederatedError as error:
            messages.error(request, str(error))
            return HttpResponseRedirect(request.get_full_path())

    def save_model(self, request: HttpRequest, obj: Any, form: Any, change: bool) -> None:
        super().save_model(request, obj, form, change)
        audit.record(person_of(request), f"changed {self.opts.verbose_name}", obj)

    def tell(self, request: HttpRequest, text: str) -> None:
        self.message_user(request, text, messages.SUCCESS)

    def refuse(self, request: HttpRequest, text: str) -> None:
        self.message_user(request, text, messages.ERROR)

    @contextmanager
    def refusals_shown(self, request: HttpRequest) -> Iterator[None]:
        try:
            yield
        except FederatedError as error:
            self.refuse(request, str(error))

    def do_each(
        self,
        request: HttpRequest,
        rows: "Iterable[Any]",
        service: Callable[[Any], object],
        done: str,
    ) -> None:
        """Ask a service once a row, and say what it did and what it refused."""
        for row in rows:
            try:
                service(row)
            except FederatedError as error:
                self.refuse(request, f"{row}: {error}")
            else:
                self.tell(request, f"{row}: {done}")


class WorkRows(Rows):
    """Work under a lease: what failed can be asked for again."""

    actions = ("retry",)

    @admin.action(description="Retry what has failed")
    def retry(self, request: HttpRequest, rows: "QuerySet[Any]") -> HttpResponse | None:
        self.do_each(request, rows, lambda row: self.retry_row(request, row), "will be tried again")
        return None

    def retry_row(self, request: HttpRequest, row: LeasedWork) -> object:
        return work.retry(row, retried_by=person_of(request))


@admin.display(description="progress")
def progress(row: Any) -> str:
    """As a share: of a hospital's work the numbers are those of its patients."""
    return f"{row.num_done / row.num_total:.0%}" if row.num_total else "-"


WORK_FIELDS = (
    "status",
    "reason",
    progress,
    "attempt",
    "holder",
    "leased_until",
    "enqueued_at",
)


def person_of(request: HttpRequest) -> User:
    """Who is logged in: nobody else comes past the access list into the admin."""
    assert isinstance(request.user, User)
    return request.user


def link(name: str, title: str = "") -> Column:
    """A column with a link to the row that a foreign key names; select the related rows too."""

    @admin.display(description=title or name.replace("_", " "), ordering=name, empty_value="-")
    def column(row: models.Model) -> SafeString | None:
        target = getattr(row, name)
        if target is None:
            return None
        options = target._meta
        url = reverse(f"admin:{options.app_label}_{options.model_name}_change", args=[target.pk])
        return format_html('<a href="{}">{}</a>', url, target)

    return column


def rows_of(model: type[models.Model], name: str, title: str = "") -> Column:
    """A link to the list of those rows whose foreign key `name` is the row shown."""
    options = model._meta

    @admin.display(description=title or str(options.verbose_name_plural))
    def column(row: models.Model) -> SafeString:
        url = reverse(f"admin:{options.app_label}_{options.model_name}_changelist")
        return format_html('<a href="{}?{}__id__exact={}">Show them</a>', url, name, row.pk)

    return column


def person(name: str) -> Column:
    """The name of a person: a link would lead who may not see accounts to nowhere."""

    @admin.display(description=name.replace("_", " "))
    def column(row: models.Model) -> str:
        user = getattr(row, name)
        return "-" if user is None else user.get_username()

    return column


def plain_json(name: str, shown_as: Callable[[Any], Any] = lambda value: value) -> Column:
    @admin.display(description=name.replace("_", " "))
    def column(row: models.Model) -> SafeString:
        value = shown_as(getattr(row, name))
        return format_html("<pre>{}</pre>", json.dumps(value, indent=2, ensure_ascii=False))

    return column


def figure(name: str) -> Column:
    """A count of patients or of what is theirs: a small one could give somebody away."""

    @admin.display(description=name.replace("_", " ").removeprefix("num "), ordering=name)
    def column(row: models.Model) -> str:
        return shown(getattr(row, name))

    return column


def short(name: str) -> Column:
    """The first characters of a hash, enough to tell one from another in a list."""

    @admin.display(description=name.replace("_", " "), ordering=name, empty_value="-")
    def column(row: models.Model) -> str | None:
        return getattr(row, name)[:12] or None

    return column
