"""A node's keeper erases one of those whose readings it holds."""

from pathlib import Path
from typing import Any

import pytest

from diagnoses.models import Snapshot
from envoys.errors import StorageError
from envoys.models import AuditEvent, Envoy, User
from envoys.storage import FolderStorage, envoy_storage
from publichealth import datasets
from publichealth.models import Reading
from tests.api import Program
from tests.factories import make_envoy, make_participant, make_reading, make_run, make_user
from training.models import TrainingRun

pytestmark = [pytest.mark.django_db, pytest.mark.filterwarnings("ignore:No directory at")]

URL = "/api/v1/readings"
GONE, OTHER = "wearer-1", "wearer-2"


@pytest.fixture
def node() -> Envoy:
    node = make_envoy(name="Clinic node", kind=Envoy.Kind.CLINIC)
    for subject_id in (GONE, GONE, OTHER):
        make_reading(node, subject_id=subject_id, heart_rate=70.0, outcome=1)
    make_reading(make_envoy(kind=Envoy.Kind.CLINIC), subject_id=GONE)
    return node


@pytest.fixture
def keeper(node: Envoy) -> Program:
    return Program(make_user(envoy=node))


def export(node: Envoy, queue: Any) -> Snapshot:
    number = datasets.freeze(node.pk, None)
    queue.work()
    return Snapshot.objects.get(pk=number)


def stored_text(node: Envoy) -> str:
    storage = envoy_storage(node)
    assert isinstance(storage, FolderStorage)
    files = (path for path in Path(storage.location).rglob("*") if path.is_file())
    return "".join(path.read_text() for path in files)


def test_everything_of_a_subject_is_handed_over(keeper, node):
    page = keeper.get(f"{URL}?subject_id={GONE}")
    assert (page["count"], {row["subject_id"] for row in page["results"]}) == (2, {GONE})


def test_a_subject_is_erased_from_rows_and_exports_and_others_stay(keeper, node, queue):
    gone = export(node, queue)
    assert GONE in stored_text(node)
    answer = keeper.post(f"{URL}/erase", {"subject_id": GONE}, code=200)
    assert answer == {"num_readings": 2, "num_exports": 1}
    assert GONE not in stored_text(node)
    queue.work()
    assert [row.subject_id for row in Reading.objects.filter(envoy=node)] == [OTHER]
    assert Reading.objects.filter(subject_id=GONE).count() == 1  # another node's
    gone.refresh_from_db()
    assert gone.removed_at is not None
    text = stored_text(node)
    assert (GONE in text, text.count(OTHER)) == (False, 2)  # frozen, and on top
    event = AuditEvent.objects.get(action="erased readings of a subject")
    assert event.target == f"envoy:{node.pk}"
    refused = keeper.post(f"{URL}/erase", {"subject_id": GONE}, code=400)
    assert "no reading of this subject" in refused["detail"]


def test_while_a_run_trains_on_an_export_with_the_subject_nothing_is_erased(keeper, node, queue):
    run = make_run(TrainingRun.Status.TRAINING)
    make_participant(run, node, snapshot=export(node, queue))
    refused = keeper.post(f"{URL}/erase", {"subject_id": GONE}, code=409)
    assert "trains on an export with the subject" in refused["detail"]
    assert keeper.get(f"{URL}?subject_id={GONE}")["count"] == 2
    keeper.post(f"{URL}/erase", {"subject_id": "wearer-3"}, code=400)


def test_an_export_that_is_being_written_is_waited_for(keeper, node, queue):
    datasets.freeze(node.pk, None)
    queue.lose()
    Snapshot.objects.claim(Snapshot.objects.values_list("pk", flat=True))
    assert (
        "is being written" in keeper.post(f"{URL}/erase", {"subject_id": GONE}, code=409)["detail"]
    )
    assert keeper.get(f"{URL}?subject_id={GONE}")["count"] == 2


def test_what_could_not_be_removed_is_removed_when_it_is_asked_for_again(
    keeper, node, queue, monkeypatch
):
    export(node, queue)

    def unreachable(*args: Any) -> None:
        raise StorageError("the bucket does not answer")

    with monkeypatch.context() as patch:
        patch.setattr("publichealth.services.subjects.remove_export", unreachable)
        keeper.post(f"{URL}/erase", {"subject_id": GONE}, code=503)
    assert GONE in stored_text(node)
    answer = keeper.post(f"{URL}/erase", {"subject_id": GONE}, code=200)
    assert answer == {"num_readings": 0, "num_exports": 1}
    queue.work()
    assert GONE not in stored_text(node)


def test_nobody_else_erases_a_subject(node):
    for person in (make_user(User.Role.DATA_SCIENTIST), make_user(User.Role.ADMINISTRATOR)):
        Program(person).post(f"{URL}/erase", {"subject_id": GONE}, code=404)
    assert Reading.objects.filter(envoy=node).count() == 3
