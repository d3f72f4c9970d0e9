"""What was answered and searched for is forgotten: with time, with a role, and with a hospital."""

from datetime import timedelta
from typing import Any

import pytest
from django.contrib.sessions.models import Session
from django.test import Client
from django.urls import reverse
from django.utils import timezone

from envoys.models import Envoy, IdempotentCall, User
from envoys.tasks import forget_ended_logins_task
from inference.searches import SEARCH
from inference.services import erase_patient
from inference.services.erasure import delete_envoy
from tests.api import Program
from tests.factories import make_envoy, make_patient, make_user

pytestmark = [pytest.mark.django_db, pytest.mark.filterwarnings("ignore:No directory at")]

NAME, KEY = "Test Patient One", "once"


@pytest.fixture
def hospitals() -> tuple[Envoy, Envoy]:
    return make_envoy(), make_envoy()


def register(doctor: User, code: int = 201) -> Any:
    return Program(doctor).post("/api/v1/patients", {"name": NAME}, code=code, key=KEY)


def move(doctor: User, **changed: Any) -> None:
    """As an administrator does it in the admin."""
    client = Client()
    client.force_login(make_user(User.Role.ADMINISTRATOR))
    values = {
        **dict.fromkeys(("first_name", "last_name", "email", "phone"), ""),
        "username": doctor.username,
        "role": doctor.role,
        "envoy": doctor.envoy_id or "",
        "is_active": "on",
        **changed,
    }
    values = {name: value for name, value in values.items() if value is not None}
    url = reverse("admin:envoys_user_change", args=[doctor.pk])
    assert client.post(url, values).status_code == 302
    doctor.refresh_from_db()


def searches() -> list[Any]:
    kept = (session.get_decoded() for session in Session.objects.all())
    return [each[SEARCH] for each in kept if SEARCH in each]


@pytest.mark.parametrize("change", ["hospital", "role", "activity"])
def test_what_was_answered_and_searched_for_goes_when_an_account_changes(hospitals, change):
    doctor, colleague = make_user(envoy=hospitals[0]), make_user(envoy=hospitals[0])
    for person in (doctor, colleague):
        register(person)
        client = Client()
        client.force_login(person)
        client.post(reverse("inference:patient-list"), {"text": NAME})
    assert len(searches()) == 2
    move(
        doctor,
        **{
            "hospital": {"envoy": hospitals[1].pk},
            "role": {"role": User.Role.DATA_SCIENTIST, "envoy": ""},
            "activity": {"is_active": None},
        }[change],
    )
    assert [call.user for call in IdempotentCall.objects.all()] == [colleague]
    assert len(searches()) == 1


def test_a_new_name_forgets_nothing(hospitals):
    doctor = make_user(envoy=hospitals[0])
    register(doctor)
    move(doctor, first_name="Ann")
    assert IdempotentCall.objects.count() == 1


def test_nobody_gets_an_answer_that_was_given_to_them_at_another_hospital(hospitals):
    """However the account came to move."""
    doctor = make_user(envoy=hospitals[0])
    first = register(doctor)
    doctor.envoy = hospitals[1]
    doctor.save()
    again = register(doctor)
    assert again["id"] != first["id"]
    assert IdempotentCall.objects.get().envoy == hospitals[1]


def test_erasing_a_patient_forgets_what_was_answered_to_who_has_left_since(hospitals, queue):
    doctor = make_user(envoy=hospitals[0])
    register(doctor)
    User.objects.filter(pk=doctor.pk).update(envoy=hospitals[1])
    patient = make_patient(hospitals[0])
    erase_patient(patient, confirmed_subject_id=patient.subject_id, erased_by=None)
    assert not IdempotentCall.objects.exists()


def test_deleting_a_hospital_forgets_what_was_answered_to_who_has_left_since(hospitals, queue):
    doctor, other = make_user(envoy=hospitals[0]), make_user(envoy=hospitals[1])
    register(doctor)
    register(other)
    User.objects.filter(pk=doctor.pk).update(envoy=hospitals[1])
    delete_envoy(hospitals[0], confirmed_name=hospitals[0].name, deleted_by=None)
    assert [call.user for call in IdempotentCall.objects.all()] == [other]
    queue.work()


def test_answers_that_no_call_gets_any_more_are_deleted_by_the_hour(hospitals):
    old, young = (make_user(envoy=hospitals[0]) for _ in range(2))
    register(old)
    register(young)
    day_ago = timezone.now() - timedelta(hours=25)
    IdempotentCall.objects.filter(user=old).update(created_at=day_ago)
    forget_ended_logins_task()
    assert [call.user for call in IdempotentCall.objects.all()] == [young]
