"""What calls about patients, diagnoses and files take and answer."""

from typing import Any

from django.conf import settings
from django.utils import timezone
from drf_spectacular.utils import extend_schema_field
from rest_framework import serializers

from diagnoses.models import (
    Admission,
    Diagnosis,
    IcdCode,
    Patient,
    RiskLevel,
    Sex,
    Snapshot,
    Upload,
)
from diagnoses.services.patients import MAX_NAME_LENGTH, MAX_PHONE_LENGTH
from diagnoses.services.uploads import PROBLEMS_SHOWN, preview
from envoys.rest import UrlField
from federated.cohorts.values import MAX_ID_LENGTH, MAX_SEQ_NUM

MAX_ROWS = 10_000  # in one call; for more there are uploads

WORK_FIELDS = ["status", "reason", "num_done", "num_total"]


class PatientSerializer(serializers.ModelSerializer[Patient]):
    url = UrlField("api:patient-detail")

    class Meta:
        model = Patient
        fields = ["url", "id", "subject_id", "name", "phone", "sex", "birth_year", "created_at"]
        read_only_fields = fields
        extra_kwargs = {
            "subject_id": {"help_text": "the pseudonym: all that models and exports see"},
            "name": {"help_text": "stored encrypted; empty for an imported patient"},
            "phone": {"help_text": "stored encrypted"},
        }


class PatientFactsSerializer(serializers.Serializer[Any]):
    name = serializers.CharField(max_length=MAX_NAME_LENGTH)
    phone = serializers.CharField(max_length=MAX_PHONE_LENGTH, allow_blank=True, default="")
    sex = serializers.ChoiceField(
        choices=Sex.choices, allow_blank=True, default="", help_text="F, M, or empty: not recorded"
    )
    birth_year = serializers.IntegerField(
        allow_null=True, default=None, help_text="the age at an admission follows from it"
    )


class PatientSearchSerializer(serializers.Serializer[Any]):
    """What identifies a patient, and what narrows a list; what is left out does not matter."""

    name = serializers.CharField(required=False, help_text="the whole name")
    subject_id = serializers.CharField(required=False)
    hadm_id = serializers.CharField(required=False, help_text="of a stay")
    sex = serializers.ChoiceField(choices=Sex.choices, required=False)
    is_in_hospital = serializers.BooleanField(required=False, help_text="has an open admission")


class PatientChangeSerializer(PatientFactsSerializer):
    """What is left out stays as it is."""

    # Of an imported patient no name is known.
    name = serializers.CharField(max_length=MAX_NAME_LENGTH, allow_blank=True)


class AdmissionSerializer(serializers.ModelSerializer[Admission]):
    url = UrlField("api:admission-detail")
    subject_id = serializers.CharField(source="patient.subject_id", read_only=True)
    is_open = serializers.BooleanField(
        read_only=True, help_text="the patient is in the hospital: nothing tells of an end"
    )

    class Meta:
        model = Admission
        fields = [
            "url",
            "id",
            "patient",
            "subject_id",
            "hadm_id",
            "is_open",
            "age",
            "admitted_at",
            "discharged_at",
            "los_days",
            "discharged_home",
            "died_in_hospital",
            "died_30d_after_discharge",
            "readmit_30d",
            "risk_tier",
            "clinician_risk_level",
            "number_diagnoses",
            "number_inpatient",
            "number_emergency",
            "number_outpatient",
        ]
        read_only_fields = fields
        extra_kwargs = {
            "age": {"help_text": "years, as given by the source"},
            "risk_tier": {"help_text": "0, 1, 2 = Low, Medium, High, as given by the source"},
            "clinician_risk_level": {
                "help_text": "0, 1, 2 = Low, Medium, High, as the doctor judges"
            },
        }


class RegisteredSerializer(PatientSerializer):
    """A patient, and the admission that was opened."""

    admission = AdmissionSerializer(read_only=True)

    class Meta(PatientSerializer.Meta):
        fields = [*PatientSerializer.Meta.fields, "admission"]
        read_only_fields = fields


class AdmitSerializer(serializers.Serializer[Any]):
    patient = serializers.IntegerField(help_text="the patient's id")
    admitted_at = serializers.DateTimeField(
        allow_null=True, default=None, help_text="now where it is left out"
    )
    hadm_id = serializers.CharField(
        max_length=MAX_ID_LENGTH,
        allow_null=True,
        default=None,
        help_text="what the hospital's own system calls the stay; one is made where it is left out",
    )


class DischargeSerializer(serializers.Serializer[Any]):
    discharged_at = serializers.DateTimeField(
        default=timezone.now, help_text="now where it is left out"
    )
    discharged_home = serializers.BooleanField(
        allow_null=True,
        default=None,
        help_text="false: to elsewhere, such as a nursing home; null: not known, or died",
    )
    died = serializers.BooleanField(default=False, help_text="in the hospital")


class RiskLevelSerializer(serializers.Serializer[Any]):
    clinician_risk_level = serializers.ChoiceField(
        choices=RiskLevel.choices,
        allow_null=True,
        help_text="0, 1, 2 = Low, Medium, High; null takes the judgement back",
    )


class DiagnosisSerializer(serializers.ModelSerializer[Diagnosis]):
    url = UrlField("api:diagnosis-detail")
    recorded_by = serializers.CharField(
        source="recorded_by.username",
        default=None,
        allow_null=True,
        help_text="null: it was imported",
    )
    struck_out_by = serializers.CharField(
        source="struck_out_by.username", default=None, allow_null=True
    )

    class Meta:
        model = Diagnosis
        fields = [
            "url",
            "id",
            "admission",
            "seq_num",
            "icd_code",
            "icd_version",
            "recorded_by",
            "recorded_at",
            "struck_out_by",
            "struck_out_at",
        ]
        read_only_fields = fields
        extra_kwargs = {"seq_num": {"help_text": "its place in the admission; 1 is the main one"}}


class DiagnosisCreateSerializer(serializers.Serializer[Any]):
    admission = serializers.IntegerField(help_text="the admission's id")
    icd_code = serializers.CharField(max_length=20, help_text="with or without the dot")
    icd_version = serializers.ChoiceField(choices=[(10, "ICD-10"), (9, "ICD-9")], default=10)
    seq_num = serializers.IntegerField(
        min_value=1,
        max_value=MAX_SEQ_NUM,
        allow_null=True,
        default=None,
        help_text="the next place where it is left out",
    )


class IcdCodeSerializer(serializers.ModelSerializer[IcdCode]):
    url = UrlField("api:icd-code-detail")

    class Meta:
        model = IcdCode
        fields = ["url", "id", "code", "version", "title", "category", "chapter", "is_leaf"]
        read_only_fields = fields
        extra_kwargs = {
            "category": {"help_text": "the 3-character ICD-10 category that models see"},
            "is_leaf": {"help_text": "false: a category that has been divided further"},
        }


class ExportSerializer(serializers.ModelSerializer[Snapshot]):
    url = UrlField("api:export-detail")

    class Meta:
        model = Snapshot
        fields = [
            "url",
            "id",
            *WORK_FIELDS,
            "num_admissions",
            "num_diagnoses",
            "num_bytes",
            "sha256",
            "diagnoses_sha256",
            "outcomes_sha256",
            "created_at",
            "completed_at",
            "removed_at",
        ]
        read_only_fields = fields
        extra_kwargs = {
            "reason": {"help_text": "why it failed"},
            "removed_at": {"help_text": "when its files went, since a patient in it was erased"},
            "sha256": {"help_text": "identifies the export: the hash of its two files' hashes"},
        }


class OddCodeSerializer(serializers.Serializer[Any]):
    code = serializers.CharField(
        help_text="empty outside the hospital where no list has it: the text may be anything"
    )
    icd_version = serializers.IntegerField()
    title = serializers.CharField(help_text="empty where no list has one")
    is_listed = serializers.BooleanField(help_text="whether a public list has the code")
    num_patients = serializers.IntegerField(
        allow_null=True, help_text="null outside the hospital where they are fewer than ten"
    )


class OddCodesSerializer(serializers.Serializer[Any]):
    kind = serializers.CharField(
        help_text="unknown, retired, other_version, other_sex, newborn or unspecific"
    )
    group = serializers.CharField(help_text="unknown, retired or suspicious")
    title = serializers.CharField()
    num_codes = serializers.IntegerField(help_text="how many different codes are odd that way")
    codes = OddCodeSerializer(many=True, help_text="the most frequent, 20 at most")


class CodeReportSerializer(serializers.Serializer[Any]):
    """What is odd about a hospital's codes; outside the hospital, as may be shown there."""

    made_at = serializers.DateTimeField(
        allow_null=True, help_text="with the newest export; null where there is none"
    )
    num_codes = serializers.IntegerField(
        allow_null=True, help_text="how many different codes the hospital has"
    )
    kinds = OddCodesSerializer(many=True)


class WarningCountSerializer(serializers.Serializer[Any]):
    kind = serializers.CharField(help_text="what is odd; the rows are taken as they are")
    count = serializers.IntegerField()


class WarningSerializer(WarningCountSerializer):
    example = serializers.CharField(allow_blank=True, help_text="where it stands first")


class ImportSerializer(serializers.ModelSerializer[Upload]):
    """Uploaded files: checked, then imported or discarded."""

    url = UrlField("api:import-detail")
    warnings = WarningCountSerializer(many=True, read_only=True)
    is_importable = serializers.BooleanField(
        read_only=True, help_text="checked without a problem: it may be confirmed"
    )

    class Meta:
        model = Upload
        fields = [
            "url",
            "id",
            "stage",
            *WORK_FIELDS,
            "is_importable",
            "num_problems",
            "num_admissions",
            "num_diagnoses",
            "warnings",
            "created_at",
            "confirmed_at",
            "completed_at",
        ]
        read_only_fields = fields
        extra_kwargs = {
            "stage": {"help_text": "what is, or was last, done with it; `status` says how far"},
            "reason": {"help_text": "why it failed, or what it waits for"},
        }


class FilePreviewSerializer(serializers.Serializer[Any]):
    name = serializers.CharField(help_text="diagnoses or outcomes")
    num_bytes = serializers.IntegerField()
    header = serializers.ListField(child=serializers.CharField())
    rows = serializers.ListField(child=serializers.ListField(child=serializers.CharField()))


class ImportDetailSerializer(ImportSerializer):
    """An upload with what its files say, which may speak of patients."""

    warnings = WarningSerializer(many=True, read_only=True)
    problems = serializers.ListField(
        child=serializers.CharField(),
        read_only=True,
        help_text=f"the first {PROBLEMS_SHOWN}, each with file and line",
    )
    preview = serializers.SerializerMethodField(help_text="how each file begins; empty once gone")

    class Meta(ImportSerializer.Meta):
        fields = [*ImportSerializer.Meta.fields, "problems", "preview"]
        read_only_fields = fields

    @extend_schema_field(FilePreviewSerializer(many=True))
    def get_preview(self, upload: Upload) -> Any:
        return FilePreviewSerializer(preview(upload), many=True).data


class UploadSerializer(serializers.Serializer[Any]):
    """CSV files, gzipped or not; the columns are those of a cohort folder."""

    diagnoses = serializers.FileField(
        help_text="subject_id, hadm_id, seq_num, icd_code, icd_version;"
        f" {settings.UPLOAD_MAX_BYTES} bytes at the most, unpacked"
    )
    outcomes = serializers.FileField(
        required=False, help_text="subject_id, hadm_id and what is known of each admission"
    )


# The published paths


class PublishedRegisterSerializer(serializers.Serializer[Any]):
    name = serializers.CharField(max_length=MAX_NAME_LENGTH)
    gender = serializers.CharField(
        allow_blank=True, allow_null=True, default="", help_text="F, Female, M, Male or empty"
    )
    phone = serializers.CharField(
        max_length=MAX_PHONE_LENGTH, allow_blank=True, allow_null=True, default=""
    )


class PublishedRegisteredSerializer(serializers.Serializer[Any]):
    message = serializers.CharField()
    subject_id = serializers.CharField()
    hadm_id = serializers.CharField(help_text="of the admission that was opened")


class PublishedPatientSerializer(serializers.Serializer[Any]):
    id = serializers.IntegerField(source="pk")
    name = serializers.CharField()
    gender = serializers.CharField(source="sex")
    phone = serializers.CharField()
    hadm_id = serializers.CharField(
        allow_null=True, help_text="of the admission that was entered last"
    )
    subject_id = serializers.CharField()


class PublishedDiagnosisListSerializer(serializers.ListSerializer[Any]):
    default_error_messages = {
        "max_length": "A call takes {max_length} rows at the most: upload a file instead."
    }


class PublishedDiagnosisSerializer(serializers.Serializer[Any]):
    subject_id = serializers.CharField(
        allow_null=True,
        allow_blank=True,
        default=None,
        help_text="null: the patient of hadm_id, a new one where that is unknown",
    )
    hadm_id = serializers.CharField(
        help_text="an unknown one opens an admission of the patient named, or of a new one"
    )
    icd_code = serializers.CharField()
    icd_version = serializers.ChoiceField(choices=[(10, "ICD-10"), (9, "ICD-9")], default=10)
    seq_num = serializers.IntegerField(allow_null=True, default=None)
    diagnosis_count = serializers.IntegerField(
        allow_null=True, default=None, help_text="the admission's number of diagnoses, as given"
    )
    risk_level = serializers.IntegerField(
        allow_null=True, default=None, help_text="the doctor's: 0, 1, 2 = Low, Medium, High"
    )

    class Meta:
        list_serializer_class = PublishedDiagnosisListSerializer


class PublishedAddedSerializer(serializers.Serializer[Any]):
    message = serializers.CharField()
    subject_ids = serializers.ListField(
        child=serializers.CharField(), help_text="of each row, in the rows' order"
    )


class PublishedExportSerializer(serializers.Serializer[Any]):
    message = serializers.CharField()
    csv_s3_key = serializers.CharField(help_text="of the diagnoses, in the envoy's bucket")
    sha256 = serializers.CharField(help_text="of that file")
