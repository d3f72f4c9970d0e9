"""A backup of rows and objects, made while the site runs, and its way back: docs/operations.md.

An object is stored before the row that names it is written. So rows are copied first, all as of one
moment, and objects after them: whatever a row names is there. What goes for good is removed by
`training.services.retention`, which waits for the end. The way back is the other way round.
Names and phones stay encrypted as they are, and the keys are not in it: who has only the backup
reads none.
"""

import hashlib
import hmac
import json
import os
import sqlite3
from collections.abc import Callable, Iterator
from dataclasses import asdict, dataclass, field
from datetime import datetime
from pathlib import Path
from typing import BinaryIO

from django.apps import apps
from django.conf import settings
from django.core.files.storage import Storage
from django.core.management import call_command
from django.core.management.color import no_style
from django.db import connection, transaction
from django.db.migrations.executor import MigrationExecutor
from django.db.models import F
from django.utils import timezone

from envoys.copying import BEING_COPIED, copying
from envoys.errors import LostObjectError
from envoys.models import Envoy, User, WorkerSign
from envoys.storage import (
    DIRECTOR_FOLDER,
    bucket_of,
    director_storage,
    envoy_storage,
    fsync_folders,
    has_objects,
    list_objects,
    open_object,
    write_object,
)
from federated.errors import FederatedError
from training.models import TrainingRound

FORMAT = 1
DIRECTOR = "director"
MANIFEST = "manifest.json"
CHUNK_BYTES = 2**20
ENVOY_FIELDS = ("serial_id", "slug", "bucket", "prefix", "region")

Say = Callable[[str], None]


class BackupError(FederatedError):
    """A backup that cannot be made here, or not be restored; nothing was changed."""


@dataclass(frozen=True)
class TableFile:
    """The rows of a table, or with SQLite the whole database."""

    path: str
    sha256: str
    table: str = ""
    columns: list[str] = field(default_factory=list)


@dataclass(frozen=True)
class StoredObject:
    """An object: whose it is (`director`, or a hospital's serial id), its key, its content."""

    owner: str
    key: str
    sha256: str
    num_bytes: int

    @property
    def path(self) -> str:
        return f"objects/{self.sha256[:2]}/{self.sha256}"


@dataclass(frozen=True)
class Manifest:
    """What a backup consists of; written last, so that a backup without one is none."""

    made_at: str
    vendor: str  # of the database
    migrations: list[list[str]]
    tables: list[TableFile]
    envoys: list[dict[str, str]]  # whose objects are in it, deleted ones that still have some too
    objects: list[StoredObject]
    key_marks: list[str]  # by which the encryption keys are known again, and not found out
    format: int = FORMAT


# Making one


def make_backup(folder: Path, *, say: Say) -> Manifest:
    """Copy all rows as of now, and the objects they name, into a folder that is empty or not there.

    Raises:
        BackupError: something lies there.
        StorageError: an object cannot be read, or the sign that it is made not be written.
    """
    if folder.exists() and (not folder.is_dir() or any(folder.iterdir())):
        raise BackupError(f"{folder} is not empty: name a folder that is, or that is not there yet")
    folder.mkdir(mode=0o700, parents=True, exist_ok=True)
    (folder / "objects").mkdir(mode=0o700)
    with copying():
        manifest = _copy_all(folder, say)
    _write_manifest(folder, manifest)
    return manifest


def _copy_all(folder: Path, say: Say) -> Manifest:
    made_at = timezone.now()
    if connection.vendor == "sqlite":
        tables, envoys, migrations = _copy_sqlite(folder)
    else:
        tables, envoys, migrations = _copy_postgres(folder)
    say(f"Copied the rows of {len(envoys)} participants as of {made_at:%Y-%m-%d %H:%M:%S} UTC")
    objects = list(_copy_objects(folder, envoys, say))
    return Manifest(
        made_at=made_at.isoformat(),
        vendor=connection.vendor,
        migrations=migrations,
        tables=tables,
        envoys=envoys,
        objects=objects,
        key_marks=[_key_mark(key) for key in settings.FIELD_KEYS],
    )


def _copy_sqlite(folder: Path) -> tuple[list[TableFile], list[dict[str, str]], list[list[str]]]:
    if connection.in_atomic_block:
        raise BackupError("A backup is made outside of a transaction: it would wait for its end")
    path = folder / "database.sqlite3"
    path.touch(mode=0o600)
    connection.ensure_connection()
    copy = sqlite3.connect(path)
    try:
        # All at once: it reads one state of the database, and keeps nobody from writing.
        connection.connection.backup(copy, pages=-1)
        copy.execute("PRAGMA journal_mode=DELETE")
        rows = copy.execute(f"SELECT {', '.join(ENVOY_FIELDS)} FROM envoys_envoy ORDER BY id")
        envoys = [dict(zip(ENVOY_FIELDS, row, strict=True)) for row in rows]
        rows = copy.execute("SELECT app, name FROM django_migrations ORDER BY id")
        migrations = [list(row) for row in rows]
    finally:
        copy.close()
    return [TableFile(path.name, _sha256_of(path))], envoys, migrations


def _copy_postgres(folder: Path) -> tuple[list[TableFile], list[dict[str, str]], list[list[str]]]:
    tables = []
    (folder / "tables").mkdir(mode=0o700)
    with transaction.atomic(durable=True), connection.cursor() as cursor:
        cursor.execute("SET TRANSACTION ISOLATION LEVEL REPEATABLE READ, READ ONLY")
        for table in _tables():
            description = connection.introspection.get_table_description(cursor, table)
            columns = [column.name for column in description]
            path = folder / "tables" / table
            with open(os.open(path, os.O_CREAT | os.O_EXCL | os.O_WRONLY, 0o600), "wb") as file:
                cursor.cursor.copy_expert(f"COPY {_named(table, columns)} TO STDOUT", file)
            tables.append(TableFile(f"tables/{table}", _sha256_of(path), table, columns))
        envoys = list(Envoy.objects.order_by("pk").values(*ENVOY_FIELDS))
        cursor.execute("SELECT app, name FROM django_migrations ORDER BY id")
        migrations = [list(row) for row in cursor.fetchall()]
    return tables, envoys, migrations


def _tables() -> list[str]:
    """Every table of the models, those of relations too; migrations are a list of their own."""
    models = apps.get_models(include_auto_created=True)
    return sorted({model._meta.db_table for model in models if model._meta.managed})


def _named(table: str, columns: list[str]) -> str:
    quote = connection.ops.quote_name
    return f"{quote(table)} ({', '.join(quote(column) for column in columns)})"


def _copy_objects(folder: Path, envoys: list[dict[str, str]], say: Say) -> Iterator[StoredObject]:
    for owner, storage, keys in _owned_objects(envoys):
        num_bytes = 0
        for key in keys:
            try:
                stored = _copy_object(folder, owner, storage, key)
            except LostObjectError:
                continue  # an upload that was read, or what was erased, since it was listed
            num_bytes += stored.num_bytes
            yield stored
        say(f"  {owner}: {len(keys):,} objects, {num_bytes:,} bytes")


def _owned_objects(envoys: list[dict[str, str]]) -> Iterator[tuple[str, Storage, list[str]]]:
    """Whose objects, where they lie, and their keys; what is a hospital's is not the director's."""
    rows = [Envoy(**values) for values in envoys]
    shared = settings.DIRECTOR_S3_BUCKET_NAME or DIRECTOR_FOLDER
    prefixes = tuple(f"{row.storage_prefix}/" for row in rows if bucket_of(row) == shared)
    director = director_storage()
    keys = [
        key
        for key, _ in list_objects(director)
        if key != BEING_COPIED and not key.startswith(prefixes)
    ]
    yield DIRECTOR, director, keys
    for row in rows:
        storage = envoy_storage(row)
        yield row.serial_id, storage, [key for key, _ in list_objects(storage)]


def _copy_object(folder: Path, owner: str, storage: Storage, key: str) -> StoredObject:
    incoming = folder / "incoming"
    with open_object(storage, key, sha256=None) as source:
        sha256, num_bytes = _copy_file(source, incoming)
    stored = StoredObject(owner, key, sha256, num_bytes)
    path = folder / stored.path
    path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
    os.replace(incoming, path)  # the same content again is the same file
    return stored


def _copy_file(source: BinaryIO, path: Path) -> tuple[str, int]:
    digest, num_bytes = hashlib.sha256(), 0
    with open(os.open(path, os.O_CREAT | os.O_TRUNC | os.O_WRONLY, 0o600), "wb") as file:
        while chunk := source.read(CHUNK_BYTES):
            digest.update(chunk)
            num_bytes += len(chunk)
            file.write(chunk)
        file.flush()
        os.fsync(file.fileno())
    return digest.hexdigest(), num_bytes


def _write_manifest(folder: Path, manifest: Manifest) -> None:
    fresh = folder / f".{MANIFEST}"
    text = json.dumps(asdict(manifest), indent=1)
    with open(os.open(fresh, os.O_CREAT | os.O_TRUNC | os.O_WRONLY, 0o600), "w") as file:
        file.write(text)
        file.flush()
        os.fsync(file.fileno())
    os.replace(fresh, folder / MANIFEST)
    fsync_folders([folder])


def _key_mark(key: str) -> str:
    return hmac.new(key.encode(), b"which key a backup needs", hashlib.sha256).hexdigest()[:16]


# The way back


def read_backup(folder: Path) -> Manifest:
    """The manifest of a backup, each of whose files is what it was.

    Raises:
        BackupError: it is no backup, not a whole one, or not as it was made.
    """
    try:
        values = json.loads((folder / MANIFEST).read_text())
    except FileNotFoundError as error:
        raise BackupError(
            f"{folder} holds no {MANIFEST}: it is no backup, or one that was not finished"
        ) from error
    except (OSError, ValueError) as error:
        raise BackupError(f"{folder / MANIFEST} cannot be read: {type(error).__name__}") from error
    if not isinstance(values, dict) or values.get("format") != FORMAT:
        raise BackupError(f"{folder / MANIFEST} is not of format {FORMAT}: use its own release")
    manifest = Manifest(
        **{
            **values,
            "tables": [TableFile(**each) for each in values["tables"]],
            "objects": [StoredObject(**each) for each in values["objects"]],
        }
    )
    hashes = {each.path: each.sha256 for each in manifest.tables}
    hashes |= {each.path: each.sha256 for each in manifest.objects}
    problems = []
    for path, sha256 in sorted(hashes.items()):
        if not (folder / path).is_file():
            problems.append(f"{path} is missing")
        elif _sha256_of(folder / path) != sha256:
            problems.append(f"{path} is not what was written")
    if problems:
        more = f" and {len(problems) - 5} more" if len(problems) > 5 else ""
        raise BackupError(f"The backup is damaged: {'; '.join(problems[:5])}{more}")
    return manifest


def restore_backup(folder: Path, *, is_replacing: bool, say: Say) -> Manifest:
    """Bring rows and objects back, under this installation's settings: buckets may be others.

    Objects first, rows last and in one transaction: until then there is nothing that names them.
    Ends with the database as this release needs it.

    Raises:
        BackupError: the backup is damaged or of something else, or this installation is in use.
        StorageError: an object cannot be written; rows are as they were.
    """
    manifest = read_backup(folder)
    _check_it_fits(manifest)
    _check_nothing_is_lost(is_replacing)
    say(f"All {len(manifest.tables)} files of rows and {len(manifest.objects):,} objects are whole")
    rows = {values["serial_id"]: Envoy(**values) for values in manifest.envoys}
    storages = {serial_id: envoy_storage(row) for serial_id, row in rows.items()}
    storages[DIRECTOR] = director_storage()
    for each in manifest.objects:
        with (folder / each.path).open("rb") as file:
            write_object(storages[each.owner], each.key, file)
    say(f"Wrote {len(manifest.objects):,} objects")
    if manifest.vendor == "sqlite":
        _load_sqlite(folder / manifest.tables[0].path)
    else:
        _load_postgres(folder, manifest)
    call_command("migrate", verbosity=0, interactive=False)
    _go_on_from(datetime.fromisoformat(manifest.made_at))
    say("Wrote the rows")
    return manifest


def lacks_keys(manifest: Manifest) -> bool:
    """Whether what the backup has encrypted can be read with none of this installation's keys."""
    marks = {_key_mark(key) for key in settings.FIELD_KEYS}
    return not marks & set(manifest.key_marks)


def _check_it_fits(manifest: Manifest) -> None:
    if manifest.vendor != connection.vendor:
        raise BackupError(
            f"The backup is of a {manifest.vendor} database, and this one is {connection.vendor}:"
            " restore it into one of the same kind"
        )
    known = set(MigrationExecutor(connection).loader.disk_migrations)
    unknown = [f"{app}.{name}" for app, name in manifest.migrations if (app, name) not in known]
    if unknown:
        raise BackupError(
            f"The backup is of a newer release: this one does not know {', '.join(unknown[:3])}"
        )


def _check_nothing_is_lost(is_replacing: bool) -> None:
    names = connection.introspection.table_names()
    signs = list(WorkerSign.objects.all()) if WorkerSign._meta.db_table in names else []
    if any(not sign.is_silent for sign in signs):
        raise BackupError(
            "A worker has been heard of within a minute: stop web, workers and beat, then wait"
            " that long"
        )
    if is_replacing:
        return
    if User._meta.db_table in names and (User.objects.exists() or Envoy.objects.exists()):
        raise BackupError(
            "This installation is not empty: there are accounts or hospitals. To lose them, say"
            " --replace"
        )
    if has_objects(director_storage()):
        raise BackupError(
            "This installation's storage is not empty. To write over what lies there, say --replace"
        )


def _load_sqlite(path: Path) -> None:
    connection.ensure_connection()
    source = sqlite3.connect(f"file:{path}?mode=ro", uri=True)
    try:
        source.backup(connection.connection, pages=-1)
    finally:
        source.close()
    connection.close()  # the next one knows the tables as they are now


def _load_postgres(folder: Path, manifest: Manifest) -> None:
    executor = MigrationExecutor(connection)
    if not executor.loader.applied_migrations:
        # As the backup's tables are; those that this release adds come afterwards.
        wanted = {(app, name) for app, name in manifest.migrations}
        graph = executor.loader.graph
        leaves = [
            node
            for node in wanted
            if not any(child in wanted for child in graph.node_map[node].children)
        ]
        executor.migrate([(node[0], node[1]) for node in leaves])
    else:
        applied = {tuple(node) for node in executor.loader.applied_migrations}
        if applied != {(app, name) for app, name in manifest.migrations}:
            raise BackupError(
                "The database is of another release than the backup: drop and create it, so that"
                " it is empty, and restore again"
            )
    quote = connection.ops.quote_name
    with transaction.atomic(durable=True), connection.cursor() as cursor:
        cursor.execute(
            f"TRUNCATE {', '.join(quote(each.table) for each in manifest.tables)} CASCADE"
        )
        for each in manifest.tables:
            with (folder / each.path).open("rb") as file:
                cursor.cursor.copy_expert(
                    f"COPY {_named(each.table, each.columns)} FROM STDIN", file
                )
        models = [
            model
            for model in apps.get_models(include_auto_created=True)
            if model._meta.db_table in {each.table for each in manifest.tables}
        ]
        for statement in connection.ops.sequence_reset_sql(no_style(), models):
            cursor.execute(statement)


def _go_on_from(made_at: datetime) -> None:
    """Give open rounds the time that they still had: nobody could send anything meanwhile."""
    collecting = TrainingRound.objects.collecting().exclude(deadline_at=None)
    collecting.update(deadline_at=F("deadline_at") + (timezone.now() - made_at))


def _sha256_of(path: Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()
