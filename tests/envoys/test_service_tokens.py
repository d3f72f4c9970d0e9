"""Access tokens of programs: what one may do, for how long, who makes and ends it."""

import re
from datetime import timedelta

import pytest
from django.test import Client
from django.urls import reverse
from django.utils import timezone
from rest_framework.test import APIClient

from envoys.access import ACTIONS, is_call
from envoys.models import AuditEvent, Envoy, ServiceToken, TwoStepDevice, User
from envoys.service_tokens import FOR_PEOPLE_ONLY, actions_for, make_token
from tests.factories import PASSWORD, make_envoy, make_patient, make_user

pytestmark = [pytest.mark.django_db, pytest.mark.filterwarnings("ignore:No directory at")]

SCIENTIST, ADMINISTRATOR = User.Role.DATA_SCIENTIST, User.Role.ADMINISTRATOR


def program_of(key: str) -> APIClient:
    client = APIClient()
    client.credentials(HTTP_AUTHORIZATION=f"Bearer {key}")
    return client


def made(user: User, *actions: str, **more) -> tuple[ServiceToken, APIClient]:
    more.setdefault("made_by", user)
    token, key = make_token(name="nightly", user=user, actions=actions or ["see envoys"], **more)
    return token, program_of(key)


def logged_in(user: User) -> Client:
    client = Client()
    client.force_login(user)
    return client


def service_account(role: str = User.Role.DOCTOR, envoy: Envoy | None = None) -> User:
    return make_user(role, envoy, username=f"registry-{role}", password=None)


# What it opens


def test_a_token_does_what_it_is_for_on_calls_and_published_paths_and_nothing_else():
    user = make_user(SCIENTIST)
    _, program = made(user, "see envoys", "see runs")
    for path in ("/api/v1/envoys", "/list_envoys", "/api/v1/runs"):
        assert program.get(path).status_code == 200
    assert program.head("/api/v1/envoys").status_code == 200
    refused = program.post("/api/v1/envoys", {"name": "Hospital new"})
    assert refused.status_code == 403
    assert refused.json()["type"] == "permission_denied"
    assert "only for: see envoys, see runs" in refused.json()["detail"]
    for path in ("/api/v1/studies", "/api/v1/me", "/api/v1/access-tokens"):
        assert program.get(path).status_code == 403
    assert not Envoy.objects.filter(name="Hospital new").exists()


def test_what_is_for_people_only_no_token_does():
    names = {each.name for each in ACTIONS}
    assert names >= FOR_PEOPLE_ONLY
    user = make_user(ADMINISTRATOR)
    assert not {each.name for each in actions_for(user, made_by=user)} & FOR_PEOPLE_ONLY
    # Not even one whose row says so.
    token, program = made(user)
    ServiceToken.objects.filter(pk=token.pk).update(actions=sorted(names))
    answers = [
        program.post("/api/v1/account/password", {"old_password": "x", "new_password": "y"}),
        program.post("/api/v1/account/end-logins", {}),
        program.get("/api/v1/access-tokens"),
        program.post("/api/v1/access-tokens", {"name": "more", "actions": ["see envoys"]}),
        program.post(f"/api/v1/access-tokens/{token.pk}/revoke"),
    ]
    assert [each.status_code for each in answers] == [403] * 5
    assert ServiceToken.objects.standing().count() == 1


def test_every_action_with_a_call_is_for_people_only_or_can_be_given():
    everybody = [make_user(role) for role in User.Role.values]
    given = {each.name for user in everybody for each in actions_for(user, made_by=user)}
    with_call = {each.name for each in ACTIONS if any(is_call(route) for route in each.routes)}
    assert with_call - given == FOR_PEOPLE_ONLY


def test_a_token_opens_no_page_and_no_session():
    _, program = made(make_user(SCIENTIST), "see envoys")
    response = program.get(reverse("training:envoy-list"))
    assert response.headers["Location"].startswith(reverse("login"))
    program.get("/api/v1/envoys")
    assert not program.cookies


def test_what_its_account_may_no_longer_do_neither_may_the_token():
    user = make_user(SCIENTIST)
    _, program = made(user, "invite an envoy", "see envoys")
    User.objects.filter(pk=user.pk).update(role=User.Role.PUBLIC_HEALTH)
    assert program.get("/api/v1/envoys").status_code == 200
    assert program.post("/api/v1/envoys", {"name": "Hospital new"}).status_code == 404


def test_a_service_account_sends_its_own_hospitals_readings_and_sees_no_other():
    node = make_envoy(kind=Envoy.Kind.WEARABLES)
    administrator, account = make_user(ADMINISTRATOR), service_account(envoy=node)
    _, program = made(account, "record readings", made_by=administrator)
    reading = {"subject_id": "s1", "measured_at": "2026-01-01T12:00Z", "spo2": 97}
    answer = program.post("/api/v1/readings", {"readings": [reading]})
    assert answer.status_code == 201, answer.content
    assert program.get("/api/v1/readings").status_code == 403
    assert AuditEvent.objects.filter(user=account).exists()


# How it ends


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"revoked_at": timezone.now()}, "has been revoked"),
        ({"expires_at": timezone.now() - timedelta(seconds=1)}, "ended on"),
        ({"key_sha256": "0" * 64}, "no such access token"),
    ],
)
def test_a_token_that_has_ended_is_refused_in_words(change, words):
    token, program = made(make_user(SCIENTIST))
    assert program.get("/api/v1/envoys").status_code == 200
    ServiceToken.objects.filter(pk=token.pk).update(**change)
    for path in ("/api/v1/envoys", "/list_envoys"):
        answer = program.get(path)
        assert answer.status_code == 401
        assert answer.headers["WWW-Authenticate"] == 'Bearer realm="api"'
        assert answer.json()["type"] == "authentication_failed"
        assert words in answer.json()["detail"]


def test_a_closed_account_closes_its_tokens():
    user = make_user(SCIENTIST)
    _, program = made(user)
    User.objects.filter(pk=user.pk).update(is_active=False)
    answer = program.get("/api/v1/envoys")
    assert answer.status_code == 401
    assert "is closed" in answer.json()["detail"]


def test_the_last_use_is_written_down_at_most_once_a_minute():
    token, program = made(make_user(SCIENTIST))
    program.get("/api/v1/envoys")
    token.refresh_from_db()
    first = token.last_used_at
    assert first is not None
    program.get("/api/v1/envoys")
    token.refresh_from_db()
    assert token.last_used_at == first
    ServiceToken.objects.update(last_used_at=first - timedelta(minutes=2))
    program.get("/api/v1/envoys")
    token.refresh_from_db()
    assert token.last_used_at >= first


# Making one


def test_a_key_is_shown_once_and_stored_nowhere():
    user = make_user(SCIENTIST)
    client = logged_in(user)
    body = {"name": "nightly", "days": 90, "actions": ["see envoys"], "password": PASSWORD}
    page = client.post(reverse("access-token-create"), body).content.decode()
    key = re.search(r">(tlfl_[\w-]{43})<", page)
    assert key is not None
    assert 'data-copies="id_key"' in page
    assert "copy.js" in page
    token = ServiceToken.objects.get()
    assert key[1] not in str(ServiceToken.objects.values().get())
    assert token.key_start == key[1][:12]
    assert 89 <= (token.expires_at - timezone.now()).days <= 90
    listed = client.get(reverse("access-token-list")).content.decode()
    assert token.key_start in listed
    assert key[1] not in listed
    assert program_of(key[1]).get("/api/v1/envoys").status_code == 200
    event = AuditEvent.objects.get(action="made access token")
    assert (event.user, event.target) == (user, f"servicetoken:{token.pk}")


def test_a_call_makes_and_revokes_one_and_never_gives_the_key_twice():
    user = make_user(SCIENTIST)
    client = logged_in(user)
    body = {"name": "nightly", "actions": ["see envoys"], "days": 365, "password": PASSWORD}
    headers = {"Idempotency-Key": "one"}
    answers = [
        client.post(
            "/api/v1/access-tokens", body, content_type="application/json", headers=headers
        ).json()
        for _ in range(2)
    ]
    assert answers[0]["key"] != answers[1]["key"]
    program = program_of(answers[0]["key"])
    assert program.get("/api/v1/envoys").status_code == 200
    url = answers[0]["url"]
    assert "key" not in client.get(url).json()
    assert client.post(f"{url}/revoke").json()["is_standing"] is False
    assert client.post(f"{url}/revoke").status_code == 200
    assert program.get("/api/v1/envoys").status_code == 401
    assert AuditEvent.objects.filter(action="revoked access token").count() == 1
    assert client.get("/api/v1/access-tokens").json()["count"] == 2


@pytest.mark.parametrize(
    ("wrong", "field"),
    [
        ({"name": " "}, "name"),
        ({"actions": []}, "actions"),
        ({"actions": ["list patients"]}, "actions"),
        ({"actions": ["change one's password"]}, "actions"),
        ({"actions": ["no such action"]}, "actions"),
        ({"days": 0}, "days"),
        ({"days": 366}, "days"),
        ({"account": "registry-doctor"}, "account"),
        ({"account": "nobody"}, "account"),
        ({"name": "x\u202egpj"}, "name"),
        ({"name": "x\0y"}, "name"),
        ({"password": "another"}, "password"),
    ],
)
def test_what_is_wrong_with_a_wish_is_said_field_by_field(wrong, field):
    service_account()
    client = logged_in(make_user(SCIENTIST))
    body = {"name": "nightly", "actions": ["see envoys"], "password": PASSWORD} | wrong
    answer = client.post("/api/v1/access-tokens", body, content_type="application/json")
    assert answer.status_code == 400
    assert list(answer.json()["errors"]) == [field]
    assert not ServiceToken.objects.exists()


def test_an_administrator_makes_tokens_of_service_accounts_and_of_nobody_elses():
    administrator, person = make_user(ADMINISTRATOR), make_user(SCIENTIST)
    account = service_account()
    client = logged_in(administrator)
    page = client.get(
        reverse("access-token-create"), {"account": account.username}
    ).content.decode()
    assert "approve a package" in page
    assert "invite an envoy" not in page
    url = reverse("access-token-create")
    body = {"name": "registry", "days": 30, "actions": ["see runs"], "password": PASSWORD}
    assert client.post(url, body | {"account": account.username}).status_code == 200
    assert ServiceToken.objects.get().user == account
    assert client.get(url, {"account": person.username}).status_code == 404
    assert client.post(url, body | {"account": person.username}).status_code == 404


def test_one_sees_and_ends_ones_own_and_an_administrator_all():
    mine, theirs = made(make_user(SCIENTIST))[0], made(make_user(SCIENTIST))[0]
    client = logged_in(mine.user)
    assert client.get("/api/v1/access-tokens").json()["count"] == 1
    assert client.post(reverse("access-token-revoke", args=[theirs.pk])).status_code == 404
    assert client.post(f"/api/v1/access-tokens/{theirs.pk}/revoke").status_code == 404
    assert ServiceToken.objects.standing().count() == 2
    client = logged_in(make_user(ADMINISTRATOR))
    assert client.get("/api/v1/access-tokens").json()["count"] == 2
    client.post(reverse("access-token-revoke", args=[theirs.pk]))
    assert list(ServiceToken.objects.standing()) == [mine]
    client.post(
        reverse("admin:envoys_servicetoken_changelist"),
        {"action": "revoke", "_selected_action": [mine.pk]},
    )
    assert not ServiceToken.objects.standing().exists()


def test_a_service_account_logs_in_nowhere():
    account = service_account()
    assert account.is_program
    for password in ("", "None", account.password):
        body = {"username": account.username, "password": password}
        assert Client().post(reverse("login"), body).status_code == 200
        answer = Client().post("/api/login", body, content_type="application/json")
        assert answer.status_code in (400, 401)


def test_who_has_a_token_that_ends_soon_is_told_in_time():
    user = make_user(SCIENTIST)
    token, _ = made(user)
    ServiceToken.objects.update(expires_at=timezone.now() + timedelta(days=13))
    client = Client()
    response = client.post(
        reverse("login"), {"username": user.username, "password": PASSWORD}, follow=True
    )
    assert f"The access token {token} ends on" in response.content.decode()
    assert "ends soon" in client.get(reverse("access-token-list")).content.decode()
    assert client.get("/api/v1/access-tokens").json()["results"][0]["is_ending_soon"] is True


def test_an_empty_list_says_what_a_token_is_for():
    client = logged_in(make_user(SCIENTIST))
    assert "No program has a token yet" in client.get(reverse("access-token-list")).content.decode()


# Who it is that makes one


def wish(client: Client, **more):
    body = {"name": "nightly", "actions": ["see envoys"]} | more
    return client.post("/api/v1/access-tokens", body, content_type="application/json")


def bearer_of(user: User) -> dict[str, str]:
    body = {"username": user.username, "password": PASSWORD}
    answer = Client().post("/api/v1/token", body, content_type="application/json").json()
    return {"Authorization": f"Bearer {answer['access']}"}


def test_an_open_session_alone_makes_no_token_and_neither_does_a_logins_token():
    user = make_user(SCIENTIST)
    for client in (logged_in(user), Client(headers=bearer_of(user))):
        for more in ({}, {"password": ""}, {"password": "guessed"}):
            answer = wish(client, **more)
            assert answer.status_code == 400
            assert list(answer.json()["errors"]) == ["password"]
        assert wish(client, password=PASSWORD).status_code == 201
    page = logged_in(user).post(
        reverse("access-token-create"),
        {"name": "nightly", "days": 90, "actions": ["see envoys"], "password": "guessed"},
    )
    assert "This is not your password." in page.content.decode()
    assert ServiceToken.objects.count() == 2
    refused = AuditEvent.objects.filter(action="refused: make an access token", user=user)
    assert refused.count() == 3


def test_with_two_step_login_a_code_is_asked_too(settings):
    user = make_user(SCIENTIST)
    device = TwoStepDevice(user=user, confirmed=True)
    device.new_secret()
    codes = device.new_recovery_codes()
    device.save()
    client = logged_in(user)
    for otp in ("", "000000"):
        answer = wish(client, password=PASSWORD, otp=otp)
        assert list(answer.json()["errors"]) == ["otp"]
    TwoStepDevice.objects.update(throttling_failure_count=0, throttling_failure_timestamp=None)
    assert wish(client, password=PASSWORD, otp=codes[0]).status_code == 201
    url = reverse("access-token-create")
    assert 'name="otp"' in client.get(url).content.decode()
    body = {"name": "nightly", "days": 90, "actions": ["see envoys"], "password": PASSWORD}
    client.post(url, body)
    assert ServiceToken.objects.count() == 1
    client.post(url, body | {"otp": codes[1]})
    assert ServiceToken.objects.count() == 2


def test_what_is_about_patients_only_their_doctors_own_token_does():
    administrator, patient = make_user(ADMINISTRATOR), make_patient()
    account = service_account(envoy=patient.envoy)
    actions = ["see a patient", "see runs"]
    client = logged_in(administrator)
    answer = wish(client, account=account.username, actions=actions, password=PASSWORD)
    assert list(answer.json()["errors"]) == ["actions"]
    assert "cannot be for: see a patient." in answer.json()["detail"]
    # Nor does one whose row says so, from before.
    token, program = made(account, "see runs", made_by=administrator)
    ServiceToken.objects.filter(pk=token.pk).update(actions=actions)
    assert program.get("/api/v1/runs").status_code == 200
    assert program.get(f"/api/v1/patients/{patient.pk}").status_code == 403
    doctor = make_user(envoy=patient.envoy)
    answer = wish(logged_in(doctor), actions=actions, password=PASSWORD)
    program = program_of(answer.json()["key"])
    assert program.get(f"/api/v1/patients/{patient.pk}").status_code == 200
    assert program.get(f"/api/v1/patients/{make_patient().pk}").status_code == 404


def test_the_use_of_a_token_that_has_ended_is_audited_at_most_once_a_minute():
    token, program = made(make_user(SCIENTIST))
    ServiceToken.objects.update(revoked_at=timezone.now())
    events = AuditEvent.objects.filter(action="refused: use access token")
    for _ in range(3):
        assert program.get("/api/v1/envoys").status_code == 401
    assert [event.target for event in events] == [f"servicetoken:{token.pk}"]
    events.update(happened_at=timezone.now() - timedelta(minutes=2))
    program.get("/list_envoys")
    assert events.count() == 2
