"""A doctor's own rows: patients, their admissions, and the diagnoses recorded in them."""

import secrets
from datetime import UTC, datetime, timedelta

from django.db import models, transaction
from django.db.models import F
from django.utils import timezone

from diagnoses.models import Admission, Diagnosis, Patient, RiskLevel, Sex
from diagnoses.services.hospitals import check_takes_patients
from envoys import audit
from envoys.errors import NotNowError
from envoys.models import Envoy, User
from federated import icd
from federated.cohorts.values import MAX_AGE, MAX_SEQ_NUM, parse_id
from federated.errors import InvalidCodeError, InvalidValueError
from federated.plain_text import check_plain

MAX_NAME_LENGTH = 200
MAX_PHONE_LENGTH = 40
CLOCKS_DIFFER = timedelta(minutes=5)
FIRST_YEAR = 1900  # an earlier admission is a slip of the pen


def register_patient(
    envoy: Envoy,
    *,
    name: str,
    sex: str,
    phone: str,
    registered_by: User | None,
    birth_year: int | None = None,
) -> Admission:
    """Write down a new patient under a random subject_id, and open an admission.

    Raises:
        InvalidValueError: no name, or a value that cannot be.
        NotNowError: the hospital has been deleted, or is a node of readings.
    """
    patient = Patient(envoy=envoy)
    _set_facts(patient, name=name, sex=sex, phone=phone, birth_year=birth_year)
    with transaction.atomic():
        check_takes_patients(envoy)
        patient.save(force_insert=True)
        admission = Admission.objects.create(
            envoy=envoy, patient=patient, hadm_id=new_hadm_id(), admitted_at=timezone.now()
        )
        audit.record(registered_by, "registered patient", patient)
    return admission


def edit_patient(
    patient: Patient,
    *,
    name: str,
    sex: str,
    phone: str,
    birth_year: int | None,
    edited_by: User | None,
) -> Patient:
    """Correct what is known of a patient.

    Raises:
        InvalidValueError: a value that cannot be; or no name, where there was one.
    """
    _set_facts(patient, name=name, sex=sex, phone=phone, birth_year=birth_year)
    with transaction.atomic():
        patient.save(update_fields=["name", "name_index", "phone", "sex", "birth_year"])
        audit.record(edited_by, "edited patient", patient)
    return patient


def admit_patient(
    patient: Patient,
    *,
    admitted_by: User | None,
    admitted_at: datetime | None = None,
    hadm_id: str | None = None,
) -> Admission:
    """Open another admission of a patient, from now on where no time is given.

    Raises:
        NotNowError: the patient is in the hospital already or has died there, or the hadm_id is
            another admission's.
        InvalidValueError: a time in the future, before 1900 or the patient's birth, or within
            another stay; or no hadm_id.
    """
    admitted_at = admitted_at or timezone.now()
    _check_past(admitted_at, "admission")
    first_year = max(FIRST_YEAR, patient.birth_year or FIRST_YEAR)
    if admitted_at.astimezone(UTC).year < first_year:
        raise InvalidValueError(
            f"the admission would be before {first_year}"
            + (", the patient's year of birth" if first_year == patient.birth_year else "")
        )
    hadm_id = new_hadm_id() if hadm_id is None else parse_id(hadm_id.strip(), "hadm_id")
    with transaction.atomic():
        _lock(patient)
        check_takes_patients(patient.envoy)
        earlier = Admission.objects.complete().filter(patient=patient)
        if earlier.open().exists():
            raise NotNowError("the patient has an open admission: discharge them from it first")
        if earlier.filter(died_in_hospital=True).exists():
            raise NotNowError(
                "the patient is recorded as having died in hospital: reopen that admission first"
                " if this is wrong"
            )
        around = earlier.filter(admitted_at__lte=admitted_at, discharged_at__gt=admitted_at).first()
        if around is not None:
            raise InvalidValueError(
                f"the admission would be within another stay, {around.admitted_at:%Y-%m-%d %H:%M}"
                f" to {around.discharged_at:%Y-%m-%d %H:%M} UTC: give a later time, or correct the"
                " discharge from that one"
            )
        if Admission.objects.filter(envoy_id=patient.envoy_id, hadm_id=hadm_id).exists():
            raise NotNowError(
                "there is an admission with this hadm_id already: give another, or none to get one"
            )
        admission = Admission.objects.create(
            envoy_id=patient.envoy_id, patient=patient, hadm_id=hadm_id, admitted_at=admitted_at
        )
        audit.record(admitted_by, "admitted patient", admission)
    return admission


def discharge_patient(
    admission: Admission,
    *,
    discharged_at: datetime,
    discharged_home: bool | None,
    died: bool,
    discharged_by: User | None,
) -> Admission:
    """End an admission, with its outcome.

    Args:
        discharged_home: None where it is not known where to, and for who died.
    Raises:
        NotNowError: it is not open.
        InvalidValueError: a time before the admission or in the future, or home for who died.
    """
    _check_past(discharged_at, "discharge")
    admitted_at = admission.admitted_at
    if admitted_at and admitted_at - timedelta(minutes=1) < discharged_at < admitted_at:
        discharged_at = admitted_at  # a form knows no seconds
    if admitted_at and discharged_at < admitted_at:
        raise InvalidValueError(
            f"the discharge would be before the admission, {admitted_at:%Y-%m-%d %H:%M} UTC"
        )
    if died and discharged_home is not None:
        raise InvalidValueError("who died in hospital was not discharged to anywhere")
    with transaction.atomic():
        discharged = (
            Admission.objects.open()
            .filter(pk=admission.pk)
            .update(
                discharged_at=discharged_at, discharged_home=discharged_home, died_in_hospital=died
            )
        )
        if not discharged:
            raise NotNowError(_why_not_open(admission))
        audit.record(discharged_by, "discharged patient", admission)
    admission.refresh_from_db()
    return admission


def reopen_admission(admission: Admission, *, reopened_by: User | None) -> Admission:
    """Take a discharge back, with its outcome.

    Raises:
        NotNowError: it is open, its end was imported, or the patient has been admitted again.
    """
    with transaction.atomic():
        _lock(admission.patient)
        others = Admission.objects.complete().filter(patient_id=admission.patient_id)
        if others.exclude(pk=admission.pk).open().exists():
            raise NotNowError("the patient has been admitted again: that admission is open")
        reopened = (
            Admission.objects.reopenable()
            .filter(pk=admission.pk)
            .update(discharged_at=None, discharged_home=None, died_in_hospital=None)
        )
        if not reopened:
            raise NotNowError("there is no discharge to take back: it is open, or was imported")
        audit.record(reopened_by, "reopened admission", admission)
    admission.refresh_from_db()
    return admission


def set_risk_level(admission: Admission, level: int | None, *, set_by: User | None) -> Admission:
    """Write down how the doctor judges the risk; None takes the judgement back.

    Raises InvalidValueError.
    """
    if level is not None and level not in RiskLevel.values:
        raise InvalidValueError(f"risk level {level!r} is none of 0 (Low), 1 (Medium), 2 (High)")
    admission.clinician_risk_level = level
    with transaction.atomic():
        admission.save(update_fields=["clinician_risk_level"])
        audit.record(set_by, "set risk level", admission)
    return admission


def record_diagnosis(
    admission: Admission,
    *,
    icd_code: str,
    icd_version: int,
    recorded_by: User | None,
    seq_num: int | None = None,
) -> Diagnosis:
    """Record a diagnosis of an admission, in the next place where none is given.

    A code that is in no list but in a known category is taken, as imports take it: the models see
    its category.

    Raises:
        InvalidCodeError: no code of this version, or of no category that is known.
        InvalidValueError: a place that cannot be.
        NotNowError: the code stands in this admission already, or another one in this place.
    """
    code, _ = icd.normalize_code(icd_code, icd_version)
    if icd.code_status(code, icd_version) is icd.CodeStatus.UNKNOWN_CATEGORY:
        raise InvalidCodeError(f"{code} is in no list of ICD-{icd_version}: search for its words")
    if seq_num is not None and not 1 <= seq_num <= MAX_SEQ_NUM:
        raise InvalidValueError(f"place {seq_num} is none from 1 to {MAX_SEQ_NUM}")
    with transaction.atomic():
        _lock(admission)
        standing = Diagnosis.objects.standing().filter(admission=admission)
        if standing.filter(icd_code=code, icd_version=icd_version).exists():
            raise NotNowError(f"{code} has been recorded for this admission already")
        taken = standing.filter(seq_num=seq_num).first() if seq_num else None
        if taken is not None:
            raise NotNowError(
                f"place {seq_num} is taken by {taken.icd_code}: strike that out, or give no place"
            )
        diagnosis = Diagnosis.objects.create(
            admission=admission,
            seq_num=seq_num or _next_place(admission),
            icd_code=code,
            icd_version=icd_version,
            recorded_by=recorded_by,
        )
        _count_one(admission, more=1)
        audit.record(recorded_by, "recorded diagnosis", diagnosis)
    return diagnosis


def strike_out_diagnosis(diagnosis: Diagnosis, *, struck_out_by: User | None) -> Diagnosis:
    """Let a wrong diagnosis no longer count; it stays to be read, and can be restored.

    Raises NotNowError.
    """
    with transaction.atomic():
        struck_out = Diagnosis.objects.standing().filter(pk=diagnosis.pk)
        if not struck_out.update(struck_out_at=timezone.now(), struck_out_by=struck_out_by):
            raise NotNowError(f"{diagnosis.icd_code} has been struck out already")
        _count_one(diagnosis.admission, more=-1)
        audit.record(struck_out_by, "struck out diagnosis", diagnosis)
    diagnosis.refresh_from_db()
    return diagnosis


def restore_diagnosis(diagnosis: Diagnosis, *, restored_by: User | None) -> Diagnosis:
    """Let a diagnosis that was struck out count again, in the next place if its own is taken.

    Raises NotNowError.
    """
    with transaction.atomic():
        _lock(diagnosis.admission)
        standing = Diagnosis.objects.standing().filter(admission=diagnosis.admission_id)
        if standing.filter(icd_code=diagnosis.icd_code, icd_version=diagnosis.icd_version).exists():
            raise NotNowError(f"{diagnosis.icd_code} stands in this admission already")
        seq_num = diagnosis.seq_num
        if standing.filter(seq_num=seq_num).exists():
            seq_num = _next_place(diagnosis.admission)
        struck_out = Diagnosis.objects.filter(pk=diagnosis.pk, struck_out_at__isnull=False)
        struck_out.update(struck_out_at=None, struck_out_by=None, seq_num=seq_num)
        _count_one(diagnosis.admission, more=1)
        audit.record(restored_by, "restored diagnosis", diagnosis)
    diagnosis.refresh_from_db()
    return diagnosis


def new_hadm_id() -> str:
    return f"H{secrets.token_hex(6)}"


def _set_facts(
    patient: Patient, *, name: str, sex: str, phone: str, birth_year: int | None
) -> None:
    name, phone = " ".join(name.split()), " ".join(phone.split())
    if not name and (patient.name or patient.pk is None):  # an imported patient has none
        raise InvalidValueError("a patient needs a name")
    if len(name) > MAX_NAME_LENGTH:
        raise InvalidValueError(f"a name has {MAX_NAME_LENGTH} characters at the most")
    if len(phone) > MAX_PHONE_LENGTH:
        raise InvalidValueError(f"a phone number has {MAX_PHONE_LENGTH} characters at the most")
    check_plain(name, "the name")
    check_plain(phone, "the phone number")
    if sex not in Sex.values:
        raise InvalidValueError(f"sex {sex[:10]!r} is none of F, M or empty")
    this_year = timezone.now().year
    if birth_year is not None and not this_year - MAX_AGE <= birth_year <= this_year:
        raise InvalidValueError(f"{birth_year} is no year of birth of somebody alive")
    patient.set_name(name)
    patient.phone, patient.sex, patient.birth_year = phone, sex, birth_year


def _why_not_open(admission: Admission) -> str:
    if admission.admitted_at is None:
        return (
            "the admission came with no date, so that it does not count as open: admit the patient"
            " again if they are in the hospital, or import a file that says how this stay ended"
        )
    return "the admission is not open: the patient has been discharged from it"


def _check_past(moment: datetime, what: str) -> None:
    if moment > timezone.now() + CLOCKS_DIFFER:
        raise InvalidValueError(f"the {what} would be in the future")


def _lock(row: models.Model) -> None:
    """One change at a time to what hangs on a row, until the transaction ends."""
    type(row)._default_manager.select_for_update().get(pk=row.pk)


def _next_place(admission: Admission) -> int:
    last = Diagnosis.objects.standing().filter(admission=admission).order_by("-seq_num").first()
    return last.seq_num + 1 if last else 1


def _count_one(admission: Admission, *, more: int) -> None:
    """Where the source gave a count of diagnoses, what is recorded here changes it."""
    given = Admission.objects.filter(pk=admission.pk, number_diagnoses__gte=max(0, -more))
    given.update(number_diagnoses=F("number_diagnoses") + more)
