from datetime import UTC, datetime, timedelta
from types import SimpleNamespace

import numpy as np
import pytest
from django.utils import timezone

from envoys.errors import NotNowError
from envoys.models import AuditEvent, Envoy
from publichealth.models import Reading
from publichealth.services import serving
from publichealth.services.readings import (
    InvalidReadingsError,
    NewReading,
    Recorded,
    record_readings,
)
from tests.factories import make_envoy, make_user, make_version

pytestmark = pytest.mark.django_db

NOON = datetime(2026, 3, 1, 12, tzinfo=UTC)


@pytest.fixture
def node() -> Envoy:
    return make_envoy(kind=Envoy.Kind.WEARABLES)


@pytest.fixture(autouse=True)
def no_model(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(serving, "served_model", lambda: None)


def reading(**values: object) -> NewReading:
    given = {"subject_id": "a", "measured_at": NOON, "values": {"heart_rate": 70.0}, **values}
    return NewReading(**given)  # type: ignore[arg-type]


def test_what_was_not_measured_is_null(node):
    recorded = record_readings(
        node, [reading(values={"spo2": 97.0, "smoker": 0.0}, city="Lahore", outcome=1, tier=2)]
    )

    assert recorded == Recorded(num_new=1, num_known=0)
    row = Reading.objects.get()
    assert row.values == {"spo2": 97.0, "smoker": 0.0}
    assert row.heart_rate is None
    assert (row.envoy, row.subject_id, row.measured_at) == (node, "a", NOON)
    assert (row.city, row.outcome, row.tier, row.risk_score) == ("Lahore", 1, 2, None)


def test_the_same_readings_sent_twice_are_there_once(node):
    first = [reading(), reading(measured_at=NOON + timedelta(minutes=1)), reading(subject_id="b")]
    assert record_readings(node, first) == Recorded(num_new=3, num_known=0)

    changed = reading(values={"heart_rate": 99.0})
    new = reading(subject_id="c")
    assert record_readings(node, [changed, new, new]) == Recorded(num_new=1, num_known=2)
    assert sorted(Reading.objects.values_list("subject_id", "heart_rate")) == [
        ("a", 70.0),
        ("a", 70.0),
        ("b", 70.0),
        ("c", 70.0),
    ]


def test_another_node_may_know_the_same_subject_at_the_same_moment(node):
    record_readings(node, [reading()])
    other = make_envoy(kind=Envoy.Kind.CLINIC)
    assert record_readings(other, [reading()]).num_new == 1


def test_more_readings_than_fit_into_one_transaction_are_all_stored(node, monkeypatch):
    monkeypatch.setattr("publichealth.services.readings.RECORDED_AT_ONCE", 3)
    many = [reading(subject_id=f"s{number}") for number in range(8)]
    assert record_readings(node, many).num_new == 8
    assert record_readings(node, many).num_known == 8
    assert Reading.objects.count() == 8


@pytest.mark.parametrize(
    ("values", "field", "words"),
    [
        ({"values": {"spo2": 40.0}}, "spo2", "spo2 lies between 50 and 100 %, not 40"),
        ({"values": {"pm25": 2000.0}}, "pm25", "pm25 lies between 0 and 1000 µg/m³, not 2000"),
        ({"values": {"age": float("nan")}}, "age", "age lies between 0 and 120 years, not nan"),
        ({"values": {"smoker": 0.5}}, "smoker", "smoker is 0 (no) or 1 (yes), not 0.5"),
        ({"values": {"mood": 1.0}}, "mood", "no input is called mood: there are heart_rate, "),
        ({"values": {}}, "values", "no input is there: it takes one at least of heart_rate, "),
        ({"subject_id": ""}, "subject_id", "subject_id is empty"),
        ({"subject_id": "x" * 65}, "subject_id", "subject_id has 65 characters, 64 is the most"),
        ({"city": "x" * 61}, "city", "city has at most 60 characters"),
        ({"measured_at": NOON.replace(tzinfo=None)}, "measured_at", "measured_at has no time zone"),
        (
            {"measured_at": datetime.min.replace(tzinfo=UTC)},
            "measured_at",
            "measured_at lies before 1900",
        ),
        ({"outcome": 2}, "outcome", "outcome is 0 (low risk) or 1 (high risk), not 2"),
        ({"tier": 3}, "tier", "tier is 0, 1 or 2 (Low, Medium, High), not 3"),
    ],
)
def test_a_reading_that_cannot_be_is_refused_and_nothing_beside_it_is_stored(
    node, values, field, words
):
    with pytest.raises(InvalidReadingsError) as caught:
        record_readings(node, [reading(), reading(**values)])

    (problem,) = caught.value.problems
    assert (problem.row, problem.field) == (1, field)
    assert problem.text.startswith(words)
    assert str(caught.value).startswith(f"row 2: {words}")
    assert not Reading.objects.exists()


def test_every_wrong_field_is_told(node):
    wrong = reading(subject_id="", values={"spo2": 1.0, "heart_rate": 1.0, "age": 30.0}, tier=7)
    with pytest.raises(InvalidReadingsError) as caught:
        record_readings(node, [wrong])
    assert [each.field for each in caught.value.problems] == [
        "subject_id",
        "spo2",
        "heart_rate",
        "tier",
    ]


def test_a_clock_may_be_five_minutes_ahead(node):
    now = timezone.now()
    assert record_readings(node, [reading(measured_at=now + timedelta(minutes=4))]).num_new == 1
    with pytest.raises(InvalidReadingsError, match="is in the future"):
        record_readings(node, [reading(measured_at=now + timedelta(minutes=6))])


@pytest.mark.parametrize(
    ("values", "words"),
    [
        ({"kind": Envoy.Kind.HOSPITAL}, "is a hospital: readings belong to a node"),
        ({"kind": Envoy.Kind.CLINIC, "status": Envoy.Status.DELETED}, "has been deleted"),
    ],
)
def test_an_envoy_that_takes_no_readings_says_why(values, words):
    with pytest.raises(NotNowError, match=words):
        record_readings(make_envoy(**values), [reading()])
    assert not Reading.objects.exists()


def test_readings_without_an_outcome_are_scored_with_the_released_model(node, monkeypatch):
    version, asked = make_version(), []

    def risks(values):
        asked.extend(values)
        return np.array([0.0, 0.75])

    monkeypatch.setattr(
        serving, "served_model", lambda: SimpleNamespace(version=version, risks=risks)
    )
    record_readings(
        node,
        [
            reading(subject_id="a"),
            reading(subject_id="b", outcome=0),
            reading(subject_id="c", tier=1),
            reading(subject_id="d", values={"aqi": 200.0}),
        ],
    )

    assert asked == [{"heart_rate": 70.0}, {"aqi": 200.0}]
    scores = Reading.objects.order_by("subject_id").values_list("risk_score", "scored_with")
    assert list(scores) == [(0.0, version.pk), (None, None), (None, None), (0.75, version.pk)]


def test_who_sent_readings_is_audited_and_the_installation_itself_is_not(node):
    record_readings(node, [reading()])
    assert not AuditEvent.objects.exists()
    doctor = make_user(envoy=node)
    record_readings(node, [reading(subject_id="b")], recorded_by=doctor)
    event = AuditEvent.objects.get()
    assert (event.user, event.action, event.target) == (
        doctor,
        "recorded readings",
        f"envoy:{node.pk}",
    )
