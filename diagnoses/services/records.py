"""A hospital's rows as the algorithm's records."""

from collections import defaultdict
from collections.abc import Collection, Iterator
from typing import Any

from django.utils import timezone

from diagnoses.models import Admission, Diagnosis, ImportedQuerySet, Patient
from diagnoses.services.batches import batched
from envoys.models import Envoy
from federated.cohorts import (
    VALUE_FIELDS,
    AdmissionRecord,
    CodedDiagnosis,
    admission_order,
    canonical_time,
    with_what_dates_tell,
)

PATIENTS_PER_CHUNK = 500

# The fields that a record and an admission share as they are.
RECORD_FIELDS = tuple(
    name for name in VALUE_FIELDS if name not in ("sex", "admitted_at", "discharged_at")
)


def admission_records(
    envoy: Envoy,
    *,
    patient: Patient | None = None,
    patient_ids: Collection[int] | None = None,
    with_diagnoses: bool = True,
) -> Iterator[AdmissionRecord]:
    """A hospital's admissions as the algorithm reads them, by subject_id and `admission_order`.

    Age, length of stay and readmission are as given; where they are not, they follow from birth
    year and dates, readmission only once 30 days have passed since the discharge. A few hundred
    patients are in memory at a time.

    Args:
        patient: all of this patient's admissions, since how many came before is an input; if None,
            those of every patient.
        patient_ids: as `patient`, for several of them.
        with_diagnoses: False leaves them out, which takes little more than half the time.
    """
    patients = Patient.objects.complete().filter(envoy=envoy)
    if patient is not None:
        patients = patients.filter(pk=patient.pk)
    if patient_ids is not None:
        patients = patients.filter(pk__in=patient_ids)
    now = timezone.now()
    # Sorted in Python: collations differ between databases.
    in_order = sorted(patients.values_list("subject_id", "pk").iterator())
    for chunk in batched(in_order, PATIENTS_PER_CHUNK):
        by_patient = _records_by_patient(envoy, [pk for _, pk in chunk], with_diagnoses)
        for _, patient_id in chunk:
            in_time = sorted(by_patient[patient_id], key=admission_order)
            yield from with_what_dates_tell(in_time, now=now)


def _records_by_patient(
    envoy: Envoy, patient_ids: list[int], with_diagnoses: bool
) -> dict[int, list[AdmissionRecord]]:
    admissions = Admission.objects.complete().filter(envoy=envoy, patient_id__in=patient_ids)
    diagnoses = _diagnoses_of(admissions) if with_diagnoses else {}
    records = defaultdict(list)
    for admission in admissions.values(
        "pk",
        "patient_id",
        "hadm_id",
        "admitted_at",
        "discharged_at",
        "patient__subject_id",
        "patient__sex",
        "patient__birth_year",
        *RECORD_FIELDS,
    ):
        record = _record(admission, tuple(diagnoses.get(admission["pk"], ())))
        records[admission["patient_id"]].append(record)
    return records


def _diagnoses_of(admissions: ImportedQuerySet) -> dict[int, list[CodedDiagnosis]]:
    diagnoses = defaultdict(list)
    standing = Diagnosis.objects.standing().filter(admission__in=admissions)
    for admission_id, seq_num, icd_code, icd_version in standing.order_by("seq_num").values_list(
        "admission_id", "seq_num", "icd_code", "icd_version"
    ):
        diagnoses[admission_id].append(CodedDiagnosis(seq_num, icd_code, icd_version))
    return diagnoses


def _record(admission: dict[str, Any], diagnoses: tuple[CodedDiagnosis, ...]) -> AdmissionRecord:
    given = {name: admission[name] for name in RECORD_FIELDS}
    admitted_at, discharged_at = admission["admitted_at"], admission["discharged_at"]
    times = [canonical_time(moment) if moment else "" for moment in (admitted_at, discharged_at)]
    if given["age"] is None and admission["patient__birth_year"] and admitted_at:
        given["age"] = float(max(0, admitted_at.year - admission["patient__birth_year"]))
    return AdmissionRecord(
        subject_id=admission["patient__subject_id"],
        hadm_id=admission["hadm_id"],
        sex=admission["patient__sex"],
        admitted_at=times[0],
        discharged_at=times[1],
        diagnoses=diagnoses,
        **given,
    )
