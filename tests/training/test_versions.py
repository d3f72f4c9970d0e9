import hashlib
import io
import json

import numpy as np
import pytest
import torch

from envoys.errors import StorageError
from envoys.models import Envoy, User
from envoys.work import MAX_ATTEMPTS
from federated.params import from_bytes, params_sha256
from tests.factories import make_user
from tests.federation import (
    FILES,
    approved_plan,
    break_storage,
    envoy_path,
    finish,
    object_path,
    release,
)
from training import services
from training.errors import NotAllowedError, NotReadyError, TrainingError
from training.models import Distribution, ModelVersion, TrainingRun

pytestmark = pytest.mark.django_db

State, Kind = ModelVersion.State, ModelVersion.Kind


@pytest.fixture
def run(queue, hospitals) -> TrainingRun:
    return finish(hospitals, queue)


@pytest.fixture
def version(run) -> ModelVersion:
    return run.versions.of_federation().get()


def test_a_finished_run_stores_the_global_model_with_all_that_is_needed_to_use_it(run, version):
    assert version.storage_key == f"global_model/versions/1-{version.params_sha256[:12]}"
    folder = object_path(version.storage_key)
    assert sorted(path.name for path in folder.iterdir()) == sorted(FILES)

    content = (folder / "model.safetensors").read_bytes()
    assert hashlib.sha256(content).hexdigest() == version.object_sha256
    assert params_sha256(from_bytes(content)) == version.params_sha256 == run.final_sha256
    manifest = json.loads((folder / "manifest.json").read_text())
    assert manifest == version.manifest
    assert manifest["classes"] == ["Low", "Medium", "High"]
    assert manifest["scaling"] == run.scaling
    assert manifest["schema_sha256"] == run.study.schema_sha256
    assert manifest["lineage"]["plan_sha256"] == run.plan_sha256
    assert len(manifest["lineage"]["updates"]) == 3


def test_each_hospital_keeps_its_own_trained_model_under_the_time_of_the_run(run, hospitals):
    folder = f"trained_model/{run.started_at:%Y%m%dT%H%M%SZ}"
    for envoy in hospitals[:3]:
        own = run.versions.get(envoy=envoy, kind=Kind.FINE_TUNED)
        assert own.storage_key == folder
        path = envoy_path(envoy, folder)
        assert sorted(p.name for p in path.iterdir()) == sorted((*FILES, "metrics.json"))
        content = (path / "model.safetensors").read_bytes()
        assert hashlib.sha256(content).hexdigest() == own.object_sha256
        assert params_sha256(from_bytes(content)) == own.params_sha256
        assert json.loads((path / "metrics.json").read_text()) == own.metrics
        assert own.manifest["lineage"]["updates"][0]["envoy"] == envoy.slug
    assert not envoy_path(hospitals[3], "trained_model").exists()


@pytest.mark.parametrize("network", ["logistic_regression", "shallow_network"])
def test_model_pt_is_a_plain_state_dict_of_the_same_values(queue, hospitals, network):
    run = finish(hospitals, queue, study=services.study_for("risk_tier", network=network))
    folder = object_path(run.versions.of_federation().get().storage_key)
    state_dict = torch.load(
        io.BytesIO((folder / "model.pt").read_bytes()), map_location="cpu", weights_only=True
    )
    params = from_bytes((folder / "model.safetensors").read_bytes())
    assert sorted(state_dict) == sorted(params)
    for name, tensor in state_dict.items():
        np.testing.assert_array_equal(tensor.numpy(), params[name])


def test_a_distributed_version_is_active_and_arrives_whole_also_where_nobody_trained(
    queue, hospitals, version
):
    scientist = make_user(User.Role.DATA_SCIENTIST)
    distributions = services.distribute_version(version, distributed_by=scientist)
    assert (version.state, version.approved_by) == (State.ACTIVE, scientist)
    assert services.active_version(version.study) == version
    queue.work()

    assert {distribution.envoy for distribution in distributions} == set(hospitals)
    for distribution in Distribution.objects.select_related("envoy"):
        assert distribution.status == Distribution.Status.COMPLETE
        assert distribution.seen_sha256 == version.object_sha256
        assert distribution.delivered_at is not None
        for name in FILES:
            delivered = envoy_path(distribution.envoy, f"global_model/{name}").read_bytes()
            assert delivered == object_path(f"{version.storage_key}/{name}").read_bytes()
            assert delivered == object_path(f"global_model/{name}").read_bytes()


def test_a_version_delivered_twice_is_delivered_once(queue, hospitals, version):
    (distribution,) = services.distribute_version(
        version, distributed_by=None, envoys=hospitals[:1]
    )
    queue.work(copies=2)
    distribution.refresh_from_db()
    before = distribution.delivered_at
    services.deliver_version(distribution.pk)
    distribution.refresh_from_db()
    assert (distribution.attempt, distribution.delivered_at) == (1, before)
    assert not queue.refusals


def test_a_new_version_retires_the_former_and_stands_beside_it_in_storage(queue, hospitals):
    first = release(hospitals, queue)
    second = release(hospitals, queue)
    first.refresh_from_db()
    assert (first.state, second.state) == (State.RETIRED, State.ACTIVE)
    assert (first.number, second.number) == (1, 2)
    assert services.active_version(second.study) == second
    for version in (first, second):
        content = object_path(f"{version.storage_key}/model.safetensors").read_bytes()
        assert hashlib.sha256(content).hexdigest() == version.object_sha256

    services.distribute_version(first, distributed_by=None, envoys=hospitals)  # a way back
    first.refresh_from_db()
    second.refresh_from_db()
    assert (first.state, second.state) == (State.ACTIVE, State.RETIRED)


def test_a_suspended_hospital_receives_nothing(queue, hospitals, version):
    hospitals[0].status = Envoy.Status.SUSPENDED
    hospitals[0].save(update_fields=["status"])
    distributions = services.distribute_version(version, distributed_by=None)
    assert {distribution.envoy for distribution in distributions} == set(hospitals[1:])


def test_a_model_of_fewer_than_three_hospitals_is_not_released(queue, hospitals):
    run = finish(hospitals[:2], queue)
    version = run.versions.of_federation().get()
    with pytest.raises(TrainingError, match="comes from 2 of 3 hospitals needed"):
        services.distribute_version(version, distributed_by=None)
    version.refresh_from_db()
    assert version.state == State.CANDIDATE
    assert not Distribution.objects.exists()
    assert not object_path("global_model/model.safetensors").exists()
    with pytest.raises(NotReadyError, match=r"no version of .* has been released"):
        services.active_version(version.study)


def test_a_hospitals_own_model_stays_there(run, hospitals):
    own = run.versions.get(envoy=hospitals[0], kind=Kind.FINE_TUNED)
    with pytest.raises(TrainingError, match="is one hospital's own model: it stays there"):
        services.distribute_version(own, distributed_by=None)


def test_a_hospital_whose_storage_fails_is_tried_again_and_the_others_are_served(
    queue, hospitals, version, settings
):
    broken = hospitals[1]
    break_storage(broken)
    services.distribute_version(version, distributed_by=None)
    queue.work()

    failed = Distribution.objects.get(envoy=broken)
    assert failed.status == Distribution.Status.PENDING
    assert failed.reason.startswith("Attempt 1: ")
    (refusal,) = queue.refusals
    assert isinstance(refusal, StorageError)

    settings.LEASE_SECONDS = 0
    queue.work_and_sweep()
    failed.refresh_from_db()
    assert failed.status == Distribution.Status.FAILED
    assert failed.attempt == MAX_ATTEMPTS
    assert "could not be written" in failed.reason
    assert failed.delivered_at is None
    others = Distribution.objects.exclude(envoy=broken)
    assert {distribution.status for distribution in others} == {Distribution.Status.COMPLETE}
    assert others.count() == 3


def test_a_damaged_version_is_neither_released_nor_trained_on(queue, hospitals):
    version = release(hospitals, queue)
    path = object_path(f"{version.storage_key}/model.safetensors")
    path.write_bytes(path.read_bytes()[:-1] + b"\1")
    with pytest.raises(StorageError, match="is not what was stored"):
        services.distribute_version(version, distributed_by=None)
    plan = approved_plan(version.study, [])
    with pytest.raises(StorageError, match="is not what was stored"):
        services.package_training(version.study, hospitals[0], plan)


def test_two_studies_leave_each_others_models_alone(queue, hospitals, version):
    other_run = finish(hospitals, queue, study=services.study_for("died_in_hospital"))
    other = other_run.versions.of_federation().get()
    for row in (version, other):
        services.distribute_version(row, distributed_by=None)
    queue.work()
    assert other.number == version.number == 1

    version.refresh_from_db()
    other.refresh_from_db()
    assert version.state == other.state == State.ACTIVE
    for row in (version, other):
        key = f"{row.study.storage_prefix}global_model/model.safetensors"
        for path in (object_path(row.storage_key) / "model.safetensors", object_path(key)):
            assert hashlib.sha256(path.read_bytes()).hexdigest() == row.object_sha256
        content = envoy_path(hospitals[0], key).read_bytes()
        assert hashlib.sha256(content).hexdigest() == row.object_sha256


def test_a_delivery_that_comes_after_its_version_was_replaced_is_not_made(
    queue, hospitals, version
):
    services.distribute_version(version, distributed_by=None)
    queue.lose()
    newer = release(hospitals, queue)
    late = Distribution.objects.get(version=version, envoy=hospitals[0])
    with pytest.raises(NotReadyError, match="has been replaced before it was delivered"):
        services.deliver_version(late.pk)

    late.refresh_from_db()
    assert late.status == Distribution.Status.FAILED
    content = envoy_path(hospitals[0], "global_model/model.safetensors").read_bytes()
    assert hashlib.sha256(content).hexdigest() == newer.object_sha256


def test_only_who_runs_the_federation_releases_a_version(hospitals, version):
    doctor = make_user(envoy=hospitals[0])
    with pytest.raises(NotAllowedError, match="only a data scientist or an administrator"):
        services.distribute_version(version, distributed_by=doctor)
    version.refresh_from_db()
    assert version.state == State.CANDIDATE
