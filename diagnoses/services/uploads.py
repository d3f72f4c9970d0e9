"""Files that a doctor uploads: kept in the hospital's storage, checked, shown, imported."""

import csv
import gzip
import io
import re
import secrets
import shutil
import zlib
from collections.abc import Iterator, Mapping
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from itertools import islice
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any, BinaryIO

from django.conf import settings
from django.db import transaction
from django.db.models import Q
from django.utils import timezone

from diagnoses.errors import ImportRefusedError, UploadRefusedError
from diagnoses.models import Admission, Import, Upload
from diagnoses.services.batches import BATCH_ROWS, batched
from diagnoses.services.erased import WHY_REFUSED, ErasedSubjects, erased_places
from diagnoses.services.hospitals import check_takes_patients
from diagnoses.services.imports import import_cohort
from diagnoses.tasks import process_upload_task
from envoys import audit
from envoys.errors import LostObjectError, NotNowError, StorageError
from envoys.models import Envoy, User
from envoys.storage import (
    FolderStorage,
    delete_folder,
    envoy_storage,
    open_object,
    read_object,
    write_object,
)
from envoys.work import Progress
from federated.cohorts import EnvoyFiles, check_envoy
from federated.cohorts.csv_files import GZIP_MAGIC, label_of, place_of, read_rows
from federated.errors import CohortError

PROBLEMS_SHOWN = 200
PREVIEW_ROWS = 20
CHUNK_BYTES = 2**16  # also what is kept of a file's beginning for its preview
CELL_CHARACTERS = 80
# No CSV file holds them: an image, a spreadsheet or UTF-16 does.
CONTROL_CHARACTERS = re.compile(r"[\x00-\x08\x0e-\x1f]")


@dataclass(frozen=True)
class FilePreview:
    """How one file of an upload begins. A patient's data; without a header if it is no text."""

    name: str
    num_bytes: int
    header: list[str]
    rows: list[list[str]]


def upload_files(
    envoy: Envoy, *, diagnoses: BinaryIO, outcomes: BinaryIO | None, uploaded_by: User
) -> Upload:
    """Keep the files in the hospital's storage, and have a worker check them.

    Each is a CSV file, gzipped or not, read from its start, a chunk in memory at a time.

    Raises:
        UploadRefusedError: one is empty, damaged, or unpacked larger than UPLOAD_MAX_BYTES.
        NotNowError: the hospital has been deleted, or is a node of readings.
        StorageError: they could not be kept.
    """
    check_takes_patients(envoy)
    sent = {"diagnoses": diagnoses} | ({"outcomes": outcomes} if outcomes else {})
    begins = {name: _read_through(name, file) for name, file in sent.items()}
    upload = Upload(envoy=envoy, uploaded_by=uploaded_by, enqueued_at=timezone.now())
    try:
        _store_files(upload, sent, begins)
        with transaction.atomic():
            upload.save()
            audit.record(uploaded_by, "uploaded files", upload)
    except BaseException:
        _remove_files(upload)
        raise
    process_upload_task.delay_on_commit(upload.pk)
    return upload


def preview(upload: Upload) -> list[FilePreview]:
    """The first 20 rows of each file; no file once they are gone.

    Raises StorageError.
    """
    if not upload.files or upload.is_imported or upload.stage == Upload.Stage.DISCARDED:
        return []
    storage = envoy_storage(upload.envoy)
    return [
        _parse_head(name, read_object(storage, file["head_key"], sha256=file["head_sha256"]), file)
        for name, file in upload.files.items()
    ]


def confirm_upload(upload: Upload, *, confirmed_by: User) -> Upload:
    """Have a worker import what has been checked; again, too, after an import that failed.

    Raises:
        NotNowError: it is still being checked, has problems, or is imported or discarded.
    """
    ready = Upload.objects.filter(pk=upload.pk, num_problems=0).filter(
        Q(stage=Upload.Stage.CHECK, status=Upload.Status.COMPLETE)
        | Q(stage=Upload.Stage.IMPORT, status=Upload.Status.FAILED)
    )
    _enqueue_stage(
        upload, ready, Upload.Stage.IMPORT, "confirmed upload", confirmed_by, confirmed_at=True
    )
    return upload


def discard_upload(upload: Upload, *, discarded_by: User) -> Upload:
    """Have a worker remove the files; nothing of them was written to the hospital's rows.

    Raises:
        NotNowError: it is being imported, or has been imported or discarded.
    """
    ready = Upload.objects.filter(pk=upload.pk).filter(
        Q(stage=Upload.Stage.CHECK) | Q(stage=Upload.Stage.IMPORT, status=Upload.Status.FAILED)
    )
    _enqueue_stage(upload, ready, Upload.Stage.DISCARDED, "discarded upload", discarded_by)
    return upload


def process_upload(upload_id: int) -> None:
    """Check an upload, import it, or remove its files: whatever its stage asks for.

    Nothing is done for one that another worker holds or that waits for a person.

    Raises:
        StorageError: the files could not be read or removed; the upload is FAILED with the reason.
    """
    claimed = Upload.objects.claim([upload_id])
    if not claimed:
        return
    upload: Upload = claimed[0]
    steps = {
        Upload.Stage.CHECK: _check,
        Upload.Stage.IMPORT: _import,
        Upload.Stage.DISCARDED: _discard,
    }
    try:
        steps[Upload.Stage(upload.stage)](upload)
    except (StorageError, OSError) as error:
        Upload.objects.hand_back(upload, status=Upload.Status.FAILED, reason=str(error))
        raise


def remove_files_of_erased(upload: Upload, erased: ErasedSubjects) -> bool:
    """Remove the files of an upload that waits if an erased patient is in them, or may be.

    Returns whether they were removed.

    Raises:
        NotNowError: a worker is checking or importing it.
        StorageError: they could not be removed; try again.
    """
    if not _may_hold(upload, erased):
        return False
    waits = Upload.objects.filter(pk=upload.pk).exclude(status=Upload.Status.RUNNING)
    if not waits.update(
        stage=Upload.Stage.DISCARDED,
        status=Upload.Status.FAILED,  # until the files are gone: what fails is found again
        reason=WHY_REFUSED,
        holder="",
        leased_until=None,
    ):
        raise NotNowError("an upload is being checked or imported")
    _remove_files(upload)
    Upload.objects.filter(pk=upload.pk).update(
        status=Upload.Status.COMPLETE, completed_at=timezone.now()
    )
    return True


def _may_hold(upload: Upload, erased: ErasedSubjects) -> bool:
    try:
        with _local_files(upload) as files:
            for path in filter(None, (files.outcomes, files.diagnoses)):
                rows = read_rows(path, ("subject_id",))
                if any(subject_id in erased for _, (subject_id,) in rows):
                    return True
    except (CohortError, LostObjectError):  # nobody can tell, and nobody can import it either
        return True
    return False


def _check(upload: Upload) -> None:
    with _local_files(upload) as files:
        found = _find_problems(upload, files)
    Upload.objects.hand_back(upload, status=Upload.Status.COMPLETE, reason="", **found)


def _find_problems(upload: Upload, files: EnvoyFiles) -> dict[str, Any]:
    progress, num_lines = Progress(upload), _num_lines(upload)
    problems: list[str] = []
    num_problems = 0
    found: dict[str, Any] = {}
    try:
        summary = check_envoy(
            files,
            lambda num_rows: progress.show(num_rows, 2 * num_lines),
            num_told=PROBLEMS_SHOWN,
        )
    except CohortError as error:
        problems, num_problems = _in_words(error.problems, files), error.num_problems
    else:
        found = {
            "num_admissions": summary.num_admissions,
            "num_diagnoses": summary.num_diagnoses,
            "warnings": [
                warning | {"example": _in_words([warning["example"]], files)[0]}
                for warning in summary.warnings
            ],
        }
        earlier = Import.objects.filter(
            envoy_id=upload.envoy_id,
            source_sha256=summary.source_sha256,
            status=Import.Status.COMPLETE,
        ).first()
        if earlier:
            return found | {
                "num_problems": 1,
                "problems": [
                    f"these very rows were imported on {earlier.started_at:%Y-%m-%d} already:"
                    " there is nothing to do"
                ],
            }
    for place in _standing_admissions(upload, files, progress):
        num_problems += 1
        if len(problems) < PROBLEMS_SHOWN:
            problem = f"{place}: its hadm_id stands in {upload.envoy} already"
            problems += _in_words([problem], files)
    if found:  # else the files are not in order, and of those who were erased nobody can be told
        erased = _in_words(list(erased_places(upload.envoy, files)), files)
        num_problems += len(erased)
        problems += erased[: PROBLEMS_SHOWN - len(problems)]
    return found | {"num_problems": num_problems, "problems": problems}


def _in_words(texts: list[str], files: EnvoyFiles) -> list[str]:
    """Problems as their reader knows the files: whoever uploaded them called them otherwise."""
    for name, path in (("diagnoses", files.diagnoses), ("outcomes", files.outcomes)):
        if path is not None:
            label, words = label_of(path), f"the {name} file"
            texts = [
                text.replace(f"{label} line", f"{words}, line").replace(label, words)
                for text in texts
            ]
    return texts


def _standing_admissions(upload: Upload, files: EnvoyFiles, progress: Progress) -> Iterator[str]:
    """Where each admission first stands in the files that the hospital has already."""
    standing = Admission.objects.complete().filter(envoy_id=upload.envoy_id)
    if not standing.exists():
        return
    told: set[str] = set()
    num_read = num_lines = _num_lines(upload)
    for path in filter(None, (files.outcomes, files.diagnoses)):
        try:
            # Rows and files that cannot be read are told of by then.
            for rows in batched(read_rows(path, ("hadm_id",), refuse=_pass_over), BATCH_ROWS):
                first_lines: dict[str, int] = {}
                for line, (hadm_id,) in rows:
                    first_lines.setdefault(hadm_id, line)
                known = standing.filter(hadm_id__in=list(first_lines))
                fresh = set(known.values_list("hadm_id", flat=True)) - told
                told |= fresh
                yield from (
                    place_of(path, line)
                    for hadm_id, line in first_lines.items()
                    if hadm_id in fresh
                )
                num_read += len(rows)
                progress.show(min(num_read, 2 * num_lines), 2 * num_lines)
        except CohortError:
            continue


def _pass_over(problem: str) -> None:
    pass


def _import(upload: Upload) -> None:
    if upload.source_import_id is None:
        try:
            with _local_files(upload) as files:
                row = import_cohort(
                    upload.envoy,
                    files,
                    started_by=upload.uploaded_by,
                    on_progress=_import_reporter(upload),
                )
        except ImportRefusedError as error:
            # Another import runs, or this one's earlier worker was killed and does not count as
            # dead yet: the sweeper tries again, however often that takes.
            Upload.objects.hand_back(
                upload,
                status=Upload.Status.PENDING,
                reason=str(error),
                attempt=0,
                enqueued_at=timezone.now(),
            )
            return
        except CohortError as error:  # somebody has entered such an admission since the check
            Upload.objects.hand_back(
                upload,
                stage=Upload.Stage.CHECK,
                status=Upload.Status.COMPLETE,
                reason="",
                num_problems=error.num_problems,
                problems=_in_words(error.problems, files),
            )
            return
        # Whoever holds the row by now: that the rows stand is a fact, and the files may go.
        Upload.objects.filter(pk=upload.pk).update(source_import=row)
    _remove_files(upload)
    Upload.objects.hand_back(
        upload,
        status=Upload.Status.COMPLETE,
        reason="",
        num_done=_num_lines(upload),
        num_total=_num_lines(upload),
        completed_at=timezone.now(),
    )


def _import_reporter(upload: Upload) -> Any:
    """Half of the way is checking the files once more, the other half inserting."""
    progress, num_lines = Progress(upload), _num_lines(upload)

    def report(row: Import) -> None:
        done = row.num_done
        if row.status == Import.Status.INSERTING:
            done = num_lines + num_lines * row.num_done // max(1, row.num_total)
        progress.show(min(done, 2 * num_lines - 1), 2 * num_lines)

    return report


def _discard(upload: Upload) -> None:
    _remove_files(upload)
    Upload.objects.hand_back(
        upload, status=Upload.Status.COMPLETE, reason="", completed_at=timezone.now()
    )


def _enqueue_stage(
    upload: Upload, ready: Any, stage: str, action: str, user: User, *, confirmed_at: bool = False
) -> None:
    now = timezone.now()
    values: dict[str, Any] = {"confirmed_at": now} if confirmed_at else {}
    with transaction.atomic():
        # Without a holder: what a worker still does for the stage before no longer counts.
        moved = ready.update(
            stage=stage,
            status=Upload.Status.PENDING,
            reason="",
            attempt=0,
            holder="",
            leased_until=None,
            num_done=0,
            num_total=0,
            enqueued_at=now,
            **values,
        )
        upload.refresh_from_db()
        if not moved:
            raise NotNowError(_why_not(upload))
        audit.record(user, action, upload)
    process_upload_task.delay_on_commit(upload.pk)


def _why_not(upload: Upload) -> str:
    if upload.stage == Upload.Stage.DISCARDED:
        return "this upload has been discarded: upload the files again"
    if upload.is_imported:
        return "this upload has been imported already"
    if upload.stage == Upload.Stage.IMPORT:
        return "this upload is being imported: look again when that has ended"
    if upload.is_refused:
        return (
            f"this upload has {upload.num_problems} problem{'s'[: upload.num_problems != 1]}:"
            " correct the files and upload them again"
        )
    if upload.is_active:
        return "this upload is still being checked: look again when that has ended"
    return f"this upload could not be checked: {upload.reason} Discard it, and upload again."


def _read_through(name: str, file: BinaryIO) -> tuple[bytes, bool, int]:
    """Unpack a file to its end; returns how it begins, whether it is gzip, its number of lines."""
    file.seek(0)
    is_gzip = file.read(2) == GZIP_MAGIC
    file.seek(0)
    plain = gzip.GzipFile(fileobj=file) if is_gzip else file
    head, end, num_bytes, num_lines = b"", b"", 0, 0
    try:
        while chunk := plain.read(CHUNK_BYTES):
            head, end = head or chunk, chunk[-1:]
            num_bytes += len(chunk)
            num_lines += chunk.count(b"\n")
            if num_bytes > settings.UPLOAD_MAX_BYTES:
                raise UploadRefusedError(
                    f"the file of {name} is larger than {settings.UPLOAD_MAX_BYTES:,} bytes"
                    f"{' unpacked' if is_gzip else ''}: divide it, by admission"
                )
    except (EOFError, zlib.error, gzip.BadGzipFile) as error:
        raise UploadRefusedError(
            f"the file of {name} is truncated or damaged gzip: pack and upload it again"
        ) from error
    if not num_bytes:
        raise UploadRefusedError(f"the file of {name} is empty")
    return head, is_gzip, num_lines + (end != b"\n")


def _store_files(
    upload: Upload, sent: Mapping[str, BinaryIO], begins: Mapping[str, tuple[bytes, bool, int]]
) -> None:
    """Put each file and its head into storage; notes each first, so that it can be removed."""
    storage = envoy_storage(upload.envoy)
    folder = f"uploads/{secrets.token_hex(16)}"
    for name, file in sent.items():
        head, is_gzip, num_lines = begins[name]
        key, head_key = f"{folder}/{name}.csv{'.gz' if is_gzip else ''}", f"{folder}/{name}.head"
        noted = upload.files[name] = {"key": key, "head_key": head_key, "num_lines": num_lines}
        noted["sha256"] = write_object(storage, key, file)
        noted["num_bytes"] = file.tell() or file.seek(0, io.SEEK_END)
        noted["head_sha256"] = write_object(storage, head_key, head)


def _remove_files(upload: Upload) -> None:
    """Remove an upload's objects, those that are still there; safe to do again."""
    keys = [file[which] for file in upload.files.values() for which in ("key", "head_key")]
    delete_folder(envoy_storage(upload.envoy), keys)


@contextmanager
def _local_files(upload: Upload) -> Iterator[EnvoyFiles]:
    """The files as paths, each checked against its hash; problems name them by the hospital."""
    storage = envoy_storage(upload.envoy)
    with ExitStack() as stack:
        folder = Path(stack.enter_context(TemporaryDirectory(prefix="techlife-upload-")))
        folder /= upload.envoy.slug
        folder.mkdir()
        paths = {}
        for name, file in upload.files.items():
            path = folder / Path(file["key"]).name
            with open_object(storage, file["key"], sha256=file["sha256"]) as content:
                if isinstance(storage, FolderStorage):
                    path.symlink_to(storage.path(file["key"]))  # a killed worker leaves no copy
                else:
                    with path.open("wb") as copy:
                        shutil.copyfileobj(content, copy)
            paths[name] = path
        yield EnvoyFiles(upload.envoy.slug, paths["diagnoses"], paths.get("outcomes"))


def _parse_head(name: str, head: bytes, file: dict[str, Any]) -> FilePreview:
    text = head.decode("utf-8-sig", errors="replace")
    if CONTROL_CHARACTERS.search(text) or "\N{REPLACEMENT CHARACTER}" in text.partition("\n")[0]:
        return FilePreview(name, file["num_bytes"], [], [])
    rows = []
    try:
        for row in islice(csv.reader(io.StringIO(text, newline="")), PREVIEW_ROWS + 1):
            rows.append([cell.strip()[:CELL_CHARACTERS] for cell in row])
    except csv.Error:
        pass  # what can be shown is shown; the check tells what is wrong
    if len(head) == CHUNK_BYTES and len(rows) <= PREVIEW_ROWS:
        rows = rows[:-1]  # the last one is cut off
    header, *rest = rows or [[]]
    return FilePreview(name, file["num_bytes"], header, [row for row in rest if row])


def _num_lines(upload: Upload) -> int:
    return sum(file["num_lines"] for file in upload.files.values())
