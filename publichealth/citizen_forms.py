"""Today's numbers, as anybody enters them: all of them can be skipped."""

from collections.abc import Collection
from typing import Any

from django import forms

from envoys.forms import TablerForm
from federated.errors import InvalidValueError
from federated.readings import INPUTS, ReadingInput, input_named

# The parts of the form, and which of its fields are shown once somebody asks for more.
PARTS = {
    "You": ("age", "smoker", "chronic", "active", "bmi"),
    "Symptoms": ("cough", "breathless"),
    "Your device": ("heart_rate", "spo2", "steps", "sleep_hours"),
    "Air": ("aqi", "pm25", "pm10", "no2", "o3", "temperature", "humidity", "wind_speed"),
}
RARE = ("no2", "o3", "humidity", "wind_speed", "bmi")

QUESTIONS = {
    "age": "Age",
    "smoker": "Do you smoke?",
    "chronic": "Do you have a long-term illness?",
    "active": "Are you physically active?",
    "heart_rate": "Heart rate at rest",
    "spo2": "Oxygen saturation",
    "steps": "Steps yesterday",
    "sleep_hours": "Sleep last night",
    "cough": "Do you cough?",
    "breathless": "Are you short of breath?",
}
EXAMPLES = {
    "age": 45,
    "bmi": 25,
    "heart_rate": 72,
    "spo2": 97,
    "steps": 7500,
    "sleep_hours": 7,
    "aqi": 60,
    "pm25": 15,
    "pm10": 40,
    "no2": 20,
    "o3": 60,
    "temperature": 22,
    "humidity": 55,
    "wind_speed": 3,
}
HELP = {
    "chronic": "Such as asthma, diabetes, or a heart or lung disease.",
    "spo2": "From a pulse oximeter or a watch.",
    "aqi": "From a weather service or an air-quality site for your city.",
    "pm25": "Fine dust, if you know it.",
}


class _NumbersForm(forms.Form):
    def __init__(self, *args: Any, inputs: Collection[str], **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self.fields |= {each.name: _field_of(each) for each in INPUTS if each.name in inputs}


class TodaysNumbersForm(TablerForm, _NumbersForm):
    """A field for each of these inputs; `values` is what was entered."""

    remember = forms.BooleanField(
        required=False, label="Remember these numbers in this browser for 30 days"
    )

    def clean(self) -> dict[str, Any]:
        cleaned: dict[str, Any] = super().clean() or self.cleaned_data
        self.values: dict[str, float] = {}
        for name, value in list(cleaned.items()):  # an error takes its field away
            if name == "remember" or value in (None, ""):
                continue
            try:
                self.values[name] = input_named(name).check(float(value))
            except InvalidValueError as error:
                self.add_error(name, _in_words(name, error))
        if not self.values and not self.errors:
            raise forms.ValidationError("Enter at least one number: then there is a risk to tell.")
        return cleaned

    def parts(self) -> list[dict[str, Any]]:
        """The form's parts, as the page shows them; those without a field are left out."""
        found = []
        for title, names in PARTS.items():
            usual = [
                self._shown(name) for name in names if name in self.fields and name not in RARE
            ]
            rare = [self._shown(name) for name in names if name in self.fields and name in RARE]
            if usual or rare:
                is_open = any(each["field"].errors or each["field"].value() for each in rare)
                found.append({"title": title, "usual": usual, "rare": rare, "is_open": is_open})
        return found

    def _shown(self, name: str) -> dict[str, Any]:
        return {"field": self[name], "unit": input_named(name).unit}


def _field_of(each: ReadingInput) -> forms.Field:
    shared: dict[str, Any] = {
        "required": False,
        "label": QUESTIONS.get(each.name, each.title),
        "help_text": HELP.get(each.name, ""),
    }
    if each.is_flag:
        choices = [("", "Skip"), ("0", "No"), ("1", "Yes")]
        return forms.ChoiceField(choices=choices, **shared)
    example = {"placeholder": f"e.g. {EXAMPLES[each.name]:g}"}
    limits = {"min": f"{each.low:g}", "max": f"{each.high:g}", "step": "any"}
    widget = forms.NumberInput(attrs={**example, **limits, "inputmode": "decimal"})
    return forms.FloatField(widget=widget, **shared)


def _in_words(name: str, error: InvalidValueError) -> str:
    """Without the program's name of the input, which the field has said better."""
    return str(error).replace(name, "This", 1) + "."
