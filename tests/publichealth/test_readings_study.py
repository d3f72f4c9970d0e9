"""The health study takes the path of every study: package, freeze, rounds, release, report."""

from datetime import timedelta

import pytest
from django.utils import timezone

from diagnoses.models import Snapshot
from envoys.errors import NotNowError
from envoys.models import Envoy
from federated.readings import ReadingRecord, build_readings
from federated.schemas import feature_schema
from federated.simulation import simulate
from publichealth.models import Reading
from tests.factories import make_envoy
from tests.federation import (
    approved_plan,
    envoy_path,
    finish,
    make_hospital,
)
from training import services
from training.arrays import open_snapshot
from training.models import ModelVersion, TrainingRun

pytestmark = pytest.mark.django_db

INPUTS = {
    Envoy.Kind.WEARABLES: ("heart_rate", "aqi"),
    Envoy.Kind.ENVIRONMENT: ("pm25", "no2"),
    Envoy.Kind.CLINIC: ("heart_rate", "cough"),
}


def make_node(kind, num_subjects=40):
    """Half its subjects at high risk, who have the higher values."""
    node = make_envoy(name=f"Node {kind}", kind=kind)
    now = timezone.now()
    Reading.objects.bulk_create(
        Reading(
            envoy=node,
            subject_id=f"{node.slug}-{number:03}",
            measured_at=now - timedelta(minutes=number),
            outcome=number % 2,
            **{name: (number % 2) * (1 if name == "cough" else 40) for name in names},
        )
        for names in [INPUTS[kind]]
        for number in range(num_subjects)
    )
    # What has no outcome is not trained on.
    Reading.objects.create(envoy=node, subject_id="live", measured_at=now, aqi=500)
    return node


def make_nodes():
    return [make_node(kind) for kind in INPUTS]


def records(node):
    rows = Reading.objects.filter(envoy=node, outcome__isnull=False).order_by("subject_id")
    return [ReadingRecord(row.subject_id, row.values, row.outcome, row.tier) for row in rows]


def test_a_served_run_ends_in_the_simulations_bits(queue):
    nodes = make_nodes()
    study = services.study_for("health_risk")
    assert (study.name, study.dataset) == ("health-risk", "readings")
    run = finish(nodes, queue, study=study, seed=5)

    schema = feature_schema("health_risk")
    datasets = {node.slug: build_readings(records(node), schema) for node in nodes}
    plan = approved_plan(study, nodes)
    assert run.final_sha256 == simulate(datasets, plan, seed=5).final_sha256
    snapshots = Snapshot.objects.filter(envoy__in=nodes)
    assert {snapshot.num_readings for snapshot in snapshots} == {40}
    for snapshot in snapshots:
        exported = envoy_path(snapshot.envoy, "readings.csv").read_text()
        assert "live" not in exported
        frozen = envoy_path(snapshot.envoy, f"snapshots/{snapshot.sha256}/readings.csv")
        assert frozen.read_text() == exported


def test_a_missing_value_stays_missing_through_the_snapshot(queue):
    nodes = make_nodes()
    run = finish(nodes, queue, study=services.study_for("health_risk"))
    participant = run.participants.select_related("snapshot").get(envoy=nodes[1])
    assert participant.snapshot is not None
    found = open_snapshot(participant.snapshot, approved_plan(run.study, nodes))
    expected = build_readings(records(nodes[1]), feature_schema("health_risk"))
    for name in ("indices", "offsets", "labels", "splits", "patients"):
        assert getattr(found, name).tolist() == getattr(expected, name).tolist()


def test_only_nodes_take_part_in_a_study_of_readings(queue):
    nodes, hospital = make_nodes(), make_hospital("Hospital", num_patients=20)
    study = services.study_for("health_risk")
    assert set(study.envoys) == set(nodes)
    assert set(services.study_for("risk_tier").envoys) == {hospital}
    plan = services.plan_for(study)
    with pytest.raises(
        NotNowError, match=r"Hospital \(hospital\) holds diagnoses, and Health risk"
    ):
        services.package_envoys(study, [hospital, *nodes], plan, packaged_by=None)


def test_its_version_is_released_beside_the_hospitals(queue):
    nodes = make_nodes()
    version = _release(nodes, queue)
    assert version.state == ModelVersion.State.ACTIVE
    assert version.manifest["study"] == "health-risk"
    for node in nodes:
        assert envoy_path(node, "studies/health-risk/global_model/model.safetensors").exists()


def _release(nodes, queue):
    run = finish(nodes, queue, study=services.study_for("health_risk"))
    assert run.status == TrainingRun.Status.FINISHED
    version = run.versions.of_federation().get()
    services.distribute_version(version, distributed_by=None)
    queue.work()
    version.refresh_from_db()
    return version


def test_its_report_compares_the_models(queue):
    nodes = make_nodes()
    run = finish(nodes, queue, study=services.study_for("health_risk"))
    services.request_report(run)
    queue.work()
    run.refresh_from_db()
    assert run.report is not None
    assert [row["name"] for row in run.report["envoys"]] == sorted(node.name for node in nodes)
