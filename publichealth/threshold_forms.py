from typing import Any

from django import forms

from envoys.forms import TablerForm
from publichealth.services.thresholds import Threshold


class ThresholdForm(TablerForm, forms.Form):
    """One figure's; the service says what is out of range."""

    value = forms.FloatField(widget=forms.NumberInput(attrs={"step": "any"}))

    def __init__(self, threshold: Threshold, *args: Any, **kwargs: Any) -> None:
        default = threshold.default
        kwargs["initial"] = {"value": f"{default.to_shown(threshold.value):g}"}
        super().__init__(*args, auto_id=f"id_{threshold.figure.lower()}_%s", **kwargs)
        self.threshold = threshold
        unit = default.shown_unit
        self.fields["value"].label = f"{threshold.title} from" + (f" ({unit})" if unit else "")
        self.fields["value"].help_text = f"Default {default.shown}. {default.source}."

    def clean_value(self) -> float:
        """As it is stored, where it is no share of more than all."""
        number: float = self.cleaned_data["value"]
        default = self.threshold.default
        low, high = default.to_shown(default.low), default.to_shown(default.high)
        if not low <= number <= high:
            raise forms.ValidationError(
                f"{self.threshold.title} lies between {low:g} and {high:g} {default.shown_unit}".strip()
                + f", not {number:g}"
            )
        return default.from_shown(number)
