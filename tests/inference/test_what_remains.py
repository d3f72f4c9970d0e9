"""Of a hospital and of a patient every table is known: what erasing does with it, and why.

A model that comes to refer to a hospital, a patient or a person needs a word in a table here, and
rows in `tests/world.py`: without them these tests fail.
"""

from collections.abc import Iterable
from datetime import timedelta
from typing import Any

import pytest
from axes.models import AccessAttempt
from django.apps import apps
from django.contrib.sessions.models import Session
from django.db.models import Model
from django.test import Client
from django.urls import reverse
from django.utils import timezone
from rest_framework_simplejwt.token_blacklist.models import BlacklistedToken, OutstandingToken
from rest_framework_simplejwt.tokens import RefreshToken

from diagnoses.models import CodeReport, Patient, PatientErasure, Snapshot
from diagnoses.services import export_now
from envoys.models import AuditEvent, Envoy, IdempotentCall, ServiceToken, User
from envoys.storage import envoy_storage, has_objects
from inference import services
from inference.hospital_data import tables
from inference.models import Erasure
from inference.services import erasure as erasing
from tests.factories import make_envoy, make_user
from tests.world import World, make_world
from training.models import TrainingRun

pytestmark = [pytest.mark.django_db, pytest.mark.filterwarnings("ignore:No directory at")]

# What hangs on a hospital and stays when it is deleted, where a run names it. All else goes.
STAYS = {
    "envoys.Envoy": "the name, since runs name it",
    "training.RunParticipant": "the part it took in each run",
    "training.RoundAssignment": "the part it took in each round",
    "training.ReceivedUpdate": "the checksum of what it sent, and figures of it",
    "diagnoses.Snapshot": "the checksum of what it trained on; its files are gone",
    "inference.Erasure": "the report of what was erased",
}
# What hangs on something of a hospital, and is the federation's.
OF_FEDERATION = {
    "publichealth.RetrainingProposal": "a proposal to train; it forgets the node's check",
    "publichealth.Serving": "how a version of the federation is served; it forgets the node",
}
# What hangs on a person: what deleting the hospital does with that of its doctors.
OF_PEOPLE = {
    "admin.LogEntry": "stays: the admin's record of who changed what",
    "envoys.AuditEvent": "stays: the audit",
    "envoys.ServiceToken": "stays, revoked: the audit names it",
    "envoys.TwoStepDevice": "stays with the closed account",
    "token_blacklist.OutstandingToken": "stays, refused, until it has run out",
    "training.TrainingRun": "stays: who started it",
    "publichealth.AlertThreshold": "stays: who set it",
}


def label(model: type[Model]) -> str:
    return str(model._meta.label)


def referring_to(targets: Iterable[type[Model]], *, but: Iterable[type[Model]] = ()) -> set[str]:
    """Models with a foreign key to these, or to what has one."""
    found, left, past = set(targets), list(targets), set(but)
    while left:
        target = left.pop()
        for model in apps.get_models(include_auto_created=True):
            fields = (field for field in model._meta.get_fields() if field.concrete)
            if model not in found | past and any(f.related_model is target for f in fields):
                found.add(model)
                left.append(model)
    return {label(model) for model in found}


OF_HOSPITALS = referring_to([Envoy], but=[User])


def test_every_table_of_a_hospital_is_erased_or_stays_for_a_reason():
    erased = {label(rows.model) for rows in erasing._rows_to_erase(make_envoy())}
    assert set(STAYS) <= OF_HOSPITALS
    unknown = OF_HOSPITALS - erased - set(STAYS) - set(OF_FEDERATION)
    assert not unknown, f"{unknown} refer to a hospital, and deleting it does nothing with them"


def test_every_table_of_a_patient_goes_with_the_patient():
    of_patients = referring_to([Patient])
    assert of_patients == {
        "diagnoses.Patient",
        "diagnoses.Admission",
        "diagnoses.Diagnosis",
        "inference.Prediction",
    }, "erase_patient has to erase it, and patient_data to hand it over"


def test_every_table_of_people_is_known():
    found = {
        label(model)
        for model in apps.get_models()
        if any(field.concrete and field.related_model is User for field in model._meta.get_fields())
    }
    assert found - OF_HOSPITALS == set(OF_PEOPLE)


def test_every_table_of_a_hospital_is_handed_over():
    handed_over = {label(table.model) for table in tables()}
    # An answer is a copy of what other tables hold.
    not_of_its_own = {
        "envoys.Envoy",
        "envoys.IdempotentCall",
        "inference.Erasure",
        *OF_FEDERATION,
    }
    assert OF_HOSPITALS - not_of_its_own <= handed_over


def of_hospital(envoy: Envoy) -> dict[str, int]:
    return {table.file_name: table.rows(envoy).count() for table in tables()}


@pytest.fixture
def world(queue: Any) -> World:
    world = make_world()
    own = world.hospitals["own"]
    export_now(own.envoy)
    for each in (own.active_run, own.run):
        TrainingRun.objects.filter(pk=each.pk).update(
            status=TrainingRun.Status.FINISHED, finished_at=timezone.now() - timedelta(hours=1)
        )
    ServiceToken.objects.create(
        name="nightly",
        user=own.doctor,
        created_by=own.doctor,
        key_sha256="0" * 64,
        expires_at=timezone.now() + timedelta(days=1),
    )
    IdempotentCall.objects.create(user=own.doctor, key="1", fingerprint="0", answer='{"id": 1}')
    AccessAttempt.objects.create(username=own.doctor.username, failures_since_start=1)
    return world


def test_a_hospital_with_a_row_of_every_kind_is_erased_and_the_report_says_what_remains(
    world, queue
):
    own, other = world.hospitals["own"], world.hospitals["other"]
    before = of_hospital(own.envoy)
    empty = {name for name, count in before.items() if not count}
    assert not empty, f"the world has no row of {empty}: what is not there cannot be erased"
    of_other = of_hospital(other.envoy)
    client = Client()
    client.force_login(own.doctor)
    client.post(reverse("inference:patient-list"), {"text": "Test Patient Own"})
    refresh = RefreshToken.for_user(own.doctor)

    services.delete_envoy(own.envoy, confirmed_name=own.envoy.name, deleted_by=None)
    queue.work()

    erasure = Erasure.objects.get(envoy=own.envoy)
    assert erasure.status == Erasure.Status.COMPLETE, erasure.reason
    left = {name for name, count in of_hospital(own.envoy).items() if count}
    assert left == {
        "run_participants.csv",
        "round_assignments.csv",
        "received_updates.csv",
        "snapshots.csv",
    }
    assert not has_objects(envoy_storage(own.envoy))
    assert not Snapshot.objects.filter(envoy=own.envoy, removed_at=None).exists()
    assert not CodeReport.objects.filter(envoy=own.envoy).exists()
    # Its doctor: nothing is open, nothing of a patient is kept.
    assert not IdempotentCall.objects.filter(user=own.doctor).exists()
    assert not AccessAttempt.objects.filter(username=own.doctor.username).exists()
    tokens = ServiceToken.objects.filter(user=own.doctor)
    assert tokens.exists()
    assert not tokens.filter(revoked_at=None).exists()
    outstanding = OutstandingToken.objects.get(jti=refresh["jti"])
    assert BlacklistedToken.objects.filter(token=outstanding).exists()
    assert all("patient-search" not in session.get_decoded() for session in Session.objects.all())
    assert client.get(reverse("home")).status_code == 302
    assert AuditEvent.objects.filter(user=own.doctor).exists()
    # Others are as they were.
    assert of_hospital(other.envoy) == of_other

    told = " ".join(each["what"] for each in erasure.remains)
    for word in ("Hospital own", "account", "access token", "audit", "Backups", "updates it sent"):
        assert word in told, word
    assert erasure.counts[0] == {"what": "Patients, with names and phone numbers", "count": "–"}
    client.force_login(make_user(User.Role.DATA_SCIENTIST))
    page = client.get(reverse("inference:erasure-detail", args=[erasure.pk])).content.decode()
    assert "What remains, and why" in page
    assert erasure.remains[0]["why"].split("'")[0] in page
    listed = client.get(reverse("inference:erasure-list")).content.decode()
    assert reverse("inference:erasure-detail", args=[erasure.pk]) in listed


def test_a_patient_with_a_row_of_every_kind_is_erased_and_the_others_rows_stay(world, queue):
    own = world.hospitals["own"]
    patient, stays = own.patient, own.gone_home
    before = of_hospital(own.envoy)
    services.erase_patient(patient, confirmed_subject_id=patient.subject_id, erased_by=own.doctor)
    queue.work()
    after = of_hospital(own.envoy)
    changed = {name for name in before if after[name] < before[name]}
    assert changed == {"patients.csv", "admissions.csv", "diagnoses.csv", "predictions.csv"}
    assert Patient.objects.filter(envoy=own.envoy).get() == stays
    assert PatientErasure.objects.filter(envoy=own.envoy, status="COMPLETE").count() == 2


def test_a_hospital_is_deleted_while_a_patient_of_it_is_being_erased(world, queue):
    own = world.hospitals["own"]
    services.erase_patient(
        own.patient, confirmed_subject_id=own.patient.subject_id, erased_by=own.doctor
    )
    services.delete_envoy(own.envoy, confirmed_name=own.envoy.name, deleted_by=None)
    queue.work()
    assert not PatientErasure.objects.filter(envoy=own.envoy).exists()
    assert Erasure.objects.get(envoy=own.envoy).status == Erasure.Status.COMPLETE
