"""Where objects lie: a folder, or S3 through django-storages; each is checked against its sha256."""

import base64
import errno
import hashlib
import io
import os
import shutil
import stat
import tempfile
import time
from collections.abc import Callable, Collection, Iterable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack, contextmanager
from datetime import datetime
from functools import lru_cache
from pathlib import Path, PurePosixPath
from typing import Any, BinaryIO, TypeVar, cast

import numpy as np
from django.conf import settings
from django.core.files import File
from django.core.files.storage import FileSystemStorage, Storage

from envoys.endpoints import check_endpoint
from envoys.errors import LostObjectError, StorageError
from envoys.models import Envoy
from envoys.storage_errors import note_storage_error

DIRECTOR_FOLDER = "director"  # stands for the director's bucket where there is none
MAX_MEMORY_BYTES = 16 * 2**20  # a larger object from S3 is verified in a temporary file
CONNECT_TIMEOUT_SECONDS = 5
# What comes from S3 and is not what was stored may have been cut short on the way: after so long it
# is read again. A folder gives what it holds.
READ_AGAIN_SECONDS = (0.2, 1.0, 3.0)
MAX_ATTEMPTS = 3
WAITS_AT_ONCE = 8
OPEN_AT_ONCE = 100  # far below how many files a process may have open
LARGE_BYTES = 4 * 2**20  # from here on, hashing has a thread of its own
CHUNK_BYTES = 2**20

Content = TypeVar("Content")


class FolderStorage(FileSystemStorage):
    """A folder in which an object appears whole, replaces its predecessor at once, and stays."""

    def get_available_name(self, name: str, max_length: int | None = None) -> str:
        return name  # the same key again replaces the object, as in a bucket

    def _save(self, name: str, content: "File[bytes]") -> str:
        save_files({Path(self.path(name)): content.chunks()})
        return name


def save_files(contents: Mapping[Path, Iterable[bytes]]) -> None:
    """Files by path, all on the disk when it returns: sooner than one after the other."""
    paths = list(contents)
    for start in range(0, len(paths), OPEN_AT_ONCE):
        _save_open({path: contents[path] for path in paths[start : start + OPEN_AT_ONCE]})


def _save_open(contents: Mapping[Path, Iterable[bytes]]) -> None:
    written: list[tuple[int, str, Path]] = []
    try:
        for path, chunks in contents.items():
            path.parent.mkdir(parents=True, exist_ok=True)
            prefix = f".{path.name[:100]}."
            descriptor, temporary = tempfile.mkstemp(prefix=prefix, dir=path.parent)
            written.append((descriptor, temporary, path))
            with open(descriptor, "wb", closefd=False) as file:
                file.writelines(chunks)
        _wait_for_disk([descriptor for descriptor, _, _ in written])
        for _, temporary, path in written:
            os.replace(temporary, path)
        fsync_folders({path.parent for path in contents})
    except BaseException:
        for _, temporary, _ in written:
            Path(temporary).unlink(missing_ok=True)
        raise
    finally:
        for descriptor, _, _ in written:
            os.close(descriptor)


def fsync_folders(folders: Collection[Path]) -> None:
    """Make renames within the folders outlive a loss of power."""
    descriptors: list[int] = []
    try:
        for folder in folders:
            descriptors.append(os.open(folder, os.O_RDONLY))
        _wait_for_disk(descriptors)
    finally:
        for descriptor in descriptors:
            os.close(descriptor)


def _wait_for_disk(descriptors: Sequence[int]) -> None:
    """Until these files outlive a loss of power.

    Asked for side by side, most are on the disk with the first: 25 files take a tenth of the time.
    """
    if len(descriptors) == 1:
        os.fsync(descriptors[0])
        return
    with ThreadPoolExecutor(WAITS_AT_ONCE) as pool:
        for _ in pool.map(os.fsync, descriptors):
            pass  # raises what went wrong


def director_storage() -> Storage:
    bucket = settings.DIRECTOR_S3_BUCKET_NAME
    return _storage(bucket or DIRECTOR_FOLDER, "", settings.AWS_REGION)


def envoy_storage(envoy: Envoy) -> Storage:
    """The envoy's part of its bucket."""
    return _storage(bucket_of(envoy), envoy.storage_prefix, envoy.region)


def bucket_of(envoy: Envoy) -> str:
    """The envoy's own bucket, the envoys' default bucket, or the director's."""
    bucket = envoy.bucket or settings.ENVOY_S3_BUCKET_NAME or settings.DIRECTOR_S3_BUCKET_NAME
    return bucket or DIRECTOR_FOLDER


def write_object(storage: Storage, key: str, content: bytes | BinaryIO) -> str:
    """Store an object whole, in place of one of that key; returns its sha256 in hex.

    A file is read from its start, twice, and never held in memory as a whole.
    """
    check_key(key)
    file = io.BytesIO(content) if isinstance(content, bytes) else content
    with storage_errors(storage, key, "written"):
        file.seek(0)
        sha256 = hashlib.file_digest(file, "sha256").hexdigest()  # type: ignore[arg-type]
        file.seek(0)
        storage.save(key, File(file, name=key))
    return sha256


def write_objects(storage: Storage, contents: Mapping[str, bytes]) -> None:
    """Store several objects by their keys, as `write_object` does one; some may stand if it fails."""
    write_together([(storage, contents)])


def write_together(parts: Sequence[tuple[Storage, Mapping[str, bytes]]]) -> None:
    """As `write_objects`, in several storages; folders wait for the disk once.

    Raises StorageError, after which some may stand; it does not say for sure in which storage.
    """
    files: dict[Path, Iterable[bytes]] = {}
    for storage, contents in parts:
        for key, content in contents.items():
            check_key(key)
            if isinstance(storage, FolderStorage):
                files[Path(storage.path(key))] = [content]
            else:
                write_object(storage, key, content)
    if files:
        with storage_errors(parts[0][0], next(iter(parts[0][1])), "written"):
            save_files(files)


def open_object(storage: Storage, key: str, *, sha256: str | None) -> BinaryIO:
    """An object as a local file, checked as a whole before the first byte is handed out.

    Args:
        sha256: what the content must hash to, in hex; None where nobody has recorded it.
    Raises:
        StorageError: it is missing, cannot be reached, or is not what was recorded.
    """

    def hashed(file: BinaryIO) -> tuple[BinaryIO, str]:
        if sha256 is None:
            return file, ""
        found = hashlib.file_digest(file, "sha256").hexdigest()  # type: ignore[arg-type]
        file.seek(0)
        return file, found

    return _read_whole(storage, key, sha256, hashed)


def read_object(storage: Storage, key: str, *, sha256: str | None) -> bytes:
    """An object in memory, checked; arguments and errors as for `open_object`."""

    def content_of(file: BinaryIO) -> tuple[bytes, str]:
        content = file.read()
        return content, hashlib.sha256(content).hexdigest() if sha256 else ""

    return _read_whole(storage, key, sha256, content_of)


def read_buffer(storage: Storage, key: str, *, sha256: str) -> memoryview:
    """As `read_object`, for objects that may be large: they are hashed while they are read."""

    def content_of(file: BinaryIO) -> tuple[memoryview, str]:
        num_bytes = file.seek(0, io.SEEK_END)
        file.seek(0)
        # NumPy's memory comes in huge pages where there are any: to get 40 MB in small ones takes
        # longer than to read the file.
        content = np.empty(num_bytes, np.uint8).data
        found = _fill(content, file)
        return content.toreadonly(), found

    return _read_whole(storage, key, sha256, content_of)


def _fill(content: memoryview, file: BinaryIO) -> str:
    """Read a file into memory of its size; returns the sha256, in hex, of what was read."""
    digest = hashlib.sha256()
    if len(content) < LARGE_BYTES:  # sooner done than a thread is started
        file.readinto(content)  # type: ignore[attr-defined]
        digest.update(content)
        return digest.hexdigest()
    remaining = content
    with ThreadPoolExecutor(max_workers=1) as hashing:
        while num_read := file.readinto(remaining[:CHUNK_BYTES]):  # type: ignore[attr-defined]
            hashing.submit(digest.update, remaining[:num_read])
            remaining = remaining[num_read:]
    return digest.hexdigest()


def _read_whole(
    storage: Storage, key: str, sha256: str | None, read: Callable[[BinaryIO], tuple[Content, str]]
) -> Content:
    """What `read` makes of an object, once it is what was stored.

    Args:
        read: returns it with the sha256 of the bytes; the file stays open only if that is it.
    """
    check_key(key)
    pauses = () if isinstance(storage, FolderStorage) else READ_AGAIN_SECONDS
    for seconds in (0.0, *pauses):
        if seconds:
            time.sleep(seconds)
        with storage_errors(storage, key, "read"), ExitStack() as opened:
            file = opened.enter_context(_open(storage, key))
            content, found = read(file)
            if sha256 in (None, found):
                if content is file:
                    opened.pop_all()
                return content
    note_storage_error()
    raise LostObjectError(
        f"{key} in {place(storage)} is not what was stored: its sha256 is {found}, "
        f"{sha256} was recorded. Restore it from a backup, or make it again."
    )


def _open(storage: Storage, key: str) -> BinaryIO:
    opened = storage.open(key, "rb")
    try:
        return cast(BinaryIO, opened.file)
    except BaseException:
        opened.close()  # what has come so far
        raise


def check_director_storage() -> None:
    """A cheap look whether it can be used, that is not waited for. Raises StorageError."""
    storage = director_storage()
    with storage_errors(storage, "what lies there", "looked up"):
        if not isinstance(storage, FolderStorage):
            _impatient_client(storage).head_bucket(Bucket=storage.bucket_name)  # type: ignore[attr-defined]
            return
        folder = Path(storage.location)
        while not folder.exists():
            folder = folder.parent  # with the first object it is made
        if not folder.is_dir() or not os.access(folder, os.R_OK | os.W_OK | os.X_OK):
            raise PermissionError(errno.EACCES, os.strerror(errno.EACCES))


def make_bucket(name: str) -> bool:
    """Make a bucket unless it is there; returns whether it was made. Raises StorageError."""
    from botocore.exceptions import ClientError

    storage: Any = _storage(name, "", settings.AWS_REGION)
    with storage_errors(storage, "the bucket itself", "made"):
        try:
            storage.connection.meta.client.head_bucket(Bucket=name)
        except ClientError as error:
            if error.response["ResponseMetadata"]["HTTPStatusCode"] != 404:
                raise
        else:
            return False
        # The one region that is not to be named.
        region = {"LocationConstraint": settings.AWS_REGION}
        named = {} if settings.AWS_REGION == "us-east-1" else {"CreateBucketConfiguration": region}
        storage.connection.create_bucket(Bucket=name, **named)
    return True


def object_exists(storage: Storage, key: str) -> bool:
    check_key(key)
    with storage_errors(storage, key, "looked up"):
        return bool(storage.exists(key))


def has_objects(storage: Storage) -> bool:
    """Whether anything lies in it. Raises StorageError."""
    with storage_errors(storage, "its list of objects", "read"):
        if isinstance(storage, FolderStorage):
            return any(path.is_file() for path in Path(storage.location).rglob("*"))
        return any(True for _ in _s3_objects(storage).limit(1))


def delete_objects(storage: Storage) -> None:
    """Delete everything in it; safe to do again after half of it. Raises StorageError."""
    with storage_errors(storage, "an object", "deleted"):
        if not isinstance(storage, FolderStorage):
            events = storage.connection.meta.client.meta.events  # type: ignore[attr-defined]
            events.register("before-call.s3.DeleteObjects", _add_md5, unique_id="content-md5")
            _s3_objects(storage).delete()  # a thousand in a request
        elif Path(storage.location).exists():
            shutil.rmtree(storage.location)


def delete_folder(storage: Storage, keys: Sequence[str]) -> None:
    """Delete the objects of a folder, those that are still there, and the folder.

    What a killed process left half written goes too. Raises StorageError.
    """
    folder = [str(PurePosixPath(keys[0]).parent)] if keys else []
    for key in keys:
        check_key(key)
        with storage_errors(storage, key, "removed"):
            storage.delete(key)
    if isinstance(storage, FolderStorage):
        for key in folder:
            with storage_errors(storage, key, "removed"):
                for path in Path(storage.path(key)).glob(".*"):
                    path.unlink(missing_ok=True)
                storage.delete(key)


def delete_object(storage: Storage, key: str) -> None:
    """Delete one object, if it is there. Raises StorageError."""
    check_key(key)
    with storage_errors(storage, key, "removed"):
        storage.delete(key)


def object_size(storage: Storage, key: str) -> int | None:
    """Its number of bytes; None if it is not there. Raises StorageError."""
    check_key(key)
    try:
        with storage_errors(storage, key, "looked up"):
            return storage.size(key) if storage.exists(key) else None
    except LostObjectError:  # between the two
        return None


def last_changed(storage: Storage, key: str) -> datetime | None:
    """When an object was stored; None if it is gone. Raises StorageError."""
    check_key(key)
    try:
        with storage_errors(storage, key, "looked up"):
            return storage.get_modified_time(key) if storage.exists(key) else None
    except LostObjectError:  # between the two
        return None


def list_objects(storage: Storage) -> Iterator[tuple[str, int]]:
    """Key and number of bytes of every object in it, sorted. Raises StorageError."""
    with storage_errors(storage, "its list of objects", "read"):
        if isinstance(storage, FolderStorage):
            folder = Path(storage.location)
            found = [
                (path.relative_to(folder).as_posix(), num_bytes)
                for path in folder.rglob("*")
                if (num_bytes := _file_size(path)) is not None
            ]
        else:
            prefix = _s3_prefix(storage)
            found = [
                (each.key.removeprefix(prefix), each.size) for each in _s3_objects(storage).all()
            ]
    yield from sorted(found)


def _file_size(path: Path) -> int | None:
    """None for what is no object: a folder, what is still being written, what has just gone."""
    try:
        found = path.stat()
    except FileNotFoundError:
        return None
    return found.st_size if stat.S_ISREG(found.st_mode) and path.name[0] != "." else None


def _s3_objects(storage: Any) -> Any:
    return storage.bucket.objects.filter(Prefix=_s3_prefix(storage))


def _add_md5(params: dict[str, Any], **kwargs: Any) -> None:
    """Servers other than Amazon's ask for the header, which boto3 has replaced by another."""
    digest = hashlib.md5(params["body"], usedforsecurity=False).digest()
    params["headers"]["Content-MD5"] = base64.b64encode(digest).decode()


def _s3_prefix(storage: Any) -> str:
    # With the slash: "envoys/oslo" is not to match "envoys/oslo-2". The director has all of a bucket.
    return f"{storage.location}/" if storage.location else ""


def check_key(key: str) -> None:
    """Refuse a key that could lead out of its storage, or be two keys to two storages."""
    path = PurePosixPath(key)
    if (
        str(path) != key
        or path.is_absolute()
        or not path.parts  # the key "."
        or ".." in path.parts
        or "\\" in key
        or not key.isprintable()
    ):
        raise StorageError(
            f"{key!r} cannot be the key of an object: it takes names joined by single slashes, "
            "without '..', a leading slash or a backslash."
        )


def place(storage: Storage) -> str:
    if isinstance(storage, FolderStorage):
        return f"the folder {storage.location}"
    return f"the bucket {getattr(storage, 'bucket_name', type(storage).__name__)}"


@contextmanager
def storage_errors(storage: Storage, key: str, done: str) -> Iterator[None]:
    """Turn what the file system or S3 raises into words with a way out."""
    errors: tuple[type[Exception], ...] = (OSError,)
    if not isinstance(storage, FolderStorage):
        errors += _s3_errors()
    try:
        yield
    except FileNotFoundError as error:
        note_storage_error()
        raise LostObjectError(
            f"{key} is missing in {place(storage)}. Restore it from a backup, or make it again."
        ) from error
    except errors as error:
        note_storage_error()
        remedy = (
            "it is a folder with space left that this process may write"
            if isinstance(storage, FolderStorage)
            else "the bucket, the region, the endpoint and the credentials are right"
        )
        reason = getattr(error, "strerror", None) or str(error)
        raise StorageError(
            f"{key} could not be {done} in {place(storage)}: {reason}. Check that {remedy}."
        ) from error


def _storage(bucket: str, prefix: str, region: str) -> Storage:
    if not settings.DIRECTOR_S3_BUCKET_NAME:
        return _folder_storage(settings.OBJECT_FOLDER, bucket, prefix)
    return _s3_storage(
        bucket,
        prefix,
        region,
        settings.AWS_ACCESS_KEY_ID,
        settings.AWS_SECRET_ACCESS_KEY,
        settings.AWS_S3_ENDPOINT_URL,
    )


@lru_cache(maxsize=256)  # takes as long to make as a small object to read
def _folder_storage(folder: Path, bucket: str, prefix: str) -> FolderStorage:
    _check_keys(bucket, prefix)
    return FolderStorage(location=Path(folder, bucket, prefix))


def _check_keys(bucket: str, prefix: str) -> None:
    check_key(bucket)
    if prefix:
        check_key(prefix)


@lru_cache(maxsize=256)  # a client takes longer to make than most objects to read
def _s3_storage(
    bucket: str,
    prefix: str,
    region: str,
    access_key: str | None,
    secret_key: str | None,
    endpoint_url: str | None,
) -> Storage:
    _check_keys(bucket, prefix)
    if endpoint_url:
        check_endpoint(endpoint_url)
    # Imported here: boto3 takes half a second that a process on folders need not pay.
    from boto3.s3.transfer import TransferConfig
    from botocore.config import Config
    from storages.backends.s3 import S3Storage

    options: dict[str, Any] = {
        "bucket_name": bucket,
        "location": prefix,
        "region_name": region,
        "access_key": access_key,
        "secret_key": secret_key,
        "endpoint_url": endpoint_url,
        "file_overwrite": True,
        "default_acl": None,
        "max_memory_size": MAX_MEMORY_BYTES,
        # One part in memory at a time.
        "transfer_config": TransferConfig(use_threads=False),
        "client_config": Config(
            s3={"addressing_style": "path"},
            signature_version="s3v4",  # boto3 presigns v2 otherwise, which real servers refuse
            connect_timeout=CONNECT_TIMEOUT_SECONDS,
            read_timeout=settings.S3_TIMEOUT_SECONDS,
            retries={"mode": "standard", "total_max_attempts": MAX_ATTEMPTS},
        ),
    }
    return cast(Storage, S3Storage(**options))


@lru_cache(maxsize=4)
def _impatient_client(storage: Any) -> Any:
    """A client of the same place that asks once, and waits a second."""
    from botocore.config import Config

    config = storage.client_config.merge(
        Config(connect_timeout=1, read_timeout=2, retries={"total_max_attempts": 1})
    )
    return storage._create_session().client(
        "s3", region_name=storage.region_name, endpoint_url=storage.endpoint_url, config=config
    )


def _s3_errors() -> tuple[type[Exception], ...]:
    from boto3.exceptions import Boto3Error
    from botocore.exceptions import BotoCoreError, ClientError
    from s3transfer.exceptions import RetriesExceededError  # a body cut short, again and again

    return (Boto3Error, BotoCoreError, ClientError, RetriesExceededError)
