"""Training packages: what a hospital is asked to approve, and its answer."""

import gzip
import io
import json
import tarfile
from collections.abc import Collection, Iterable
from dataclasses import dataclass
from functools import cached_property

from django.db import transaction
from django.utils import timezone

from envoys import audit
from envoys.errors import NotNowError, StorageError
from envoys.models import Envoy, User
from envoys.storage import director_storage, envoy_storage, read_object, write_object
from federated import readings
from federated.params import Params, from_bytes, to_bytes
from federated.plain_text import check_plain
from federated.plan import TrainingPlan, plan_sha256
from federated.rounds import first_params
from federated.scaling import FeatureScaling
from federated.schemas import feature_schema
from federated.targets import DIAGNOSES
from training.errors import ConflictError, NotApprovedError, TrainingError
from training.models import ModelVersion, Study, StudyMembership
from training.objects import save_params

PACKAGE_KEY = "training_package.tar.gz"

# Where no round 0 has pooled the hospitals' numbers, as in a first manual launch: age in years,
# counts as log(1 + count). Rough values of adult inpatients; a scale, not a statement about anyone.
REFERENCE_SCALING = {
    "age": (60.0, 20.0),
    "diagnosis_count": (2.0, 0.6),
    "earlier_admissions": (0.3, 0.6),
    "number_inpatient": (0.3, 0.6),
    "number_emergency": (0.1, 0.4),
    "number_outpatient": (0.2, 0.5),
}


@dataclass(frozen=True)
class BaseModel:
    """What a manual launch starts from: the active version, or a first model."""

    params: Params
    scaling: FeatureScaling

    @cached_property
    def content(self) -> bytes:
        return to_bytes(self.params)

    def save(self) -> str:
        return save_params(self.params)


def base_model(study: Study, plan: TrainingPlan) -> BaseModel:
    """The released parameters and their scaling; before the first release, seeded ones."""
    version = ModelVersion.objects.of_federation().active().filter(study=study).first()
    if version and version.manifest["schema_sha256"] == plan.schema_sha256:
        content = read_object(
            director_storage(),
            f"{version.storage_key}/model.safetensors",
            sha256=version.object_sha256,
        )
        scaling = version.manifest["scaling"]
        return BaseModel(
            from_bytes(content), FeatureScaling(tuple(scaling["mean"]), tuple(scaling["std"]))
        )
    inputs = feature_schema(plan.target).numeric_inputs
    reference = REFERENCE_SCALING if plan.dataset == DIAGNOSES else readings.REFERENCE_SCALING
    return BaseModel(
        first_params(plan, seed=0),
        FeatureScaling(
            tuple(reference[name][0] for name in inputs),
            tuple(reference[name][1] for name in inputs),
        ),
    )


def refuse_other_rows(study: Study, envoys: Iterable[Envoy]) -> None:
    """Raises NotNowError for an envoy whose rows are of another kind than the study's."""
    for envoy in envoys:
        if envoy.dataset != study.dataset:
            raise NotNowError(
                f"{envoy} ({envoy.get_kind_display().lower()}) holds {envoy.dataset}, and {study}"
                f" is trained on {study.dataset}: leave it out"
            )


def package_training(study: Study, envoy: Envoy, plan: TrainingPlan) -> StudyMembership:
    """Put into a hospital's storage what it is asked to approve: plan, its hash, base parameters.

    The same plan again renews the package and keeps the answer given.

    Raises:
        StorageError: the hospital's storage does not take it.
    """
    base = base_model(study, plan)
    plain = plan.to_json()
    content = _archive(
        {
            "plan.json": json.dumps(plain, indent=2, sort_keys=True).encode() + b"\n",
            "plan.sha256": f"{plan.sha256}\n".encode(),
            "base_params.safetensors": base.content,
            "scaling.json": json.dumps(
                {"mean": base.scaling.mean, "std": base.scaling.std}, indent=2
            ).encode(),
        }
    )
    key = f"{study.storage_prefix}{PACKAGE_KEY}"
    package_sha256 = write_object(envoy_storage(envoy), key, content)
    membership, _ = StudyMembership.objects.update_or_create(
        study=study,
        envoy=envoy,
        plan_sha256=plan.sha256,
        defaults={
            "plan": plain,
            "package_sha256": package_sha256,
            "packaged_at": timezone.now(),
        },
    )
    return membership


@dataclass(frozen=True)
class Packaged:
    """What came of packaging for several hospitals: one that failed does not stop the others."""

    memberships: list[StudyMembership]
    problems: list[str]  # a sentence for each hospital whose storage did not take it


def package_envoys(
    study: Study, envoys: Collection[Envoy], plan: TrainingPlan, *, packaged_by: User | None
) -> Packaged:
    """Put a plan before each of these hospitals.

    Raises:
        NotNowError: no hospital was chosen, one has no rows of the study's kind, or the strategy
            needs more of them than there are.
    """
    refuse_other_rows(study, envoys)
    num_needed, num_active = plan.strategy_parameters.min_updates, study.envoys.count()
    if num_needed > num_active:
        raise NotNowError(
            f"{plan.strategy} with these parameters needs the updates of {num_needed}"
            f" {study.words.places}, and {num_active} are active: choose other parameters, or another strategy"
        )
    memberships, problems = [], []
    for envoy in sorted(envoys, key=lambda envoy: envoy.slug):
        try:
            memberships.append(package_training(study, envoy, plan))
        except StorageError as error:
            problems.append(f"{envoy}: {error}")
    if not memberships and not problems:
        raise NotNowError(f"choose at least one {study.words.place}")
    audit.record(packaged_by, "packaged training", study)
    return Packaged(memberships, problems)


def _archive(files: dict[str, bytes]) -> bytes:
    """A tar.gz whose bytes depend on its content only."""
    packed = io.BytesIO()
    with (
        gzip.GzipFile(fileobj=packed, mode="wb", mtime=0) as compressed,
        tarfile.open(fileobj=compressed, mode="w", format=tarfile.PAX_FORMAT) as archive,
    ):
        for name, content in sorted(files.items()):
            entry = tarfile.TarInfo(name)
            entry.size, entry.mode = len(content), 0o644
            archive.addfile(entry, io.BytesIO(content))
    return packed.getvalue()


def approve_package(
    membership: StudyMembership, *, approved_by: User, plan_hash: str
) -> StudyMembership:
    """Record that a doctor of the hospital has read the plan and agrees to it.

    Args:
        plan_hash: what the doctor saw; a plan changed meanwhile is not approved by accident.
    Raises:
        NotApprovedError: the person is no doctor of this hospital.
        ConflictError: the hash is another plan's.
    """
    if not (approved_by.is_doctor and approved_by.envoy_id == membership.envoy_id):
        raise NotApprovedError(f"only a doctor of {membership.envoy} can approve its package")
    # Whatever was answered before: a new approval takes a refusal or a revocation back.
    packages = StudyMembership.objects.filter(pk=membership.pk, plan_sha256=plan_hash)
    with transaction.atomic():
        is_read = plan_sha256(membership.plan) == plan_hash
        approved = is_read and packages.update(
            approved_by=approved_by,
            approved_at=timezone.now(),
            revoked_at=None,
            refused_by=None,
            refused_at=None,
            refusal_reason="",
        )
        if not approved:
            raise ConflictError(
                f"the package holds the plan {membership.plan_sha256}, not {plan_hash}: read it"
                " again before you approve, and give its whole hash"
            )
        audit.record(approved_by, "approved package", membership)
    membership.refresh_from_db()
    return membership


def refuse_package(
    membership: StudyMembership, *, refused_by: User, reason: str
) -> StudyMembership:
    """Record that a doctor of the hospital has read the plan and does not agree to it.

    Who refuses again corrects the reason; who approves later takes the refusal back.

    Raises:
        NotApprovedError: the person is no doctor of this hospital.
        NotNowError: no reason was given, or the package is approved: that is revoked instead.
    """
    if not (refused_by.is_doctor and refused_by.envoy_id == membership.envoy_id):
        raise NotApprovedError(f"only a doctor of {membership.envoy} can refuse its package")
    if not reason.strip():
        raise NotNowError("say why the package is refused: who made it reads the reason")
    check_plain(reason, "the reason", has_lines=True)
    with transaction.atomic():
        standing = StudyMembership.objects.standing().filter(pk=membership.pk).values("pk")
        refused = (
            StudyMembership.objects.filter(pk=membership.pk)
            .exclude(pk__in=standing)
            .update(refused_by=refused_by, refused_at=timezone.now(), refusal_reason=reason.strip())
        )
        if not refused:
            raise NotNowError(f"{membership.envoy} has approved this package: revoke the approval")
        audit.record(refused_by, "refused package", membership)
    membership.refresh_from_db()
    return membership


def revoke_approval(membership: StudyMembership, *, revoked_by: User) -> StudyMembership:
    """Withdraw from the next launch on; rounds that are under way keep what was sent.

    Raises:
        NotApprovedError: the person is no doctor of this hospital, or there is no approval.
    """
    if not (revoked_by.is_doctor and revoked_by.envoy_id == membership.envoy_id):
        raise NotApprovedError(f"only a doctor of {membership.envoy} can revoke its approval")
    standing = StudyMembership.objects.standing().filter(pk=membership.pk)
    with transaction.atomic():
        if not standing.update(revoked_at=timezone.now()):
            raise NotApprovedError(
                f"{membership} has no standing approval: there is nothing to revoke"
            )
        audit.record(revoked_by, "revoked approval", membership)
    membership.refresh_from_db()
    return membership


def standing_approval(study: Study, envoy: Envoy, plan_hash: str | None = None) -> StudyMembership:
    """The hospital's approval of a plan; without a hash, of its newest package.

    Raises:
        TrainingError: the envoy is suspended.
        NotApprovedError: it says whether there is no package, no answer, or a refused or revoked
            one, and who has to act.
    """
    if envoy.status != Envoy.Status.ACTIVE:
        raise TrainingError(f"{envoy} is suspended: a data scientist can let it return")
    packages = StudyMembership.objects.filter(study=study, envoy=envoy)
    if plan_hash is not None:
        packages = packages.filter(plan_sha256=plan_hash)
    newest = packages.order_by("-packaged_at", "-pk").first()
    if newest is None:
        raise NotApprovedError(f"{envoy} has no training package for this plan: package it first")
    if newest.refused_at is not None:
        raise NotApprovedError(
            f"{envoy} has refused the plan {newest.plan_sha256[:12]}: package another one, or ask"
            " a doctor there to approve it after all"
        )
    if newest.revoked_at is not None:
        raise NotApprovedError(
            f"{envoy} has revoked its approval of {newest.plan_sha256[:12]}: package it again, or"
            " ask a doctor there to approve it again"
        )
    if newest.approved_at is None:
        raise NotApprovedError(
            f"{envoy} has not approved the plan {newest.plan_sha256[:12]}: ask a doctor there"
        )
    return newest
