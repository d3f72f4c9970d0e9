import os
import signal
from collections import Counter
from datetime import timedelta
from io import StringIO

import pytest
from django.core.management import CommandError, call_command
from django.utils import timezone

from envoys.models import Envoy
from federated.readings import INPUT_NAMES
from federated.synthetic_readings import generate
from publichealth.management.commands import stream_readings
from publichealth.models import Reading
from tests.factories import make_envoy

pytestmark = pytest.mark.django_db


def run(command: str, *arguments: str) -> str:
    out = StringIO()
    call_command(command, *arguments, stdout=out)
    return out.getvalue()


def test_generate_readings_makes_the_nodes_and_says_how_good_a_model_can_be():
    said = run("generate_readings", "--rows", "60", "--no-cities").splitlines()

    assert [line.split(":")[0] for line in said] == ["Wearables", "City air", "Clinics"]
    assert all("60 rows, " in line for line in said)
    assert all(line.endswith("best reachable accuracy 1.0000") for line in said)
    assert dict(Envoy.objects.values_list("slug", "kind")) == {
        "wearables": "WEARABLES",
        "city-air": "ENVIRONMENT",
        "clinics": "CLINIC",
    }
    stored = Reading.objects.filter(envoy__slug="clinics").order_by("subject_id")
    assert [row.to_record() for row in stored] == generate("clinic", num_rows=60, seed=0).records
    now = timezone.now()
    assert all(
        now - timedelta(days=32) < row.measured_at and row.measured_at.date() < now.date()
        for row in stored
    )


def test_generate_readings_again_adds_nothing_and_another_recipe_is_refused():
    arguments = ["--rows", "30", "--nodes", "clinic", "--no-cities"]
    run("generate_readings", *arguments)
    again = run("generate_readings", *arguments)
    assert again.startswith("Clinics: 30 rows (30 were there), ")
    for other in (["--seed", "1"], ["--gaps", "0.3"], ["--noise", "2"]):
        with pytest.raises(CommandError, match="another seed, noise, gaps or number of rows"):
            run("generate_readings", *arguments, *other)
    assert Reading.objects.count() == 30


def test_readings_of_an_earlier_day_are_not_doubled():
    arguments = ["--rows", "20", "--nodes", "wearables", "--no-cities"]
    run("generate_readings", *arguments)
    for row in Reading.objects.all():  # as if they had been made the day before
        row.measured_at -= timedelta(days=1)
        row.save(update_fields=["measured_at"])
    run("generate_readings", *arguments)
    assert Reading.objects.count() == 20


def test_generate_readings_says_what_noise_and_gaps_cost():
    said = run(
        "generate_readings",
        *("--rows", "300", "--nodes", "clinic", "--no-cities"),
        *("--noise", "0.5", "--gaps", "0.2"),
    )
    expected = generate("clinic", num_rows=300, seed=0, noise=0.5, gaps=0.2)
    assert expected.best_accuracy < 0.9
    assert said.rstrip().endswith(f"best reachable accuracy {expected.best_accuracy:.4f}")
    num_values = sum(len(row.values) for row in Reading.objects.all())
    assert num_values == sum(len(record.values) for record in expected.records)


def test_nine_cities_have_a_day_of_unlabelled_readings_that_is_not_doubled(monkeypatch):
    from publichealth.services import synthetic_nodes

    monkeypatch.setattr(synthetic_nodes, "MONITORED", timedelta(hours=1))
    assert run("generate_readings", "--nodes", "clinic", "--rows", "1").endswith(
        "City monitors: 108 rows, without an outcome\n"
    )
    readings = Reading.objects.filter(envoy__name="City monitors")
    assert set(Counter(readings.values_list("city", flat=True)).values()) == {12}
    assert readings.values("city").distinct().count() == 9
    assert not readings.exclude(outcome=None, tier=None).exists()
    assert all(row.measured_at.minute % 5 == 0 for row in readings)
    known = set(readings[0].values)
    assert set(INPUT_NAMES) - known == {"bmi", "active", "cough", "breathless"}

    before = readings.count()
    run("generate_readings", "--nodes", "clinic", "--rows", "1")
    assert readings.count() - before in (0, 9)  # nine, if five minutes have just passed


def test_a_node_of_another_kind_is_not_filled():
    make_envoy(name="Clinics", slug="clinics")
    with pytest.raises(CommandError, match="Clinics is here already, as 'Hospital'"):
        run("generate_readings", "--nodes", "clinic", "--rows", "5", "--no-cities")
    assert not Reading.objects.exists()


def test_stream_readings_reports_each_city_at_each_turn():
    said = run("stream_readings", "--seconds", "0.01", "--count", "3")
    assert said == "City monitors: 3 readings of each city.\n"
    assert Counter(Reading.objects.values_list("city", flat=True))["Lahore"] == 3
    assert Reading.objects.count() == 27


def test_stream_readings_moves_an_input_that_is_to_drift():
    run("stream_readings", "--seconds", "0.01", "--count", "20", "--shift", "temperature=3")
    moved = [row.values["temperature"] for row in Reading.objects.all()]
    assert 44 < sum(moved) / len(moved) < 50  # 24 + 3 × 8, less what the instrument does not show


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_stream_readings_ends_cleanly_when_it_is_told_to(monkeypatch, number):
    standing = signal.getsignal(number)
    record = stream_readings.record_readings

    def record_and_be_stopped(envoy, new):
        os.kill(os.getpid(), number)
        return record(envoy, new)

    monkeypatch.setattr(stream_readings, "record_readings", record_and_be_stopped)
    said = run("stream_readings", "--seconds", "60")
    assert said == "City monitors: 1 readings of each city.\n"
    assert Reading.objects.count() == 9
    assert signal.getsignal(number) == standing


def test_stream_readings_does_not_bring_a_deleted_node_back(monkeypatch):
    record = stream_readings.record_readings

    def record_and_delete(envoy, new):
        recorded = record(envoy, new)
        gone = Envoy.objects.get(pk=envoy.pk)
        gone.mark_deleted()
        gone.save()
        return recorded

    monkeypatch.setattr(stream_readings, "record_readings", record_and_delete)
    said = run("stream_readings", "--seconds", "0.01", "--count", "5")
    assert said == (
        "City monitors has been deleted: it takes no more readings\n"
        "City monitors: 1 readings of each city.\n"
    )
    assert not Envoy.objects.standing().exists()


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (["--shift", "mood=1"], "no input is called 'mood': there are pm25, "),
        (["--shift", "pm25"], "'pm25' is not as pm25=1.5"),
        (["--seconds", "0"], "0 is no number of seconds from above 0 to a day"),
    ],
)
def test_stream_readings_refuses_what_it_cannot_do(arguments, words):
    with pytest.raises(CommandError, match=words):
        run("stream_readings", *arguments)
    assert not Reading.objects.exists()
