import json
from io import StringIO

import pytest
from django.core.management import CommandError, call_command

from envoys.models import Envoy, User
from inference.models import InferenceRun
from tests.factories import make_user
from tests.federation import (
    approved_plan,
    break_storage,
    envoy_path,
    make_hospital,
    object_path,
    release,
)
from training import services
from training.models import (
    Distribution,
    ModelVersion,
    ReceivedUpdate,
    RoundAssignment,
    StudyMembership,
)
from training.objects import params_key

pytestmark = pytest.mark.django_db


def run_command(*arguments, **options):
    """A command as typed; returns what it prints, and what it prints beside."""
    stdout, stderr = StringIO(), StringIO()
    call_command(*arguments, stdout=stdout, stderr=stderr, **options)
    return stdout.getvalue(), stderr.getvalue()


@pytest.fixture
def worker(queue, monkeypatch):
    """Does the work while a command waits for it."""
    monkeypatch.setattr("time.sleep", lambda seconds: queue.work_and_sweep())
    return queue


@pytest.fixture
def ready(hospitals) -> list[Envoy]:
    approved_plan(services.study_for("risk_tier"), hospitals[:3])
    return hospitals[:3]


def test_manual_mode_from_the_package_to_the_predictions(worker, hospitals):
    scientist = make_user(User.Role.DATA_SCIENTIST, username="grace")
    doctors = {envoy.slug: make_user(envoy=envoy) for envoy in hospitals[:3]}
    slugs = list(doctors)

    output, _ = run_command("package_training", *slugs, "--rounds=3")
    plan_hash = StudyMembership.objects.values_list("plan_sha256", flat=True).distinct().get()
    assert output.count(f"training_package.tar.gz holds the plan {plan_hash}") == 3
    assert f"approve_package {slugs[0]} --user USERNAME" in output
    for slug, doctor in doctors.items():
        output, _ = run_command("approve_package", slug, f"--user={doctor}", plan_hash=plan_hash)
        assert f"{doctor} approved the plan {plan_hash[:12]}" in output
    for slug in slugs:
        output, _ = run_command("launch_training", slug, "--user=grace", "--wait")
        assert f"{slug}: submitted" in output
        assert f"aggregate {slug}" in output
    output, _ = run_command("aggregate", *slugs, "--wait")
    version = ModelVersion.objects.of_federation().get()
    assert f"{version} is a candidate: {version.params_sha256}" in output
    assert "next: distribute" in output
    output, _ = run_command("distribute", "--user=grace", "--wait")
    assert f"{version} is active, on its way to 4 hospitals" in output
    assert output.count(": complete") == 4
    version.refresh_from_db()
    assert version.approved_by == scientist
    output, _ = run_command("predict_envoy", slugs[0], "--user=grace", "--wait")
    inference_run = InferenceRun.objects.get()
    assert sum(inference_run.counts.values()) == inference_run.num_total
    assert inference_run.counts_in_words() in output


def test_without_a_hash_the_plan_is_printed_to_be_read_and_not_approved(hospitals):
    envoy, doctor = hospitals[0], make_user(envoy=hospitals[0])
    run_command("package_training", envoy.name)
    output, beside = run_command("approve_package", envoy.slug, f"--user={doctor}")
    membership = StudyMembership.objects.get()
    assert json.loads(output) == membership.plan
    assert f"--plan-hash {membership.plan_sha256}" in beside
    assert membership.approved_at is None


def test_what_the_services_refuse_ends_a_command_in_their_words(queue, hospitals):
    envoy, stranger = hospitals[0], make_user(User.Role.DATA_SCIENTIST, username="ada")
    with pytest.raises(CommandError, match="has no training package yet: package_training"):
        run_command("approve_package", envoy.slug, "--user=ada")
    run_command("package_training", envoy.slug)
    plan_hash = StudyMembership.objects.get().plan_sha256
    with pytest.raises(CommandError, match=f"only a doctor of {envoy} can approve"):
        run_command("approve_package", envoy.slug, f"--user={stranger}", plan_hash=plan_hash)
    doctor = make_user(envoy=envoy)
    with pytest.raises(CommandError, match="read it again before you approve"):
        run_command("approve_package", envoy.slug, f"--user={doctor}", plan_hash="f" * 64)
    with pytest.raises(CommandError, match="has not approved the plan"):
        run_command("launch_training", envoy.slug)
    with pytest.raises(CommandError, match="no hospital has been launched"):
        run_command("aggregate", envoy.slug)
    with pytest.raises(CommandError, match="has not received a model"):
        run_command("predict_envoy", envoy.slug)
    with pytest.raises(CommandError, match="has no model of its own"):
        run_command("predict_envoy", envoy.slug, "--model=envoy")
    with pytest.raises(CommandError, match="there is no version of Risk tier from diagnoses yet"):
        run_command("distribute")
    with pytest.raises(CommandError, match="no strategy is called 'magic'; there are fedavg"):
        run_command("package_training", envoy.slug, "--strategy=magic")
    with pytest.raises(CommandError, match="no target is called 'fortune'; there are risk_tier"):
        run_command("package_training", envoy.slug, "--target=fortune")
    assert queue.names() == []


def test_too_few_patients_end_a_launch_in_words(queue):
    few = make_hospital("kutrrh", num_patients=12)
    approved_plan(services.study_for("risk_tier"), [few])
    with pytest.raises(CommandError, match="kutrrh: 12 of 20 patients with an outcome"):
        run_command("launch_training", "kutrrh")


def test_an_approval_is_revoked_and_nothing_is_launched_after(ready):
    envoy = ready[0]
    doctor = make_user(envoy=envoy)
    with pytest.raises(CommandError, match=f"only a doctor of {envoy} can revoke"):
        run_command("revoke_approval", envoy.slug, f"--user={make_user(envoy=ready[1])}")
    with pytest.raises(CommandError, match="nothing to revoke"):
        run_command("revoke_approval", envoy.slug, f"--user={doctor}", plan_hash="f" * 64)
    output, _ = run_command("revoke_approval", envoy.slug, f"--user={doctor}")
    assert f"{doctor} revoked the plan" in output
    with pytest.raises(CommandError, match="has revoked its approval"):
        run_command("launch_training", envoy.slug)
    with pytest.raises(CommandError, match="nothing to revoke"):
        run_command("revoke_approval", envoy.slug, f"--user={doctor}")


def test_an_envoy_is_found_by_name_slug_or_number_and_a_wrong_one_says_which_there_are():
    envoy = make_hospital("Saint Mary's", num_patients=0)
    for name in ("Saint Mary's", "saint-marys", str(envoy.pk)):
        run_command("package_training", name)
    assert StudyMembership.objects.get().envoy == envoy
    with pytest.raises(CommandError, match=r"no envoy 'nowhere'\. There are: Saint Mary's\."):
        run_command("package_training", "saint-marys", "nowhere", "--rounds=5")
    assert StudyMembership.objects.count() == 1  # a wrong name stops before the first package


def test_a_wrong_user_or_version_says_which_there_are(queue, hospitals):
    make_user(User.Role.DATA_SCIENTIST, username="grace")
    make_user(User.Role.DATA_SCIENTIST, username="gone", is_active=False)
    with pytest.raises(CommandError, match=r"no active user 'gone'\. There are: grace\."):
        run_command("launch_training", hospitals[0].slug, "--user=gone")
    release(hospitals, queue)
    with pytest.raises(CommandError, match=r"no version 7 of .*\. There are: 1\."):
        run_command("distribute", "--version=7")


def test_a_version_is_distributed_by_its_number(queue, hospitals):
    first, second = release(hospitals, queue), release(hospitals, queue)
    run_command("distribute", "--version", "1")
    assert services.active_version(first.study) == first
    run_command("distribute")
    assert services.active_version(first.study) == second
    assert queue.names() == ["distribute_version_task"] * 8


def test_a_hospitals_own_model_scores_it(worker, hospitals):
    release(hospitals, worker)
    run_command("predict_envoy", hospitals[0].slug, "--model=envoy", "--wait")
    assert InferenceRun.objects.get().model_version.envoy == hospitals[0]


def test_waiting_for_what_fails_ends_in_the_reason(worker, hospitals, settings):
    version = release(hospitals, worker)
    settings.LEASE_SECONDS = 0  # after which storage is tried again, up to ten times
    path = envoy_path(hospitals[0], "global_model/model.safetensors")
    path.write_bytes(b"")
    with pytest.raises(CommandError, match=r"was not scored: .* is not what was stored"):
        run_command("predict_envoy", hospitals[0].slug, "--wait")
    break_storage(hospitals[1])
    with pytest.raises(CommandError, match=f"Not delivered to {hospitals[1]}: mend the storage"):
        run_command("distribute", "--wait")
    failed = Distribution.objects.get(version=version, status=Distribution.Status.FAILED)
    assert failed.envoy == hospitals[1]


def test_waiting_for_a_launch_that_fails_ends_in_the_reason(worker, ready, settings):
    settings.LEASE_SECONDS = 0  # after which storage is tried again, up to ten times
    break_storage(ready[0])
    with pytest.raises(CommandError, match="has not trained: Its data could not be frozen"):
        run_command("launch_training", ready[0].slug, "--wait")
    assert RoundAssignment.objects.get().status == RoundAssignment.Status.FAILED


def test_waiting_for_an_aggregation_says_that_an_update_was_lost(worker, ready):
    run_command("launch_training", ready[0].slug, "--wait")
    object_path(params_key(ReceivedUpdate.objects.get().sha256)).unlink()
    with pytest.raises(CommandError, match="lost and is trained again: once it is in, aggregate"):
        run_command("aggregate", ready[0].slug, "--wait")
    output, _ = run_command("aggregate", ready[0].slug, "--wait")
    assert "v1 is a candidate" in output
