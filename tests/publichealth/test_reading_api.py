import pytest
from django.urls import reverse

from envoys.models import AuditEvent, Envoy, User
from publichealth.models import Reading
from publichealth.services import serving
from tests.api import Program
from tests.factories import make_envoy, make_user

pytestmark = [pytest.mark.django_db, pytest.mark.filterwarnings("ignore:No directory at")]

URL = "/api/v1/readings"
ROW = {"subject_id": "s1", "measured_at": "2026-01-01T12:00:00Z", "spo2": 97, "smoker": None}


@pytest.fixture(autouse=True)
def no_model(monkeypatch):
    monkeypatch.setattr(serving, "served_model", lambda: None)


@pytest.fixture
def keeper():
    """A program of the account that a node's keeper has."""
    return Program(make_user(envoy=make_envoy(name="Clinic node", kind=Envoy.Kind.CLINIC)))


def test_a_device_records_readings_and_reads_them_back(keeper):
    rows = [ROW, {**ROW, "subject_id": "s2", "city": "Lahore", "outcome": 1, "tier": 2}]
    assert keeper.post(URL, {"readings": rows}) == {"num_new": 2, "num_known": 0}
    assert keeper.post(URL, {"readings": rows}) == {"num_new": 0, "num_known": 2}

    page = keeper.get(f"{URL}?city=Lahore")
    (row,) = page["results"]
    assert (row["subject_id"], row["spo2"], row["heart_rate"]) == ("s2", 97.0, None)
    assert (row["outcome"], row["tier"], row["risk_score"]) == (1, 2, None)
    assert keeper.get(f"{URL}?measured_from=2026-01-02T00:00:00Z")["count"] == 0
    assert keeper.get(f"{URL}?measured_before=2026-01-02T00:00:00Z")["count"] == 2
    actions = AuditEvent.objects.values_list("action", flat=True)
    assert set(actions) >= {"recorded readings", "listed readings"}


def test_a_call_that_is_sent_again_with_its_key_gets_its_first_answer(keeper):
    for _ in range(2):
        answer = keeper.post(URL, {"readings": [ROW]}, key="batch-1")
        assert answer == {"num_new": 1, "num_known": 0}
    assert keeper.headers["Idempotency-Replayed"] == "true"
    assert Reading.objects.count() == 1


@pytest.mark.parametrize(
    ("change", "field", "words"),
    [
        ({"spo2": 12}, "spo2", "spo2 lies between 50 and 100 %, not 12"),
        ({"spo2": "much"}, "spo2", "A valid number is required."),
        ({"spo2": "NaN"}, "spo2", "A valid number is required."),
        ({"smoker": 0.5}, "smoker", "smoker is 0 (no) or 1 (yes), not 0.5"),
        ({"spo2": None}, "values", "no input is there"),
        ({"sp02": 97}, "sp02", "There is no such field."),
        ({"subject_id": "x" * 65}, "subject_id", "Ensure this field has no more than 64"),
        ({"measured_at": "2099-01-01T00:00Z"}, "measured_at", "measured_at 2099-01-01 00:00 is in"),
        ({"outcome": 2}, "outcome", '"2" is not a valid choice.'),
    ],
)
def test_what_is_wrong_is_told_by_row_and_field_and_nothing_is_recorded(
    keeper, change, field, words
):
    answer = keeper.post(URL, {"readings": [ROW, {**ROW, **change}]}, code=400)
    assert answer["errors"][f"readings.1.{field}"][0].startswith(words)
    assert not Reading.objects.exists()


@pytest.mark.parametrize(
    "body",
    [{}, {"readings": []}, {"readings": [ROW] * 1001}, {"readings": 3}, [ROW], {"readings": [3]}],
)
def test_a_body_that_is_no_batch_is_refused(keeper, body):
    assert keeper.post(URL, body, code=400)["type"] == "invalid"
    assert not Reading.objects.exists()


def test_a_thousand_readings_fit_into_a_call(keeper):
    rows = [{**ROW, "subject_id": f"s{number}"} for number in range(1000)]
    assert keeper.post(URL, {"readings": rows})["num_new"] == 1000


def test_nobody_but_a_nodes_own_keeper_sees_its_readings(keeper):
    keeper.post(URL, {"readings": [ROW]})
    other = Program(make_user(envoy=make_envoy(kind=Envoy.Kind.CLINIC)))
    assert other.get(URL)["count"] == 0
    for role in (User.Role.DATA_SCIENTIST, User.Role.PUBLIC_HEALTH, User.Role.ADMINISTRATOR):
        Program(make_user(role)).get(URL, code=404)


def test_a_hospital_takes_no_readings():
    doctor = Program(make_user())
    answer = doctor.post(URL, {"readings": [ROW]}, code=409)
    assert "is a hospital: readings belong to a node" in answer["detail"]


def test_an_envoys_kind_is_chosen_when_it_is_invited_and_stays():
    scientist = Program(make_user(User.Role.DATA_SCIENTIST))
    envoy = scientist.post("/api/v1/envoys", {"name": "Air", "kind": "ENVIRONMENT"})
    assert envoy["kind"] == "ENVIRONMENT"
    assert scientist.post("/api/v1/envoys", {"name": "Oslo"})["kind"] == "HOSPITAL"
    found = scientist.get("/api/v1/envoys?kind=ENVIRONMENT")["results"]
    assert [each["name"] for each in found] == ["Air"]
    changed = scientist.patch(f"/api/v1/envoys/{envoy['id']}", {"kind": "CLINIC", "name": "Air 2"})
    assert (changed["name"], changed["kind"]) == ("Air 2", "ENVIRONMENT")
    refused = scientist.post("/api/v1/envoys", {"name": "Cars", "kind": "CARS"}, code=400)
    assert "kind" in refused["errors"]


def test_the_published_way_to_invite_an_envoy_makes_a_hospital_as_ever():
    scientist = Program(make_user(User.Role.DATA_SCIENTIST))
    answer = scientist.post("/create_envoy", {"name": "Oslo", "kind": "CLINIC"}, code=200)
    assert set(answer) == {"message", "id", "serial_id"}
    assert Envoy.objects.get().kind == "HOSPITAL"


def test_pages_say_what_an_envoy_is_and_ask_for_it_once(client):
    client.force_login(make_user(User.Role.DATA_SCIENTIST))
    assert 'name="kind"' in client.get(reverse("envoys:envoy-create")).content.decode()
    client.post(reverse("envoys:envoy-create"), {"name": "Wrists", "kind": "WEARABLES"})
    client.post(reverse("envoys:envoy-create"), {"name": "Oslo"})
    node, hospital = Envoy.objects.get(name="Wrists"), Envoy.objects.get(name="Oslo")
    assert (node.kind, hospital.kind) == ("WEARABLES", "HOSPITAL")

    edit = reverse("envoys:envoy-edit", args=[node.pk])
    assert 'name="kind"' not in client.get(edit).content.decode()
    client.post(edit, {"name": "Wrists 2", "kind": "CLINIC"})
    node.refresh_from_db()
    assert (node.name, node.kind) == ("Wrists 2", "WEARABLES")

    badge = '<span class="badge bg-azure-lt">Wearables</span>'
    assert badge in client.get(reverse("training:envoy-list")).content.decode()
    for envoy, is_there in ((node, True), (hospital, False)):
        page = client.get(reverse("training:envoy-detail", args=[envoy.pk])).content.decode()
        assert ('class="badge bg-azure-lt"' in page) == is_there
