import os
import socket
import uuid
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import boto3
import psycopg2
import pytest
import redis
from moto.server import ThreadedMotoServer

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


@pytest.fixture
def s3_environment() -> Iterator[dict[str, str]]:
    """An S3 server in this process, with a bucket for the director and one for the envoys."""
    server = ThreadedMotoServer(ip_address="127.0.0.1", port=0, verbose=False)
    server.start()
    _, port = server.get_host_and_port()
    environment = {
        "AWS_ACCESS_KEY_ID": "test",
        "AWS_SECRET_ACCESS_KEY": "test",
        "AWS_S3_ENDPOINT_URL": f"http://127.0.0.1:{port}",
        "DIRECTOR_S3_BUCKET_NAME": "director",
        "ENVOY_S3_BUCKET_NAME": "envoys",
    }
    client = s3_client(environment)
    for bucket in ("director", "envoys"):
        client.create_bucket(
            Bucket=bucket, CreateBucketConfiguration={"LocationConstraint": "eu-north-1"}
        )
    yield environment
    server.stop()


def s3_client(environment: dict[str, str]) -> Any:
    return boto3.client(
        "s3",
        endpoint_url=environment["AWS_S3_ENDPOINT_URL"],
        region_name="eu-north-1",
        aws_access_key_id=environment["AWS_ACCESS_KEY_ID"],
        aws_secret_access_key=environment["AWS_SECRET_ACCESS_KEY"],
    )


def test_a_run_ends_in_the_same_bytes_on_both_stacks(
    tmp_path: Path, database_url: str, redis_url: str, s3_environment: dict[str, str]
) -> None:
    cohort = tmp_path / "cohort"
    write_synthetic_cohort(cohort, seed=5, scale=0.3)
    hashes = {"simulation": simulate(cohort, ROUNDS)}
    stacks = {
        "embedded": {},
        "services": {"DATABASE_URL": database_url, "REDIS_URL": redis_url, **s3_environment},
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
    delivered = s3_client(s3_environment).list_objects_v2(
        Bucket="envoys", Prefix="envoys/winterholm-cottage/global_model/"
    )
    assert delivered["KeyCount"] == 3  # and its model went to S3
