"""Two hospitals with a row of every kind, everybody who may ask for one, and every route's arguments.

A route takes its arguments from the hospital that is asked about, so that a test can try its own
and another's. A new parameter in a URL, or a new resource, needs a line in `_rows` here.
"""

from collections.abc import Iterator
from dataclasses import dataclass
from datetime import timedelta
from functools import cache
from io import BytesIO
from typing import Any

import numpy as np
from django.core.files.uploadedfile import SimpleUploadedFile
from django.urls import URLPattern, URLResolver, get_resolver
from django.utils import timezone
from rest_framework_simplejwt.tokens import RefreshToken

from diagnoses.models import (
    Admission,
    Diagnosis,
    IcdCode,
    Import,
    Patient,
    PatientErasure,
    Snapshot,
    Upload,
)
from diagnoses.services import subject_sha256, upload_files
from envoys.models import Envoy, ServiceToken, User
from envoys.service_tokens import make_token
from envoys.storage import director_storage, envoy_storage, write_object
from federated.params import Params, params_sha256, to_bytes
from federated.plan import TrainingPlan
from federated.rounds import first_params
from federated.schemas import feature_schema
from federated.targets import target_named
from inference.models import Erasure, InferenceRun, Prediction
from publichealth.models import DriftCheck, RetrainingProposal
from tests.factories import (
    PASSWORD,
    make_admission,
    make_assignment,
    make_choice,
    make_diagnosis,
    make_distribution,
    make_envoy,
    make_import,
    make_inference_run,
    make_membership,
    make_participant,
    make_patient,
    make_prediction,
    make_reading,
    make_round,
    make_run,
    make_snapshot,
    make_update,
    make_user,
    make_version,
)
from tests.health import make_serving
from training import services
from training.models import (
    Distribution,
    ModelChoice,
    ModelVersion,
    ReceivedUpdate,
    RoundAssignment,
    Study,
    StudyMembership,
    TrainingRound,
    TrainingRun,
)

NEW_PASSWORD = "a longer horse battery staple"
DIAGNOSES_CSV = b"subject_id,hadm_id,seq_num,icd_code,icd_version\nnew-1,new-11,1,I50.9,10\n"
MODEL_FILES = ("model.safetensors", "model.pt", "manifest.json")


@dataclass
class Hospital:
    """A hospital and one of its rows of each kind; more where a route wants another state."""

    envoy: Envoy
    doctor: User
    patient: Patient
    admission: Admission  # open
    discharged: Admission
    gone_home: Patient  # without an open admission
    left: Admission  # of who has gone home
    diagnosis: Diagnosis
    struck_out: Diagnosis
    upload: Upload  # checked, waits to be confirmed
    source_import: Import
    export: Snapshot
    package: StudyMembership  # waits for an answer
    approved: StudyMembership
    run: TrainingRun  # finished, of this hospital alone
    training_round: TrainingRound
    assignment: RoundAssignment
    active_run: TrainingRun
    failed_assignment: RoundAssignment
    held_update: ReceivedUpdate  # in quarantine
    version: ModelVersion  # its own
    distribution: Distribution
    failed_distribution: Distribution
    inference_run: InferenceRun
    prediction: Prediction
    choice: ModelChoice
    overruled_choice: ModelChoice
    drift_check: DriftCheck
    patient_erasure: PatientErasure  # complete


@dataclass
class World:
    study: Study
    plan: TrainingPlan
    version: ModelVersion  # the federation's, released
    icd_code: IcdCode
    suspended: Envoy
    idle: Envoy  # takes part in nothing, so that it can be deleted
    proposal: RetrainingProposal  # waits for an answer
    erasure: Erasure  # of a hospital that is gone
    refresh_token: str
    tokens: dict[str, ServiceToken]  # by the person whose own it is
    hospitals: dict[str, Hospital]  # "own" and "other"
    people: dict[str, User | None]  # the doctor is of "own"

    def arguments(
        self, view_name: str, hospital: str = "own", method: str = "GET"
    ) -> dict[str, Any]:
        """What the URL of a route takes, for a row of one of the hospitals."""
        rows = _rows(self, self.hospitals[hospital])
        parameters = url_parameters()
        if view_name not in parameters:
            raise KeyError(f"no URL is named {view_name}")
        values = {}
        for parameter in parameters[view_name]:
            found = rows.get(f"{method} {view_name} {parameter}")
            found = found or _row_for(rows, view_name, parameter)
            values[parameter] = getattr(found, "pk", found)
        return values

    def body(self, route: str, hospital: str = "own") -> dict[str, Any] | list[Any]:
        """Something that a POST or PATCH route can take; empty where it needs nothing."""
        bodies = _bodies(self, self.hospitals[hospital])
        return bodies.get(route, {})


@cache
def url_parameters() -> dict[str, list[str]]:
    """The names in each URL, by the name of its view; an API's format suffixes are not used."""

    def walk(
        patterns: list[URLPattern | URLResolver], prefix: str, names: list[str]
    ) -> Iterator[tuple[str, list[str]]]:
        for pattern in patterns:
            own = [*names, *pattern.pattern.regex.groupindex]
            if isinstance(pattern, URLResolver):
                inside = f"{prefix}{pattern.namespace}:" if pattern.namespace else prefix
                yield from walk(pattern.url_patterns, inside, own)
            else:
                yield f"{prefix}{pattern.name}", own

    return dict(walk(get_resolver().url_patterns, "", []))


def _row_for(rows: dict[str, Any], view_name: str, parameter: str) -> Any:
    """The most particular that is known: of the view, of the resource, of the parameter."""
    resource = view_name.rpartition(":")[2]
    keys = [f"{view_name} {parameter}", f"{resource} {parameter}"]
    while resource := resource.rpartition("-")[0]:
        keys.append(f"{resource} {parameter}")
    for key in [*keys, parameter]:
        if key in rows:
            return rows[key]
    raise KeyError(f"tests/world.py knows no row for {parameter} in the URL of {view_name}")


def _rows(world: World, hospital: Hospital) -> dict[str, Any]:
    """By "view parameter", "resource parameter" or "parameter"; or by "METHOD view parameter"."""
    return {
        "patient_id": hospital.patient,
        "admission_id": hospital.admission,
        "diagnosis_id": hospital.diagnosis,
        "upload_id": hospital.upload,
        "envoy_id": hospital.envoy,
        "envoy": hospital.envoy,
        "study_id": world.study,
        "package_id": hospital.package,
        "run_id": hospital.run,
        "assignment_id": hospital.assignment,
        "version_id": hospital.version,
        "update_id": hospital.held_update,
        "choice_id": hospital.choice,
        "kind": "distribution",
        "row_id": hospital.failed_distribution,
        # where a route wants a row in another state
        "diagnoses:admission-create patient_id": hospital.gone_home,
        "diagnoses:admission-reopen admission_id": hospital.left,
        "diagnoses:diagnosis-restore diagnosis_id": hospital.struck_out,
        "training:package-revoke package_id": hospital.approved,
        "training:run-stop run_id": hospital.active_run,
        "training:assignment-retry assignment_id": hospital.failed_assignment,
        "training:assignment-drop assignment_id": hospital.failed_assignment,
        "training:model-version-distribute version_id": world.version,
        "training:model-choice-take-back choice_id": hospital.overruled_choice,
        "envoys:envoy-resume envoy_id": world.suspended,
        "inference:envoy-delete envoy_id": world.idle,
        "DELETE api:envoy-detail pk": world.idle,
        "api:envoy-resume pk": world.suspended,
        "api:admission-reopen pk": hospital.left,
        "api:diagnosis-restore pk": hospital.struck_out,
        "api:approval-revoke pk": hospital.approved,
        "api:run-stop pk": hospital.active_run,
        "api:assignment-retry pk": hospital.failed_assignment,
        "api:assignment-drop pk": hospital.failed_assignment,
        "api:model-choice-take-back pk": hospital.overruled_choice,
        "figure": "aqi",
        "token_id": world.tokens["data scientist"],
        "access-token pk": world.tokens["data scientist"],
        # the API's resources
        "alert-threshold pk": "aqi",
        "check_id": hospital.drift_check,
        "erasure_id": world.erasure,
        "patient_erasure_id": hospital.patient_erasure,
        "patient-erasure pk": hospital.patient_erasure,
        "erasure pk": world.erasure,
        "proposal_id": world.proposal,
        "drift-check pk": hospital.drift_check,
        "retraining-proposal pk": world.proposal,
        "patient pk": hospital.patient,
        "admission pk": hospital.admission,
        "diagnosis pk": hospital.diagnosis,
        "icd-code pk": world.icd_code,
        "import pk": hospital.upload,
        "export pk": hospital.export,
        "envoy pk": hospital.envoy,
        "study pk": world.study,
        "package pk": hospital.package,
        "approval pk": hospital.package,
        "run pk": hospital.run,
        "round pk": hospital.training_round,
        "assignment pk": hospital.assignment,
        "update pk": hospital.held_update,
        "model-version pk": hospital.version,
        "model-choice pk": hospital.choice,
        "distribution pk": hospital.distribution,
        "prediction pk": hospital.prediction,
        "inference-run pk": hospital.inference_run,
        "task pk": f"distribution-{hospital.failed_distribution.pk}",
    }


def _bodies(world: World, hospital: Hospital) -> dict[str, Any]:
    """By route. Where a body names a row it is the hospital's, so that another's can be tried."""
    now = f"{timezone.now():%Y-%m-%dT%H:%M}"
    study, envoy, drift_check = world.study.pk, hospital.envoy.pk, hospital.drift_check.pk
    facts = {"name": "Test Patient New", "sex": "F", "phone": "000", "birth_year": 1970}
    discharge = {"discharged_at": now, "discharged_home": True, "died": False}
    diagnosis = {"icd_code": "I50.9", "icd_version": 10}
    account = {
        "username": "newcomer",
        "password": NEW_PASSWORD,
        "email": "newcomer@example.org",
        "phone": "000",
        "role": "doctor",
    }
    password = {"old_password": PASSWORD, "new_password": NEW_PASSWORD}
    token = {"name": "nightly", "actions": ["see envoys"], "password": PASSWORD}
    new_envoy = {"name": "Hospital new", "bucket": "", "prefix": "", "region": "eu-north-1"}
    plan = {"study": study, "envoys": [envoy], "num_rounds": 3, "strategy": "fedavg"}
    local_training = {
        "local_epochs": 1,
        "batch_size": 32,
        "learning_rate": 0.1,
        "weight_decay": 0.0,
    }
    approval = {"package": hospital.package.pk, "plan_sha256": hospital.package.plan_sha256}
    run = {"study": study, "plan_sha256": world.plan.sha256, "envoys": [envoy], "seed": 0}
    return {
        # The site itself
        "POST login": {"username": "doctor-own", "password": PASSWORD},
        "POST api:token": {"username": "doctor-own", "password": PASSWORD},
        "POST published:login": {"username": "doctor-own", "password": PASSWORD},
        "POST api:token-revoke": {"refresh": world.refresh_token},
        "POST account-register": {**account, "password_again": NEW_PASSWORD},
        "POST api:account-register": account,
        "POST published:register": account,
        "POST password_change": {
            "old_password": PASSWORD,
            "new_password1": NEW_PASSWORD,
            "new_password2": NEW_PASSWORD,
        },
        "POST api:password-change": password,
        "POST login-code": {"code": "000000"},
        "POST login-set-up": {"code": "000000"},
        "POST two-step-set-up": {"code": "000000"},
        "POST two-step-codes": {"code": "000000"},
        "POST two-step-turn-off": {"password": PASSWORD, "code": "000000"},
        "POST api:logins-end": {"access_tokens": True},
        "POST access-token-create": {**token, "days": 90},
        "POST api:access-token-list": token,
        # A hospital's patients
        "POST inference:patient-list": {"text": "Test Patient Own"},
        "POST diagnoses:patient-register": facts,
        "POST api:patient-list": facts,
        "POST api:patient-search": {"name": "Test Patient Own"},
        "POST published:patient-register": {
            "name": "Test Patient New",
            "gender": "F",
            "phone": "0",
        },
        "POST diagnoses:patient-edit": facts,
        "POST inference:patient-erase": {"subject_id": hospital.patient.subject_id},
        "DELETE api:patient-detail": {"subject_id": hospital.patient.subject_id},
        "PATCH api:patient-detail": {"phone": "000"},
        "POST diagnoses:admission-create": {"admitted_at": now},
        "POST api:admission-list": {"patient": hospital.gone_home.pk, "admitted_at": now},
        "POST diagnoses:admission-discharge": {"discharged_at": now, "outcome": "home"},
        "POST api:admission-discharge": discharge,
        "POST diagnoses:admission-risk-level": {"level": 2},
        "PATCH api:admission-detail": {"clinician_risk_level": 2},
        "POST diagnoses:diagnosis-create": diagnosis,
        "POST api:diagnosis-list": {"admission": hospital.admission.pk, **diagnosis},
        "POST published:diagnosis-create": [
            {"subject_id": None, "hadm_id": "H123456", "icd_code": "I10", "icd_version": 10}
        ],
        "GET diagnoses:icd-code-search": {"icd_code": "heart"},
        "POST diagnoses:icd-code-search": {"icd_code": "heart"},
        "POST diagnoses:import-create": {"diagnoses": diagnoses_file()},
        "POST api:import-list": {"diagnoses": diagnoses_file()},
        # A hospital's answer
        "POST training:package-approve": {"plan_sha256": hospital.package.plan_sha256},
        "POST api:approval-list": approval,
        "POST training:package-refuse": {"reason": "not with so many rounds"},
        "POST api:approval-refuse": {"reason": "not with so many rounds"},
        "POST training:model-choice-overrule": {"kind": "FINE_TUNED", "reason": "it knows us"},
        "POST api:model-choice-overrule": {"kind": "FINE_TUNED", "reason": "it knows us"},
        # Scoring
        "POST inference:inference-run-create": {  # a doctor's form asks for no hospital
            "study": study,
            "envoys": [world.hospitals["own"].envoy.pk],
            "model": "global",
        },
        "POST api:inference-run-list": {"envoys": [envoy], "model": "global"},
        # Public health
        "POST publichealth:citizen": {"age": 30, "aqi": 60},
        "POST api:health-risk": {"age": 30, "aqi": 60},
        "POST api:health-risk-batch": {"readings": [{"aqi": 60}]},
        "POST published:predict": {"age": 30, "aqi": 60},
        "POST published:predict-batch": {"readings": [{"aqi": 60}]},
        "POST api:reading-erase": {"subject_id": "subject-of-reading"},
        "POST api:reading-list": {
            "readings": [{"subject_id": "s1", "measured_at": "2026-01-01T12:00Z", "spo2": 97}]
        },
        # Running the federation
        "POST envoys:envoy-create": new_envoy,
        "POST api:envoy-list": new_envoy,
        "POST published:envoy-create": {"name": "Hospital new", "s3_bucket": "", "s3_prefix": ""},
        "POST envoys:envoy-edit": {**new_envoy, "name": "Hospital renamed"},
        "PATCH api:envoy-detail": {"region": "eu-west-1"},
        "POST inference:envoy-delete": {"name": world.idle.name},
        "DELETE api:envoy-detail": {"name": world.idle.name},
        "POST training:study-create": {"target": "readmitted_30d", "network": "shallow_network"},
        "POST api:study-list": {"target": "readmitted_30d"},
        "POST training:package-create": {**plan, **local_training},
        "POST api:package-list": {**plan, "local_training": local_training},
        "POST training:run-create": {**run, "plan": world.plan.sha256, "deadline_minutes": 60},
        "POST api:run-list": run,
        "POST training:envoy-launch": {"study": study},
        "POST api:envoy-launch": {"study": study},
        "POST training:round-aggregate": {"study": study, "envoys": [envoy]},
        "POST api:round-aggregate": {"study": study, "envoys": [envoy]},
        "POST published:aggregate": [envoy],
        "POST training:model-version-distribute": {"envoys": [envoy]},
        "POST api:distribution-list": {"model_version": world.version.pk, "envoys": [envoy]},
        # Public health
        "POST publichealth:threshold-set": {"value": 120},
        "POST publichealth:proposal-create": {"drift_check": drift_check, "reason": "it drifts"},
        "POST api:drift-check-list": {"envoys": [envoy]},
        "POST api:retraining-proposal-list": {"drift_check": drift_check, "reason": "it drifts"},
        "PATCH api:alert-threshold-detail": {"value": 120},
    }


def make_world() -> World:
    study = services.study_for("risk_tier")
    plan = services.plan_for(study, num_rounds=1)
    icd_code = IcdCode.objects.create(
        code="I509", version=10, title="Heart failure, unspecified", category="I50"
    )
    version = _make_global_version(study, plan)
    make_serving()
    hospitals = {name: _make_hospital(name, study, plan, version) for name in ("own", "other")}
    scientist = make_user(User.Role.DATA_SCIENTIST)
    unassigned = make_user(username="unassigned")
    unassigned.envoy = None
    unassigned.save(update_fields=["envoy"])
    people: dict[str, User | None] = {
        "anonymous": None,
        "doctor": hospitals["own"].doctor,
        "doctor without hospital": unassigned,
        "data scientist": scientist,
        "public-health officer": make_user(User.Role.PUBLIC_HEALTH),
        "administrator": make_user(User.Role.ADMINISTRATOR),
    }
    return World(
        study=study,
        plan=plan,
        version=version,
        icd_code=icd_code,
        suspended=make_envoy(name="Hospital suspended", status=Envoy.Status.SUSPENDED),
        idle=make_envoy(name="Hospital idle"),
        erasure=Erasure.objects.create(envoy_name="Hospital gone", status=Erasure.Status.COMPLETE),
        proposal=RetrainingProposal.objects.create(
            study=study, drift_check=hospitals["own"].drift_check, reason="it drifts"
        ),
        refresh_token=str(RefreshToken.for_user(hospitals["own"].doctor)),
        hospitals=hospitals,
        tokens={
            name: make_token(name="world", user=user, actions=["see envoys"], made_by=user)[0]
            for name, user in people.items()
            if user is not None
        },
        people=people,
    )


def _make_global_version(study: Study, plan: TrainingPlan) -> ModelVersion:
    run = _make_run(study, plan, TrainingRun.Status.FINISHED)
    training_round = make_round(run, number=1, status=TrainingRound.Status.AGGREGATED)
    return _make_served_version(training_round, state=ModelVersion.State.ACTIVE)


def _make_run(study: Study, plan: TrainingPlan, status: str) -> TrainingRun:
    return make_run(
        status,
        study=study,
        plan=plan.to_json(),
        plan_sha256=plan.sha256,
        num_rounds=1,
        finished_at=timezone.now() if status == TrainingRun.Status.FINISHED else None,
        training_at=timezone.now(),
    )


def _make_served_version(training_round: TrainingRound, **values: Any) -> ModelVersion:
    """A version whose parameters lie in storage; some numbers, learned from nobody."""
    plan = TrainingPlan.from_json(training_round.run.plan)
    rng = np.random.default_rng(7)
    params: Params = {
        name: rng.normal(0, 0.3, value.shape).astype(np.float32)
        for name, value in sorted(first_params(plan, seed=0).items())
    }
    inputs = feature_schema(plan.target).numeric_inputs
    manifest = {
        "study": plan.study,
        "number": 1,
        "target": plan.target,
        "target_definition": plan.target_definition,
        "classes": list(target_named(plan.target).classes),
        "network": plan.network,
        "schema_sha256": plan.schema_sha256,
        "vocabulary_sha256": plan.vocabulary_sha256,
        "scaling": {"mean": [0.0 for _ in inputs], "std": [1.0 for _ in inputs]},
        "params_sha256": params_sha256(params),
        "lineage": {
            "plan_sha256": plan.sha256,
            "strategy": plan.strategy,
            "seed": 0,
            "round": 1,
            "base_sha256": training_round.base_sha256,
            "updates": [
                {"envoy": name, "sha256": "0" * 64, "num_examples": 100}
                for name in ("first", "second", "third")
            ],
        },
    }
    version = make_version(
        training_round,
        manifest=manifest,
        params_sha256=manifest["params_sha256"],
        storage_key="trained_model/first" if "envoy" in values else "global_model/versions/first",
        **values,
    )
    storage = envoy_storage(version.envoy) if version.envoy else director_storage()
    sha256 = ""
    for name in reversed(MODEL_FILES):
        sha256 = write_object(storage, f"{version.storage_key}/{name}", to_bytes(params))
    version.object_sha256 = sha256
    version.save(update_fields=["object_sha256"])
    return version


def _make_hospital(
    name: str, study: Study, plan: TrainingPlan, global_version: ModelVersion
) -> Hospital:
    envoy = make_envoy(name=f"Hospital {name}", slug=name)
    doctor = make_user(envoy=envoy, username=f"doctor-{name}")
    patient = make_patient(envoy, name=f"Test Patient {name.title()}", sex="F", birth_year=1950)
    gone_home = make_patient(envoy, name=f"Test Patient Gone {name.title()}", sex="M")
    long_ago = timezone.now() - timedelta(days=90)
    discharged, left = (
        make_admission(
            each,
            admitted_at=long_ago,
            discharged_at=long_ago + timedelta(days=3),
            discharged_home=True,
            died_in_hospital=False,
        )
        for each in (patient, gone_home)
    )
    admission = make_admission(patient, admitted_at=timezone.now() - timedelta(days=1))
    diagnosis = make_diagnosis(admission)
    struck_out = make_diagnosis(
        admission, icd_code="I509", struck_out_by=doctor, struck_out_at=timezone.now()
    )

    make_reading(envoy, subject_id="subject-of-reading")
    source_import = make_import(envoy, started_by=doctor)
    export = make_snapshot(envoy, completed_at=timezone.now(), requested_by=doctor)
    waiting_plan = services.plan_for(study, num_rounds=2)
    package = make_membership(
        study, envoy, plan=waiting_plan.to_json(), plan_sha256=waiting_plan.sha256
    )
    approved = make_membership(
        study,
        envoy,
        plan=plan.to_json(),
        plan_sha256=plan.sha256,
        packaged_at=long_ago,
        approved_by=doctor,
        approved_at=long_ago,
    )

    run = _make_run(study, plan, TrainingRun.Status.FINISHED)
    make_participant(run, envoy, snapshot=export)
    training_round = make_round(run, number=1, status=TrainingRound.Status.AGGREGATED)
    assignment = make_assignment(
        training_round, envoy, status=RoundAssignment.Status.SUBMITTED, submitted_at=timezone.now()
    )
    make_update(assignment)
    version = _make_served_version(training_round, envoy=envoy)
    held_update = make_update(
        make_assignment(
            make_round(run, number=2, status=TrainingRound.Status.AGGREGATED),
            envoy,
            status=RoundAssignment.Status.SUBMITTED,
        ),
        verdict=ReceivedUpdate.Verdict.QUARANTINED,
        reason="it has turned round",
        screening={"norm_ratio": 1.2, "others_cosine": 0.1, "own_cosine": -0.9, "own_median": 0.9},
    )

    active_run = _make_run(study, plan, TrainingRun.Status.TRAINING)
    active_run.on_miss = TrainingRun.OnMiss.WAIT
    active_run.save(update_fields=["on_miss"])
    make_participant(active_run, envoy, snapshot=export)
    failed_assignment = make_assignment(
        make_round(active_run, number=1),
        envoy,
        status=RoundAssignment.Status.FAILED,
        reason="the snapshot is gone",
    )

    distribution = make_distribution(global_version, envoy)
    for file in MODEL_FILES:
        with director_storage().open(f"{global_version.storage_key}/{file}") as stored:
            write_object(envoy_storage(envoy), f"global_model/{file}", stored.read())
    inference_run = make_inference_run(
        global_version,
        envoy,
        counts={"Low": 0, "Medium": 0, "High": 1},
        num_done=1,
        num_total=1,
        requested_by=doctor,
        completed_at=timezone.now(),
    )
    return Hospital(
        envoy=envoy,
        doctor=doctor,
        patient=patient,
        admission=admission,
        discharged=discharged,
        gone_home=gone_home,
        left=left,
        diagnosis=diagnosis,
        struck_out=struck_out,
        upload=_make_upload(envoy, doctor),
        source_import=source_import,
        export=export,
        package=package,
        approved=approved,
        run=run,
        training_round=training_round,
        assignment=assignment,
        active_run=active_run,
        failed_assignment=failed_assignment,
        held_update=held_update,
        version=version,
        distribution=distribution,
        failed_distribution=make_distribution(
            global_version, envoy, status=Distribution.Status.FAILED, reason="no room left"
        ),
        inference_run=inference_run,
        prediction=make_prediction(
            global_version, discharged, inference_run=inference_run, requested_by=doctor
        ),
        choice=make_choice(run, envoy),
        overruled_choice=make_choice(
            active_run,
            envoy,
            overruled_to=ModelVersion.Kind.FINE_TUNED,
            overrule_reason="it knows us",
            overruled_by=doctor,
            overruled_at=timezone.now(),
        ),
        drift_check=DriftCheck.objects.create(
            envoy=envoy, version=global_version, status=DriftCheck.Status.COMPLETE
        ),
        patient_erasure=PatientErasure.objects.create(
            envoy=envoy,
            patient_number=0,
            subject_sha256=subject_sha256(envoy, "gone"),
            status=PatientErasure.Status.COMPLETE,
        ),
    )


def _make_upload(envoy: Envoy, doctor: User) -> Upload:
    upload = upload_files(
        envoy, diagnoses=BytesIO(DIAGNOSES_CSV), outcomes=None, uploaded_by=doctor
    )
    Upload.objects.filter(pk=upload.pk).update(
        status=Upload.Status.COMPLETE, num_admissions=1, num_diagnoses=1
    )
    return upload


def diagnoses_file() -> SimpleUploadedFile:
    return SimpleUploadedFile("diagnoses.csv", DIAGNOSES_CSV, content_type="text/csv")
