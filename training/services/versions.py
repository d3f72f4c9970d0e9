"""Model versions: made at the end of a run, released, and delivered to the hospitals."""

import hashlib
import io
import json
from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import timedelta
from typing import Any

import numpy as np
from django.conf import settings
from django.db import transaction
from django.db.models import Max
from django.utils import timezone

from envoys import audit
from envoys.errors import LostObjectError, StorageError
from envoys.models import Envoy, User
from envoys.storage import (
    director_storage,
    envoy_storage,
    read_object,
    write_object,
    write_objects,
    write_together,
)
from federated.params import Params, params_sha256, to_bytes
from federated.plan import TrainingPlan
from federated.scaling import FeatureScaling
from federated.targets import target_named
from training.errors import NotAllowedError, NotReadyError, TrainingError
from training.models import (
    Distribution,
    ModelVersion,
    ReceivedUpdate,
    Study,
    TrainingRound,
    TrainingRun,
)
from training.services.updates import update_params

Kind = ModelVersion.Kind
MODEL_FILES = ("model.safetensors", "model.pt", "manifest.json")
OWN_MODEL_LEASES = 5  # so long the end of a run waits for a hospital's storage
STORED_BYTES = 16 * 2**20  # of the parameters stored at once


@dataclass
class PreparedVersions:
    """Versions whose objects are stored, and whose rows wait for their transaction."""

    rows: list[ModelVersion] = field(default_factory=list)
    notes: str = ""

    def save(self) -> None:
        ModelVersion.objects.bulk_create(self.rows)


def create_versions(
    training_round: TrainingRound,
    params: Params,
    base_params: Params,
    updates: list[ReceivedUpdate],
) -> PreparedVersions:
    """Store the federation's new model and each hospital's own; their rows are saved later.

    A hospital's own model is what its training made of the last global parameters. Where its
    storage has not taken it for some leases, the note says so, and the run goes on.

    Raises:
        StorageError: the director's storage does not take the model, or for now a hospital's.
        LostUpdateError: an update is gone or damaged.
    """
    prepared = PreparedVersions()
    study = training_round.run.study
    number = _next_number(study, None, Kind.GLOBAL)
    manifest = _manifest(training_round, params, number, updates)
    # Named by content too: whoever else computes this number cannot write over what is released.
    folder = (
        f"{study.storage_prefix}global_model/versions/{number}-{manifest['params_sha256'][:12]}"
    )
    sha256 = _write_model(director_storage(), folder, params, manifest)
    prepared.rows.append(
        _version(training_round, None, Kind.GLOBAL, number, folder, manifest, sha256)
    )
    own = ModelVersion.objects.filter(study=study, kind=Kind.FINE_TUNED, envoy__isnull=False)
    newest = dict(own.order_by().values_list("envoy").annotate(Max("number")))
    folder = f"{study.storage_prefix}trained_model/{training_round.run.started_at:%Y%m%dT%H%M%SZ}"

    newest_update = max(update.received_at for update in updates)
    give_up_at = newest_update + OWN_MODEL_LEASES * timedelta(seconds=settings.LEASE_SECONDS)

    def trained(update: ReceivedUpdate) -> Params:
        delta_params = update_params(update)
        return {name: np.add(base_params[name], delta_params[name]) for name in sorted(base_params)}

    def own_model(update: ReceivedUpdate) -> tuple[Envoy, ModelVersion, dict[str, bytes]]:
        envoy = update.assignment.envoy
        number = newest.get(envoy.pk, 0) + 1
        local_params = trained(update)
        manifest = _manifest(training_round, local_params, number, [update])
        metrics = json.dumps(update.metrics, indent=2, sort_keys=True).encode()
        files, sha256 = _model_files(folder, local_params, manifest, {"metrics.json": metrics})
        row = _version(training_round, envoy, Kind.FINE_TUNED, number, folder, manifest, sha256)
        row.metrics = update.metrics
        return envoy, row, files

    model_bytes = sum(value.nbytes for value in params.values())
    num_at_once = max(1, STORED_BYTES // max(model_bytes, 1))
    notes = []
    for start in range(0, len(updates), num_at_once):
        models = [own_model(update) for update in updates[start : start + num_at_once]]
        try:
            write_together([(envoy_storage(envoy), files) for envoy, _, files in models])
            prepared.rows += [row for _, row, _ in models]
            continue
        except StorageError:
            pass  # of one of them: below each by itself
        for envoy, row, files in models:
            try:
                write_objects(envoy_storage(envoy), files)
            except StorageError as error:
                if timezone.now() < give_up_at and not isinstance(error, LostObjectError):
                    raise  # it may come back: the sweeper has the round aggregated again
                notes.append(f"{envoy}'s own model was not stored: {error}")
            else:
                prepared.rows.append(row)
    prepared.notes = " ".join(notes)
    return prepared


def store_local_version(
    run: TrainingRun,
    envoy: Envoy,
    params: Params,
    scaling: FeatureScaling,
    *,
    num_examples: int,
    metrics: dict[str, Any],
) -> ModelVersion:
    """Keep what a hospital makes alone, in its own storage; asked twice, the first stands.

    Args:
        num_examples: the hospital's rows that it was trained on.
        metrics: as measured on its validation patients.
    Raises:
        StorageError: the hospital's storage does not take it.
    """
    training_round = run.rounds.filter(status=TrainingRound.Status.AGGREGATED).latest("number")
    standing = training_round.versions.filter(envoy=envoy, kind=Kind.LOCAL).first()
    if standing is not None:
        return standing
    number = _next_number(run.study, envoy, Kind.LOCAL)
    manifest = _manifest(training_round, params, number, [])
    manifest["scaling"] = {"mean": list(scaling.mean), "std": list(scaling.std)}
    manifest["lineage"] |= {
        "strategy": "fedavg",  # of one client
        "base_sha256": "",
        "updates": [{"envoy": envoy.slug, "sha256": "", "num_examples": num_examples}],
    }
    folder = f"{run.study.storage_prefix}trained_model/{run.started_at:%Y%m%dT%H%M%SZ}-local"
    sha256 = _write_model(envoy_storage(envoy), folder, params, manifest)
    row = _version(training_round, envoy, Kind.LOCAL, number, folder, manifest, sha256)
    row.metrics = metrics
    row.save()
    return row


def _next_number(study: Study, envoy: Envoy | None, kind: str) -> int:
    versions = ModelVersion.objects.filter(study=study, envoy=envoy, kind=kind)
    newest = versions.order_by("-number").first()
    return newest.number + 1 if newest else 1


def _version(
    training_round: TrainingRound,
    envoy: Envoy | None,
    kind: str,
    number: int,
    folder: str,
    manifest: dict[str, Any],
    object_sha256: str,
) -> ModelVersion:
    return ModelVersion(
        study=training_round.run.study,
        envoy=envoy,
        kind=kind,
        number=number,
        run=training_round.run,
        training_round=training_round,
        storage_key=folder,
        params_sha256=manifest["params_sha256"],
        object_sha256=object_sha256,
        manifest=manifest,
    )


def _manifest(
    training_round: TrainingRound, params: Params, number: int, updates: list[ReceivedUpdate]
) -> dict[str, Any]:
    """All that is needed to use the parameters, and where they come from."""
    run = training_round.run
    plan = TrainingPlan.from_json(run.plan)
    return {
        "study": plan.study,
        "number": number,
        "target": plan.target,
        "target_definition": plan.target_definition,
        "classes": list(target_named(plan.target).classes),
        "network": plan.network,
        "schema_sha256": plan.schema_sha256,
        "vocabulary_sha256": plan.vocabulary_sha256,
        "scaling": run.scaling,
        "params_sha256": params_sha256(params),
        "lineage": {
            "plan_sha256": run.plan_sha256,
            "strategy": plan.strategy,
            "seed": run.seed,
            "round": training_round.number,
            "base_sha256": training_round.base_sha256,
            "updates": [
                {
                    "envoy": update.assignment.envoy.slug,
                    "sha256": update.sha256,
                    "num_examples": update.num_examples,
                }
                for update in updates
            ],
        },
    }


def _write_model(storage: Any, folder: str, params: Params, manifest: dict[str, Any]) -> str:
    """Write a model's files; returns the sha256 of `model.safetensors`."""
    files, sha256 = _model_files(folder, params, manifest)
    write_objects(storage, files)
    return sha256


def _model_files(
    folder: str,
    params: Params,
    manifest: dict[str, Any],
    others: Mapping[str, bytes] | None = None,
) -> tuple[dict[str, bytes], str]:
    """A model's files by key, with others beside, and the sha256 of `model.safetensors`."""
    content = to_bytes(params)
    files = {
        "model.pt": _state_dict(params),
        "manifest.json": json.dumps(manifest, indent=2).encode(),
        **(others or {}),
        "model.safetensors": content,
    }
    named = {f"{folder}/{name}": file for name, file in files.items()}
    return named, hashlib.sha256(content).hexdigest()


def _state_dict(params: Params) -> bytes:
    """A plain state dict for people who expect `model.pt`; we never read one."""
    import torch  # a worker's task: the web process serves with NumPy

    file = io.BytesIO()
    torch.save({name: torch.from_numpy(value.copy()) for name, value in params.items()}, file)
    return file.getvalue()


def distribute_version(
    version: ModelVersion, *, distributed_by: User | None, envoys: list[Envoy] | None = None
) -> list[Distribution]:
    """Release a global version and send it to the hospitals, also those that sat out.

    Until there is a release page, this is the named approval, and makes the version active.

    Args:
        envoys: to whom; all active hospitals where not given.
    Raises:
        NotAllowedError: the person does not run the federation.
        TrainingError: it is a hospital's own, or has too few contributors.
        StorageError: the director's storage does not hold it as it was made.
    """
    from training.tasks import distribute_version_task

    if distributed_by and not distributed_by.runs_federation:
        raise NotAllowedError("only a data scientist or an administrator can release a version")
    if version.envoy_id is not None:
        raise TrainingError(f"{version} is one hospital's own model: it stays there")
    num_contributors = len(version.manifest["lineage"]["updates"])
    if num_contributors < version.study.min_contributors:
        raise TrainingError(
            f"{version} comes from {num_contributors} of {version.study.min_contributors} hospitals"
            " needed: a model of so few could give one of them away. Train with more of them"
        )
    director = director_storage()
    for name in MODEL_FILES:
        key = f"{version.study.storage_prefix}global_model/{name}"
        write_object(director, key, _read_model_file(version, name))
    with transaction.atomic():
        ModelVersion.objects.active().of_federation().filter(study=version.study).exclude(
            pk=version.pk
        ).update(state=ModelVersion.State.RETIRED)
        ModelVersion.objects.filter(pk=version.pk).update(
            state=ModelVersion.State.ACTIVE,
            approved_by=distributed_by,
            approved_at=timezone.now(),
        )
        version.refresh_from_db()
        audit.record(distributed_by, "distributed version", version)
        receivers = version.study.envoys if envoys is None else envoys
        distributions = Distribution.objects.bulk_create(
            Distribution(version=version, envoy=envoy, enqueued_at=timezone.now())
            for envoy in receivers
        )
        for distribution in distributions:
            distribute_version_task.delay_on_commit(distribution.pk)
    return distributions


def deliver_version(distribution_id: int) -> None:
    """Write a version into the hospital's storage and read back what arrived there.

    Raises:
        StorageError, NotReadyError: also written on the row, with what to do.
    """
    for distribution in Distribution.objects.select_related(
        "version__study", "version__run", "envoy"
    ).claim([distribution_id]):
        try:
            _deliver(distribution.version, distribution.envoy)
        except (StorageError, TrainingError) as error:
            Distribution.objects.fail_or_postpone(distribution, error)
            raise
        Distribution.objects.finish(
            distribution,
            status=Distribution.Status.COMPLETE,
            reason="",
            seen_sha256=distribution.version.object_sha256,
            delivered_at=timezone.now(),
        )


def _deliver(version: ModelVersion, envoy: Envoy) -> None:
    if version.state != ModelVersion.State.ACTIVE:  # its message came late
        raise NotReadyError(f"{version} has been replaced before it was delivered to {envoy}")
    storage, folder = envoy_storage(envoy), f"{version.study.storage_prefix}global_model"
    for name in MODEL_FILES:
        write_object(storage, f"{folder}/{name}", _read_model_file(version, name))
    read_object(storage, f"{folder}/model.safetensors", sha256=version.object_sha256)


def _read_model_file(version: ModelVersion, name: str) -> bytes:
    sha256 = version.object_sha256 if name == "model.safetensors" else None
    return read_object(director_storage(), f"{version.storage_key}/{name}", sha256=sha256)


def active_version(study: Study) -> ModelVersion:
    """Raises NotReadyError where nothing has been released."""
    version = ModelVersion.objects.of_federation().active().filter(study=study).first()
    if version is None:
        raise NotReadyError(f"no version of {study} has been released: train, then distribute one")
    return version
