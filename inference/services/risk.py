"""A patient's risk by both models that a hospital has, the federation's and its own; one suits it."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial
from typing import cast

from diagnoses.models import Admission
from diagnoses.services import admission_records
from envoys import audit
from envoys.errors import StorageError
from envoys.models import Envoy, User
from federated.cohorts import AdmissionRecord
from federated.errors import SchemaMismatchError
from inference.models import Prediction
from inference.services.predictions import global_version, own_version_by, score_admission
from training.errors import NotReadyError
from training.models import MAIN_STUDY, Distribution, ModelChoice, ModelVersion, Study
from training.services import choice_in_use

NO_STUDY = "no study has been made yet: a data scientist makes one, and trains its model"


@dataclass(frozen=True)
class ModelRisk:
    """What one model says; where it cannot, why, and what has to happen first."""

    prediction: Prediction | None = None  # with its version
    missing: str = ""


@dataclass(frozen=True)
class PatientRisk:
    """What both models say of an admission."""

    admission: Admission
    study: Study | None
    by_global: ModelRisk
    by_own: ModelRisk
    choice: ModelChoice | None = None  # which of them suits the hospital; None before a report

    @property
    def own_suits(self) -> bool:
        """Whether the hospital's own model is the one to look at first."""
        return self.choice is not None and self.choice.kind_in_use != ModelVersion.Kind.GLOBAL


def study_in_use(envoy: Envoy) -> Study | None:
    """What a hospital's patients are scored for: the study whose model it received last.

    Before it received one, the main study; None before there is any.
    """
    newest = (
        Distribution.objects.filter(
            envoy=envoy, status=Distribution.Status.COMPLETE, version__study__dataset="diagnoses"
        )
        .select_related("version__study")
        .order_by("-delivered_at", "-pk")
        .first()
    )
    if newest is not None:
        return cast(Study, newest.version.study)
    studies = Study.objects.filter(dataset="diagnoses")
    return studies.filter(name=MAIN_STUDY).first() or studies.first()


def patient_risk(admission: Admission, *, requested_by: User | None) -> PatientRisk:
    """The risk of an admission by the global and by the hospital's own model, audited once.

    It is computed whenever it is looked at: that takes milliseconds, and whatever has changed
    since, in the admission, before it or in the models, is in it.

    Raises:
        NotReadyError: the admission is part of an import that is not complete.
    """
    risk = risk_of(admission, requested_by=requested_by)
    audit.record(requested_by, "saw risk", admission)
    return risk


def risk_of(admission: Admission, *, requested_by: User | None) -> PatientRisk:
    """As `patient_risk`, for who writes down what was looked at: a whole page is one look."""
    study = study_in_use(admission.envoy)
    if study is None:
        return PatientRisk(
            admission, None, ModelRisk(missing=NO_STUDY), ModelRisk(missing=NO_STUDY)
        )
    records = list(admission_records(admission.envoy, patient=admission.patient))
    if all(record.hadm_id != admission.hadm_id for record in records):
        raise NotReadyError("the admission is part of an import that is not complete")

    def by(version_of: Callable[[Study, Envoy], ModelVersion]) -> ModelRisk:
        return _risk_by(version_of, study, admission, records, requested_by)

    choice = choice_in_use(study, admission.envoy)
    by_own = by(partial(own_version_by, choice))
    return PatientRisk(admission, study, by(global_version), by_own, choice)


def _risk_by(
    version_of: Callable[[Study, Envoy], ModelVersion],
    study: Study,
    admission: Admission,
    records: Sequence[AdmissionRecord],
    requested_by: User | None,
) -> ModelRisk:
    try:
        version = version_of(study, admission.envoy)
        return ModelRisk(score_admission(admission, version, records, requested_by=requested_by))
    except (NotReadyError, StorageError, SchemaMismatchError) as error:
        return ModelRisk(missing=str(error))
