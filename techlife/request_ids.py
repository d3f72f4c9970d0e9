"""One id for a click and all that comes of it: in the answer, in every line, in the tasks it enqueues."""

import re
import uuid
from contextvars import ContextVar, Token
from typing import Any

HEADER = "X-Request-ID"
TASK_HEADER = "request_id"  # of the message that takes a task to a worker
# What a proxy may give; anything else could be a name, or a second line of a log.
PLAIN = re.compile(r"[A-Za-z0-9_-]{8,64}", re.ASCII)

_request_id: ContextVar[str] = ContextVar("request_id", default="")


def current() -> str:
    """The id of what this thread does just now; empty for what nobody asked for."""
    return _request_id.get()


def begin(given: object = None) -> Token[str]:
    """Take the id that was given, if it is plain, or make one; `end` takes what this returns."""
    is_plain = isinstance(given, str) and PLAIN.fullmatch(given)
    return _request_id.set(str(given) if is_plain else uuid.uuid4().hex)


def end(token: Token[str]) -> None:
    _request_id.reset(token)


# Celery calls these at both ends of the queue: see celery_app.py.


def send_along(headers: dict[str, Any] | None) -> None:
    if headers is not None and current():
        headers[TASK_HEADER] = current()


def begin_task(task: Any) -> None:
    _request_id.set("")
    begin(getattr(task.request, TASK_HEADER, None))
