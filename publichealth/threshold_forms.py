from typing import Any

from django import forms

from envoys.forms import TablerForm
from publichealth.services.thresholds import Threshold


class ThresholdForm(TablerForm, forms.Form):
    """One figure's; the service says what is out of range."""

    value = forms.FloatField(widget=forms.NumberInput(attrs={"step": "any"}))

    def __init__(self, threshold: Threshold, *args: Any, **kwargs: Any) -> None:
        kwargs["initial"] = {"value": f"{threshold.value:g}"}
        super().__init__(*args, auto_id=f"id_{threshold.figure.lower()}_%s", **kwargs)
        self.threshold = threshold
        unit = threshold.default.unit
        self.fields["value"].label = f"{threshold.title} from" + (f" ({unit})" if unit else "")
        self.fields[
            "value"
        ].help_text = f"Default {threshold.default.value:g}. {threshold.default.source}."
