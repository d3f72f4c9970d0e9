"""Everything that is stored of a patient, to hand over: for people to read, and for machines."""

import json
import zipfile
from collections.abc import Iterable
from typing import Any, BinaryIO

from django.utils import timezone
from rest_framework.utils.encoders import JSONEncoder

from diagnoses.models import Admission, Diagnosis, IcdCode, Import, Patient, Snapshot
from envoys.csv_cells import csv_lines
from envoys.models import AuditEvent, User
from federated.targets import DIAGNOSES
from inference.models import Prediction
from inference.patients import time_order
from inference.services.patient_erasure import targets_of
from training.models import RunParticipant

README = """\
What TechLife FL holds of one patient of {hospital}
Written on {written_at} UTC, for patient number {number}.

patient.json      everything, for programs
patient.csv       name, phone number, gender, year of birth, and the subject ID, the pseudonym under
                  which exports and models know the patient
admissions.csv    every stay, with its times and outcomes; an empty cell is not known
diagnoses.csv     every diagnosis, also those struck out, and who recorded it
predictions.csv   the risk that a model gave to a stay, with the model's version and what drove it
imports.csv       the files that rows came from; without one they were entered here
exports.csv       exports of the hospital since then, which may hold the stays under the subject ID,
                  without the name, and the trainings that used them
audit.csv         who saw or changed something of it, and when

A cell that begins with an apostrophe before =, +, - or @ holds the text after the apostrophe.
Names and phone numbers are in no export, and no model holds a row of a patient.
"""


def patient_data(patient: Patient) -> dict[str, Any]:
    """All rows of a patient, by kind: each a list of dictionaries with the same keys."""
    admissions = sorted(Admission.objects.filter(patient=patient), key=time_order)
    diagnoses = Diagnosis.objects.filter(admission__in=admissions).select_related(
        "admission", "recorded_by", "struck_out_by"
    )
    predictions = Prediction.objects.filter(admission__in=admissions).select_related(
        "admission", "model_version__study", "model_version__envoy", "requested_by"
    )
    imports = Import.objects.filter(
        pk__in={patient.source_import_id, *(each.source_import_id for each in admissions)} - {None}
    ).select_related("started_by")
    return {
        "number": patient.pk,
        "hospital": patient.envoy.name,
        "written_at": timezone.now(),
        "patient": [_patient(patient)],
        "admissions": [_admission(each) for each in admissions],
        "diagnoses": _diagnoses(diagnoses.order_by("admission", "seq_num", "pk")),
        "predictions": [_prediction(each) for each in predictions.order_by("pk")],
        "imports": [
            {
                "number": each.pk,
                "files": each.source_name,
                "sha256": each.source_sha256,
                "started_at": each.started_at,
                "started_by": _who(each.started_by),
            }
            for each in imports.order_by("pk")
        ],
        "exports": _exports(patient),
        "audit": [
            {"happened_at": at, "who": username or "the system", "action": action, "what": target}
            for at, username, action, target in AuditEvent.objects.filter(
                target__in=targets_of(patient)
            )
            .order_by("pk")
            .values_list("happened_at", "user__username", "action", "target")
        ],
    }


KINDS = ("patient", "admissions", "diagnoses", "predictions", "imports", "exports", "audit")


def write_archive(data: dict[str, Any], file: BinaryIO) -> None:
    """As a ZIP archive; its names and the file's say nothing of who it is about."""
    with zipfile.ZipFile(file, "w", zipfile.ZIP_DEFLATED) as archive:
        written_at = f"{data['written_at']:%Y-%m-%d %H:%M}"
        words = README.format(
            hospital=data["hospital"], written_at=written_at, number=data["number"]
        )
        archive.writestr("README.txt", words)
        content = json.dumps(data, cls=JSONEncoder, ensure_ascii=False, indent=2)
        archive.writestr("patient.json", content)
        for kind in KINDS:
            archive.writestr(f"{kind}.csv", table(data[kind]))


def table(rows: list[dict[str, Any]]) -> str:
    """Rows as CSV that a spreadsheet opens without calculating; what is nested as JSON."""
    header = list(rows[0]) if rows else ["none"]
    return "".join(csv_lines(header, ([cell(value) for value in row.values()] for row in rows)))


def cell(value: Any) -> Any:
    if value is None:
        return ""
    if isinstance(value, bool):
        return "yes" if value else "no"
    if isinstance(value, list | dict):
        return json.dumps(value, cls=JSONEncoder, ensure_ascii=False)
    return value.isoformat() if hasattr(value, "isoformat") else value


def _patient(patient: Patient) -> dict[str, Any]:
    return {
        "number": patient.pk,
        "subject_id": patient.subject_id,
        "name": patient.name,
        "phone": patient.phone,
        "gender": patient.get_sex_display(),
        "birth_year": patient.birth_year,
        "recorded_at": patient.created_at,
        "from_import": patient.source_import_id,
    }


ADMISSION_FIELDS = (
    "hadm_id",
    "age",
    "admitted_at",
    "discharged_at",
    "los_days",
    "discharged_home",
    "died_in_hospital",
    "died_30d_after_discharge",
    "readmit_30d",
    "number_diagnoses",
    "number_inpatient",
    "number_emergency",
    "number_outpatient",
)


def _admission(admission: Admission) -> dict[str, Any]:
    return {
        "number": admission.pk,
        **{name: getattr(admission, name) for name in ADMISSION_FIELDS},
        "risk_given_by_source": admission.get_risk_tier_display() or "",
        "risk_given_by_doctor": admission.get_clinician_risk_level_display() or "",
        "recorded_at": admission.created_at,
        "from_import": admission.source_import_id,
    }


def _diagnoses(diagnoses: Iterable[Diagnosis]) -> list[dict[str, Any]]:
    found = list(diagnoses)
    codes = IcdCode.objects.filter(code__in={each.icd_code for each in found})
    titles = {(code, version): title for code, version, title in codes.values_list(*CODE_FIELDS)}
    return [
        {
            "number": each.pk,
            "hadm_id": each.admission.hadm_id,
            "place": each.seq_num,
            "icd_code": each.icd_code,
            "icd_version": each.icd_version,
            "title": titles.get((each.icd_code, each.icd_version), ""),
            "recorded_at": each.recorded_at,
            "recorded_by": _who(each.recorded_by),
            "struck_out_at": each.struck_out_at,
            "struck_out_by": _who(each.struck_out_by),
        }
        for each in found
    ]


CODE_FIELDS = ("code", "version", "title")


def _prediction(prediction: Prediction) -> dict[str, Any]:
    version = prediction.model_version
    classes = version.manifest.get("classes", [])
    return {
        "number": prediction.pk,
        "hadm_id": prediction.admission.hadm_id,
        "model": str(version),
        "model_sha256": version.params_sha256,
        "predicted_risk": classes[prediction.predicted_class] if classes else "",
        "probabilities": dict(zip(classes, prediction.probabilities, strict=False)),
        "contributions": prediction.contributions,
        "made_at": prediction.created_at,
        "asked_for_by": _who(prediction.requested_by),
    }


def _exports(patient: Patient) -> list[dict[str, Any]]:
    snapshots = Snapshot.objects.filter(
        envoy=patient.envoy,
        dataset=DIAGNOSES,
        status=Snapshot.Status.COMPLETE,
        completed_at__gte=patient.created_at,
    ).order_by("pk")
    runs: dict[int, list[str]] = {}
    for part in RunParticipant.objects.filter(snapshot__in=snapshots).select_related("run__study"):
        assert part.snapshot_id is not None
        runs.setdefault(part.snapshot_id, []).append(str(part.run))
    return [
        {
            "sha256": each.sha256,
            "written_at": each.completed_at,
            "removed_at": each.removed_at,
            "trained_on_by": "; ".join(runs.get(each.pk, [])),
        }
        for each in snapshots
    ]


def _who(user: User | None) -> str:
    return user.username if user else ""
