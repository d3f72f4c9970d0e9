"""Everything of a hospital as one archive, written while it is sent: no copy of it is kept here."""

import hashlib
import json
import zipfile
from collections.abc import Generator, Iterator
from contextlib import ExitStack
from dataclasses import dataclass
from typing import Any

from django.db.models import Model, QuerySet
from django.http import StreamingHttpResponse
from django.utils import timezone

from diagnoses.models import (
    Admission,
    CodeReport,
    Diagnosis,
    Import,
    Patient,
    PatientErasure,
    Snapshot,
    Upload,
)
from diagnoses.services.batches import batched
from envoys.csv_cells import csv_lines
from envoys.errors import StorageError
from envoys.models import AuditEvent, Envoy, ServiceToken, User
from envoys.storage import envoy_storage, list_objects, open_object
from inference.models import InferenceRun, Prediction
from inference.patient_data import cell
from inference.services.erasure import other_rows
from training.models import (
    Distribution,
    ModelChoice,
    ModelVersion,
    ReceivedUpdate,
    RoundAssignment,
    RunParticipant,
    StudyMembership,
)

LINES_AT_ONCE = 1000
CHUNK_BYTES = 2**16
EXPORTS = ("snapshots/", "diagnoses.csv", "outcomes.csv", "readings.csv")
# What workers and searches need, and nobody else.
INTERNAL = frozenset(
    {"holder", "leased_until", "enqueued_at", "name_index", "subject_sha256", "held"}
)
PERSON = ("id", "username", "first_name", "last_name", "email", "phone", "role", "is_active")
TOKEN = ("id", "name", "user_id", "actions", "created_at", "expires_at", "last_used_at")

README = """\
Everything that TechLife FL holds of {hospital}
Written from {written_at} UTC on, while the hospital went on working: what was changed meanwhile may
be in one file and not yet in another.

One CSV file for each kind of row, with the names of its columns in the first line. A column that
ends with _id is the number of a row in another file; an empty cell is not known. Names and phone
numbers are readable: keep this archive as you keep a patient's file.
objects.csv lists the files in the hospital's storage, with size and sha256. They are below objects/:
its own models, packages, and uploads that wait. Of its exports the rows are in the files above.
contents.json says how many lines each CSV file has after the first, and the file's sha256.

A cell that begins with an apostrophe before =, +, - or @ holds the text after the apostrophe.
Not in it: passwords and other secrets, and copies of answers that programs were given.
"""


@dataclass(frozen=True)
class Table:
    """A kind of rows of a hospital, as a file of the archive."""

    model: type[Model]
    path: str = "envoy"  # from a row to its hospital
    columns: tuple[str, ...] = ()  # all but `INTERNAL` where not given

    @property
    def file_name(self) -> str:
        return f"{str(self.model._meta.verbose_name_plural).replace(' ', '_').lower()}.csv"

    def rows(self, envoy: Envoy) -> "QuerySet[Any]":
        return self.model._default_manager.filter(**{self.path: envoy}).order_by("pk")

    def names(self) -> list[str]:
        found = [field.attname for field in self.model._meta.concrete_fields]
        return list(self.columns) or [name for name in found if name not in INTERNAL]


TABLES = (
    Table(Patient),
    Table(Admission),
    Table(Diagnosis, "admission__envoy"),
    Table(Prediction),
    Table(InferenceRun),
    Table(Import),
    Table(Upload),
    Table(Snapshot),
    Table(CodeReport),
    Table(PatientErasure),
    Table(StudyMembership),
    Table(RunParticipant),
    Table(RoundAssignment),
    Table(ReceivedUpdate, "assignment__envoy"),
    Table(ModelVersion),
    Table(ModelChoice),
    Table(Distribution),
    Table(User, columns=PERSON),
    Table(ServiceToken, "user__envoy", TOKEN),
    Table(AuditEvent, "user__envoy"),
)


def tables() -> list[Table]:
    """Those above, and the rows of the upper apps."""
    return [*TABLES, *(Table(rows.model) for rows in other_rows())]


def archive_response(envoy: Envoy) -> StreamingHttpResponse:
    return StreamingHttpResponse(
        hospital_archive(envoy),
        content_type="application/zip",
        headers={"Content-Disposition": f'attachment; filename="{envoy.slug}.zip"'},
    )


def hospital_archive(envoy: Envoy) -> Iterator[bytes]:
    """A ZIP archive, piece by piece."""
    pieces = _Pieces()
    contents: dict[str, dict[str, Any]] = {}
    with zipfile.ZipFile(pieces, "w", zipfile.ZIP_DEFLATED) as archive:  # type: ignore[call-overload]
        written_at = f"{timezone.now():%Y-%m-%d %H:%M}"
        archive.writestr("README.txt", README.format(hospital=envoy.name, written_at=written_at))
        for name, lines in _files(envoy):
            digest, num_lines = hashlib.sha256(), -1  # the first is the header
            with archive.open(name, "w", force_zip64=True) as file:
                for some in batched(lines, LINES_AT_ONCE):
                    content = "".join(some).encode()
                    digest.update(content)
                    num_lines += len(some)
                    file.write(content)
                    yield from pieces.take()
            contents[name] = {"num_rows": num_lines, "sha256": digest.hexdigest()}
        objects = yield from _write_objects(envoy, archive, pieces)
        text = "".join(csv_lines(("key", "num_bytes", "sha256", "trouble"), objects))
        archive.writestr("objects.csv", text)
        sha256 = hashlib.sha256(text.encode()).hexdigest()
        contents["objects.csv"] = {"num_rows": len(objects), "sha256": sha256}
        archive.writestr("contents.json", json.dumps(contents, indent=2))
    yield from pieces.take()


def _files(envoy: Envoy) -> Iterator[tuple[str, Iterator[str]]]:
    for table in tables():
        rows = table.rows(envoy).values_list(*table.names()).iterator(LINES_AT_ONCE)
        yield table.file_name, csv_lines(table.names(), ([cell(v) for v in row] for row in rows))


def _write_objects(
    envoy: Envoy, archive: zipfile.ZipFile, pieces: "_Pieces"
) -> Generator[bytes, None, list[tuple[str, int, str, str]]]:
    """What lies in the hospital's storage but for exports, whose rows are in the archive already.

    Returns of every object the key, the size, the sha256, and what was the matter.
    """
    storage, found = envoy_storage(envoy), []
    for key, num_bytes in list_objects(storage):
        try:
            file = open_object(storage, key, sha256=None)
        except StorageError:  # the rest of the archive is worth having
            found.append((key, num_bytes, "", "it could not be read"))
            continue
        digest = hashlib.sha256()
        with file, ExitStack() as stack:
            copy = None
            if not key.startswith(EXPORTS):
                entry = archive.open(f"objects/{key}", "w", force_zip64=True)
                copy = stack.enter_context(entry)
            while chunk := file.read(CHUNK_BYTES):
                digest.update(chunk)
                if copy is not None:
                    copy.write(chunk)
                    yield from pieces.take()
        found.append((key, num_bytes, digest.hexdigest(), ""))
    return found


class _Pieces:
    """What zipfile writes to: it cannot be sought in, and is emptied by whoever sends it on."""

    def __init__(self) -> None:
        self._written = bytearray()

    def write(self, content: bytes) -> int:
        self._written += content
        return len(content)

    def flush(self) -> None:
        pass

    def take(self) -> list[bytes]:
        """What has been written since: nothing, where it was too little to be compressed yet."""
        taken = [bytes(self._written)] if self._written else []
        self._written.clear()
        return taken
