"""The API's description: every call names the errors that the access list and the base answer."""

import re
from typing import Any

from drf_spectacular.openapi import AutoSchema

from envoys.rest import ErrorSerializer, is_open

ALWAYS = {"400": "the call is not valid", "404": "there is no such thing, or it is not yours"}
ON_WORK = {
    "409": "not now: the text says what to do first",
    "422": "the Idempotency-Key was used for another call",
    "503": "the storage does not answer",
}


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
        from django.urls import resolve

        path = re.sub(r"\{\w+\}", "1", self.path)
        return is_open(resolve(path).view_name, self.method)
