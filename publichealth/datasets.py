"""The dataset `readings`: how a study gets at a node's rows."""

import csv
import hashlib
from collections.abc import Callable, Iterator
from io import TextIOWrapper
from tempfile import TemporaryFile
from typing import BinaryIO, TextIO

from django.utils import timezone

from diagnoses.models import Snapshot
from diagnoses.tasks import export_snapshot_task
from envoys.errors import StorageError
from envoys.models import Envoy
from envoys.storage import envoy_storage, open_object, write_object
from envoys.work import Progress
from federated.datasets import ClientDataset, DatasetSource
from federated.readings import INPUT_NAMES, ReadingRecord, build_readings, reading_schema
from federated.targets import READINGS
from publichealth.models import Reading

LABELS = {"health_risk": "outcome", "health_tier": "tier"}  # the column of each target
HEADER = ("subject_id", *INPUT_NAMES, "outcome", "tier")


def freeze(envoy_id: int, user_id: int | None) -> int:
    snapshot = Snapshot.objects.create(
        envoy_id=envoy_id,
        dataset=READINGS,
        requested_by_id=user_id,
        enqueued_at=timezone.now(),
    )
    export_snapshot_task.delay_on_commit(snapshot.pk)
    return int(snapshot.pk)


def export(snapshot_id: int) -> None:
    """Write a node's labelled readings to its storage, by subject and time, and freeze them.

    Raises:
        StorageError: they could not be stored; the snapshot says why, and is tried again.
    """
    for snapshot in Snapshot.objects.select_related("envoy").claim([snapshot_id]):
        try:
            with TemporaryFile() as content:
                file = TextIOWrapper(content, "utf-8", newline="")
                num_readings = _write(snapshot, file)
                file.detach()  # what was written is in the file, which stays open
                num_bytes = content.tell()
                sha256 = _store(snapshot.envoy, content)
        except (StorageError, OSError) as error:
            Snapshot.objects.fail_or_postpone(snapshot, error)
            raise
        Snapshot.objects.finish(
            snapshot,
            status=Snapshot.Status.COMPLETE,
            reason="",
            completed_at=timezone.now(),
            num_done=num_readings,
            num_total=num_readings,
            num_readings=num_readings,
            num_bytes=num_bytes,
            sha256=sha256,
        )


def labelled_readings(envoy: Envoy) -> Iterator[ReadingRecord]:
    """Sorted in Python, not by the database's collation: the same bytes on every database."""
    rows = Reading.objects.filter(envoy=envoy).exclude(outcome=None, tier=None)
    keys = sorted(rows.values_list("subject_id", "measured_at", "pk"))
    for start in range(0, len(keys), 1000):
        ids = [pk for _, _, pk in keys[start : start + 1000]]
        found = rows.in_bulk(ids)
        yield from (found[pk].to_record() for pk in ids if pk in found)


def _write(snapshot: Snapshot, file: TextIO) -> int:
    writer, progress = csv.writer(file, lineterminator="\n"), Progress(snapshot)
    writer.writerow(HEADER)
    num_total = (
        Reading.objects.filter(envoy=snapshot.envoy).exclude(outcome=None, tier=None).count()
    )
    num_done = 0
    for record in labelled_readings(snapshot.envoy):
        values = [record.values.get(name) for name in INPUT_NAMES]
        writer.writerow([record.subject_id, *values, record.outcome, record.tier])
        num_done += 1
        progress.show(num_done, max(num_total, num_done))
    return num_done


def _store(envoy: Envoy, content: BinaryIO) -> str:
    content.seek(0)
    sha256 = hashlib.file_digest(content, "sha256").hexdigest()  # type: ignore[arg-type]
    storage = envoy_storage(envoy)
    for folder in (
        f"snapshots/{sha256}/",
        "",
    ):  # the frozen copy first: the next replaces the other
        write_object(storage, f"{folder}readings.csv", content)
    return sha256


def build(snapshot_id: int, target: str, heartbeat: Callable[[], None]) -> ClientDataset:
    def records(file: TextIO) -> Iterator[ReadingRecord]:
        for row in csv.DictReader(file):
            heartbeat()
            yield ReadingRecord(
                row["subject_id"],
                {name: float(row[name]) for name in INPUT_NAMES if row[name]},
                int(row["outcome"]) if row["outcome"] else None,
                int(row["tier"]) if row["tier"] else None,
            )

    snapshot = Snapshot.objects.select_related("envoy").get(pk=snapshot_id)
    key = f"snapshots/{snapshot.sha256}/readings.csv"
    with (
        open_object(envoy_storage(snapshot.envoy), key, sha256=snapshot.sha256) as content,
        TextIOWrapper(content, "utf-8", newline="") as file,
    ):
        return build_readings(records(file), reading_schema(target))


def count_labelled_subjects(envoy_id: int, target: str, at_most: int | None = None) -> int:
    rows = Reading.objects.filter(envoy_id=envoy_id, **{f"{LABELS[target]}__isnull": False})
    subjects = rows.order_by().values("subject_id").distinct()
    return subjects.count() if at_most is None else subjects[:at_most].count()


SOURCE = DatasetSource(
    schema=reading_schema,
    freeze=freeze,
    export=export,
    build=build,
    count_labelled_patients=count_labelled_subjects,
)
