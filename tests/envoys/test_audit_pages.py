"""The audit as administrators read it: page, export and calls."""

import csv
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest
from django.db import connection
from django.test.utils import CaptureQueriesContext
from django.urls import reverse
from django.utils import timezone

from envoys import audit, audit_views
from envoys.audit_chain import seal_events
from envoys.audit_search import find_events, page_of_events
from envoys.models import AuditEvent, AuditSeal, User
from tests.factories import make_envoy, make_patient, make_user

pytestmark = [pytest.mark.django_db, pytest.mark.filterwarnings("ignore:No directory at")]

LIST, EXPORT = reverse("envoys:audit-event-list"), reverse("envoys:audit-event-export")
CALL, CALL_EXPORT = reverse("api:audit-event-list"), reverse("api:audit-event-export")


@pytest.fixture
def administrator(client):
    user = make_user(User.Role.ADMINISTRATOR, username="=admin")
    client.force_login(user)
    return user


@pytest.fixture
def doctor():
    return make_user(username="amina")


def add(user: User | None, action: str, target: str, *, days_ago: int = 0) -> AuditEvent:
    event = AuditEvent.objects.create(user=user, action=action, target=target)
    event.happened_at = timezone.now() - timedelta(days=days_ago)
    event.save(update_fields=["happened_at"])
    return event


@pytest.fixture
def events(doctor) -> list[AuditEvent]:
    other = make_user()
    return [
        add(doctor, "saw patient", "patient:1", days_ago=9),
        add(doctor, "saw patient", "patient:11", days_ago=6),
        add(other, "saw risk", "admission:1", days_ago=3),
        add(other, "refused: see a patient", "patient:1"),
        add(None, "refused: log in", f"user:{doctor.pk}"),
    ]


def days_ago(days: int) -> str:
    return f"{timezone.now() - timedelta(days=days):%Y-%m-%d}"


def cases(events: list[AuditEvent]) -> list[tuple[dict[str, Any], list[int]]]:
    """Filters, and the places of the events that they find, newest first."""
    doctor, other = events[0].user, events[2].user
    assert doctor is not None
    assert other is not None
    return [
        ({"user": doctor.pk}, [1, 0]),
        ({"envoy": other.envoy_id}, [3, 2]),
        ({"action": "refused:"}, [4, 3]),
        ({"action": "saw risk"}, [2]),
        ({"kind": "patient"}, [3, 1, 0]),
        ({"kind": "patient", "number": 1}, [3, 0]),
        ({"since": days_ago(6), "until": days_ago(3)}, [2, 1]),
        ({"user": other.pk, "kind": "patient", "since": days_ago(1)}, [3]),
        ({"kind": "snapshot"}, []),
    ]


def numbers(found: Any) -> list[int]:
    return [int(each["number"] if "number" in each else each["id"]) for each in found]


def test_page_call_and_exports_find_the_same(client, administrator, events):
    for asked, places in cases(events):
        expected = [events[place].pk for place in places]
        page = client.get(LIST, asked).context["page"]
        called = client.get(CALL, asked).json()["results"]
        shown = [event.pk for event in page.events if event.user != administrator]
        own = {event.pk for event in AuditEvent.objects.filter(user=administrator)}
        assert shown == expected, asked
        assert [each for each in numbers(called) if each not in own] == expected, asked
        for export in (EXPORT, CALL_EXPORT):
            lines = list(csv.DictReader(text_of(client.get(export, asked)).splitlines()))
            own = {event.pk for event in AuditEvent.objects.filter(user=administrator)}
            assert [each for each in numbers(lines) if each not in own] == expected, (asked, export)


def text_of(response: Any) -> str:
    assert response.status_code == 200
    assert response.headers["Content-Type"].startswith("text/csv")
    return b"".join(response.streaming_content).decode()


def test_what_is_exported_runs_nothing_in_a_spreadsheet(client, administrator):
    client.get(LIST)
    (line,) = list(csv.DictReader(text_of(client.get(EXPORT)).splitlines()))[1:]
    assert line["username"] == "'=admin"
    assert (line["action"], line["row"]) == ("read the audit", "envoys:audit-event-list")


def test_reading_the_audit_is_recorded_without_what_was_looked_for(client, administrator):
    client.get(LIST, {"action": "Somebody's name"})
    client.get(CALL)
    text_of(client.get(EXPORT))
    client.get(CALL_EXPORT, headers={"accept": "text/csv"})
    assert list(AuditEvent.objects.order_by("pk").values_list("action", "target")) == [
        ("read the audit", "envoys:audit-event-list"),
        ("read the audit", "api:audit-event-list"),
        ("export the audit", "envoys:audit-event-export"),
        ("export the audit", "api:audit-event-export"),
    ]


def test_pages_lead_through_all_events_and_back(client, administrator, doctor, monkeypatch):
    monkeypatch.setattr(audit_views, "EVENTS_PER_PAGE", 3)
    made = [add(doctor, f"did {number}", "patient:1") for number in range(8)]
    moment = made[2].happened_at
    AuditEvent.objects.filter(pk__in=[each.pk for each in made[2:5]]).update(happened_at=moment)
    asked = {"user": doctor.pk}
    seen, page = [], client.get(LIST, asked).context["page"]
    assert page.newer is None
    while True:
        seen.append([event.pk for event in page.events])
        if page.older is None:
            break
        page = client.get(LIST, asked | {"before": page.older}).context["page"]
    assert [pk for each in seen for pk in each] == [event.pk for event in reversed(made)]
    back = []
    while page.newer is not None:
        page = client.get(LIST, asked | {"after": page.newer}).context["page"]
        back.append([event.pk for event in page.events])
    assert back == [seen[1], seen[0]]


def test_links_between_pages_keep_the_filters(client, administrator, doctor, monkeypatch):
    monkeypatch.setattr(audit_views, "EVENTS_PER_PAGE", 1)
    for number in range(3):
        add(doctor, f"did {number}", "patient:1")
    middle = AuditEvent.objects.order_by("-pk")[0].pk
    html = client.get(LIST, {"user": doctor.pk, "before": middle}).content.decode()
    assert f"?user={doctor.pk}&amp;after=" in html
    assert f"?user={doctor.pk}&amp;before=" in html
    assert f'{EXPORT}?user={doctor.pk}"' in html


@pytest.mark.parametrize(
    ("asked", "advice"),
    [
        ({"number": "1"}, "Choose of which kind"),
        ({"number": "x", "kind": "patient"}, "Enter a whole number"),
        ({"number": str(10**30), "kind": "patient"}, "Ensure this value is less"),
        ({"kind": "nothing"}, "Select a valid choice"),
        ({"user": "0"}, "Select a valid choice"),
        ({"since": "yesterday"}, "Enter a valid date"),
        ({"since": "2026-02-02", "until": "2026-02-01"}, "This day is before the first"),
    ],
)
def test_a_filter_that_cannot_be_is_explained(client, administrator, asked, advice):
    for page in (LIST, EXPORT):
        response = client.get(page, asked)
        assert response.status_code == 200
        assert advice in response.content.decode()
    for call in (CALL, CALL_EXPORT):
        response = client.get(
            call, asked, headers={"accept": "*/*" if call == CALL else "text/csv"}
        )
        if "user" in asked or set(asked) == {"since", "until"}:
            continue  # finds nothing there
        assert response.status_code == 400
        assert set(response.json()) == {"type", "detail", "errors"}


@pytest.mark.parametrize("cursor", ["x", "-1", "0", str(10**30), "²"])
def test_a_cursor_that_is_none_shows_the_newest(client, administrator, cursor):
    for name in ("before", "after"):
        assert client.get(LIST, {name: cursor}).status_code == 200


def test_the_page_warns_of_a_seal_that_storage_does_not_take(client, administrator, doctor):
    """As where another head lies in its place: what the storage refuses is refused for good."""
    add(doctor, "saw patient", "patient:3")
    seal_events()
    seal = AuditSeal.objects.get()
    words = "another seal lies in its place"
    assert words not in client.get(LIST).content.decode()
    an_hour_ago = timezone.now() - timedelta(hours=1)
    AuditSeal.objects.filter(pk=seal.pk).update(stored_at=None, sealed_at=an_hour_ago)
    assert words in client.get(LIST).content.decode()


def test_the_page_says_how_far_the_sealing_is(client, administrator, doctor):
    def text() -> str:
        return " ".join(client.get(LIST).content.decode().split())

    assert "Nothing is sealed yet. 0 events not sealed yet" in text()
    event = audit.record(doctor, "saw patient", make_patient(doctor.envoy))
    seal_events()
    assert "seal 1. 0 events not sealed yet" in text()
    assert "1 event not sealed yet" in text()  # that it was read
    assert "have waited" not in text()
    old = timezone.now() - timedelta(hours=1)
    AuditEvent.objects.exclude(pk=event.pk).update(happened_at=old)
    assert "have waited for more than a quarter of an hour" in text()


def test_an_empty_audit_and_an_event_of_nobody_are_said_in_words(client, administrator, doctor):
    assert "No event yet" in client.get(LIST).content.decode()
    add(None, "refused: log in", f"user:{doctor.pk}")
    assert "nobody logged in" in client.get(LIST).content.decode()
    assert "No event like that" in client.get(LIST, {"kind": "snapshot"}).content.decode()


@pytest.mark.parametrize(
    "role", [User.Role.DOCTOR, User.Role.DATA_SCIENTIST, User.Role.PUBLIC_HEALTH]
)
def test_the_audit_is_for_administrators(client, role):
    client.force_login(make_user(role))
    for url in (LIST, EXPORT, CALL, CALL_EXPORT):
        assert client.get(url).status_code == 404
    assert "Audit" not in client.get(reverse("publichealth:citizen")).content.decode()


def test_calls_page_through_all_events(client, administrator, doctor):
    made = [add(doctor, f"did {number}", "patient:1").pk for number in range(5)]
    url, found = f"{CALL}?limit=2&user={doctor.pk}", []
    while url:
        answer = client.get(url).json()
        assert len(answer["results"]) <= 2
        found += numbers(answer["results"])
        url = answer["next"]
    assert found == made[::-1]


def test_a_page_takes_as_many_queries_however_many_events_there_are(client, administrator):
    def num_queries() -> int:
        with CaptureQueriesContext(connection) as captured:
            client.get(LIST)
        return len(captured)

    add(make_user(), "did", "patient:1")
    num_queries()
    few = num_queries()
    for _ in range(10):
        add(make_user(envoy=make_envoy()), "did", "patient:1")
    assert num_queries() == few


def test_no_page_sorts_or_scans_the_events_before_it(doctor):
    """What the database says that it would do for the filters asked most."""
    edge = add(doctor, "did", "patient:1")
    moment = datetime.now(UTC).date()
    for asked in ({}, {"user_id": doctor.pk}, {"kind": "patient", "number": 1}, {"until": moment}):
        with CaptureQueriesContext(connection) as captured:
            page_of_events(find_events(**asked), size=3, before=edge.pk, after=None)
        sql = captured.captured_queries[-1]["sql"]
        with connection.cursor() as cursor:
            cursor.execute(f"EXPLAIN QUERY PLAN {sql}" if is_sqlite() else f"EXPLAIN {sql}")
            plan = str(cursor.fetchall())
        if is_sqlite():
            assert "USING INDEX" in plan, plan
            assert "TEMP B-TREE" not in plan, plan


def is_sqlite() -> bool:
    return connection.vendor == "sqlite"
