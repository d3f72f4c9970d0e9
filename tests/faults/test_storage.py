"""Storage that fails, hangs or cuts short is noticed as what it is, through the product's own reading."""

import hashlib
import os
import threading
from collections.abc import Iterator
from typing import Any

import pytest

from envoys import storage as product
from envoys.errors import LostObjectError, StorageError
from envoys.storage import director_storage, read_object, write_object
from tests.faults.storage import FAILS, HANGS, TRUNCATES, FaultyStorage, remove_folders
from tests.s3_server import running_s3, s3_client

CONTENT = os.urandom(10_000)
SHA256 = hashlib.sha256(CONTENT).hexdigest()
FOR_EVER = 1000.0


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[dict[str, str]]:
    with running_s3(tmp_path_factory.mktemp("s3"), "director") as environment:
        yield environment


@pytest.fixture
def faulty(
    server: dict[str, str], settings: Any, monkeypatch: pytest.MonkeyPatch
) -> Iterator[FaultyStorage]:
    real_port = int(server["AWS_S3_ENDPOINT_URL"].rpartition(":")[2])
    with FaultyStorage(real_port, seed=0) as storage:
        settings.AWS_S3_ENDPOINT_URL = f"http://127.0.0.1:{storage.port}"
        settings.AWS_ACCESS_KEY_ID = server["AWS_ACCESS_KEY_ID"]
        settings.AWS_SECRET_ACCESS_KEY = server["AWS_SECRET_ACCESS_KEY"]
        settings.DIRECTOR_S3_BUCKET_NAME = "director"
        settings.S3_ENDPOINT_IS_INSIDE = True
        settings.S3_TIMEOUT_SECONDS = 0.2
        monkeypatch.setattr(product, "READ_AGAIN_SECONDS", (0.001,) * 3)
        monkeypatch.setattr("botocore.retries.standard.ExponentialBackoff.delay_amount", _at_once)
        write_object(director_storage(), "an/object", CONTENT)
        yield storage


def _at_once(self: Any, context: Any) -> float:
    return 0.0


def read() -> bytes:
    return read_object(director_storage(), "an/object", sha256=SHA256)


def test_in_order_it_passes_on_what_it_is_given(faulty):
    assert read() == CONTENT
    assert read_object(director_storage(), "an/object", sha256=None) == CONTENT
    assert set(faulty.num_spoilt.values()) == {0}


@pytest.mark.parametrize(("fault", "words"), [(FAILS, "503|SlowDown"), (HANGS, "timeout")])
def test_what_fails_or_hangs_is_out_of_reach_and_not_lost(faulty, fault, words):
    faulty.begin(fault, FOR_EVER)
    with pytest.raises(StorageError, match=words) as reading:
        read()
    assert not isinstance(reading.value, LostObjectError)
    with pytest.raises(StorageError, match=words):
        write_object(director_storage(), "another", CONTENT)
    assert faulty.num_spoilt[fault] >= 6  # each was tried three times


def test_what_is_cut_short_for_long_is_never_taken_for_the_object(faulty):
    faulty.begin(TRUNCATES, FOR_EVER)
    for _ in range(5):
        with pytest.raises(StorageError):
            read()


def test_what_was_cut_short_on_the_way_is_read_again(faulty, monkeypatch):
    faulty.begin(TRUNCATES, FOR_EVER)

    def mend(seconds: float) -> None:
        faulty.end()

    monkeypatch.setattr(product.time, "sleep", mend)
    monkeypatch.setattr(faulty, "draw", _as_if_whole(faulty.draw))
    assert read() == CONTENT
    assert faulty.num_spoilt[TRUNCATES] == 1


def _as_if_whole(draw: Any) -> Any:
    return lambda: (draw()[0], True)


def test_a_fault_lasts_until_somebody_has_met_it(faulty):
    faulty.begin(TRUNCATES, 0.0)
    assert not faulty.is_met
    threading.Event().wait(0.01)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(product, "READ_AGAIN_SECONDS", ())
        patch.setattr(faulty, "draw", _as_if_whole(faulty.draw))
        with pytest.raises(LostObjectError, match="is not what was stored"):
            read()
    assert faulty.is_met
    assert read() == CONTENT


def test_folders_are_removed_by_name_from_every_bucket(tmp_path):
    with running_s3(tmp_path / "s3", "director", "envoys") as environment:
        s3 = s3_client(environment)
        keys = {
            "director": [
                "updates/a.safetensors",
                "updates/b.safetensors",
                "updates.txt",
                "study/a",
            ],
            "envoys": ["oslo/client_state/a", "oslo/updates", "client_state/b", "oslo/state/a"],
        }
        for bucket in keys:
            for key in keys[bucket]:
                s3.put_object(Bucket=bucket, Key=key, Body=b"1")
        assert remove_folders(s3, {"updates", "client_state"}) == 4
        assert remove_folders(s3, {"updates", "client_state"}) == 0
        left = {bucket: s3.list_objects_v2(Bucket=bucket)["Contents"] for bucket in keys}
    assert [each["Key"] for each in left["director"]] == ["study/a", "updates.txt"]
    assert [each["Key"] for each in left["envoys"]] == ["oslo/state/a", "oslo/updates"]
