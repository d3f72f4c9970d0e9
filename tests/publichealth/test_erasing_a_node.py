"""What of a node of readings goes with it, what stays, and what the page says of that."""

import pytest
from django.urls import reverse

from envoys.models import Envoy, User
from federated.recalibration import recalibrate
from inference.services import delete_envoy, what_will_go
from publichealth.models import DriftCheck, Reading
from publichealth.services import serving
from tests.drifting import make_node, make_readings, make_trained_serving
from tests.factories import make_envoy, make_participant, make_user
from tests.publichealth.test_serving import make_nodes, released_version
from tests.training.test_run_pages import text_of
from training.models import TrainingRun

pytestmark = [pytest.mark.django_db, pytest.mark.filterwarnings("ignore:No directory at")]


@pytest.fixture
def trained():
    """A served version and the two nodes that trained it, each with its histograms."""
    nodes = [make_node(f"Node {number}", slug=f"node-{number}") for number in (1, 2)]
    row = make_trained_serving(*nodes)
    for node in nodes:
        make_participant(row.version.run, node)
    TrainingRun.objects.update(status=TrainingRun.Status.FINISHED)
    return row, nodes


def test_of_an_erased_node_no_histogram_stays_and_the_model_is_served_as_before(queue, trained):
    row, (gone, other) = trained
    before = row.training_distribution
    assert before[str(gone.pk)]["aqi"]["counts"]
    risks = serving.load_served(row.pk).risks([{"aqi": 90.0}, {"age": 60.0, "aqi": 90.0}])
    make_readings(gone, 12)
    DriftCheck.objects.create(envoy=gone, version=row.version, status="COMPLETE")

    delete_envoy(gone, confirmed_name=gone.name, deleted_by=None)
    queue.work()

    assert Envoy.objects.get(pk=gone.pk).status == Envoy.Status.DELETED
    assert not Reading.objects.exists()
    assert not DriftCheck.objects.exists()
    row.refresh_from_db()
    assert row.training_distribution == {
        str(gone.pk): {"aqi": {"num_rows": 1000, "num_readings": 1000}},
        str(other.pk): before[str(other.pk)],
    }
    serving.load_served.cache_clear()
    again = serving.load_served(row.pk).risks([{"aqi": 90.0}, {"age": 60.0, "aqi": 90.0}])
    assert list(again) == list(risks)


def test_of_a_node_that_is_erased_while_a_version_is_prepared_no_histogram_is_stored(
    queue, monkeypatch
):
    nodes = make_nodes()
    version = released_version(queue, nodes)
    gone = nodes[1]

    def erased_meanwhile(margins):
        delete_envoy(gone, confirmed_name=gone.name, deleted_by=None)
        queue.work()
        assert not Reading.objects.filter(envoy=gone).exists()
        return recalibrate(margins)

    monkeypatch.setattr(serving, "recalibrate", erased_meanwhile)
    row = serving.prepare_now(version)
    assert row.status == "COMPLETE"
    for node in nodes:
        (some, *_) = row.training_distribution[str(node.pk)].values()
        assert ("counts" in some) == (node != gone)
        assert some["num_readings"] > 0
    assert serving.load_served(row.pk).assess({"pm25": 400.0}).risk > 0


def test_the_page_lists_readings_and_drift_checks_and_what_stays(client, trained):
    row, (node, _) = trained
    make_readings(node, 9)
    DriftCheck.objects.create(envoy=node, version=row.version)
    counts = dict(what_will_go(node).in_words())
    assert (counts["Readings"], counts["Drift checks"]) == ("–", "1")
    make_readings(node, 3)
    client.force_login(make_user(User.Role.DATA_SCIENTIST))
    text = text_of(client.get(reverse("inference:envoy-delete", args=[node.pk])))
    assert "Readings 12" in text
    assert "Drift checks 1" in text
    stays = "in how many rows each input was measured here"
    assert stays in text
    hospital = make_envoy()
    make_participant(row.version.run, hospital)
    page = client.get(reverse("inference:envoy-delete", args=[hospital.pk]))
    assert "What those models have learned stays in them." in text_of(page)
    assert stays not in text_of(page)
