"""The API's description: every call names the errors that the access list and the base answer."""

import re
from typing import Any

from drf_spectacular.contrib.rest_framework_simplejwt import SimpleJWTScheme
from drf_spectacular.extensions import OpenApiAuthenticationExtension
from drf_spectacular.openapi import AutoSchema

from envoys.rest import ErrorSerializer, is_open
from envoys.service_tokens import PREFIX
from envoys.throttles import SCOPES

ALWAYS = {
    "400": "the call is not valid",
    "404": "there is no such thing, or it is not yours",
    "409": "not now: the text says what to do first",
    "503": "the storage does not answer",
}
ON_WORK = {
    "415": "the body is of a type that the call does not read",
    "422": "the Idempotency-Key was used for another call",
}
TOO_MANY = "too many calls, or wrong passwords: `Retry-After` says in how many seconds to try again"


class Schema(AutoSchema):
    def get_operation(self, *args: Any, **kwargs: Any) -> Any:
        operation = super().get_operation(*args, **kwargs)
        if operation is None:
            return None
        errors = dict(ALWAYS)
        if not self._is_open():
            errors["401"] = "not logged in, or the token has ended"
        if self.method != "GET":
            errors |= ON_WORK
        scope = SCOPES.get(f"{self.method} {self._view_name()}")
        if scope:
            errors["429"] = TOO_MANY
        if scope in ("login", "refresh"):
            errors["401"] = "a wrong name, password, code or token"
        reference = self.resolve_serializer(ErrorSerializer, "response").ref
        for code, text in errors.items():
            operation["responses"].setdefault(
                code, {"description": text, "content": {"application/json": {"schema": reference}}}
            )
        return operation

    def get_tags(self) -> list[str]:
        """By resource; the published paths, which lie anywhere, together."""
        of_api = re.match(r"/api/v1/([\w-]+)", self.path)
        return [of_api[1].replace("-", " ") if of_api else "published paths"]

    def get_summary(self) -> str:
        """The first line of what a call says of itself, or its view does."""
        return str(super().get_description()).strip().partition("\n")[0]

    def get_description(self) -> str:  # type: ignore[override]
        return str(super().get_description()).strip().partition("\n")[2].strip()

    def _is_open(self) -> bool:
        return is_open(self._view_name(), self.method)

    def _view_name(self) -> str:
        from django.urls import resolve

        return resolve(re.sub(r"\{\w+\}", "1", self.path)).view_name


class LoginTokenScheme(SimpleJWTScheme):
    target_class = "envoys.authentication.LoginTokenAuthentication"


class ServiceTokenScheme(OpenApiAuthenticationExtension):
    target_class = "envoys.authentication.ServiceTokenAuthentication"
    name = "accessToken"

    def get_security_definition(self, auto_schema: Any) -> dict[str, str]:
        return {
            "type": "http",
            "scheme": "bearer",
            "description": f"A program's access token, `{PREFIX}…`: for what it was made for.",
        }
