"""Rows for tests: plain functions, with defaults that any keyword overrides."""

import hashlib
from itertools import count
from typing import Any

from django.utils import timezone
from django.utils.text import slugify

from diagnoses.models import Admission, Diagnosis, Import, Patient, Snapshot, Upload
from envoys.models import Envoy, User
from inference.models import InferenceRun, Prediction
from publichealth.models import Reading
from training.models import (
    Distribution,
    ModelChoice,
    ModelVersion,
    ReceivedUpdate,
    RoundAssignment,
    RunParticipant,
    Study,
    StudyMembership,
    TrainingRound,
    TrainingRun,
)

PASSWORD = "correct horse battery staple"

_number = count(1)


def sha256_of(text: object) -> str:
    return hashlib.sha256(str(text).encode()).hexdigest()


def make_envoy(**values: Any) -> Envoy:
    number = next(_number)
    values.setdefault("name", f"Hospital {number}")
    values.setdefault("slug", slugify(values["name"]))
    return Envoy.objects.create(**values)


def make_user(role: str = User.Role.DOCTOR, envoy: Envoy | None = None, **values: Any) -> User:
    """A user who logs in with PASSWORD; a doctor gets a hospital unless one is given."""
    if envoy is None and role == User.Role.DOCTOR:
        envoy = make_envoy()
    values.setdefault("username", f"{role}-{next(_number)}")
    values.setdefault("password", PASSWORD)
    return User.objects.create_user(role=role, envoy=envoy, **values)


def make_patient(envoy: Envoy | None = None, **values: Any) -> Patient:
    name = values.pop("name", "")
    patient = Patient(envoy=envoy or make_envoy(), **values)
    patient.set_name(name)
    patient.save()
    return patient


def make_admission(patient: Patient | None = None, **values: Any) -> Admission:
    patient = patient or make_patient(envoy=values.get("envoy"))
    values.setdefault("envoy", patient.envoy)
    values.setdefault("hadm_id", f"H{next(_number):06d}")
    return Admission.objects.create(patient=patient, **values)


def make_diagnosis(admission: Admission | None = None, **values: Any) -> Diagnosis:
    admission = admission or make_admission()
    values.setdefault("seq_num", admission.diagnoses.count() + 1)
    values.setdefault("icd_code", "I10")
    values.setdefault("icd_version", 10)
    return Diagnosis.objects.create(admission=admission, **values)


def make_snapshot(envoy: Envoy | None = None, **values: Any) -> Snapshot:
    envoy = envoy or make_envoy()
    values.setdefault("status", Snapshot.Status.COMPLETE)
    if values["status"] == Snapshot.Status.COMPLETE:
        values.setdefault("sha256", sha256_of(f"snapshot of {envoy.slug}"))
    return Snapshot.objects.create(envoy=envoy, **values)


def make_study(**values: Any) -> Study:
    number = next(_number)
    values.setdefault("name", f"diagnosis-risk-{number}")
    values.setdefault("title", "Risk from diagnoses")
    values.setdefault("target", "risk_tier")
    values.setdefault("schema_sha256", sha256_of("schema"))
    return Study.objects.create(**values)


def make_run(
    status: str = TrainingRun.Status.TRAINING, num_rounds: int = 3, **values: Any
) -> TrainingRun:
    """A run without participants or rounds."""
    study = values.pop("study", None) or make_study()
    values.setdefault("plan", {"study": study.name, "num_rounds": num_rounds})
    values.setdefault("plan_sha256", sha256_of(values["plan"]))
    return TrainingRun.objects.create(study=study, status=status, num_rounds=num_rounds, **values)


def make_participant(
    run: TrainingRun | None = None, envoy: Envoy | None = None, **values: Any
) -> RunParticipant:
    """An envoy in a run, with its data frozen unless it sits out."""
    envoy = envoy or make_envoy()
    if "snapshot" not in values and not values.get("sits_out_because"):
        values["snapshot"] = make_snapshot(envoy=envoy)
    values.setdefault("num_labelled_patients", 100)
    return RunParticipant.objects.create(run=run or make_run(), envoy=envoy, **values)


def make_round(run: TrainingRun | None = None, **values: Any) -> TrainingRound:
    run = run or make_run()
    values.setdefault("number", run.rounds.count())
    values.setdefault("base_sha256", sha256_of(f"base of round {values['number']}"))
    return TrainingRound.objects.create(run=run, **values)


def make_assignment(
    training_round: TrainingRound | None = None, envoy: Envoy | None = None, **values: Any
) -> RoundAssignment:
    """What an envoy owes a round; the snapshot is that of its participation, if there is one."""
    training_round = training_round or make_round()
    envoy = envoy or make_envoy()
    if "snapshot" not in values:
        participant = RunParticipant.objects.filter(
            run=training_round.run, envoy=envoy, snapshot__isnull=False
        ).first()
        values["snapshot"] = participant.snapshot if participant else make_snapshot(envoy=envoy)
    return RoundAssignment.objects.create(training_round=training_round, envoy=envoy, **values)


def make_update(assignment: RoundAssignment | None = None, **values: Any) -> ReceivedUpdate:
    """An update as received; the assignment's own status is the caller's to set."""
    assignment = assignment or make_assignment(status=RoundAssignment.Status.SUBMITTED)
    values.setdefault("sha256", sha256_of(f"update {next(_number)}"))
    values.setdefault("num_examples", 100)
    values.setdefault("verdict", ReceivedUpdate.Verdict.ACCEPTED)
    values.setdefault(
        "metrics",
        {
            "train_loss": 0.6,
            "validation_loss": 0.65,
            "validation_auroc": 0.7,
            "num_validation": 20,
            "seconds": 1.5,
        },
    )
    return ReceivedUpdate.objects.create(assignment=assignment, **values)


def make_version(training_round: TrainingRound | None = None, **values: Any) -> ModelVersion:
    """A version of the federation, or with `envoy=` of that hospital."""
    training_round = training_round or make_round(status=TrainingRound.Status.AGGREGATED)
    run = training_round.run
    kind = ModelVersion.Kind.FINE_TUNED if values.get("envoy") else ModelVersion.Kind.GLOBAL
    values.setdefault("kind", kind)
    siblings = ModelVersion.objects.filter(
        study=run.study, envoy=values.get("envoy"), kind=values["kind"]
    )
    values.setdefault("number", siblings.count() + 1)
    values.setdefault("params_sha256", sha256_of(f"params {next(_number)}"))
    values.setdefault("object_sha256", sha256_of(f"object {next(_number)}"))
    values.setdefault("storage_key", f"global_model/versions/{values['number']}/model.safetensors")
    values.setdefault("manifest", {})
    return ModelVersion.objects.create(
        study=run.study, run=run, training_round=training_round, **values
    )


def make_import(envoy: Envoy | None = None, **values: Any) -> Import:
    values.setdefault("status", Import.Status.COMPLETE)
    values.setdefault("source_sha256", sha256_of(f"import {next(_number)}"))
    values.setdefault("source_name", "cohort")
    return Import.objects.create(envoy=envoy or make_envoy(), **values)


def make_upload(envoy: Envoy | None = None, **values: Any) -> Upload:
    """Files that have been checked without a problem and wait to be confirmed."""
    values.setdefault("status", Upload.Status.COMPLETE)
    values.setdefault("num_admissions", 1)
    values.setdefault("num_diagnoses", 1)
    return Upload.objects.create(envoy=envoy or make_envoy(), **values)


def make_choice(run: TrainingRun, envoy: Envoy, **values: Any) -> ModelChoice:
    """The global model suits the hospital, unless a `kind` says otherwise."""
    values.setdefault("kind", ModelVersion.Kind.GLOBAL)
    values.setdefault("reason", "On 40 validation patients no other model has a lower loss")
    return ModelChoice.objects.create(run=run, envoy=envoy, **values)


def make_membership(
    study: Study | None = None, envoy: Envoy | None = None, **values: Any
) -> StudyMembership:
    """A package that waits for the hospital's answer."""
    study = study or make_study()
    values.setdefault("plan", {"study": study.name})
    values.setdefault("plan_sha256", sha256_of(values["plan"]))
    values.setdefault("package_sha256", sha256_of(f"package {next(_number)}"))
    values.setdefault("packaged_at", timezone.now())
    return StudyMembership.objects.create(study=study, envoy=envoy or make_envoy(), **values)


def make_distribution(
    version: ModelVersion | None = None, envoy: Envoy | None = None, **values: Any
) -> Distribution:
    """A version that has arrived, unless a status says otherwise."""
    version = version or make_version()
    values.setdefault("status", Distribution.Status.COMPLETE)
    if values["status"] == Distribution.Status.COMPLETE:
        values.setdefault("seen_sha256", version.object_sha256)
        values.setdefault("delivered_at", timezone.now())
    return Distribution.objects.create(version=version, envoy=envoy or make_envoy(), **values)


def make_inference_run(
    version: ModelVersion | None = None, envoy: Envoy | None = None, **values: Any
) -> InferenceRun:
    values.setdefault("status", InferenceRun.Status.COMPLETE)
    return InferenceRun.objects.create(
        model_version=version or make_version(), envoy=envoy or make_envoy(), **values
    )


def make_prediction(
    version: ModelVersion | None = None, admission: Admission | None = None, **values: Any
) -> Prediction:
    """High, most probably."""
    admission = admission or make_admission()
    values.setdefault("probabilities", [0.1, 0.2, 0.7])
    values.setdefault("predicted_class", 2)
    return Prediction.objects.create(
        model_version=version or make_version(),
        admission=admission,
        envoy_id=admission.envoy_id,
        **values,
    )


def make_reading(envoy: Envoy | None = None, **values: Any) -> Reading:
    """Measured now, with nothing measured unless it is given."""
    values.setdefault("subject_id", f"subject-{next(_number)}")
    values.setdefault("measured_at", timezone.now())
    envoy = envoy or make_envoy(kind=Envoy.Kind.WEARABLES)
    return Reading.objects.create(envoy=envoy, **values)
