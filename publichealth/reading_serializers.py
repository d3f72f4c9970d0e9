"""What the calls about readings take and answer."""

from typing import Any

from rest_framework import serializers

from federated.cohorts.values import MAX_ID_LENGTH
from federated.readings import INPUT_NAMES, INPUTS, ReadingInput
from publichealth.models import Reading
from publichealth.services.readings import MAX_CITY_LENGTH, OUTCOMES, TIERS, NewReading

MAX_ROWS = 1_000  # in one call

OUTCOME_WORDS = "1 high risk, 0 low; null where it is not known"
TIER_WORDS = "0, 1, 2: Low, Medium, High; null where it is not known"


class ReadingSerializer(serializers.ModelSerializer[Reading]):
    class Meta:
        model = Reading
        fields = [
            "id",
            "subject_id",
            "city",
            "measured_at",
            "received_at",
            *INPUT_NAMES,
            "outcome",
            "tier",
            "risk_score",
            "scored_with",
        ]
        read_only_fields = fields
        extra_kwargs = {
            **{each.name: {"help_text": each.unit} for each in INPUTS if each.unit},
            "outcome": {"help_text": OUTCOME_WORDS},
            "tier": {"help_text": TIER_WORDS},
            "risk_score": {"help_text": "of one without an outcome, by the model of that time"},
            "scored_with": {"help_text": "the id of that model version"},
        }


class SubjectSerializer(serializers.Serializer[Any]):
    subject_id = serializers.CharField(max_length=MAX_ID_LENGTH)


class SubjectErasedSerializer(serializers.Serializer[Any]):
    num_readings = serializers.IntegerField(help_text="that were erased")
    num_exports = serializers.IntegerField(help_text="that held them, and were removed")


class NewReadingSerializer(serializers.Serializer[Any]):
    """One reading; at least one input is there, and what was not measured is left out, or null."""

    subject_id = serializers.CharField(
        max_length=MAX_ID_LENGTH, help_text="who or what was measured, without meaning"
    )
    measured_at = serializers.DateTimeField()
    city = serializers.CharField(max_length=MAX_CITY_LENGTH, required=False, allow_blank=True)
    outcome = serializers.ChoiceField(
        choices=OUTCOMES, required=False, allow_null=True, help_text=OUTCOME_WORDS
    )
    tier = serializers.ChoiceField(
        choices=TIERS, required=False, allow_null=True, help_text=TIER_WORDS
    )

    def get_fields(self) -> dict[str, Any]:
        return {**super().get_fields(), **{each.name: _input_field(each) for each in INPUTS}}

    def to_internal_value(self, data: Any) -> dict[str, Any]:
        unknown = set(data) - set(self.fields) if isinstance(data, dict) else set()
        if unknown:
            raise serializers.ValidationError(
                {str(name): ["There is no such field."] for name in sorted(unknown, key=str)}
            )
        found: dict[str, Any] = super().to_internal_value(data)
        return found


class ReadingBatchSerializer(serializers.Serializer[Any]):
    readings = serializers.ListSerializer[Any](
        child=NewReadingSerializer(), allow_empty=False, max_length=MAX_ROWS
    )


class RecordedSerializer(serializers.Serializer[Any]):
    num_new = serializers.IntegerField()
    num_known = serializers.IntegerField(help_text="of a subject and moment that were there")


def to_new_reading(row: dict[str, Any]) -> NewReading:
    return NewReading(
        row["subject_id"],
        row["measured_at"],
        {name: row[name] for name in INPUT_NAMES if row.get(name) is not None},
        row.get("city", ""),
        row.get("outcome"),
        row.get("tier"),
    )


def _input_field(wanted: ReadingInput) -> serializers.FloatField:
    """The service refuses what is out of range, in its own words."""
    unit = "0 or 1" if wanted.is_flag else f"{wanted.low:g} to {wanted.high:g} {wanted.unit}"
    return serializers.FloatField(required=False, allow_null=True, help_text=unit)
