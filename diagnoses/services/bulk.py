"""Many diagnoses at once, as another system sends them."""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from typing import Any

from django.db import transaction
from django.utils import timezone

from diagnoses.models import Admission, Diagnosis, Patient, RiskLevel
from diagnoses.services.batches import BATCH_ROWS, batched
from diagnoses.services.erased import ErasedSubjects
from diagnoses.services.hospitals import check_takes_patients
from envoys import audit
from envoys.errors import NotNowError
from envoys.models import Envoy, User
from federated import icd
from federated.cohorts.values import MAX_COUNT, MAX_SEQ_NUM, parse_id
from federated.errors import CohortError, FederatedError, InvalidCodeError, InvalidValueError


@dataclass(frozen=True)
class DiagnosisRow:
    """One diagnosis of an admission, and what it says of the admission besides."""

    hadm_id: str
    icd_code: str
    icd_version: int
    subject_id: str | None = None  # None: that of the admission, or a new one
    seq_num: int | None = None  # None: the next place
    diagnosis_count: int | None = None
    risk_level: int | None = None


@dataclass
class _Stay:
    """An admission as it will be: standing or new, with what the rows add to it."""

    admission: Admission
    places: dict[int, tuple[str, int]] = field(default_factory=dict)  # seq_num -> code, version
    fresh: list[Diagnosis] = field(default_factory=list)
    told: dict[str, int] = field(default_factory=dict)  # what rows say of the admission itself


def add_diagnoses(
    envoy: Envoy, rows: Sequence[DiagnosisRow], *, recorded_by: User | None
) -> list[str]:
    """Record many diagnoses: all of them, or none; returns the subject_id of each row.

    A row whose hadm_id is known belongs to that admission; an unknown one opens an admission, now,
    of the patient whom subject_id names, or of a new one. A diagnosis that stands already is left as
    it is, so that the same rows may be sent twice. `diagnosis_count` becomes the admission's count
    as given, `risk_level` the doctor's own.

    Raises:
        CohortError: with the problems of all rows, each by the row's number, from 1.
        NotNowError: the hospital has been deleted, is a node of readings, or an import holds one
            of the admissions.
    """
    with transaction.atomic():
        # One such call at a time into a hospital: two might open the same admission.
        list(Envoy.objects.select_for_update().filter(pk=envoy.pk))
        check_takes_patients(envoy)
        batch = _Batch(envoy, recorded_by)
        batch.load(rows)
        problems = []
        for number, row in enumerate(rows, start=1):
            try:
                batch.add(row)
            except FederatedError as error:
                problems.append(f"row {number}: {error}")
        if problems:
            raise CohortError(problems)
        batch.save()
        audit.record(recorded_by, "added diagnoses", envoy)
    return [batch.stays[row.hadm_id.strip()].admission.patient.subject_id for row in rows]


class _Batch:
    def __init__(self, envoy: Envoy, recorded_by: User | None) -> None:
        self.envoy = envoy
        self.recorded_by = recorded_by
        self.stays: dict[str, _Stay] = {}  # by hadm_id
        self.patients: dict[str, Patient] = {}  # by subject_id
        self.erased = ErasedSubjects(envoy)

    def load(self, rows: Iterable[DiagnosisRow]) -> None:
        """What the hospital has of these admissions and patients already."""
        for some in batched(rows, BATCH_ROWS):
            hadm_ids = {row.hadm_id.strip() for row in some} - set(self.stays)
            standing = Admission.objects.filter(envoy=self.envoy, hadm_id__in=hadm_ids)
            if standing.count() > standing.complete().count():
                raise NotNowError("an import is writing one of these admissions: try again later")
            for admission in standing.select_related("patient"):
                self.stays[admission.hadm_id] = _Stay(admission)
                self.patients[admission.patient.subject_id] = admission.patient
            diagnoses = Diagnosis.objects.standing().filter(admission__in=standing)
            for hadm_id, seq_num, code, version in diagnoses.values_list(
                "admission__hadm_id", "seq_num", "icd_code", "icd_version"
            ):
                self.stays[hadm_id].places[seq_num] = (code, version)
            subject_ids = {row.subject_id.strip() for row in some if row.subject_id}
            patients = Patient.objects.complete().filter(envoy=self.envoy)
            for patient in patients.filter(subject_id__in=subject_ids - set(self.patients)):
                self.patients[patient.subject_id] = patient

    def add(self, row: DiagnosisRow) -> None:
        """Raises InvalidValueError, InvalidCodeError."""
        code, version = _checked_code(row)
        stay = self._stay_of(row)
        _tell(stay, "number_diagnoses", "diagnosis_count", row.diagnosis_count, MAX_COUNT)
        _tell(stay, "clinician_risk_level", "risk_level", row.risk_level, max(RiskLevel.values))
        place = row.seq_num
        if place is None:
            if (code, version) in stay.places.values():
                return
            place = max(stay.places, default=0) + 1
        if not 1 <= place <= MAX_SEQ_NUM:
            raise InvalidValueError(f"seq_num {place} is no whole number from 1 to {MAX_SEQ_NUM}")
        if place in stay.places:
            if stay.places[place] != (code, version):
                raise InvalidValueError(f"seq_num {place} of its hadm_id is taken by another code")
            return
        stay.places[place] = (code, version)
        stay.fresh.append(
            Diagnosis(
                seq_num=place, icd_code=code, icd_version=version, recorded_by=self.recorded_by
            )
        )

    def save(self) -> None:
        stays = list(self.stays.values())
        patients = {stay.admission.patient.subject_id: stay.admission.patient for stay in stays}
        Patient.objects.bulk_create(
            [patient for patient in patients.values() if patient.pk is None], BATCH_ROWS
        )
        for stay in stays:
            stay.admission.patient = stay.admission.patient  # its key, now that there is one
            if stay.admission.number_diagnoses is not None:  # a count as given grows with them
                more = stay.admission.number_diagnoses + len(stay.fresh)
                stay.told.setdefault("number_diagnoses", more)
            for name, value in stay.told.items():
                setattr(stay.admission, name, value)
        fresh = [stay.admission for stay in stays if stay.admission.pk is None]
        changed = [stay.admission for stay in stays if stay.admission.pk and stay.told]
        Admission.objects.bulk_create(fresh, BATCH_ROWS)
        Admission.objects.bulk_update(
            changed, ["number_diagnoses", "clinician_risk_level"], batch_size=BATCH_ROWS
        )
        for stay in stays:
            for diagnosis in stay.fresh:
                diagnosis.admission = stay.admission
        Diagnosis.objects.bulk_create(
            [diagnosis for stay in stays for diagnosis in stay.fresh], BATCH_ROWS
        )

    def _stay_of(self, row: DiagnosisRow) -> _Stay:
        hadm_id = parse_id(row.hadm_id.strip(), "hadm_id")
        subject_id = row.subject_id.strip() if row.subject_id else ""
        stay = self.stays.get(hadm_id)
        if stay is None:
            stay = _Stay(
                Admission(
                    envoy=self.envoy,
                    hadm_id=hadm_id,
                    patient=self._patient(subject_id),
                    admitted_at=timezone.now(),
                )
            )
            self.stays[hadm_id] = stay
        elif subject_id and subject_id != stay.admission.patient.subject_id:
            raise InvalidValueError("its hadm_id belongs to another subject_id")
        return stay

    def _patient(self, subject_id: str) -> Patient:
        if subject_id in self.patients:
            return self.patients[subject_id]
        patient = Patient(envoy=self.envoy)
        if subject_id in self.erased:
            raise InvalidValueError(
                "its patient was erased here: leave the row out, or let the patient return on the"
                " page of what was erased"
            )
        if subject_id:
            patient.subject_id = parse_id(subject_id, "subject_id")
        self.patients[patient.subject_id] = patient
        return patient


def _checked_code(row: DiagnosisRow) -> tuple[str, int]:
    code, _ = icd.normalize_code(row.icd_code, row.icd_version)
    if icd.code_status(code, row.icd_version) is icd.CodeStatus.UNKNOWN_CATEGORY:
        raise InvalidCodeError(f"{code} is in no list of ICD-{row.icd_version}")
    return code, row.icd_version


def _tell(stay: _Stay, name: str, column: str, value: Any, largest: int) -> None:
    """Note what a row says of its admission; two rows that differ would hide one another."""
    if value is None:
        return
    if not 0 <= value <= largest:
        raise InvalidValueError(f"{column} {value} is no whole number from 0 to {largest}")
    if stay.told.setdefault(name, value) != value:
        raise InvalidValueError(f"{column} {value} differs from an earlier row of its hadm_id")
