import os
import socket
import uuid
from collections.abc import Iterator
from pathlib import Path

import psycopg2
import pytest
import redis

from federated.synthetic import write_synthetic_cohort
from tests.journeys.product import running_demo, simulate

pytestmark = [pytest.mark.journey, pytest.mark.services]

POSTGRES = os.environ.get("TECHLIFE_TEST_POSTGRES", "postgres://postgres@127.0.0.1:5432")
REDIS = os.environ.get("TECHLIFE_TEST_REDIS", "redis://127.0.0.1:6379")
ROUNDS = "--rounds=3"


def require(port: int, name: str) -> None:
    """Skip without the service, unless the environment says that it must be there."""
    with socket.socket() as probe:
        probe.settimeout(2)
        if probe.connect_ex(("127.0.0.1", port)) == 0:
            return
    if os.environ.get("REQUIRE_SERVICES") == "1":
        pytest.fail(f"{name} does not answer on port {port}, and REQUIRE_SERVICES is set")
    pytest.skip(f"{name} does not answer on port {port}")


@pytest.fixture
def database_url() -> Iterator[str]:
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


def test_a_run_ends_in_the_same_bytes_on_both_stacks(
    tmp_path: Path, database_url: str, redis_url: str
) -> None:
    cohort = tmp_path / "cohort"
    write_synthetic_cohort(cohort, seed=5, scale=0.3)
    hashes = {"simulation": simulate(cohort, ROUNDS)}
    stacks = {
        "embedded": {},
        "services": {"DATABASE_URL": database_url, "REDIS_URL": redis_url},
    }
    for stack, environment in stacks.items():
        folder = tmp_path / stack
        folder.mkdir()
        with running_demo(folder, f"--data={cohort}", ROUNDS, "--no-serve", **environment) as demo:
            hashes[stack] = demo.report()["final_sha256"]
    assert len(set(hashes.values())) == 1, hashes
    with psycopg2.connect(database_url) as connection, connection.cursor() as cursor:
        cursor.execute("select count(*) from training_modelversion where envoy_id is null")
        assert cursor.fetchone() == (1,)  # the run was in PostgreSQL
    connection.close()
