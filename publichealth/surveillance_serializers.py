"""What calls about the cities' risk and air, and about alert thresholds, take and answer.

Of readings only monitors' are counted: `publichealth.tallies` says why.
"""

from typing import Any

from drf_spectacular.utils import extend_schema_field
from rest_framework import serializers

from publichealth.models import AlertThreshold
from publichealth.services.health_training import HealthTraining
from publichealth.services.surveillance import HeatRow, TrendPoint, Window
from publichealth.services.thresholds import Threshold

HIDDEN = "null: fewer than 10 readings, or it would tell a count under 10"
FIGURES = [figure.value.lower() for figure in AlertThreshold.Figure]


class WindowSerializer(serializers.Serializer[Any]):
    window = serializers.ChoiceField(
        choices=[(each.value, each.title) for each in Window],
        default=Window.QUARTER.value,
        help_text="how far back the figures of now look; of 24h, the 24 hours by the clock",
    )


class CityFiguresSerializer(serializers.Serializer[Any]):
    city = serializers.CharField(source="name")
    num_readings = serializers.IntegerField(allow_null=True, help_text=HIDDEN)
    mean_risk = serializers.FloatField(
        allow_null=True, help_text="0 to 1, by the released model; null: fewer than 10 readings"
    )
    share_high = serializers.FloatField(
        allow_null=True, help_text=f"of the readings at high risk, 0 to 1; {HIDDEN}"
    )
    mean_aqi = serializers.FloatField(allow_null=True)
    mean_pm25 = serializers.FloatField(allow_null=True, help_text="µg/m³")
    latest_aqi = serializers.FloatField(
        allow_null=True, help_text="of the newest reading of the last 24 hours that has one"
    )
    aqi_band = serializers.CharField(
        source="band.name", default=None, allow_null=True, help_text="EPA's word for it"
    )
    newest_at = serializers.DateTimeField(allow_null=True)


class AlertSerializer(serializers.Serializer[Any]):
    city = serializers.CharField()
    figure = serializers.ChoiceField(choices=FIGURES, source="threshold.name")
    value = serializers.FloatField(help_text="the mean over the window")
    threshold = serializers.FloatField(source="threshold.value")


class ThresholdSerializer(serializers.Serializer[Any]):
    figure = serializers.ChoiceField(choices=FIGURES, source="name")
    title = serializers.CharField()
    value = serializers.FloatField(help_text="a mean at or above it is an alert")
    unit = serializers.CharField(source="default.unit", help_text="empty: it has none")
    default = serializers.FloatField(source="default.value")
    default_source = serializers.CharField(source="default.source")
    is_default = serializers.BooleanField()
    set_by = serializers.SerializerMethodField(help_text="the user name")
    set_at = serializers.DateTimeField(allow_null=True)

    @extend_schema_field(serializers.CharField(allow_null=True))
    def get_set_by(self, threshold: Threshold) -> str | None:
        return threshold.set_by.username if threshold.set_by else None


class ThresholdChangeSerializer(serializers.Serializer[Any]):
    value = serializers.FloatField(help_text="risk: 0 to 1; aqi, pm25: 0 to 1000")


class CityHoursSerializer(serializers.Serializer[Any]):
    city = serializers.CharField()
    mean_risk = serializers.SerializerMethodField(help_text="one per entry of `hours`")
    mean_aqi = serializers.SerializerMethodField(help_text="one per entry of `hours`")

    @extend_schema_field(serializers.ListField(child=serializers.FloatField(allow_null=True)))
    def get_mean_risk(self, row: HeatRow) -> list[float | None]:
        return [cell.value for cell in row.risk]

    @extend_schema_field(serializers.ListField(child=serializers.FloatField(allow_null=True)))
    def get_mean_aqi(self, row: HeatRow) -> list[float | None]:
        return [cell.value for cell in row.aqi]


class CityValueSerializer(serializers.Serializer[Any]):
    city = serializers.CharField()
    value = serializers.FloatField()


class TrendPointSerializer(serializers.Serializer[Any]):
    starts_at = serializers.DateTimeField()
    mean_risk = serializers.FloatField(allow_null=True)
    highest_risk = serializers.SerializerMethodField(help_text="the city where it was highest")
    mean_aqi = serializers.FloatField(allow_null=True)
    highest_aqi = serializers.SerializerMethodField(help_text="the city where it was highest")

    @extend_schema_field(CityValueSerializer(allow_null=True))
    def get_highest_risk(self, point: TrendPoint) -> dict[str, Any] | None:
        return _city_value(point.highest_risk)

    @extend_schema_field(CityValueSerializer(allow_null=True))
    def get_highest_aqi(self, point: TrendPoint) -> dict[str, Any] | None:
        return _city_value(point.highest_aqi)


def _city_value(pair: tuple[str, float] | None) -> dict[str, Any] | None:
    return {"city": pair[0], "value": pair[1]} if pair else None


class BinSerializer(serializers.Serializer[Any]):
    name = serializers.CharField(help_text="EPA's word; empty of PM2.5")
    range = serializers.CharField()
    num_readings = serializers.IntegerField()


class TierSerializer(serializers.Serializer[Any]):
    name = serializers.ChoiceField(choices=["Low", "Medium", "Low or medium", "High"])
    num_readings = serializers.IntegerField(allow_null=True, help_text=HIDDEN)


class BreakdownSerializer(serializers.Serializer[Any]):
    tiers = TierSerializer(
        many=True, help_text="low and medium are one where they would tell a count under 10"
    )
    total = serializers.IntegerField(allow_null=True, help_text=HIDDEN)


class NodeLossesSerializer(serializers.Serializer[Any]):
    name = serializers.CharField()
    kind = serializers.CharField()
    train_loss = serializers.ListField(
        child=serializers.FloatField(allow_null=True), help_text="one per round, from round 1"
    )
    validation_auroc = serializers.SerializerMethodField(
        help_text="of the global model at this node, one per entry of `after_rounds`"
    )

    @extend_schema_field(serializers.ListField(child=serializers.FloatField(allow_null=True)))
    def get_validation_auroc(self, node: Any) -> list[float | None]:
        training: HealthTraining = self.context["training"]
        return training.curves.validation_auroc[node.name]


class HealthTrainingSerializer(serializers.Serializer[Any]):
    run = serializers.IntegerField(source="run.pk")
    finished_at = serializers.DateTimeField(source="run.finished_at")
    after_rounds = serializers.ListField(
        child=serializers.IntegerField(), source="curves.after_rounds"
    )
    validation_loss = serializers.ListField(
        child=serializers.FloatField(allow_null=True),
        source="curves.validation_loss",
        help_text="of the global model over all nodes' validation rows",
    )
    nodes = NodeLossesSerializer(many=True)


class PublicHealthSerializer(serializers.Serializer[Any]):
    window = serializers.ChoiceField(choices=[e.value for e in Window], source="window.value")
    taken_at = serializers.DateTimeField()
    since = serializers.DateTimeField(help_text="the begin of the window")
    is_released = serializers.BooleanField(
        help_text="whether there is a released model; without one there is no risk"
    )
    cities = CityFiguresSerializer(
        many=True, help_text="of readings of monitors; those of people are not told by city"
    )
    alerts = AlertSerializer(many=True)
    thresholds = ThresholdSerializer(many=True)
    hours = serializers.ListField(
        child=serializers.DateTimeField(), help_text="the last 24, the one under way last"
    )
    heat_map = CityHoursSerializer(many=True)
    trend = TrendPointSerializer(many=True, help_text="all cities together, by hour")
    aqi_bands = BinSerializer(many=True, help_text="readings of the window by EPA's bands")
    pm25_histogram = BinSerializer(many=True, help_text="readings of the window, in µg/m³")
    breakdown = BreakdownSerializer()
    training = HealthTrainingSerializer(
        allow_null=True, help_text="the newest finished run of a study of readings"
    )
