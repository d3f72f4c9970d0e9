"""A released model of readings is prepared by a worker, and served once it is."""

from datetime import timedelta

import numpy as np
import pytest
from django.db import connection
from django.test.utils import CaptureQueriesContext
from django.utils import timezone

from envoys.errors import StorageError
from envoys.models import Envoy
from federated.errors import SchemaMismatchError
from federated.synthetic_readings import generate
from publichealth.models import Reading, Serving
from publichealth.services import serving
from tests.factories import make_envoy
from tests.federation import finish, object_path
from tests.health import make_health_version, make_params, make_serving
from training import services
from training.models import ModelVersion

pytestmark = pytest.mark.django_db

KINDS = {
    "wearables": Envoy.Kind.WEARABLES,
    "environment": Envoy.Kind.ENVIRONMENT,
    "clinic": Envoy.Kind.CLINIC,
}


def make_nodes(num_rows=150):
    nodes = []
    for name, kind in KINDS.items():
        node = make_envoy(name=f"Node {name}", kind=kind)
        Reading.objects.bulk_create(
            Reading(
                envoy=node,
                subject_id=record.subject_id,
                measured_at=timezone.now() - timedelta(minutes=number),
                outcome=record.outcome,
                **record.values,
            )
            for number, record in enumerate(generate(name, num_rows=num_rows, seed=1).records)
        )
        nodes.append(node)
    return nodes


def make_live_reading(node, **values):
    values.setdefault("measured_at", timezone.now() - timedelta(hours=1))
    return Reading.objects.create(envoy=node, subject_id="live", **values)


def released_version(queue, nodes):
    run = finish(nodes, queue, study=services.study_for("health_risk"))
    version = run.versions.of_federation().get()
    services.distribute_version(version, distributed_by=None, envoys=[])
    queue.work()
    version.refresh_from_db()
    return version


def test_a_released_version_is_calibrated_and_then_served(queue):
    nodes = make_nodes()
    version = released_version(queue, nodes)
    assert serving.served_model() is None

    serving.request_missing_servings()
    serving.request_missing_servings()
    assert queue.names() == ["prepare_serving_task"]
    queue.work(copies=2)

    row = Serving.objects.get(version=version)
    assert row.status == Serving.Status.COMPLETE
    assert 30 < row.num_validation < 120  # 15 of a hundred of 450
    assert np.isfinite([row.slope, row.intercept]).all()
    assert row.slope > 0
    assert 0 < row.threshold < 1
    assert set(row.training_distribution) == {str(node.pk) for node in nodes}
    city_air = row.training_distribution[str(nodes[1].pk)]
    assert set(city_air) == {
        *("pm25", "pm10", "no2", "o3"),
        *("temperature", "humidity", "wind_speed"),
    }
    assert city_air["pm25"]["num_readings"] > 80

    served = serving.served_model()
    assert served is not None
    assert (served.version, served.name) == (version, "health-risk v1")
    assert served.threshold == row.threshold
    assert "pm25" in served.inputs
    assert "bmi" not in served.inputs
    poor, good = {"pm25": 400, "no2": 150, "pm10": 300}, {"pm25": 2, "no2": 2, "pm10": 5}
    assert served.assess(poor).risk > served.threshold > served.assess(good).risk


def test_readings_of_the_last_day_are_scored_once_a_model_is_ready(queue):
    nodes = make_nodes()
    version = released_version(queue, nodes)
    air = {"pm25": 60.0, "pm10": 90.0, "no2": 40.0}
    live = make_live_reading(nodes[1], **air)
    unknown = make_live_reading(nodes[1], bmi=30.0, measured_at=timezone.now())
    old = make_live_reading(nodes[1], **air, measured_at=timezone.now() - timedelta(hours=25))
    labelled = make_live_reading(
        nodes[1], **air, outcome=1, measured_at=timezone.now() - timedelta(hours=2)
    )
    assert serving.prepare_now(version).status == Serving.Status.COMPLETE
    for reading in (live, unknown, old, labelled):
        reading.refresh_from_db()
    served = serving.served_model()
    assert served is not None
    assert [live.risk_score] == served.risks([air])
    assert live.scored_with == version
    assert unknown.risk_score is unknown.scored_with is None  # no node knows of a BMI
    assert old.risk_score is None
    assert labelled.risk_score is None


def test_all_of_many_waiting_readings_are_scored(queue, monkeypatch):
    monkeypatch.setattr(serving, "SCORED_AT_ONCE", 3)
    node = make_envoy(kind=Envoy.Kind.WEARABLES)
    now = timezone.now()
    for number in range(7):
        make_live_reading(node, aqi=60, measured_at=now - timedelta(minutes=number))
    make_serving()
    assert serving.score_unscored() == 7
    assert not Reading.objects.filter(risk_score=None).exists()


def test_a_version_without_validation_rows_keeps_the_models_own_risk():
    row = serving.prepare_now(make_health_version())
    assert (row.slope, row.intercept, row.threshold, row.num_validation) == (1, 0, 0.5, 0)


def test_what_cannot_be_prepared_says_why():
    version = make_health_version()
    object_path(f"{version.storage_key}/model.safetensors").unlink()
    row = Serving.objects.create(version=version, enqueued_at=timezone.now())
    with pytest.raises(StorageError):
        serving.prepare_serving(row.pk)
    row.refresh_from_db()
    assert row.status == Serving.Status.FAILED
    assert row.reason
    assert serving.served_model() is None


def test_a_version_of_other_inputs_is_refused():
    version = make_health_version()
    version.manifest["schema_sha256"] = "0" * 64
    version.save(update_fields=["manifest"])
    with pytest.raises(SchemaMismatchError, match="train and release a newer version"):
        serving.prepare_now(version)


def test_the_version_before_serves_until_the_new_one_is_ready():
    first = make_serving()
    second = make_health_version(make_params({"aqi": 5.0}))
    first.version.refresh_from_db()
    assert first.version.state == ModelVersion.State.RETIRED
    serving.forget_served()
    served = serving.served_model()
    assert served is not None
    assert served.version == first.version
    make_serving(second)
    served = serving.served_model()
    assert served is not None
    assert served.version == second


def test_health_risk_comes_before_health_tier():
    tier = make_serving(
        make_health_version(make_params(num_classes=3, bias=1.0), target="health_tier")
    )
    served = serving.served_model()
    assert served is not None
    assert served.version == tier.version
    # High of three: e / (2 + e)
    assert served.risks([{"bmi": 30}])[0] == pytest.approx(np.e / (2 + np.e))
    risk = make_serving()
    served = serving.served_model()
    assert served is not None
    assert served.version == risk.version


def test_which_model_is_served_is_looked_up_once_a_second(monkeypatch):
    make_serving()
    now = 1000.0
    monkeypatch.setattr("time.monotonic", lambda: now)
    serving.served_model()
    with CaptureQueriesContext(connection) as captured:
        for _ in range(100):
            serving.served_model()
        assert len(captured) == 0
        now += 1
        serving.served_model()
        assert 0 < len(captured) < 5


def test_a_diagnosis_model_is_none_to_prepare(queue):
    version = make_health_version()
    ModelVersion.objects.filter(pk=version.pk).update(study=services.study_for("risk_tier"))
    serving.request_missing_servings()
    assert queue.names() == []
