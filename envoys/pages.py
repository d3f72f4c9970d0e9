"""What pages of every app share."""

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from django.contrib import messages
from django.core.paginator import Page, Paginator
from django.db.models import QuerySet
from django.forms import BaseForm
from django.http import HttpRequest, HttpResponseRedirect
from django.shortcuts import redirect
from django.utils.http import url_has_allowed_host_and_scheme
from django_htmx.middleware import HtmxDetails

from envoys.models import User
from federated.errors import FederatedError

ROWS_PER_PAGE = 25
MAX_ID = 2**63 - 1


class UserRequest(HttpRequest):
    """A request of somebody who is logged in: the access list has let it through."""

    user: User
    htmx: HtmxDetails


@contextmanager
def errors_on(form: BaseForm) -> Iterator[None]:
    """Show what a service refuses, in its words, on the form; `form.is_valid()` is False then."""
    try:
        yield
    except FederatedError as error:
        form.add_error(None, str(error))


@contextmanager
def errors_shown(request: HttpRequest) -> Iterator[None]:
    """Show what a service refuses, in its words, on the next page."""
    try:
        yield
    except FederatedError as error:
        messages.error(request, str(error))


def id_of(text: str) -> int | None:
    """The number of a row, out of an address or a form; None for what can be none."""
    is_number = text.isascii() and text.isdecimal() and len(text) <= len(str(MAX_ID))
    return int(text) if is_number and int(text) <= MAX_ID else None


def page_of(
    request: HttpRequest, rows: "QuerySet[Any]", *, size: int = ROWS_PER_PAGE
) -> "Page[Any]":
    return Paginator(rows, size).get_page(request.GET.get("page"))


def back(request: HttpRequest, to: str, *args: object) -> HttpResponseRedirect:
    """To where the form's `next` says, if that is on this site, or else to a named page."""
    target = request.POST.get("next", "")
    if url_has_allowed_host_and_scheme(
        target, allowed_hosts={request.get_host()}, require_https=request.is_secure()
    ):
        return HttpResponseRedirect(target)
    return redirect(to, *args)
