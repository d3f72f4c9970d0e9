"""How calls read JSON: what is none, or could not be answered, is refused in words.

Apart from `envoys.rest`, whose imports ask for the parsers while it is loaded.
"""

import json
from collections.abc import Mapping
from typing import IO, Any

from django.conf import settings
from django.core.exceptions import RequestDataTooBig
from rest_framework.exceptions import ParseError
from rest_framework.parsers import JSONParser


class JsonParser(JSONParser):
    """The framework's, without what it passes on to fail later."""

    def parse(
        self,
        stream: IO[Any],
        media_type: str | None = None,
        parser_context: Mapping[str, Any] | None = None,
    ) -> Any:
        _check_size(parser_context)
        try:
            data = super().parse(stream, media_type, parser_context)
            # Half a surrogate pair, as "\\ud800" alone, is no character: no answer could name it,
            # and no database keeps it.
            json.dumps(data, ensure_ascii=False).encode()
        except RecursionError as error:
            raise ParseError("JSON parse error - it is nested too deeply") from error
        except UnicodeEncodeError as error:
            raise ParseError("JSON parse error - half of a surrogate pair") from error
        return data


def _check_size(parser_context: Mapping[str, Any] | None) -> None:
    """Before a byte is read; the server reads no more than was announced."""
    request = (parser_context or {}).get("request")
    announced = request.META.get("CONTENT_LENGTH") if request is not None else None
    if announced and int(announced) > settings.CALL_MAX_BYTES:
        raise RequestDataTooBig
