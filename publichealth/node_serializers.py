"""What the call about a node at a glance answers."""

from typing import Any

from rest_framework import serializers

from envoys.rest import UrlField
from envoys.serializers import EnvoyNameSerializer
from training.models import Distribution, StudyMembership


class DeliveredModelSerializer(serializers.ModelSerializer[Distribution]):
    url = UrlField("api:model-version-detail", source="version_id")
    number = serializers.IntegerField(source="version.number")
    study = serializers.CharField(source="version.study.name")

    class Meta:
        model = Distribution
        fields = ["version", "url", "number", "study", "delivered_at"]


class WaitingPackageSerializer(serializers.ModelSerializer[StudyMembership]):
    url = UrlField("api:package-detail")
    study = serializers.CharField(source="study.name")

    class Meta:
        model = StudyMembership
        fields = ["id", "url", "study", "packaged_at"]


class NodeSummarySerializer(serializers.Serializer[Any]):
    envoy = EnvoyNameSerializer()
    kind = serializers.CharField(source="envoy.kind")
    num_readings = serializers.IntegerField()
    num_labelled = serializers.IntegerField(help_text="whose outcome or tier is known")
    num_unlabelled = serializers.IntegerField()
    newest_at = serializers.DateTimeField(
        allow_null=True, help_text="when the newest reading was measured"
    )
    last_export_at = serializers.DateTimeField(
        source="last_export.completed_at", default=None, allow_null=True
    )
    models = DeliveredModelSerializer(source="delivered", many=True)
    waiting = WaitingPackageSerializer(many=True, help_text="packages that nobody has answered")
    drift_checked_at = serializers.DateTimeField(
        source="drift_check.completed_at", default=None, allow_null=True
    )
    has_drifted = serializers.BooleanField(
        source="drift_check.is_alert",
        default=None,
        allow_null=True,
        help_text="null: not checked yet",
    )
    drifted_inputs = serializers.ListField(
        source="drift_check.alert_titles", child=serializers.CharField(), default=list
    )
