import gzip
import io
from datetime import timedelta
from typing import Any

import pytest
from django.utils import timezone

from diagnoses import services
from diagnoses.errors import UploadRefusedError
from diagnoses.models import Admission, Diagnosis, Import, Patient, Upload
from diagnoses.services import imports, uploads
from diagnoses.tasks import process_upload_task
from envoys.errors import NotNowError, StorageError
from envoys.models import AuditEvent
from envoys.storage import write_object
from federated.cohorts import check_envoy
from tests.factories import make_admission, make_envoy, make_patient, make_user

pytestmark = pytest.mark.django_db

DIAGNOSES = b"""subject_id,hadm_id,seq_num,icd_code,icd_version
p1,11,1,I50.9,10
p1,11,2,E11.9,10
p2,13,1,0389,9
"""
OUTCOMES = b"""subject_id,hadm_id,age,gender,los_days,risk_tier
p1,11,[50-60),Female,3,2
"""


@pytest.fixture
def doctor():
    return make_user(envoy=make_envoy(name="North General", slug="north"))


def upload_files(doctor, diagnoses: bytes = DIAGNOSES, outcomes: bytes | None = OUTCOMES) -> Upload:
    return services.upload_files(
        doctor.envoy,
        diagnoses=io.BytesIO(diagnoses),
        outcomes=io.BytesIO(outcomes) if outcomes else None,
        uploaded_by=doctor,
    )


def checked(queue, doctor, *files: Any) -> Upload:
    upload = upload_files(doctor, *files)
    queue.work()
    upload.refresh_from_db()
    return upload


def kept_files(settings) -> list[str]:
    folder = settings.OBJECT_FOLDER / "director" / "envoys" / "north"
    return sorted(path.name for path in folder.glob("uploads/*/*"))


def num_rows() -> tuple[int, int, int]:
    return Patient.objects.count(), Admission.objects.count(), Diagnosis.objects.count()


def test_files_are_checked_then_imported_once_a_doctor_says_so(queue, doctor, settings):
    upload = checked(queue, doctor)
    assert upload.is_checked
    assert (upload.num_admissions, upload.num_diagnoses) == (2, 3)
    assert [warning["kind"] for warning in upload.warnings] == ["admission without an outcome"]
    assert num_rows() == (0, 0, 0)
    services.confirm_upload(upload, confirmed_by=doctor)
    queue.work()
    upload.refresh_from_db()
    assert upload.is_imported
    row = Import.objects.get(uploads=upload)
    assert (row.status, row.started_by) == (Import.Status.COMPLETE, doctor)
    assert num_rows() == (2, 2, 3)
    assert kept_files(settings) == []
    assert not list((settings.OBJECT_FOLDER / "director/envoys/north/uploads").iterdir())
    actions = AuditEvent.objects.order_by("pk").values_list("action", flat=True)
    assert list(actions) == ["uploaded files", "confirmed upload"]


def test_gzipped_files_are_read_too(queue, doctor, settings):
    upload = checked(queue, doctor, gzip.compress(DIAGNOSES), None)
    assert upload.is_checked
    assert kept_files(settings) == ["diagnoses.csv.gz", "diagnoses.head"]
    assert services.preview(upload)[0].rows[0] == ["p1", "11", "1", "I50.9", "10"]


def test_every_problem_is_counted_and_the_first_are_told(queue, doctor, monkeypatch):
    monkeypatch.setattr(uploads, "PROBLEMS_SHOWN", 3)
    make_admission(make_patient(envoy=doctor.envoy), hadm_id="13")
    wrong = b"".join(b"p9,9%d,1,nonsense,10\n" % number for number in range(30))
    upload = checked(queue, doctor, DIAGNOSES + b"p1,11\n" + wrong, OUTCOMES + b"p5,51,old,F,1,1\n")
    assert upload.is_refused
    assert upload.num_problems == 33  # an age, a short row, 30 codes, an admission that stands
    assert upload.problems == [
        "the outcomes file, line 3: age 'old' is no number from 0 to 130",
        "the diagnoses file, line 5: 2 fields, the header has 5",
        "the diagnoses file, line 6: icd_code 'nonsense' is no ICD-10 code",
    ]
    with pytest.raises(NotNowError, match="this upload has 33 problems: correct the files"):
        services.confirm_upload(upload, confirmed_by=doctor)
    assert num_rows() == (1, 1, 0)


def test_both_files_are_read_where_one_cannot_be(queue, doctor):
    upload = checked(queue, doctor, DIAGNOSES.replace(b"0389", b"?"), b"subject_id,age\np1,4\n")
    assert upload.problems == [
        "the outcomes file: missing column hadm_id",
        "the diagnoses file, line 4: icd_code '?' is no ICD-9 code",
    ]


def test_every_wrong_field_of_a_row_is_told_in_one_upload(queue, doctor):
    upload = checked(
        queue,
        doctor,
        DIAGNOSES.replace(b"p1,11,2,E11.9,10", b"p1,11,two,diabetes,11"),
        OUTCOMES.replace(b"[50-60),Female,3,2", b"old,girl,long,9") + b"p1,11,40,F,x,1\n",
    )
    assert upload.num_problems == 9
    assert upload.problems == [
        "the outcomes file, line 2: age 'old' is no number from 0 to 130",
        "the outcomes file, line 2: gender 'girl' is no gender (F, Female, M, Male or empty)",
        "the outcomes file, line 2: los_days 'long' is no number from 0 to 36525",
        "the outcomes file, line 2: risk_tier '9' is no whole number from 0 to 2",
        "the outcomes file, line 3: los_days 'x' is no number from 0 to 36525",
        "the outcomes file, line 3: its hadm_id is there twice",
        "the diagnoses file, line 3: seq_num 'two' is no whole number from 0 to 65535",
        "the diagnoses file, line 3: icd_version '11' is no version of ICD (9 or 10)",
        "the diagnoses file, line 3: icd_code 'diabetes' is no ICD code of either version",
    ]


def test_a_stay_that_cannot_be_is_shown_with_its_first_line(queue, doctor):
    outcomes = b"subject_id,hadm_id,admitted_at,discharged_at\np1,11,2026-03-02,2026-03-01\n"
    upload = checked(queue, doctor, DIAGNOSES, outcomes)
    assert upload.is_checked
    assert upload.warnings[0] == {
        "kind": "stay whose discharge is before its admission",
        "count": 1,
        "example": "the outcomes file, line 2",
    }


def test_what_is_no_text_is_said_so_and_not_shown(queue, doctor):
    image = b"\x89PNG\r\n\x1a\n" + bytes(range(256)) * 9
    upload = checked(queue, doctor, image, image)
    question = "is not UTF-8 text: is it a CSV file? If it is, save it as CSV UTF-8"
    assert upload.problems == [
        f"the {name} file, line 1: {question}" for name in ("outcomes", "diagnoses")
    ]
    assert [(file.header, file.rows) for file in services.preview(upload)] == [([], [])] * 2


def test_swapped_files_are_one_problem(queue, doctor):
    upload = checked(queue, doctor, OUTCOMES, DIAGNOSES)
    assert upload.problems == [
        "the outcomes file: the two files are swapped: this one has the columns of diagnoses,"
        " and the diagnoses file has not"
    ]


def test_an_admission_that_stands_is_named_by_its_line_and_not_by_its_number(queue, doctor):
    make_admission(make_patient(envoy=doctor.envoy, subject_id="p1"), hadm_id="11")
    make_admission(hadm_id="13")  # another hospital's
    upload = checked(queue, doctor)
    assert upload.problems == [
        "the outcomes file, line 2: its hadm_id stands in North General already"
    ]


def test_the_same_files_again_are_refused_in_one_line(queue, doctor):
    for _ in range(2):
        upload = checked(queue, doctor)
        if upload.is_checked:
            services.confirm_upload(upload, confirmed_by=doctor)
            queue.work()
    assert upload.num_problems == 1
    assert upload.problems[0].startswith("these very rows were imported on ")


def test_an_admission_entered_since_the_check_stops_the_import(queue, doctor, settings):
    upload = checked(queue, doctor)
    make_admission(make_patient(envoy=doctor.envoy), hadm_id="13")
    services.confirm_upload(upload, confirmed_by=doctor)
    queue.work()
    upload.refresh_from_db()
    assert upload.is_refused
    assert upload.problems == [
        "the diagnoses file, line 4: its hadm_id stands in North General already"
    ]
    assert num_rows() == (1, 1, 0)
    assert kept_files(settings)  # to be seen until they are discarded


def test_a_message_delivered_twice_changes_nothing(queue, doctor):
    upload = upload_files(doctor)
    queue.work(copies=2)
    upload.refresh_from_db()
    services.confirm_upload(upload, confirmed_by=doctor)
    queue.work(copies=2)
    upload.refresh_from_db()
    assert upload.is_imported
    assert Import.objects.count() == 1
    with pytest.raises(NotNowError, match="imported already"):
        services.confirm_upload(upload, confirmed_by=doctor)
    with pytest.raises(NotNowError, match="imported already"):
        services.discard_upload(upload, discarded_by=doctor)


@pytest.mark.parametrize("killed_in", ["import_cohort", "_remove_files"])
def test_a_killed_worker_costs_time_and_no_row(queue, doctor, settings, monkeypatch, killed_in):
    class Killed(BaseException):
        pass

    def die(*args, **kwargs):
        raise Killed

    upload = checked(queue, doctor)
    services.confirm_upload(upload, confirmed_by=doctor)
    with monkeypatch.context() as patch:
        patch.setattr(uploads, killed_in, die)
        with pytest.raises(Killed):
            queue.work()
    upload.refresh_from_db()
    assert upload.status == Upload.Status.RUNNING
    a_lease_ago = timezone.now() - timedelta(seconds=settings.LEASE_SECONDS + 1)
    Upload.objects.update(leased_until=a_lease_ago, enqueued_at=a_lease_ago)
    queue.work_and_sweep()
    upload.refresh_from_db()
    assert upload.is_imported
    assert num_rows() == (2, 2, 3)
    assert kept_files(settings) == []


def test_an_upload_waits_for_another_import_however_often(queue, doctor, settings):
    upload = checked(queue, doctor)
    other = Import.objects.create(envoy=doctor.envoy, source_name="other")
    services.confirm_upload(upload, confirmed_by=doctor)
    for _ in range(12):
        process_upload_task(upload.pk)
    upload.refresh_from_db()
    assert (upload.status, upload.attempt) == (Upload.Status.PENDING, 0)
    assert "another import is running" in upload.reason
    Import.objects.filter(pk=other.pk).update(status=Import.Status.FAILED)
    process_upload_task(upload.pk)
    upload.refresh_from_db()
    assert upload.is_imported


def test_discarding_removes_the_files_even_in_mid_check(queue, doctor, settings, monkeypatch):
    upload = upload_files(doctor)

    def discard_meanwhile(*args, **kwargs):
        services.discard_upload(Upload.objects.get(pk=upload.pk), discarded_by=doctor)
        return check_envoy(*args, **kwargs)

    monkeypatch.setattr(uploads, "check_envoy", discard_meanwhile)
    queue.work()
    upload.refresh_from_db()
    assert (upload.stage, upload.status) == (Upload.Stage.DISCARDED, Upload.Status.COMPLETE)
    assert kept_files(settings) == []
    assert services.preview(upload) == []
    with pytest.raises(NotNowError, match="has been discarded"):
        services.discard_upload(upload, discarded_by=doctor)


def test_files_that_were_changed_in_storage_are_not_imported(queue, doctor, settings):
    upload = checked(queue, doctor)
    (path,) = settings.OBJECT_FOLDER.glob("**/diagnoses.csv")
    path.write_bytes(DIAGNOSES.replace(b"E11.9", b"E11.8"))
    services.confirm_upload(upload, confirmed_by=doctor)
    queue.work()
    upload.refresh_from_db()
    assert upload.status == Upload.Status.FAILED
    assert "is not what was stored" in upload.reason
    assert isinstance(queue.refusals[-1], StorageError)
    assert num_rows() == (0, 0, 0)
    services.discard_upload(upload, discarded_by=doctor)


@pytest.mark.parametrize(
    ("diagnoses", "refusal"),
    [
        (b"", "the file of diagnoses is empty"),
        (DIAGNOSES * 20, "the file of diagnoses is larger than 1,000 bytes: divide it"),
        (gzip.compress(bytes(10**7), mtime=0), "larger than 1,000 bytes unpacked: divide it"),
        (
            gzip.compress(DIAGNOSES, mtime=0)[:-9],
            "truncated or damaged gzip: pack and upload it again",
        ),
    ],
    ids=["empty", "too large", "unpacks too large", "cut off"],
)
def test_what_cannot_be_looked_into_is_refused_at_once(
    doctor, settings, diagnoses: bytes, refusal: str
):
    settings.UPLOAD_MAX_BYTES = 1000
    with pytest.raises(UploadRefusedError, match=refusal):
        upload_files(doctor, diagnoses)
    assert not Upload.objects.exists()
    assert kept_files(settings) == []


def test_a_gzip_bomb_is_not_unpacked_as_a_whole(doctor, settings):
    settings.UPLOAD_MAX_BYTES = 10**5
    unpacked = 0

    class Bomb(io.BytesIO):
        def read(self, size: int | None = -1) -> bytes:
            nonlocal unpacked
            chunk = super().read(size)
            unpacked += len(chunk)
            return chunk

    bomb = Bomb(gzip.compress(bytes(10**8)))
    with pytest.raises(UploadRefusedError, match="larger than"):
        services.upload_files(doctor.envoy, diagnoses=bomb, outcomes=None, uploaded_by=doctor)
    assert unpacked < len(bomb.getvalue()) / 2


def test_a_preview_shows_the_first_rows_however_large_the_file(queue, doctor):
    rows = b"".join(b"p1,11,%d,I10,10\n" % number for number in range(1, 9000))
    upload = checked(queue, doctor, DIAGNOSES[: DIAGNOSES.index(b"\n") + 1] + rows, None)
    (preview,) = services.preview(upload)
    assert preview.header == ["subject_id", "hadm_id", "seq_num", "icd_code", "icd_version"]
    assert len(preview.rows) == 20
    assert preview.rows[-1] == ["p1", "11", "20", "I10", "10"]


def test_progress_of_the_import_is_shown(queue, doctor, monkeypatch):
    monkeypatch.setattr(imports, "REPORT_SECONDS", 0)
    upload = checked(queue, doctor)
    services.confirm_upload(upload, confirmed_by=doctor)
    seen: list[tuple[int, int]] = []
    insert = imports._insert_diagnoses

    def look(*args):
        seen.extend(Upload.objects.values_list("num_done", "num_total"))
        insert(*args)

    monkeypatch.setattr(imports, "_insert_diagnoses", look)
    queue.work()
    assert seen == [(8, 12)]  # 6 lines read once more, and 2 of 5 rows inserted


def test_files_that_cannot_be_kept_leave_nothing(doctor, settings, monkeypatch):
    def fail_on_outcomes(storage, key, content):
        if "outcomes" in key:
            raise StorageError("no space left")
        return write_object(storage, key, content)

    monkeypatch.setattr(uploads, "write_object", fail_on_outcomes)
    with pytest.raises(StorageError):
        upload_files(doctor)
    assert kept_files(settings) == []
    assert not Upload.objects.exists()
