"""What calls about drift and retraining take and answer."""

from typing import Any

from drf_spectacular.utils import extend_schema_field
from rest_framework import serializers

from envoys.rest import IdField, UrlField
from federated.readings import INPUT_NAMES
from publichealth.drift_words import verdict
from publichealth.models import DriftCheck, RetrainingProposal


class InputDriftSerializer(serializers.Serializer[Any]):
    input = serializers.ChoiceField(choices=INPUT_NAMES)
    num_readings = serializers.IntegerField(help_text="of the newest, those that know it")
    psi = serializers.FloatField(
        allow_null=True, help_text="population stability index; null: too few readings know it"
    )
    psi_limit = serializers.FloatField(help_text="above it is an alert")
    shift = serializers.FloatField(
        allow_null=True,
        help_text="of the mean, in standard deviations of the training readings; null as above",
    )
    shift_limit = serializers.FloatField(help_text="either way")
    share_known = serializers.FloatField(
        help_text="the share of readings that know it, less the share in training"
    )
    share_limit = serializers.FloatField(help_text="either way")
    alerts = serializers.ListField(
        child=serializers.ChoiceField(choices=["psi", "shift", "share_known"]),
        help_text="which figures are beyond their limit",
    )
    verdict = serializers.SerializerMethodField(help_text="in a few words")

    @extend_schema_field(serializers.CharField())
    def get_verdict(self, figures: dict[str, Any]) -> str:
        return verdict(figures)


class DriftCheckSerializer(serializers.ModelSerializer[DriftCheck]):
    url = UrlField("api:drift-check-detail")
    envoy_name = serializers.CharField(source="envoy.name", read_only=True)
    percent = serializers.IntegerField(read_only=True)
    figures = InputDriftSerializer(many=True)

    class Meta:
        model = DriftCheck
        fields = [
            "id",
            "url",
            "envoy",
            "envoy_name",
            "version",
            "status",
            "reason",
            "percent",
            "num_readings",
            "is_alert",
            "figures",
            "created_at",
            "completed_at",
        ]


class DriftCheckCreateSerializer(serializers.Serializer[Any]):
    envoys = serializers.ListField(
        child=IdField(),
        required=False,
        allow_empty=False,
        help_text="numbers of nodes, one at least; where not given every one with readings",
    )


class DriftChecksSerializer(serializers.Serializer[Any]):
    url = serializers.CharField(help_text="to watch")
    drift_checks = DriftCheckSerializer(many=True)
    problems = serializers.ListField(
        child=serializers.CharField(), help_text="a sentence for each node that cannot be checked"
    )


class RetrainingProposalSerializer(serializers.ModelSerializer[RetrainingProposal]):
    url = UrlField("api:retraining-proposal-detail")
    study_name = serializers.CharField(source="study.name", read_only=True)

    class Meta:
        model = RetrainingProposal
        fields = [
            "id",
            "url",
            "study",
            "study_name",
            "drift_check",
            "reason",
            "answer",
            "created_at",
            "answered_at",
        ]


class ProposeRetrainingSerializer(serializers.Serializer[Any]):
    drift_check = IdField(help_text="the check that is the reason; its model's study is trained")
    reason = serializers.CharField(max_length=1000, help_text="nothing about a person belongs here")
