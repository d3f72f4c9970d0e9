"""Before every page: may this person use this route? API calls ask the same list, once the token is
read: see `envoys.rest.MayUseRoute`. After it: is what it showed or did in the audit?"""

from collections.abc import Callable
from typing import Any

from django.contrib.auth.views import redirect_to_login
from django.http import Http404, HttpRequest, HttpResponse, HttpResponseNotAllowed

from envoys import audit
from envoys.access import may_use, methods_of

GetResponse = Callable[[HttpRequest], HttpResponse]


class AccessMiddleware:
    def __init__(self, get_response: GetResponse) -> None:
        self.get_response = get_response

    def __call__(self, request: HttpRequest) -> HttpResponse:
        with audit.one_request() as trail:
            response = self.get_response(request)
        audit.record_request(request, response, trail)
        return response

    def process_view(
        self, request: HttpRequest, view: Any, args: Any, kwargs: Any
    ) -> HttpResponse | None:
        if hasattr(view, "cls") and getattr(view.cls, "asks_access_list", False):
            return None
        assert request.resolver_match is not None
        assert request.method is not None
        if may_use(request.user, request.resolver_match.view_name, request.method):
            methods = methods_of(request.resolver_match.view_name)
            if methods and request.method not in methods:
                return HttpResponseNotAllowed(sorted(methods))
            return None
        if request.user.is_authenticated:
            raise Http404
        if request.htmx:  # type: ignore[attr-defined]
            return HttpResponse(headers={"HX-Refresh": "true"})  # the whole page asks to log in
        return redirect_to_login(request.get_full_path())
