"""The stacks that a run is measured on: what `make demo` starts, and services that are there."""

import os
import tempfile
import uuid
from collections.abc import Iterator
from contextlib import contextmanager

import psycopg2
import redis

POSTGRES_URL = "postgres://postgres@127.0.0.1:5432"
REDIS_URL = "redis://127.0.0.1:6379"
STACKS = ("embedded", "production")
# Those of this process, which hold somebody's data.
SERVICES = ("DATABASE_URL", "REDIS_URL", "DIRECTOR_S3_BUCKET_NAME", "ENVOY_S3_BUCKET_NAME")


class NoServiceError(RuntimeError):
    """A service that does not answer, and where."""


@contextmanager
def environment_of(stack: str, *, postgres: str, redis_url: str) -> Iterator[dict[str, str]]:
    """A stack's environment: an empty data folder and, in production, empty databases.

    Raises NoServiceError.
    """
    plain = {name: value for name, value in os.environ.items() if name not in SERVICES}
    plain |= {"TECHLIFE_WORKER_PROCESSES": "2", "TECHLIFE_LOG_LEVEL": "WARNING"}
    with tempfile.TemporaryDirectory(prefix="techlife-bench-") as folder:
        plain["TECHLIFE_DATA_DIR"] = f"{folder}/data"
        if stack == "embedded":
            yield plain
            return
        with postgres_database(postgres) as database, redis_database(redis_url) as broker:
            yield plain | {"DATABASE_URL": database, "REDIS_URL": broker}


@contextmanager
def postgres_database(server: str) -> Iterator[str]:
    """The URL of a database that is made here and dropped afterwards."""
    name = f"techlife_bench_{uuid.uuid4().hex[:12]}"
    try:
        connection = psycopg2.connect(f"{server}/postgres", connect_timeout=5)
    except psycopg2.OperationalError as error:
        raise NoServiceError(f"PostgreSQL does not answer at {server}") from error
    connection.autocommit = True  # CREATE DATABASE cannot run in a transaction
    try:
        with connection.cursor() as cursor:
            cursor.execute(f"CREATE DATABASE {name}")
        yield f"{server}/{name}"
    finally:
        with connection.cursor() as cursor:
            cursor.execute(f"DROP DATABASE IF EXISTS {name} WITH (FORCE)")
        connection.close()


@contextmanager
def redis_database(server: str) -> Iterator[str]:
    """The URL of a database of that server in which nothing lies; it is emptied afterwards."""
    for number in range(15, 0, -1):
        with redis.Redis.from_url(f"{server}/{number}") as client:
            try:
                is_empty = client.dbsize() == 0
            except redis.ConnectionError as error:
                raise NoServiceError(f"Redis does not answer at {server}") from error
            if is_empty:
                try:
                    yield f"{server}/{number}"
                finally:
                    client.flushdb()
                return
    raise NoServiceError(f"no database of the Redis server at {server} is empty")
