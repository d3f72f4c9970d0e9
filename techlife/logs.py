"""How lines of the log look, and what none of them holds: docs/decisions/0027.

A message of our own is written with care. What a library or Python itself says about an error may
quote a row, an address may hold what somebody typed: of these a line tells where and of which kind.
"""

import json
import logging
from collections.abc import Iterator
from datetime import UTC, datetime
from functools import cache
from types import TracebackType
from typing import Any

import redis
from django.core.exceptions import ImproperlyConfigured
from django.db import InterfaceError, OperationalError
from kombu.exceptions import KombuError
from kombu.exceptions import OperationalError as BrokerError

from envoys.errors import NotNowError, StorageError
from techlife import request_ids

# About the installation, never about a row: their own words are kept.
SPEAKING = (
    *(StorageError, NotNowError, ImproperlyConfigured),
    *(OperationalError, InterfaceError, redis.RedisError, KombuError, BrokerError),
)
MOST_CAUSES = 5


class LineFormatter(logging.Formatter):
    """For people: time, level, logger, request id, message; below it where an error came from."""

    def format(self, record: logging.LogRecord) -> str:
        at = f"{_time_of(record):%Y-%m-%d %H:%M:%S}"
        name = f"{record.name} [{request_ids.current() or '-'}]"
        lines = [f"{at} {record.levelname} {name}: {message_of(record)}"]
        for error in errors_of(record):
            lines += [f"  {error['type']}: {error['message']}".rstrip(": ")]
            lines += [f"    {place}" for place in error["where"]]
        return "\n".join(lines)


class JsonFormatter(logging.Formatter):
    """For machines: one JSON object a line."""

    def format(self, record: logging.LogRecord) -> str:
        line: dict[str, Any] = {
            "time": _time_of(record).isoformat(timespec="milliseconds"),
            "level": record.levelname,
            "logger": record.name,
            "request_id": request_ids.current(),
            "process": record.process,
            "message": message_of(record),
            **getattr(record, "fields", {}),
        }
        if errors := list(errors_of(record)):
            line["errors"] = errors
        return json.dumps(line)


class WorthALine(logging.Filter):
    """What the scheduler sends every other second has no line, unless it fails."""

    def filter(self, record: logging.LogRecord) -> bool:
        if record.name != "celery.app.trace" or record.levelno > logging.INFO:
            return True
        return not isinstance(record.args, dict) or record.args.get("name") not in _scheduled()


@cache
def _scheduled() -> frozenset[str]:
    from django.conf import settings

    return frozenset(str(entry["task"]) for entry in settings.CELERY_BEAT_SCHEDULE.values())


def message_of(record: logging.LogRecord) -> str:
    """The message, without what libraries put in of an address or an error."""
    name, args = record.name, record.args
    if name == "django.request" and isinstance(args, tuple) and args:
        return str(record.msg) % (*args[:-1], _route_of(record))  # the last one is the path
    if name == "django.security.csrf" and isinstance(args, tuple) and args:
        return str(record.msg) % (*args[:-1], _route_of(record))
    if name.startswith("django.security"):
        return f"a request was refused: {name.rpartition('.')[2]}"
    if name == "celery.app.trace" and isinstance(args, dict) and "exc" in args:
        return str(record.msg) % {**args, "exc": _described(record)}
    if name == "gunicorn.error" and record.levelno >= logging.WARNING and record.exc_info:
        return "a request failed before or after its page"
    message = record.getMessage()
    if name == "gunicorn.error" and message.startswith("Invalid request"):
        return "a request that is no HTTP was refused"
    return message


def errors_of(record: logging.LogRecord) -> Iterator[dict[str, Any]]:
    """The error that was logged, and those it came of: kind, place in the code, no values."""
    exc_info = record.exc_info
    error = exc_info[1] if isinstance(exc_info, tuple) else None
    traceback: Any = exc_info[2] if isinstance(exc_info, tuple) else None
    for _ in range(MOST_CAUSES):
        if error is None:
            return
        yield {
            "type": f"{type(error).__module__}.{type(error).__qualname__}",
            "message": words_of(error),
            "where": list(_places(traceback)),
        }
        error = error.__cause__ or (None if error.__suppress_context__ else error.__context__)
        traceback = error.__traceback__ if error else None


def words_of(error: BaseException) -> str:
    if isinstance(error, SPEAKING):
        return str(error).strip()
    if isinstance(error, OSError) and error.strerror:
        return error.strerror  # without the file's name
    return ""


def _described(record: logging.LogRecord) -> str:
    error = record.exc_info[1] if isinstance(record.exc_info, tuple) else None
    if error is None:
        return "no more is logged of it"
    return f"{type(error).__name__} {words_of(error)}".strip()


def _places(traceback: TracebackType | None) -> Iterator[str]:
    while traceback is not None:  # duck-typed: the worker's tracebacks are copies
        code = traceback.tb_frame.f_code
        yield f"{code.co_filename}:{traceback.tb_lineno} {code.co_name}"
        traceback = traceback.tb_next


def _route_of(record: logging.LogRecord) -> str:
    match = getattr(getattr(record, "request", None), "resolver_match", None)
    return match.view_name or match.route if match else "an address that there is not"


def _time_of(record: logging.LogRecord) -> datetime:
    return datetime.fromtimestamp(record.created, UTC)
