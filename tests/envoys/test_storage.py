import hashlib
import io
import os
import socket
import subprocess
import sys
import time
from pathlib import Path

import boto3
import pytest
from moto import mock_aws

from envoys import storage as storage_module
from envoys.errors import StorageError
from envoys.models import Envoy
from envoys.storage import (
    CHUNK_BYTES,
    LARGE_BYTES,
    check_director_storage,
    delete_objects,
    director_storage,
    envoy_storage,
    has_objects,
    list_objects,
    make_bucket,
    object_exists,
    open_object,
    read_buffer,
    read_object,
    write_object,
    write_objects,
)
from tests.s3_server import running_s3, s3_client

HELLO_SHA256 = "2cf24dba5fb0a30e26e83b2ac5b9e29e1b161e5c1fa7425e73043362938b9824"


@pytest.fixture
def folder(settings, tmp_path):
    settings.DIRECTOR_S3_BUCKET_NAME = ""
    settings.ENVOY_S3_BUCKET_NAME = ""
    settings.OBJECT_FOLDER = tmp_path
    return director_storage()


@pytest.fixture
def moto(settings):
    settings.DIRECTOR_S3_BUCKET_NAME = "director-bucket"
    settings.ENVOY_S3_BUCKET_NAME = "envoys-bucket"
    settings.AWS_ACCESS_KEY_ID = "test"
    settings.AWS_SECRET_ACCESS_KEY = "test"
    settings.AWS_S3_ENDPOINT_URL = None
    storage_module._s3_storage.cache_clear()
    with mock_aws():
        client = boto3.client("s3", region_name="us-east-1")
        for name in ("director-bucket", "envoys-bucket"):
            client.create_bucket(Bucket=name)
        yield client
    storage_module._s3_storage.cache_clear()


@pytest.fixture(scope="session")
def signing_server(tmp_path_factory):
    """A server that checks signatures, which moto does not."""
    with running_s3(tmp_path_factory.mktemp("s3"), "director-bucket", "envoys-bucket") as server:
        yield server


@pytest.fixture
def signed(settings, signing_server):
    for name in ("DIRECTOR_S3_BUCKET_NAME", "ENVOY_S3_BUCKET_NAME", "AWS_S3_ENDPOINT_URL"):
        setattr(settings, name, signing_server[name])
    settings.AWS_ACCESS_KEY_ID = signing_server["AWS_ACCESS_KEY_ID"]
    settings.AWS_SECRET_ACCESS_KEY = signing_server["AWS_SECRET_ACCESS_KEY"]
    settings.S3_ENDPOINT_IS_INSIDE = True
    yield s3_client(signing_server)
    delete_objects(director_storage())
    storage_module._s3_storage.cache_clear()


@pytest.fixture(params=["moto", "signed"])
def bucket(request):
    return request.getfixturevalue(request.param)


@pytest.fixture(params=["folder", "moto", "signed"])
def storage(request):
    request.getfixturevalue(request.param)
    return director_storage()


def test_what_is_written_is_read_back_under_its_hash(storage):
    sha256 = write_object(storage, "updates/one.bin", b"hello")

    assert sha256 == HELLO_SHA256
    assert read_object(storage, "updates/one.bin", sha256=sha256) == b"hello"
    assert object_exists(storage, "updates/one.bin")
    assert not object_exists(storage, "updates/two.bin")


def test_the_same_key_again_replaces_the_object(storage):
    write_object(storage, "diagnoses.csv", b"old and longer")
    sha256 = write_object(storage, "diagnoses.csv", b"new")

    assert read_object(storage, "diagnoses.csv", sha256=sha256) == b"new"


def test_a_file_is_stored_and_opened_as_a_stream(storage, tmp_path):
    content = os.urandom(1000) * 20_000  # 20 MB: several parts, and more than is kept in memory
    source = tmp_path / "source.bin"
    source.write_bytes(content)

    with source.open("rb") as file:
        file.read(10)  # it is stored from its start, wherever it stood
        sha256 = write_object(storage, "large.bin", file)

    assert sha256 == hashlib.sha256(content).hexdigest()
    with open_object(storage, "large.bin", sha256=sha256) as file:
        assert file.read(1000) == content[:1000]
        assert file.read() == content[1000:]


@pytest.mark.parametrize("num_bytes", [0, 1000, LARGE_BYTES + CHUNK_BYTES + 1])
def test_an_object_is_hashed_while_it_is_read(storage, num_bytes):
    content = os.urandom(num_bytes)
    sha256 = write_object(storage, "updates/one.bin", content)
    read = read_buffer(storage, "updates/one.bin", sha256=sha256)
    assert read == content
    assert read.readonly  # remembered, and read by many
    for damaged in (content + b"x", content[:-1] + b"\0\0"):
        write_object(storage, "updates/one.bin", damaged)
        with pytest.raises(StorageError, match=r"one.bin.*is not what was stored"):
            read_buffer(storage, "updates/one.bin", sha256=sha256)


def test_an_object_that_is_not_what_was_recorded_is_refused(storage):
    write_object(storage, "model.safetensors", b"hello, changed")

    with pytest.raises(StorageError, match=r"model.safetensors.*is not what was stored"):
        read_object(storage, "model.safetensors", sha256=HELLO_SHA256)
    assert read_object(storage, "model.safetensors", sha256=None) == b"hello, changed"


def test_a_missing_object_is_named(storage):
    with pytest.raises(StorageError, match=r"nothing/here.bin is missing in the"):
        read_object(storage, "nothing/here.bin", sha256=HELLO_SHA256)


@pytest.mark.parametrize(
    "key", ["", ".", "..", "../a", "a/../b", "/a", "a//b", "a/", "./a", "a\\..\\b", "a\nb", "a\0b"]
)
def test_a_key_that_leads_elsewhere_is_refused(folder, key):
    for use in (
        lambda: write_object(folder, key, b"hello"),
        lambda: read_object(folder, key, sha256=None),
        lambda: object_exists(folder, key),
    ):
        with pytest.raises(StorageError, match="cannot be the key"):
            use()


@pytest.mark.parametrize("place", [{"prefix": "../../elsewhere"}, {"bucket": ".."}])
def test_an_envoy_whose_place_leads_elsewhere_is_refused(folder, place):
    with pytest.raises(StorageError, match=r"\.\."):
        envoy_storage(Envoy(slug="kutrrh", **place))


def test_a_broken_write_leaves_the_old_object_and_nothing_else(folder, tmp_path):
    class BreaksHalfway(io.BytesIO):
        reads = 0

        def read(self, size=-1):
            self.reads += 1
            if self.reads > 1:
                raise OSError("the disk has gone")
            return b"half"

    sha256 = write_object(folder, "diagnoses.csv", b"old")

    with pytest.raises(StorageError, match=r"diagnoses.csv could not be written.*disk has gone"):
        write_object(folder, "diagnoses.csv", BreaksHalfway(b"halfway"))

    assert read_object(folder, "diagnoses.csv", sha256=sha256) == b"old"
    assert [path.name for path in (tmp_path / "director").iterdir()] == ["diagnoses.csv"]


def test_a_reader_keeps_the_object_it_opened_while_it_is_replaced(folder):
    sha256 = write_object(folder, "diagnoses.csv", b"hello")

    with open_object(folder, "diagnoses.csv", sha256=sha256) as file:
        write_object(folder, "diagnoses.csv", b"other")
        assert file.read() == b"hello"


def test_a_folder_that_cannot_be_written_says_so(folder, tmp_path):
    (tmp_path / "director").write_text("a file where the folder should be")

    with pytest.raises(StorageError, match=r"one.bin could not be written.*Check that"):
        write_object(folder, "updates/one.bin", b"hello")


def test_envoys_in_folders_lie_apart_as_in_buckets(folder, tmp_path):
    first = envoy_storage(Envoy(slug="kutrrh"))
    second = envoy_storage(Envoy(slug="kenyatta", bucket="theirs", prefix="/exports/fl/"))

    write_object(first, "diagnoses.csv", b"1")
    write_object(second, "diagnoses.csv", b"2")

    assert (tmp_path / "director/envoys/kutrrh/diagnoses.csv").read_bytes() == b"1"
    assert (tmp_path / "theirs/exports/fl/diagnoses.csv").read_bytes() == b"2"


def test_envoys_in_s3_use_their_own_bucket_or_the_default_one(bucket):
    bucket.create_bucket(Bucket="theirs")
    write_object(envoy_storage(Envoy(slug="kutrrh")), "diagnoses.csv", b"1")
    write_object(
        envoy_storage(Envoy(slug="kenyatta", bucket="theirs", prefix="fl")), "diagnoses.csv", b"2"
    )

    def stored(name, key):
        return bucket.get_object(Bucket=name, Key=key)["Body"].read()

    assert stored("envoys-bucket", "envoys/kutrrh/diagnoses.csv") == b"1"
    assert stored("theirs", "fl/diagnoses.csv") == b"2"


def test_a_bucket_that_is_not_there_says_so(bucket):
    elsewhere = envoy_storage(Envoy(slug="kutrrh", bucket="not-there"))

    with pytest.raises(
        StorageError, match=r"diagnoses.csv could not be written in the bucket not-"
    ):
        write_object(elsewhere, "diagnoses.csv", b"1")


def test_s3_that_does_not_answer_says_so(settings):
    settings.DIRECTOR_S3_BUCKET_NAME = "director-bucket"
    settings.AWS_ACCESS_KEY_ID = settings.AWS_SECRET_ACCESS_KEY = "test"
    settings.AWS_S3_ENDPOINT_URL = "http://127.0.0.1:9"  # nobody listens on the discard port

    with pytest.raises(StorageError, match=r"one.bin could not be looked up in the bucket"):
        object_exists(director_storage(), "one.bin")


def test_folders_need_no_boto3():
    program = (
        "import django, sys; django.setup();"
        "from envoys.storage import director_storage; director_storage();"
        "sys.exit('boto3' in sys.modules or 'storages' in sys.modules)"
    )
    environment = {
        name: value
        for name, value in os.environ.items()
        if name not in ("DIRECTOR_S3_BUCKET_NAME", "TECHLIFE_MODE")
    }
    environment["DJANGO_SETTINGS_MODULE"] = "techlife.settings"
    subprocess.run([sys.executable, "-c", program], env=environment, check=True, timeout=60)


def test_a_wrong_secret_is_refused_and_the_right_one_is_not(signed, settings):
    sha256 = write_object(director_storage(), "updates/one.bin", b"hello")
    right = settings.AWS_SECRET_ACCESS_KEY
    settings.AWS_SECRET_ACCESS_KEY = "not the secret of this key"
    for use in (
        lambda: read_object(director_storage(), "updates/one.bin", sha256=sha256),
        lambda: write_object(director_storage(), "updates/one.bin", b"other"),
        lambda: object_exists(director_storage(), "updates/one.bin"),
        lambda: list(list_objects(director_storage())),
        lambda: delete_objects(director_storage()),
        check_director_storage,
    ):
        with pytest.raises(StorageError, match="credentials are right") as refused:
            use()
        assert settings.AWS_SECRET_ACCESS_KEY not in str(refused.value)
    settings.AWS_SECRET_ACCESS_KEY = right
    assert read_object(director_storage(), "updates/one.bin", sha256=sha256) == b"hello"
    check_director_storage()


def test_a_bucket_is_made_once(bucket):
    assert make_bucket("a-new-bucket")
    assert not make_bucket("a-new-bucket")
    assert not make_bucket("director-bucket")


def test_what_is_still_being_written_or_goes_meanwhile_is_not_listed(monkeypatch):
    storage = director_storage()
    for key in ("a.bin", "b.bin"):
        write_object(storage, key, key.encode())
    folder = Path(storage.path(""))
    (folder / ".c.bin.half").write_bytes(b"hal")
    stat = Path.stat

    def gone(path, **kwargs):
        if path.name == "a.bin":
            raise FileNotFoundError
        return stat(path, **kwargs)

    monkeypatch.setattr(Path, "stat", gone)
    assert list(list_objects(storage)) == [("b.bin", 5)]


def test_all_of_a_storage_is_listed_and_deleted_and_nothing_beside_it(storage):
    for key in ("updates/b.bin", "a.bin", "updates/a.bin"):
        write_object(storage, key, key.encode())
    assert list(list_objects(storage)) == [
        ("a.bin", 5),
        ("updates/a.bin", 13),
        ("updates/b.bin", 13),
    ]
    oslo, oslo_2 = (envoy_storage(Envoy(slug=slug)) for slug in ("oslo", "oslo-2"))
    for each in (oslo, oslo_2):
        write_object(each, "diagnoses.csv", b"1")
    delete_objects(oslo)
    assert not has_objects(oslo)
    assert has_objects(oslo_2)
    delete_objects(oslo_2)


def test_a_look_at_storage_that_does_not_answer_takes_no_longer_than_a_moment(settings):
    settings.DIRECTOR_S3_BUCKET_NAME = "director-bucket"
    settings.AWS_ACCESS_KEY_ID = settings.AWS_SECRET_ACCESS_KEY = "test"
    settings.S3_ENDPOINT_IS_INSIDE = True
    with socket.socket() as silent:  # takes connections, and says nothing
        silent.bind(("127.0.0.1", 0))
        silent.listen()
        settings.AWS_S3_ENDPOINT_URL = f"http://127.0.0.1:{silent.getsockname()[1]}"
        started = time.monotonic()
        with pytest.raises(StorageError, match="could not be looked up"):
            check_director_storage()
        assert time.monotonic() - started < 10


def test_several_objects_are_stored_together(storage):
    write_objects(storage, {"updates/a.bin": b"a", "updates/b.bin": b"bb", "models/c.bin": b""})
    assert list(list_objects(storage)) == [
        ("models/c.bin", 0),
        ("updates/a.bin", 1),
        ("updates/b.bin", 2),
    ]
    write_objects(storage, {})


def test_where_one_of_several_objects_cannot_be_written_no_half_of_any_is_left(folder, tmp_path):
    write_object(folder, "updates", b"a file where a folder is needed")
    with pytest.raises(StorageError):
        write_objects(folder, {"models/a.bin": b"a", "updates/b.bin": b"b"})
    assert [path.name for path in tmp_path.rglob("*") if path.is_file()] == ["updates"]
