import gzip
import hashlib
import io
import json
import tarfile

import pytest

from envoys.errors import NotNowError, StorageError
from envoys.models import AuditEvent, Envoy, User
from federated.params import from_bytes, params_sha256
from federated.plan import TrainingPlan, plan_sha256
from federated.rounds import first_params
from tests.factories import make_envoy, make_user
from tests.federation import break_storage, envoy_path
from training import services
from training.errors import ConflictError, NotApprovedError, TrainingError
from training.models import Study, StudyMembership

pytestmark = pytest.mark.django_db


@pytest.fixture
def study() -> Study:
    return services.study_for("risk_tier")


@pytest.fixture
def envoy() -> Envoy:
    return make_envoy(name="Alpha")


@pytest.fixture
def membership(study, envoy) -> StudyMembership:
    return services.package_training(study, envoy, services.plan_for(study, num_rounds=3))


def package_bytes(envoy: Envoy) -> bytes:
    return envoy_path(envoy, "training_package.tar.gz").read_bytes()


def files_of(content: bytes) -> dict[str, bytes]:
    with tarfile.open(fileobj=io.BytesIO(gzip.decompress(content))) as archive:
        return {
            member.name: archive.extractfile(member).read()  # type: ignore[union-attr]
            for member in archive
        }


def test_a_package_holds_a_readable_plan_its_hash_and_the_base_parameters(membership, envoy):
    files = files_of(package_bytes(envoy))
    assert sorted(files) == ["base_params.safetensors", "plan.json", "plan.sha256", "scaling.json"]

    plan = json.loads(files["plan.json"])
    assert (plan["target"], plan["num_rounds"], plan["strategy"]) == ("risk_tier", 3, "fedavg")
    assert plan["stays_in_the_hospital"] == ["every row of every patient"]
    assert files["plan.json"].count(b"\n") > 20  # for a person to read
    params = from_bytes(files["base_params.safetensors"])
    first = first_params(TrainingPlan.from_json(plan), seed=0)
    assert params_sha256(params) == params_sha256(first)
    scaling = json.loads(files["scaling.json"])
    assert len(scaling["mean"]) == len(scaling["std"]) == len(params["numeric"])


def test_the_hash_that_is_approved_follows_from_the_plan_in_the_package(membership, envoy):
    files = files_of(package_bytes(envoy))
    plan = json.loads(files["plan.json"])
    # As anybody can check it: sorted keys, no spaces.
    text = json.dumps(plan, sort_keys=True, separators=(",", ":"))
    found = hashlib.sha256(text.encode()).hexdigest()
    assert found == membership.plan_sha256 == files["plan.sha256"].decode().strip()
    assert plan_sha256(plan | {"num_rounds": 300}) != found


def test_the_same_plan_again_gives_the_same_bytes_and_keeps_the_answer(study, envoy, membership):
    before = package_bytes(envoy)
    doctor = make_user(envoy=envoy)
    services.approve_package(membership, approved_by=doctor, plan_hash=membership.plan_sha256)

    again = services.package_training(study, envoy, services.plan_for(study, num_rounds=3))
    assert package_bytes(envoy) == before
    assert again.pk == membership.pk
    assert again.package_sha256 == hashlib.sha256(before).hexdigest()
    assert services.standing_approval(study, envoy).approved_by == doctor


def test_another_plan_is_asked_for_anew(study, envoy, membership):
    services.approve_package(
        membership, approved_by=make_user(envoy=envoy), plan_hash=membership.plan_sha256
    )
    other = services.package_training(study, envoy, services.plan_for(study, num_rounds=4))
    with pytest.raises(
        NotApprovedError, match=f"has not approved the plan {other.plan_sha256[:12]}"
    ):
        services.standing_approval(study, envoy)
    assert services.standing_approval(study, envoy, membership.plan_sha256) == membership


def test_storage_that_cannot_be_written_says_so_and_leaves_no_package(study, envoy):
    break_storage(envoy)
    with pytest.raises(StorageError, match=r"training_package\.tar\.gz could not be written"):
        services.package_training(study, envoy, services.plan_for(study))
    assert not StudyMembership.objects.exists()


def test_only_a_doctor_of_the_hospital_approves_and_only_what_was_read(membership, envoy):
    plan_hash = membership.plan_sha256
    strangers = [
        make_user(envoy=make_envoy()),
        make_user(User.Role.DATA_SCIENTIST),
        make_user(User.Role.ADMINISTRATOR, envoy=envoy),
    ]
    for user in strangers:
        with pytest.raises(NotApprovedError, match="only a doctor of Alpha can approve"):
            services.approve_package(membership, approved_by=user, plan_hash=plan_hash)
    doctor = make_user(envoy=envoy)
    with pytest.raises(ConflictError, match="read it again before you approve"):
        services.approve_package(membership, approved_by=doctor, plan_hash="0" * 64)
    StudyMembership.objects.filter(pk=membership.pk).update(plan=membership.plan | {"seed": 1})
    changed = StudyMembership.objects.get(pk=membership.pk)
    with pytest.raises(ConflictError, match="read it again before you approve"):
        services.approve_package(changed, approved_by=doctor, plan_hash=plan_hash)
    assert not StudyMembership.objects.standing().exists()

    services.approve_package(membership, approved_by=doctor, plan_hash=plan_hash)
    approved = StudyMembership.objects.standing().get()
    assert approved.approved_by == doctor
    assert approved.approved_at is not None


def test_an_answer_to_what_has_changed_meanwhile_does_not_count(membership, envoy):
    doctor, plan_hash = make_user(envoy=envoy), membership.plan_sha256
    rows = StudyMembership.objects.filter(pk=membership.pk)
    rows.update(plan_sha256="0" * 64)  # while the doctor reads
    with pytest.raises(ConflictError, match="read it again"):
        services.approve_package(membership, approved_by=doctor, plan_hash=plan_hash)
    assert not StudyMembership.objects.standing().exists()
    rows.update(plan_sha256=plan_hash)
    services.approve_package(membership, approved_by=doctor, plan_hash=plan_hash)
    again = StudyMembership.objects.get()
    revoked_at = services.revoke_approval(membership, revoked_by=doctor).revoked_at
    with pytest.raises(NotApprovedError, match="nothing to revoke"):
        services.revoke_approval(again, revoked_by=doctor)
    assert StudyMembership.objects.get().revoked_at == revoked_at


def test_only_a_doctor_of_the_hospital_revokes_and_may_approve_again(study, membership, envoy):
    doctor, plan_hash = make_user(envoy=envoy), membership.plan_sha256
    with pytest.raises(NotApprovedError, match="no standing approval: there is nothing to revoke"):
        services.revoke_approval(membership, revoked_by=doctor)
    services.approve_package(membership, approved_by=doctor, plan_hash=plan_hash)
    with pytest.raises(NotApprovedError, match="only a doctor of Alpha can revoke"):
        services.revoke_approval(membership, revoked_by=make_user(User.Role.DATA_SCIENTIST))
    assert services.standing_approval(study, envoy) == membership

    services.revoke_approval(membership, revoked_by=doctor)
    with pytest.raises(
        NotApprovedError, match="package it again, or ask a doctor there to approve"
    ):
        services.standing_approval(study, envoy)
    services.approve_package(membership, approved_by=doctor, plan_hash=plan_hash)
    assert services.standing_approval(study, envoy) == membership


def test_a_suspended_hospital_has_no_standing_approval(study, membership, envoy):
    services.approve_package(
        membership, approved_by=make_user(envoy=envoy), plan_hash=membership.plan_sha256
    )
    envoy.status = Envoy.Status.SUSPENDED
    envoy.save(update_fields=["status"])
    with pytest.raises(TrainingError, match="Alpha is suspended: a data scientist can let it"):
        services.standing_approval(study, envoy)


def test_only_a_doctor_of_the_hospital_refuses_and_says_why(study, membership, envoy):
    doctor = make_user(envoy=envoy)
    for user in (make_user(), make_user(User.Role.DATA_SCIENTIST)):
        with pytest.raises(NotApprovedError, match="only a doctor of Alpha can refuse"):
            services.refuse_package(membership, refused_by=user, reason="too many rounds")
    with pytest.raises(NotNowError, match="say why"):
        services.refuse_package(membership, refused_by=doctor, reason="  ")
    assert StudyMembership.objects.waiting().get() == membership

    services.refuse_package(membership, refused_by=doctor, reason=" too many rounds ")
    assert (membership.refused_by, membership.refusal_reason) == (doctor, "too many rounds")
    assert not StudyMembership.objects.waiting().exists()
    with pytest.raises(NotApprovedError, match=r"Alpha has refused the plan .*: package another"):
        services.standing_approval(study, envoy)


def test_approving_later_takes_the_refusal_back(study, membership, envoy):
    doctor = make_user(envoy=envoy)
    services.refuse_package(membership, refused_by=doctor, reason="too many rounds")
    services.approve_package(membership, approved_by=doctor, plan_hash=membership.plan_sha256)
    standing = services.standing_approval(study, envoy)
    assert (standing.refused_at, standing.refused_by, standing.refusal_reason) == (None, None, "")
    with pytest.raises(NotNowError, match="revoke the approval"):
        services.refuse_package(membership, refused_by=doctor, reason="changed my mind")
    services.revoke_approval(membership, revoked_by=doctor)
    services.refuse_package(membership, refused_by=doctor, reason="changed my mind")


def test_a_hospital_that_cannot_be_reached_does_not_stop_the_others(study, envoy):
    away = make_envoy(name="Away")
    break_storage(away)
    scientist = make_user(User.Role.DATA_SCIENTIST)
    plan = services.plan_for(study)
    packaged = services.package_envoys(study, [envoy, away], plan, packaged_by=scientist)
    assert [membership.envoy for membership in packaged.memberships] == [envoy]
    assert packaged.problems[0].startswith("Away: ")
    assert AuditEvent.objects.get().user == scientist
    with pytest.raises(NotNowError, match="choose at least one"):
        services.package_envoys(study, [], plan, packaged_by=scientist)


def test_a_plan_that_needs_more_hospitals_than_there_are_is_not_put_before_any(study, envoy):
    plan = services.plan_for(study, strategy="trimmed_mean", strategy_parameters={"num_bad": 1})
    with pytest.raises(NotNowError, match="needs the updates of 3 hospitals, and 1 are active"):
        services.package_envoys(study, [envoy], plan, packaged_by=None)
    assert not StudyMembership.objects.filter(plan_sha256=plan.sha256).exists()
    make_envoy()
    make_envoy()
    assert services.package_envoys(study, [envoy], plan, packaged_by=None).memberships
