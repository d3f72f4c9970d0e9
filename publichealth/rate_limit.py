"""How often one address may ask without logging in."""

import time
from functools import cache
from threading import Lock

from django.conf import settings
from django.core.cache import cache as shared
from django.core.exceptions import ImproperlyConfigured
from django.http import HttpRequest
from redis.exceptions import RedisError

from envoys.addresses import client_of

UNIT_SECONDS = {"second": 1, "minute": 60, "hour": 3600}


def seconds_to_wait(request: HttpRequest, *, num_calls: int = 1) -> int:
    """Count a call; 0 if it may be answered, else how long to wait.

    Calls are counted by address in fixed windows of a second, minute or hour: in this process where
    it is the only one, else in the cache that all web processes share. A cache that does not answer
    stops nobody: the answers themselves do not need it.

    Args:
        num_calls: how many this one counts for.
    """
    limit, seconds = read_rate(settings.PREDICT_RATE)
    now = time.time()
    window = int(now // seconds)
    client = client_of(request)
    if settings.EMBEDDED:
        num_asked = _here.count(client, num_calls, window=window)
    else:
        try:
            num_asked = _count_shared(f"predict:{client}:{window}", num_calls, seconds=seconds)
        except RedisError:
            return 0
    return 0 if num_asked <= limit else int(seconds - now % seconds) + 1


class _Window:
    """The calls of the current window by client; those of the one before are forgotten."""

    def __init__(self) -> None:
        self._lock = Lock()
        self._window = 0
        self._counts: dict[str, int] = {}

    def count(self, client: str, num_calls: int, *, window: int) -> int:
        with self._lock:
            if window != self._window:
                self._window, self._counts = window, {}
            self._counts[client] = self._counts.get(client, 0) + num_calls
            return self._counts[client]

    def forget(self) -> None:
        with self._lock:
            self._counts = {}


_here = _Window()


def forget_counts() -> None:
    """Begin anew in this process."""
    _here.forget()


def _count_shared(key: str, num_calls: int, *, seconds: int) -> int:
    try:
        return shared.incr(key, num_calls)
    except ValueError:  # the first of its window
        if shared.add(key, num_calls, timeout=seconds + 1):
            return num_calls
        return shared.incr(key, num_calls)  # another was first after all


@cache
def read_rate(rate: str) -> tuple[int, int]:
    """Calls and seconds of a rate as "600/minute". Raises ImproperlyConfigured."""
    number, _, unit = rate.partition("/")
    if not number.isdecimal() or unit not in UNIT_SECONDS:
        raise ImproperlyConfigured(
            f"TECHLIFE_PREDICT_RATE is {rate!r}: it takes a number a second, minute or hour, as"
            " 600/minute"
        )
    return int(number), UNIT_SECONDS[unit]
