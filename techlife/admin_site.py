"""The admin: for who runs the federation, entered by the site's own login."""

from functools import wraps
from typing import Any

from django.contrib import admin
from django.contrib.auth.views import redirect_to_login
from django.core.exceptions import PermissionDenied
from django.http import Http404, HttpRequest, HttpResponse
from django.shortcuts import redirect

from envoys.access import Capability, may
from envoys.accounts import LogoutView


class TechLifeAdminSite(admin.AdminSite):
    site_header = "TechLife FL"
    site_title = "TechLife FL"
    index_title = "Rows of the federation"

    def has_permission(self, request: HttpRequest) -> bool:
        return may(request.user, Capability.FEDERATION)

    def admin_view(self, view: Any, cacheable: bool = False) -> Any:
        """As everywhere on the site: what a person may not see or do answers 404."""
        inner = super().admin_view(view, cacheable)

        @wraps(inner)
        def answered(request: HttpRequest, *args: Any, **kwargs: Any) -> Any:
            try:
                return inner(request, *args, **kwargs)
            except PermissionDenied:
                raise Http404 from None

        return answered

    def login(self, request: HttpRequest, extra_context: object = None) -> HttpResponse:
        return redirect_to_login(request.GET.get("next", request.get_full_path()))

    def logout(self, request: HttpRequest, extra_context: object = None) -> Any:
        return LogoutView.as_view()(request)

    def password_change(self, request: HttpRequest, extra_context: object = None) -> Any:
        return redirect("password_change")
