import pytest
from django.core.files.uploadedfile import SimpleUploadedFile
from django.core.files.uploadhandler import MemoryFileUploadHandler, TemporaryFileUploadHandler
from django.test import Client
from django.urls import reverse

from diagnoses.models import Import, Snapshot, Upload
from diagnoses.views import files
from envoys.models import AuditEvent, User
from tests.api import Program
from tests.diagnoses.test_uploads import DIAGNOSES, OUTCOMES, checked, upload_files
from tests.factories import make_admission, make_diagnosis, make_envoy, make_patient, make_user

NO_STATIC_ROOT = pytest.mark.filterwarnings("ignore:No directory at")
pytestmark = [pytest.mark.django_db, NO_STATIC_ROOT]


@pytest.fixture
def doctor(client):
    doctor = make_user(envoy=make_envoy(name="North General", slug="north"))
    client.force_login(doctor)
    return doctor


def page(client, name: str, *args: object, **values: object) -> str:
    answer = client.get(reverse(f"diagnoses:{name}", args=args), **values)
    assert answer.status_code == 200
    return answer.content.decode()


def test_a_doctor_uploads_looks_and_imports(client, doctor, queue):
    answer = client.post(
        reverse("diagnoses:import-create"),
        {
            "diagnoses": SimpleUploadedFile("d.csv", DIAGNOSES),
            "outcomes": SimpleUploadedFile("o.csv", OUTCOMES),
        },
        follow=True,
    )
    upload = Upload.objects.get()
    assert answer.redirect_chain == [(reverse("diagnoses:import-detail", args=[upload.pk]), 302)]
    assert "being checked. Nothing is imported yet" in answer.content.decode()
    assert "hx-get" in answer.content.decode()
    queue.work()
    shown = page(client, "import-detail", upload.pk)
    assert "Waits for your word" in shown
    assert "<td>I50.9</td>" in shown
    assert "Admission without an outcome" in shown
    assert "Nothing is wrong" not in shown
    assert "hx-get" not in shown
    answer = client.post(reverse("diagnoses:import-confirm", args=[upload.pk]), follow=True)
    assert "The import has been started" in answer.content.decode()
    queue.work()
    shown = page(client, "import-detail", upload.pk)
    assert "Imported" in shown
    assert "I50.9" not in shown
    assert "Imported" in page(client, "import-list")


def test_an_upload_is_known_by_its_rows_and_size_and_not_by_its_files_names(client, doctor, queue):
    outcomes = OUTCOMES + b"p2,13,60,F,1,0"  # no line end behind the last row
    client.post(
        reverse("diagnoses:import-create"),
        {
            "diagnoses": SimpleUploadedFile("made-up-name.csv", DIAGNOSES),
            "outcomes": SimpleUploadedFile("made-up-name.csv", outcomes),
        },
    )
    queue.work()
    upload = Upload.objects.get()
    shown, listed = page(client, "import-detail", upload.pk), page(client, "import-list")
    for text in (shown, listed):
        assert f"Diagnoses: 3 rows, {len(DIAGNOSES)}\xa0bytes" in text
        assert f"outcomes: 2 rows, {len(outcomes)}\xa0bytes" in text
        assert "made-up-name" not in text
    assert "Nothing is wrong with the files" in shown


def test_looking_at_an_upload_makes_one_audit_event(client, doctor, queue):
    upload = checked(queue, doctor)
    AuditEvent.objects.all().delete()
    page(client, "import-detail", upload.pk)
    (event,) = AuditEvent.objects.all()
    assert (event.user, event.action, event.target) == (
        doctor,
        "saw upload",
        f"upload:{upload.pk}",
    )
    page(client, "import-live", upload.pk)  # shows no patient
    page(client, "import-list")
    rows = [each.row for each in AuditEvent.objects.order_by("pk")]
    assert rows == [event.row, event.row, None]


def test_every_problem_is_on_the_page_and_none_can_be_imported(client, doctor, queue):
    wrong = b"".join(b"p9,9%d,1,nonsense,10\n" % number for number in range(300))
    upload = checked(queue, doctor, DIAGNOSES + wrong, None)
    shown = page(client, "import-detail", upload.pk)
    assert "300 problems, the first 200 of them" in shown
    assert shown.count("icd_code &#x27;nonsense&#x27; is no ICD-10 code") == 200
    assert reverse("diagnoses:import-confirm", args=[upload.pk]) not in shown
    answer = client.post(reverse("diagnoses:import-confirm", args=[upload.pk]), follow=True)
    assert "this upload has 300 problems" in answer.content.decode()
    answer = client.post(reverse("diagnoses:import-discard", args=[upload.pk]), follow=True)
    assert "The upload has been discarded" in answer.content.decode()


def test_the_poll_ends_with_the_whole_page(client, doctor, queue):
    upload = upload_files(doctor)
    assert "every 1.5s" in page(client, "import-live", upload.pk, headers={"HX-Request": "true"})
    queue.work()
    answer = client.get(
        reverse("diagnoses:import-live", args=[upload.pk]), headers={"HX-Request": "true"}
    )
    assert answer.headers["HX-Refresh"] == "true"


def test_a_refused_file_is_explained_on_the_form(client, doctor):
    answer = client.post(
        reverse("diagnoses:import-create"),
        {"diagnoses": SimpleUploadedFile("d.csv.gz", b"\x1f\x8b\x08")},
    )
    assert "truncated or damaged gzip" in answer.content.decode()
    answer = client.post(reverse("diagnoses:import-create"), {})
    assert "This field is required." in answer.content.decode()
    assert not Upload.objects.exists()


def test_a_file_that_is_too_large_does_not_fill_the_disk(client, doctor, settings, monkeypatch):
    settings.UPLOAD_MAX_BYTES = 1000
    kept: list[int] = []
    monkeypatch.setattr(
        files.services, "upload_files", spy(files.services.upload_files, kept), raising=True
    )
    answer = client.post(
        reverse("diagnoses:import-create"),
        {"diagnoses": SimpleUploadedFile("d.csv", bytes(10**6)), "outcomes": ""},
    )
    assert "the file of diagnoses is larger than 1,000 bytes: divide it" in answer.content.decode()
    assert 1000 < kept[0] <= 2**16


def spy(upload_files, kept: list[int]):
    def spied(envoy, *, diagnoses, **others):
        kept.append(len(diagnoses.read()))
        return upload_files(envoy, diagnoses=diagnoses, **others)

    return spied


def test_another_hospitals_upload_is_not_there(client, doctor, queue):
    upload = checked(queue, make_user())
    for name, method in (
        ("import-detail", "get"),
        ("import-live", "get"),
        ("import-confirm", "post"),
        ("import-discard", "post"),
    ):
        answer = getattr(client, method)(reverse(f"diagnoses:{name}", args=[upload.pk]))
        assert answer.status_code == 404
    assert f"Upload {upload.pk}" not in page(client, "import-list")


def test_a_lost_file_does_not_take_the_page_with_it(client, doctor, queue, settings):
    upload = checked(queue, doctor)
    for path in settings.OBJECT_FOLDER.glob("**/*.head"):
        path.unlink()
    assert "The first rows cannot be shown" in page(client, "import-detail", upload.pk)


def test_an_export_is_asked_for_and_watched(client, doctor, queue):
    make_diagnosis(make_admission(make_patient(envoy=doctor.envoy)))
    assert "No export yet" in page(client, "export-list")
    answer = client.post(reverse("diagnoses:export-create"), follow=True)
    assert "hx-get" in answer.content.decode()
    assert AuditEvent.objects.filter(action="requested export").count() == 1
    queue.work()
    shown = page(client, "export-live")
    assert Snapshot.objects.get().sha256 in shown
    assert "hx-get" not in shown


def test_an_export_that_failed_says_why(client, doctor):
    Snapshot.objects.create(envoy=doctor.envoy, status="FAILED", reason="no space left")
    Snapshot.objects.create(envoy=make_envoy(), status="FAILED", reason="somebody else's")
    shown = page(client, "export-list")
    assert "no space left" in shown
    assert "somebody else" not in shown


def test_imports_by_the_operator_are_listed_too(client, doctor):
    Import.objects.create(
        envoy=doctor.envoy, source_name="first cohort", status="COMPLETE", num_admissions=1234
    )
    shown = page(client, "import-list")
    assert "first cohort" in shown
    assert "1,234" in shown


@pytest.mark.parametrize("name", ["export-list", "import-list"])
def test_lists_take_as_many_queries_for_many_rows_as_for_one(
    client, doctor, name, django_assert_num_queries, django_assert_max_num_queries
):
    def add(count: int) -> None:
        for _ in range(count):
            Upload.objects.create(envoy=doctor.envoy, uploaded_by=doctor)
            Snapshot.objects.create(envoy=doctor.envoy, requested_by=doctor)

    add(1)
    with django_assert_max_num_queries(8) as counted:
        page(client, name)
    add(20)
    with django_assert_num_queries(len(counted)):
        page(client, name)


def test_a_data_scientist_sees_no_hospitals_files(client):
    client.force_login(make_user(role=User.Role.DATA_SCIENTIST))
    for name in ("export-list", "import-list", "import-create"):
        assert client.get(reverse(f"diagnoses:{name}")).status_code == 404


def test_what_is_odd_about_the_codes_is_shown_to_the_hospital_with_every_count(
    client, doctor, queue
):
    assert "No report yet" in page(client, "code-report")
    for number in range(12):
        admission = make_admission(make_patient(envoy=doctor.envoy))
        make_diagnosis(admission, icd_code="I50" if number else "E1199")
    client.post(reverse("diagnoses:export-create"))
    queue.work()
    shown = page(client, "code-report")
    assert "Heart failure" in shown
    assert '<td data-label="Patients" class="text-end">11</td>' in shown
    retired = shown.partition("Retired, or never a code")[2].partition("</tr>")[2]
    assert "E1199" in retired.partition("</tr>")[0]
    assert '<td data-label="Patients" class="text-end">1</td>' in retired.partition("</tr>")[0]


# What nobody will read


@pytest.fixture
def kept_bytes(settings, monkeypatch) -> list[int]:
    """How much of each chunk that comes is handed on to be kept, in memory or on the disk."""
    settings.UPLOAD_MAX_BYTES = 100_000
    found: list[int] = []
    for handler in (MemoryFileUploadHandler, TemporaryFileUploadHandler):
        kept = handler.receive_data_chunk

        def keep(self, raw_data, start, kept=kept):
            if getattr(self, "activated", True):  # a large request's files go to the disk
                found.append(len(raw_data))
            return kept(self, raw_data, start)

        monkeypatch.setattr(handler, "receive_data_chunk", keep)
    return found


def some_files(*names: str, size: int = 300_000) -> dict[str, SimpleUploadedFile]:
    return {name: SimpleUploadedFile(f"{name}.csv", bytes(size)) for name in names}


CALL = "/api/v1/imports"


@pytest.mark.parametrize("url", ["/login/", "/register/", "/imports/new/", CALL, "/predict", "/no"])
def test_of_a_strangers_files_nothing_is_kept(kept_bytes, url):
    answer = Client().post(url, some_files("diagnoses", "outcomes"))
    assert answer.status_code in (200, 302, 400, 401, 404, 415)
    assert kept_bytes == []


@pytest.mark.parametrize("role", [User.Role.DATA_SCIENTIST, User.Role.ADMINISTRATOR])
def test_nor_of_who_may_send_none(kept_bytes, role):
    user = make_user(role)
    page, bearer = Client(), Program(user)
    page.force_login(user)
    for url in (reverse("diagnoses:import-create"), CALL):
        assert page.post(url, some_files("diagnoses")).status_code == 404
        assert bearer.client.post(url, some_files("diagnoses"), format="multipart").status_code in (
            302,
            404,
        )
    assert kept_bytes == []


def test_nor_where_no_file_is_taken(client, kept_bytes):
    for url in (reverse("diagnoses:patient-register"), "/account/tokens/new/", "/api/v1/patients"):
        client.post(url, some_files("diagnoses"))
    assert kept_bytes == []


def test_of_one_request_so_much_is_kept_as_two_files_may_have(client, doctor, kept_bytes):
    chunk = 2**16
    page, call = client, Program(doctor).client
    for send in (
        lambda body: page.post(reverse("diagnoses:import-create"), body),
        lambda body: call.post(CALL, body, format="multipart"),
    ):
        kept_bytes.clear()
        files = [some_files("diagnoses", "outcomes", "more") for _ in range(5)]
        send({name: [each[name] for each in files] for name in files[0]})
        assert 200_000 < sum(kept_bytes) <= 2 * (100_000 + chunk)
