"""The services that tests marked `services` use: a database, a broker, an S3 server of their own."""

import os
import socket
import uuid
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import NoReturn

import psycopg2
import pytest
import redis

from tests.s3_server import running_s3

POSTGRES = os.environ.get("TECHLIFE_TEST_POSTGRES", "postgres://postgres@127.0.0.1:5432")
REDIS = os.environ.get("TECHLIFE_TEST_REDIS", "redis://127.0.0.1:6379")


def require(port: int, name: str) -> None:
    """Skip without the service, unless the environment says that it must be there."""
    with socket.socket() as probe:
        probe.settimeout(2)
        if probe.connect_ex(("127.0.0.1", port)) == 0:
            return
    missing(f"{name} does not answer on port {port}")


def missing(what: str) -> NoReturn:
    """Skip, unless the environment says that it must be there."""
    if os.environ.get("REQUIRE_SERVICES") == "1":
        pytest.fail(f"{what}, and REQUIRE_SERVICES is set")
    pytest.skip(what)


@pytest.fixture
def database_url() -> Iterator[str]:
    with new_database() as url:
        yield url


@contextmanager
def new_database() -> Iterator[str]:
    require(5432, "PostgreSQL")
    name = f"techlife_test_{uuid.uuid4().hex[:12]}"
    connection = psycopg2.connect(f"{POSTGRES}/postgres")
    connection.autocommit = True  # CREATE DATABASE cannot run in a transaction
    with connection.cursor() as cursor:
        cursor.execute(f"CREATE DATABASE {name}")
    try:
        yield f"{POSTGRES}/{name}"
    finally:
        with connection.cursor() as cursor:
            cursor.execute(f"DROP DATABASE {name} WITH (FORCE)")
        connection.close()


@pytest.fixture
def redis_url() -> Iterator[str]:
    require(6379, "Redis")
    for number in range(15, 0, -1):
        url = f"{REDIS}/{number}"
        with redis.Redis.from_url(url) as client:
            if client.dbsize() == 0:
                yield url
                client.flushdb()
                return
    pytest.fail("no database of the Redis server is empty")


@pytest.fixture
def s3_environment(tmp_path: Path) -> Iterator[dict[str, str]]:
    """An S3 server that checks signatures, with a bucket for the director and one for the envoys."""
    with running_s3(tmp_path / "s3", "director", "envoys") as environment:
        yield environment
