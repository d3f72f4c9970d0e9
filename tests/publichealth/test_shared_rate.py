"""The count of calls that several web processes share, on a Redis of its own."""

from concurrent.futures import ThreadPoolExecutor

import pytest
import redis
from django.core.cache import caches
from django.test import RequestFactory

from publichealth import rate_limit
from tests.journeys.services import redis_url as redis_url

pytestmark = pytest.mark.services

NOON = 1_700_000_000.0 - 1_700_000_000.0 % 3600


@pytest.fixture
def shared(redis_url, settings, monkeypatch):
    """The server, as a production's web processes use it; the clock stands 10 s into an hour."""
    settings.EMBEDDED = False
    settings.PREDICT_RATE = "5/hour"
    settings.CACHES = {
        "default": {
            "BACKEND": "django.core.cache.backends.redis.RedisCache",
            "LOCATION": redis_url,
        }
    }
    monkeypatch.setattr(rate_limit.time, "time", lambda: NOON + 10)
    with redis.Redis.from_url(redis_url) as server:
        yield server


def wait(address="198.51.100.7", **more):
    request = RequestFactory().post("/predict", REMOTE_ADDR=address)
    return rate_limit.seconds_to_wait(request, **more)


def test_calls_are_counted_by_address_and_the_count_is_forgotten_after_its_window(shared):
    assert [wait() for _ in range(6)] == [0] * 5 + [3591]
    assert wait("198.51.100.8") == 0
    keys = shared.keys("*predict:*")
    assert len(keys) == 2
    assert all(0 < shared.ttl(key) <= 3601 for key in keys)


def test_a_batch_counts_for_as_many_calls_as_it_holds(shared):
    assert wait(num_calls=5) == 0
    assert wait() > 0
    assert wait("198.51.100.8", num_calls=6) > 0


def test_the_next_window_begins_anew(shared, monkeypatch):
    assert wait(num_calls=6) > 0
    monkeypatch.setattr(rate_limit.time, "time", lambda: NOON + 3600)
    assert wait() == 0


def test_of_calls_at_once_none_is_lost(shared):
    def ask(_):
        try:
            return wait()
        finally:
            caches.close_all()

    with ThreadPoolExecutor(8) as pool:
        answers = list(pool.map(ask, range(40)))
    assert answers.count(0) == 5
    (key,) = shared.keys("*predict:*")
    assert int(shared.get(key)) == 40


def test_a_server_that_does_not_answer_stops_nobody(shared, settings):
    unreachable = settings.CACHES["default"] | {"LOCATION": "redis://127.0.0.1:1/0"}
    settings.CACHES = {"default": unreachable}
    assert [wait() for _ in range(6)] == [0] * 6
