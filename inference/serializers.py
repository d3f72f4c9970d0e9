"""What calls about predictions take and answer."""

from typing import Any

from django.urls import reverse
from drf_spectacular.utils import extend_schema_field
from rest_framework import serializers

from diagnoses.models import PatientErasure
from envoys.rest import IdField, UrlField
from envoys.serializers import EnvoyNameSerializer
from inference.models import Erasure, InferenceRun, Prediction
from inference.tiers import tier_counts


class ContributionSerializer(serializers.Serializer[Any]):
    input = serializers.CharField()
    change = serializers.FloatField(
        help_text="how much leaving it out lowers the predicted class's probability"
    )


class PredictionSerializer(serializers.ModelSerializer[Prediction]):
    url = UrlField("api:prediction-detail")
    subject_id = serializers.CharField(source="admission.patient.subject_id", read_only=True)
    hadm_id = serializers.CharField(source="admission.hadm_id", read_only=True)
    model = serializers.SerializerMethodField(help_text="global, or the hospital's own")
    predicted_risk = serializers.SerializerMethodField()
    classes = serializers.ListField(
        child=serializers.CharField(), source="model_version.manifest.classes", read_only=True
    )
    probabilities = serializers.ListField(child=serializers.FloatField())
    contributions = ContributionSerializer(many=True)

    class Meta:
        model = Prediction
        fields = [
            "id",
            "url",
            "admission",
            "subject_id",
            "hadm_id",
            "model",
            "model_version",
            "predicted_class",
            "predicted_risk",
            "classes",
            "probabilities",
            "contributions",
            "created_at",
        ]

    @extend_schema_field(serializers.ChoiceField(choices=["global", "own"]))
    def get_model(self, prediction: Prediction) -> str:
        return "own" if prediction.model_version.envoy_id else "global"

    def get_predicted_risk(self, prediction: Prediction) -> str:
        classes: list[str] = prediction.model_version.manifest["classes"]
        return classes[prediction.predicted_class]


class InferenceRunSerializer(serializers.ModelSerializer[InferenceRun]):
    url = UrlField("api:inference-run-detail")
    envoy_name = serializers.CharField(source="envoy.name", read_only=True)
    percent = serializers.IntegerField(read_only=True)
    counts = serializers.SerializerMethodField(
        help_text="admissions per class; null is hidden: under 10, or it would give one away"
    )

    class Meta:
        model = InferenceRun
        fields = [
            "id",
            "url",
            "envoy",
            "envoy_name",
            "model_version",
            "status",
            "reason",
            "percent",
            "counts",
            "created_at",
            "completed_at",
        ]

    @extend_schema_field(serializers.DictField(child=serializers.IntegerField(allow_null=True)))
    def get_counts(self, inference_run: InferenceRun) -> dict[str, int | None]:
        counts = tier_counts(inference_run)
        return counts.tiers if counts else {}


class InferenceCreateSerializer(serializers.Serializer[Any]):
    envoys = serializers.ListField(
        child=IdField(),
        required=False,
        help_text="numbers of envoys; where not given a doctor's own, or every active one",
    )
    model = serializers.ChoiceField(
        choices=[("global", "the federation's"), ("own", "each hospital's own")],
        required=False,
        default="global",
    )


class InferencesSerializer(serializers.Serializer[Any]):
    url = serializers.CharField(help_text="the list to watch")
    inference_runs = InferenceRunSerializer(many=True)
    problems = serializers.ListField(
        child=serializers.CharField(), help_text="which hospital has no such model, and what to do"
    )


class ErasedRowsSerializer(serializers.Serializer[Any]):
    what = serializers.CharField()
    count = serializers.CharField(help_text="– is fewer than 10, where that is not to be seen")


class RemainsSerializer(serializers.Serializer[Any]):
    what = serializers.CharField()
    why = serializers.CharField()


class ErasureSerializer(serializers.ModelSerializer[Erasure]):
    """The deletion of an envoy, a task to watch, and what remains of it."""

    url = serializers.SerializerMethodField()
    counts = ErasedRowsSerializer(many=True, read_only=True)
    remains = RemainsSerializer(many=True, read_only=True)

    class Meta:
        model = Erasure
        fields = [
            *("id", "url", "envoy", "envoy_name", "status", "reason", "counts", "remains"),
            *("created_at", "completed_at"),
        ]

    def get_url(self, erasure: Erasure) -> str:
        return reverse("api:task-detail", args=[f"erasure-{erasure.pk}"])


class PatientErasureSerializer(serializers.ModelSerializer[PatientErasure]):
    """An erased patient: what went, and what remains and why."""

    url = UrlField("api:patient-erasure-detail")
    counts = ErasedRowsSerializer(many=True, read_only=True)
    remains = RemainsSerializer(many=True, read_only=True)
    may_return = serializers.BooleanField(
        read_only=True, help_text="whether imports may bring the patient again"
    )

    class Meta:
        model = PatientErasure
        fields = [
            *("id", "url", "patient_number", "status", "reason", "counts", "remains"),
            *("may_return", "created_at", "completed_at"),
        ]


class PatientEraseSerializer(serializers.Serializer[Any]):
    subject_id = serializers.CharField(help_text="the patient's, to confirm")


class PatientDataSerializer(serializers.Serializer[Any]):
    """Everything stored of a patient, each kind of row a list; also those struck out."""

    number = serializers.IntegerField()
    hospital = serializers.CharField()
    written_at = serializers.DateTimeField()
    patient = serializers.ListField(child=serializers.DictField())
    admissions = serializers.ListField(child=serializers.DictField())
    diagnoses = serializers.ListField(child=serializers.DictField())
    predictions = serializers.ListField(child=serializers.DictField())
    imports = serializers.ListField(child=serializers.DictField())
    exports = serializers.ListField(child=serializers.DictField())
    audit = serializers.ListField(child=serializers.DictField())


class RiskCountSerializer(serializers.Serializer[Any]):
    name = serializers.CharField()
    num_admissions = serializers.IntegerField()
    share = serializers.FloatField()


class NextStepSerializer(serializers.Serializer[Any]):
    text = serializers.CharField()


class HospitalSummarySerializer(serializers.Serializer[Any]):
    envoy = EnvoyNameSerializer()
    study = serializers.IntegerField(source="study.pk", allow_null=True)
    num_patients = serializers.IntegerField()
    num_admissions = serializers.IntegerField()
    num_open = serializers.IntegerField()
    model_version = serializers.IntegerField(source="model_version.pk", allow_null=True)
    model_age_days = serializers.IntegerField(allow_null=True)
    delivered_at = serializers.DateTimeField(allow_null=True)
    model_choice = serializers.IntegerField(
        source="choice.pk", default=None, allow_null=True, help_text="which model suits it"
    )
    risks = RiskCountSerializer(many=True)
    num_scored = serializers.IntegerField()
    num_unscored = serializers.IntegerField()
    num_waiting = serializers.IntegerField(help_text="packages that nobody has answered")
    next_steps = NextStepSerializer(many=True)


class PagePredictionSerializer(serializers.Serializer[Any]):
    subject_id = serializers.CharField()
    hadm_id = serializers.CharField()
    diagnosis_count = serializers.IntegerField()
    predicted_class = serializers.IntegerField()
    predicted_risk = serializers.CharField()
    probabilities = serializers.ListField(child=serializers.FloatField())


class PredictedPageSerializer(serializers.Serializer[Any]):
    envoy = serializers.CharField(source="envoy.name")
    model_version = serializers.IntegerField(source="version.number")
    source_csv = serializers.CharField()
    predictions = PagePredictionSerializer(many=True)


class PageQuerySerializer(serializers.Serializer[Any]):
    limit = serializers.IntegerField(required=False, default=100, min_value=1, max_value=1000)
    offset = serializers.IntegerField(required=False, default=0, min_value=0, max_value=2**31 - 1)


class PredictionQuerySerializer(serializers.Serializer[Any]):
    admission = serializers.IntegerField(required=False)
