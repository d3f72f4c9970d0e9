"""What a request showed or did is in the audit once, by number, and by whoever asked."""

import pytest
from django.db import transaction
from django.http import HttpResponse
from django.test import RequestFactory
from django.urls import resolve, reverse
from rest_framework_simplejwt.tokens import RefreshToken

from envoys import audit
from envoys.access import ACTIONS, UNAUDITED, is_audited
from envoys.models import AuditEvent, Envoy, User
from tests.factories import PASSWORD, make_envoy, make_patient, make_user

pytestmark = [pytest.mark.django_db, pytest.mark.filterwarnings("ignore:No directory at")]


def events() -> list[tuple[str, str, int | None]]:
    return list(AuditEvent.objects.order_by("pk").values_list("action", "target", "user"))


def test_what_no_service_says_is_recorded_by_the_access_lists_name(client):
    scientist = make_user(User.Role.DATA_SCIENTIST)
    envoy = make_envoy()
    client.force_login(scientist)
    client.get(reverse("training:envoy-list"))
    client.get(reverse("training:envoy-detail", args=[envoy.pk]))
    client.get(reverse("envoys:envoy-edit", args=[envoy.pk]))
    assert events() == [
        ("see envoys", "training:envoy-list", scientist.pk),
        ("see envoys", f"envoy:{envoy.pk}", scientist.pk),
        ("opened: edit an envoy", f"envoy:{envoy.pk}", scientist.pk),
    ]


def test_what_a_service_says_is_not_said_again(client):
    doctor = make_user()
    patient = make_patient(doctor.envoy)
    client.force_login(doctor)
    client.get(reverse("inference:patient-detail", args=[patient.pk]))
    assert events() == [("saw patient", f"patient:{patient.pk}", doctor.pk)]


def test_a_call_is_the_tokens_persons_also_in_a_browser_of_somebody_else(client):
    scientist, other = make_user(User.Role.DATA_SCIENTIST), make_user()
    client.force_login(other)
    token = RefreshToken.for_user(scientist).access_token
    response = client.get(reverse("api:envoy-list"), headers={"authorization": f"Bearer {token}"})
    assert response.status_code == 200
    assert events() == [("see envoys", "api:envoy-list", scientist.pk)]


def test_who_asks_for_anothers_patient_is_recorded(client):
    doctor, patient = make_user(), make_patient()
    client.force_login(doctor)
    for route in ("inference:patient-detail", "api:patient-detail"):
        assert client.get(reverse(route, args=[patient.pk])).status_code == 404
    assert client.get(reverse("envoys:task-list")).status_code == 404
    assert events() == [
        ("refused: see a patient", f"patient:{patient.pk}", doctor.pk),
        ("refused: see a patient", f"patient:{patient.pk}", doctor.pk),
        ("refused: watch the tasks", "envoys:task-list", doctor.pk),
    ]


@pytest.mark.parametrize("route", ["login", "api:token", "published:login"])
def test_a_wrong_password_is_recorded_of_an_account_that_there_is(client, route):
    user = make_user()
    for username in (user.username, "no such name", ""):
        credentials = {"username": username, "password": "wrong"}
        as_json = {} if route == "login" else {"content_type": "application/json"}
        client.post(reverse(route), credentials, **as_json)
    assert events() == [("refused: log in", f"user:{user.pk}", None)]


def test_logging_in_is_recorded_once(client):
    user = make_user()
    client.post(reverse("login"), {"username": user.username, "password": PASSWORD})
    assert events() == [("logged in", f"user:{user.pk}", user.pk)]


def test_what_nobody_asked_for_by_name_is_not_recorded(client):
    for page in ("login", "healthz", "docs", "publichealth:citizen", "account-register"):
        client.get(reverse(page))
    client.get(reverse("training:run-list"))  # to the login
    client.get(reverse("api:run-list"))
    client.force_login(make_user(User.Role.DATA_SCIENTIST))
    for page in ("home", "publichealth:citizen", "docs"):
        client.get(reverse(page))
    client.get("/no/such/page")
    assert events() == []


def test_a_part_that_asks_for_itself_is_recorded_once_an_hour(client):
    scientist = make_user(User.Role.DATA_SCIENTIST)
    client.force_login(scientist)
    for _ in range(3):
        client.get(reverse("envoys:task-list-live"))
    assert events() == [("watch the tasks", "envoys:task-list-live", scientist.pk)]


def test_a_call_sent_again_with_its_key_is_a_repetition(client):
    scientist = make_user(User.Role.DATA_SCIENTIST)
    client.force_login(scientist)
    for _ in range(2):
        response = client.post(
            reverse("api:envoy-list"),
            {"name": "Hospital"},
            content_type="application/json",
            headers={"idempotency-key": "once"},
        )
        assert response.status_code == 201
    envoy = Envoy.objects.get()
    assert events() == [
        ("created envoy", f"envoy:{envoy.pk}", scientist.pk),
        ("repeated: invite an envoy", "api:envoy-list", scientist.pk),
    ]


def test_a_form_that_was_not_taken_is_no_change(client):
    scientist = make_user(User.Role.DATA_SCIENTIST)
    client.force_login(scientist)
    client.post(reverse("envoys:envoy-create"), {"name": ""})
    assert events() == [("asked: invite an envoy", "envoys:envoy-create", scientist.pk)]


def answered(client_user: User, work: "object" = None) -> None:
    """A request to suspend envoy 7, of which the service does `work`."""
    url = reverse("envoys:envoy-suspend", args=[7])
    request = RequestFactory().post(url)
    request.user, request.resolver_match = client_user, resolve(url)
    with audit.one_request() as trail:
        if callable(work):
            work()
    audit.record_request(request, HttpResponse(status=302), trail)


def test_an_event_goes_with_the_transaction_that_was_taken_back_and_the_request_is_recorded():
    scientist, envoy = make_user(User.Role.DATA_SCIENTIST), make_envoy()

    def taken_back():
        with transaction.atomic():
            audit.record(scientist, "suspended envoy", envoy)
            transaction.set_rollback(True)

    def partly_taken_back():
        audit.record(scientist, "suspended envoy", envoy)
        taken_back()

    answered(scientist, taken_back)
    assert events() == [("asked: suspend an envoy", "envoy:7", scientist.pk)]
    AuditEvent.objects.all().delete()
    answered(scientist, partly_taken_back)
    assert events() == [("suspended envoy", f"envoy:{envoy.pk}", scientist.pk)]


def test_an_event_outside_a_transaction_stands_without_being_looked_up(
    django_assert_num_queries,
):
    scientist, envoy = make_user(User.Role.DATA_SCIENTIST), make_envoy()
    with django_assert_num_queries(1):
        answered(scientist, lambda: audit.record(scientist, "suspended envoy", envoy))


def test_what_the_system_does_meanwhile_is_not_the_requests():
    scientist, envoy = make_user(User.Role.DATA_SCIENTIST), make_envoy()
    answered(scientist, lambda: audit.record(None, "suspended envoy", envoy))
    assert [user for _, _, user in events()] == [None, scientist.pk]


def test_what_is_typed_into_an_address_is_no_target(client):
    doctor = make_user()
    client.force_login(doctor)
    url = reverse("published:inference-global", args=["Somebody's name"])
    assert client.get(url).status_code == 404
    client.get(reverse("training:run-list"), {"q": "Somebody's name"})
    assert events() == [
        ("refused: see a patient's risk", "published:inference-global", doctor.pk),
        ("see runs", "training:run-list", doctor.pk),
    ]


def test_an_admins_page_is_recorded_with_the_row_it_shows(client):
    administrator = make_user(User.Role.ADMINISTRATOR)
    client.force_login(administrator)
    client.get(reverse("admin:envoys_user_change", args=[administrator.pk]))
    client.get(reverse("admin:envoys_user_changelist"), {"q": "Somebody"})
    client.get(reverse("admin:jsi18n"))
    assert events() == [
        ("use the admin", f"user:{administrator.pk}", administrator.pk),
        ("use the admin", "admin:envoys_user_changelist", administrator.pk),
    ]
    client.force_login(make_user())
    client.get(reverse("admin:envoys_user_changelist"))
    assert events()[-1][0] == "refused: use the admin"


def test_every_name_of_an_action_fits_into_an_event_with_what_came_of_it():
    longest = AuditEvent._meta.get_field("action").max_length
    assert longest is not None
    assert all(len(f"repeated: {each.name}") <= longest for each in ACTIONS)


def test_what_is_left_out_is_in_the_access_list():
    routes = {route for each in ACTIONS for route in each.routes}
    assert UNAUDITED - routes == {"GET admin:jsi18n"}


def test_a_method_that_reads_is_judged_as_get():
    assert not is_audited("diagnoses:patient-register", "HEAD")
    assert is_audited("training:run-list", "HEAD")
