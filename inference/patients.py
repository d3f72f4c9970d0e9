"""A hospital's patients, a page at a time, in a time that does not grow with the hospital."""

from dataclasses import dataclass, field
from typing import Any

from django.db import connection
from django.db.models import Exists, OuterRef, Q, QuerySet

from diagnoses.models import Admission, Diagnosis, Patient
from envoys.models import User
from envoys.pages import ROWS_PER_PAGE
from inference.models import Prediction
from training.models import ModelVersion

MOST_FOUND = 500
# A class with fewer scored admissions is looked up from its end, others from the patients'.
FEW_PREDICTIONS = 2_000


@dataclass(frozen=True)
class PatientFilters:
    """What a list of patients is narrowed to; `text` is a name, a subject_id or a hadm_id."""

    text: str = ""
    sex: str = ""
    is_open: bool = False
    risk: int | None = None  # a class of the model in use


@dataclass(frozen=True)
class PatientRow:
    patient: Patient
    num_admissions: int
    newest: Admission | None
    is_open: bool
    risk: int | None  # the highest class among the patient's admissions, by the model in use
    risk_name: str


@dataclass(frozen=True)
class PatientPage:
    """Patients, the last registered first. Links lead from key to key: nothing is counted."""

    rows: list[PatientRow] = field(default_factory=list)
    older_than: int | None = None  # the key of the next page, if there is one
    newer_than: int | None = None  # the key of the page before


def patients_of(
    user: User, filters: PatientFilters, version: ModelVersion | None
) -> "QuerySet[Patient]":
    """The patients that a doctor may see, narrowed."""
    assert user.envoy_id is not None  # the access list has seen to it
    patients: QuerySet[Patient] = Patient.objects.visible_to(user)
    if filters.text:
        patients = patients.filter(pk__in=_found(user.envoy_id, filters.text))
    if filters.sex:
        patients = patients.filter(sex=filters.sex)
    if filters.is_open:
        still_here = Admission.objects.visible_to(user).open()
        patients = patients.filter(pk__in=still_here.values("patient_id"))
    if filters.risk is not None:
        patients = _at_risk(patients, user.envoy_id, filters.risk, version)
    return patients


def page_of_patients(
    patients: "QuerySet[Patient]",
    version: ModelVersion | None,
    *,
    older_than: int | None = None,
    newer_than: int | None = None,
    size: int = ROWS_PER_PAGE,
) -> PatientPage:
    """The newest patients, or those next to a key: in a fixed number of queries."""
    if newer_than is not None:
        found = list(patients.filter(pk__gt=newer_than).order_by("pk")[: size + 1])
        has_newer, has_older = len(found) > size, True
        found = found[:size][::-1]
    else:
        older = patients if older_than is None else patients.filter(pk__lt=older_than)
        found = list(older.order_by("-pk")[: size + 1])
        has_newer, has_older = older_than is not None, len(found) > size
        found = found[:size]
    return PatientPage(
        rows=_rows(found, version),
        older_than=found[-1].pk if found and has_older else None,
        newer_than=found[0].pk if found and has_newer else None,
    )


def _found(envoy_id: int, text: str) -> set[int]:
    """Patients of exactly this name, or with an identifier that begins so; 500 at the most.

    Whether an import is complete is asked of those alone that are found.
    """
    patients = Patient.objects.filter(envoy_id=envoy_id)
    admissions = Admission.objects.filter(envoy_id=envoy_id)
    by_subject = patients.filter(_begins("subject_id", text))
    by_admission = admissions.filter(_begins("hadm_id", text))
    return {
        *patients.named(text).values_list("pk", flat=True)[:MOST_FOUND],
        *by_subject.values_list("pk", flat=True)[:MOST_FOUND],
        *by_admission.values_list("patient_id", flat=True)[:MOST_FOUND],
    }


def _begins(name: str, text: str) -> Q:
    """SQLite's LIKE reads every row, but its order is that of the bytes: there is a range to read.

    PostgreSQL's order is its collation's, in which what begins alike need not stand together.
    """
    begins = Q((f"{name}__startswith", text))
    if connection.vendor != "sqlite":
        return begins
    return begins & Q((f"{name}__gte", text), (f"{name}__lt", text + chr(0x10FFFF)))


def _at_risk(
    patients: "QuerySet[Patient]", envoy_id: int, risk: int, version: ModelVersion | None
) -> "QuerySet[Patient]":
    """Those with an admission that the model in use puts into this class."""
    if version is None:
        return patients.none()
    scored = Prediction.objects.filter(
        envoy_id=envoy_id, model_version=version, predicted_class=risk
    )
    if scored[:FEW_PREDICTIONS].count() < FEW_PREDICTIONS:
        return patients.filter(pk__in=scored.values("admission__patient_id"))
    of_patient = Admission.objects.filter(patient=OuterRef("pk")).filter(
        Exists(
            Prediction.objects.filter(
                admission=OuterRef("pk"), model_version=version, predicted_class=risk
            )
        )
    )
    return patients.filter(Exists(of_patient))


def _rows(patients: list[Patient], version: ModelVersion | None) -> list[PatientRow]:
    admissions: dict[int, list[Admission]] = {patient.pk: [] for patient in patients}
    patient_of: dict[int, int] = {}
    for admission in Admission.objects.complete().filter(patient__in=patients):
        admissions[admission.patient_id].append(admission)
        patient_of[admission.pk] = admission.patient_id
    classes: dict[int, int] = {}
    names = version.manifest["classes"] if version else []
    if version is not None:
        # By the admissions' own keys: a join with patients is planned from the model's end.
        scored = Prediction.objects.filter(model_version=version, admission__in=list(patient_of))
        for admission_id, risk in scored.values_list("admission_id", "predicted_class"):
            patient_id = patient_of[admission_id]
            classes[patient_id] = max(risk, classes.get(patient_id, risk))
    return [
        PatientRow(
            patient=patient,
            num_admissions=len(admissions[patient.pk]),
            newest=max(admissions[patient.pk], key=time_order, default=None),
            is_open=any(admission.is_open for admission in admissions[patient.pk]),
            risk=classes.get(patient.pk),
            risk_name=names[classes[patient.pk]] if patient.pk in classes else "",
        )
        for patient in patients
    ]


def time_order(admission: Admission) -> tuple[Any, ...]:
    """As `federated.cohorts.admission_order`: by date, those without one last, by hadm_id."""
    moment = admission.admitted_at.isoformat() if admission.admitted_at else "undated"
    return moment, len(admission.hadm_id), admission.hadm_id


def num_standing(admissions: list[Admission]) -> dict[int, int]:
    """How many diagnoses stand in each admission."""
    counts = dict.fromkeys((admission.pk for admission in admissions), 0)
    standing = Diagnosis.objects.standing().filter(admission__in=admissions)
    for admission_id in standing.values_list("admission_id", flat=True):
        counts[admission_id] += 1
    return counts
