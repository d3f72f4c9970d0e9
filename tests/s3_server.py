"""An S3 server that checks signatures, on this machine: JuiceFS's gateway over a folder."""

import os
import secrets
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import boto3

JUICEFS = Path(sys.executable).with_name("juicefs")
REGION = "eu-north-1"
START_SECONDS = 30


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port: int = probe.getsockname()[1]
        return port


@contextmanager
def running_s3(folder: Path, *buckets: str) -> Iterator[dict[str, str]]:
    """Yields the variables that the product reads; the first bucket is the director's."""
    port = free_port()
    meta = f"sqlite3://{folder}/meta.db"
    environment = {
        "AWS_ACCESS_KEY_ID": "techlife-tests",
        "AWS_SECRET_ACCESS_KEY": secrets.token_urlsafe(24),
        "AWS_S3_ENDPOINT_URL": f"http://127.0.0.1:{port}",
        "TECHLIFE_S3_ENDPOINT_IS_INSIDE": "true",
        "DIRECTOR_S3_BUCKET_NAME": buckets[0],
        "ENVOY_S3_BUCKET_NAME": buckets[-1],
    }
    folder.mkdir(parents=True, exist_ok=True)
    with (folder / "log.txt").open("ab") as log:
        subprocess.run(
            [
                *(JUICEFS, "format", meta, "tests", "--no-update", "--trash-days=0"),
                *("--storage=file", f"--bucket={folder}/blocks/"),
            ],
            check=True,
            stdout=log,
            stderr=log,
        )
        server = subprocess.Popen(
            [
                *(JUICEFS, "gateway", meta, f"127.0.0.1:{port}", "--multi-buckets", "--keep-etag"),
                *("--no-usage-report", "--no-banner", "--backup-meta=0", "--attr-cache=0"),
                *("--dir-entry-cache=0", f"--metrics=127.0.0.1:{free_port()}"),
                *(f"--cache-dir={folder}/cache", f"--log={folder}/gateway.txt"),
            ],
            env={
                **os.environ,
                "MINIO_ROOT_USER": environment["AWS_ACCESS_KEY_ID"],
                "MINIO_ROOT_PASSWORD": environment["AWS_SECRET_ACCESS_KEY"],
                "HOME": str(folder),
            },
            stdout=log,
            stderr=log,
        )
    try:
        _wait_for(port, server, folder / "log.txt")
        for bucket in buckets:
            s3_client(environment).create_bucket(
                Bucket=bucket, CreateBucketConfiguration={"LocationConstraint": REGION}
            )
        yield environment
    finally:
        server.terminate()
        server.wait(30)


def s3_client(environment: dict[str, str]) -> Any:
    return boto3.client(
        "s3",
        endpoint_url=environment["AWS_S3_ENDPOINT_URL"],
        region_name=REGION,
        aws_access_key_id=environment["AWS_ACCESS_KEY_ID"],
        aws_secret_access_key=environment["AWS_SECRET_ACCESS_KEY"],
    )


def _wait_for(port: int, server: "subprocess.Popen[bytes]", log: Path) -> None:
    deadline = time.monotonic() + START_SECONDS
    while True:
        with socket.socket() as probe:
            if probe.connect_ex(("127.0.0.1", port)) == 0:
                return
        assert server.poll() is None, f"the S3 server has ended:\n{log.read_text()}"
        assert time.monotonic() < deadline, f"the S3 server does not answer:\n{log.read_text()}"
        time.sleep(0.05)
