from pathlib import Path
from typing import Any

import pytest
from django.urls import reverse
from django.utils import timezone

from diagnoses.models import Admission, Diagnosis, Import, Patient, Snapshot, Upload
from diagnoses.services import export_now
from envoys.errors import NotNowError
from envoys.models import AuditEvent, Envoy, ServiceToken, User
from envoys.services import create_envoy
from envoys.storage import FolderStorage, envoy_storage
from inference import services
from inference.models import Erasure, InferenceRun, Prediction
from inference.services.erasure import NotConfirmedError
from tests.factories import (
    make_admission,
    make_envoy,
    make_participant,
    make_reading,
    make_round,
    make_run,
    make_snapshot,
    make_user,
    make_version,
)
from tests.federation import release
from training.models import (
    Distribution,
    ModelChoice,
    ModelVersion,
    RunParticipant,
    RunReport,
    StudyMembership,
    TrainingRun,
)
from training.progress import progress_of

pytestmark = [pytest.mark.django_db, pytest.mark.filterwarnings("ignore:No directory at")]

OF_PATIENTS = (Patient, Admission, Diagnosis, Prediction)
ERASED: tuple[Any, ...] = (
    *(Patient, Admission, Prediction, InferenceRun, Import, Upload),
    *(StudyMembership, Distribution, ModelVersion, ModelChoice),
)


@pytest.fixture
def scientist():
    return make_user(User.Role.DATA_SCIENTIST)


def delete(envoy, by=None):
    return services.delete_envoy(envoy, confirmed_name=envoy.name, deleted_by=by)


def folder_of(envoy) -> Path:
    storage = envoy_storage(envoy)
    assert isinstance(storage, FolderStorage)
    return Path(storage.location)


def test_a_hospital_without_runs_goes_entirely(queue, hospitals, scientist):
    envoy, other = hospitals[0], hospitals[1]
    doctor = make_user(envoy=envoy)
    folder, others_folder = folder_of(envoy), folder_of(other)
    for each in (envoy, other):
        export_now(each)
    num_of_others = {
        model: model.objects.exclude(admission__envoy=envoy).count()
        if model in (Diagnosis, Prediction)
        else model.objects.exclude(envoy=envoy).count()
        for model in OF_PATIENTS
    }
    assert folder.exists()

    erasure = delete(envoy, scientist)
    assert not Envoy.objects.standing().filter(pk=envoy.pk).exists()
    doctor.refresh_from_db()
    assert (doctor.is_active, doctor.envoy) == (False, None)
    queue.work()

    assert not Envoy.objects.filter(pk=envoy.pk).exists()
    assert {model: model.objects.count() for model in OF_PATIENTS} == num_of_others
    assert not Snapshot.objects.filter(envoy=envoy.pk).exists()
    assert not folder.exists()
    assert others_folder.exists()
    erasure.refresh_from_db()
    assert (erasure.status, erasure.envoy, erasure.envoy_name) == (
        Erasure.Status.COMPLETE,
        None,
        envoy.name,
    )
    assert erasure.num_done == erasure.num_total > 0
    event = AuditEvent.objects.get(action="deleted envoy")
    assert (event.user, event.target) == (scientist, f"envoy:{envoy.pk}")
    assert create_envoy(name=envoy.name, created_by=None).slug == envoy.slug


def test_of_a_hospital_that_runs_name_the_name_stays_in_their_records(queue, hospitals, scientist):
    taking_part = hospitals[:3]
    version = release(taking_part, queue)
    queue.work_and_sweep()
    envoy = taking_part[0]
    services.request_inference(envoy, version, requested_by=scientist)
    queue.work()
    folder = folder_of(envoy)
    assert Prediction.objects.filter(envoy=envoy).exists()
    going = services.what_will_go(envoy)
    assert (going.num_runs, going.num_own_versions, going.num_packages) == (1, 2, 1)

    delete(envoy, scientist)
    queue.work()

    gone = Envoy.objects.get(pk=envoy.pk)
    assert gone.status == Envoy.Status.DELETED
    assert gone.known_as == (envoy.name, envoy.slug)
    for model in ERASED:
        assert not model.objects.filter(envoy=envoy).exists(), model
    snapshot = RunParticipant.objects.get(run=version.run, envoy=envoy).snapshot
    assert snapshot is not None
    assert snapshot.sha256
    assert not folder.exists()
    slugs = [update["envoy"] for update in version.manifest["lineage"]["updates"]]
    assert envoy.slug in slugs
    assert ModelVersion.objects.of_federation().get() == version

    again = create_envoy(name=envoy.name, created_by=None)
    assert (again.slug, again.storage_prefix) == (envoy.slug, f"envoys/{envoy.slug}")
    progress = progress_of(version.run, scientist)
    assert progress.shows_all_hospitals
    assert any(row.name == gone.name for row in progress.hospitals)


def test_a_report_still_shows_the_row_of_a_deleted_hospital(scientist):
    report = {
        "envoys": [{"name": "Alpha", "num_examples": 50}],
        "pooled_test": {},
        "num_examples": 50,
    }
    run = make_run(status=TrainingRun.Status.FINISHED, report=report)
    envoy = make_participant(run, make_envoy(name="Alpha")).envoy
    delete(envoy)
    (row,) = progress_of(run, scientist).report_rows
    assert row.name.startswith("Alpha (deleted")


def test_the_name_has_to_be_given_exactly(queue):
    envoy = make_envoy(name="Made-up Hospital")
    for name in ("", "made-up hospital", "Made-up"):
        with pytest.raises(NotConfirmedError, match="exactly as it is written: Made-up Hospital"):
            services.delete_envoy(envoy, confirmed_name=name, deleted_by=None)
    assert not Erasure.objects.exists()
    services.delete_envoy(envoy, confirmed_name=" Made-up Hospital ", deleted_by=None)


def test_a_hospital_is_deleted_once(queue):
    envoy = make_envoy()
    delete(envoy)
    with pytest.raises(NotNowError, match="is deleted already"):
        delete(envoy)


def test_a_hospital_in_use_is_not_deleted_and_nothing_has_changed(queue):
    envoy = make_envoy()
    doctor = make_user(envoy=envoy)
    run = make_run()
    make_participant(run, envoy)
    with pytest.raises(NotNowError, match=f"takes part in run {run.pk} .* or stop it"):
        delete(envoy)

    TrainingRun.objects.update(status=TrainingRun.Status.FINISHED)
    report = RunReport.objects.create(run=run)
    with pytest.raises(NotNowError, match=r"report of run .* is being made"):
        delete(envoy)

    RunReport.objects.filter(pk=report.pk).update(status="COMPLETE")
    running = Import.objects.create(envoy=envoy, source_sha256="0", source_name="made-up")
    with pytest.raises(NotNowError, match=r"an import into .* is running"):
        delete(envoy)

    running.delete()
    snapshot = make_snapshot(envoy, status=Snapshot.Status.PENDING)
    Snapshot.objects.claim([snapshot.pk])
    with pytest.raises(NotNowError, match=r"a worker is busy with .* \(export\)"):
        delete(envoy)
    before = envoy.name
    envoy.refresh_from_db()
    doctor.refresh_from_db()
    assert (envoy.name, envoy.status, doctor.is_active) == (before, "ACTIVE", True)

    Snapshot.objects.update(status=Snapshot.Status.PENDING)
    delete(envoy)
    snapshot.refresh_from_db()
    assert (snapshot.status, snapshot.reason) == ("FAILED", "the hospital was deleted")


def test_erasing_goes_on_where_a_killed_worker_left_it(queue, monkeypatch):
    envoy = make_envoy()
    for _ in range(5):
        make_admission(envoy=envoy)
    monkeypatch.setattr("inference.services.erasure.BATCH_ROWS", 2)
    erasure = delete(envoy)
    queue.commit()
    queue.lose()
    killed_in_between = Admission.objects.filter(envoy=envoy)[:1].get()
    killed_in_between.delete()
    Erasure.objects.filter(pk=erasure.pk).update(status="PENDING", enqueued_at=None)
    assert "erase_envoy_task" in queue.sweep()
    queue.work(copies=2)
    assert not Envoy.objects.filter(pk=envoy.pk).exists()
    assert not Patient.objects.exists()


def test_while_it_is_erased_its_place_is_nobody_elses(queue):
    envoy = make_envoy(name="Alpha", slug="alpha")
    delete(envoy)
    with pytest.raises(NotNowError, match="still being erased: try again"):
        create_envoy(name="Alpha", created_by=None)
    queue.work()
    create_envoy(name="Alpha", created_by=None)


def test_of_a_node_pages_and_report_speak_of_a_node(client, queue, scientist):
    client.force_login(scientist)
    run = make_run(status=TrainingRun.Status.FINISHED)
    node = make_envoy(name="Watches at Hospital Road", kind=Envoy.Kind.WEARABLES)
    make_envoy(name="Other watches", kind=Envoy.Kind.WEARABLES)
    make_participant(run, node)
    make_version(make_round(run))
    keeper = make_user(envoy=node)
    ServiceToken.objects.create(
        user=keeper,
        created_by=keeper,
        name="made-up",
        expires_at=timezone.now(),
        key_sha256="0" * 64,
    )
    for _ in range(10):
        make_reading(node)
    url = reverse("inference:envoy-delete", args=[node.pk])
    pages = [
        client.get(url).content.decode(),
        client.post(url, {"name": "Another"}).content.decode(),
        client.post(url, {"name": node.name}, follow=True).content.decode(),
    ]
    queue.work()
    erasure = Erasure.objects.get()
    pages.append(
        client.get(reverse("inference:erasure-detail", args=[erasure.pk])).content.decode()
    )
    for page in pages:
        main = page[page.index("<main") :].lower()
        main = main.replace("hospital road", "").replace("hospital-road", "")
        for word in ("hospital", "patient", "doctor", "admission"):
            assert word not in main, word
    assert "The node&#x27;s name, to confirm" in pages[0]
    counts = {each["what"]: each["count"] for each in erasure.counts}
    assert counts["Readings"] == "10"
    assert counts["Keepers who can no longer log in"] == "1"
    assert {"Predictions", "Inference runs", "Imports and uploads"}.isdisjoint(counts)
    said = {each["what"] for each in erasure.remains}
    assert "The node's name, Watches at Hospital Road, in 1 run" in said
    assert "What 1 model learned with it, and copies at other nodes" in said


def test_of_a_hospital_rows_that_only_nodes_have_are_left_out():
    words = dict(services.what_will_go(make_envoy()).in_words())
    assert words["Patients, with names and phone numbers"] == "–"
    assert words["Exports"] == "0"
    assert {"Readings", "Drift checks"}.isdisjoint(words)


def test_the_page_says_what_goes_and_asks_for_the_name(client, queue, scientist):
    client.force_login(scientist)
    envoy = make_envoy(name="Made-up Hospital")
    for _ in range(12):
        make_admission(envoy=envoy)
    url = reverse("inference:envoy-delete", args=[envoy.pk])
    page = client.get(url).content.decode()
    assert "What will go" in page
    assert '<td class="text-end">12</td>' in page
    assert "envoys/made-up-hospital/" in page

    page = client.post(url, {"name": "Another"}).content.decode()
    assert "give its name exactly as it is written: Made-up Hospital" in page
    response = client.post(url, {"name": "Made-up Hospital"}, follow=True)
    report = reverse("inference:erasure-detail", args=[Erasure.objects.get().pk])
    assert response.redirect_chain == [(report, 302)]
    assert "Made-up Hospital is deleted" in response.content.decode()
    assert client.get(url).status_code == 404
