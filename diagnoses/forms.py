from typing import Any

from django import forms

from diagnoses.models import RiskLevel, Sex
from diagnoses.services.patients import MAX_NAME_LENGTH, MAX_PHONE_LENGTH
from envoys.forms import TablerForm
from federated.cohorts.values import MAX_ID_LENGTH, MAX_SEQ_NUM

MINUTES = "%Y-%m-%dT%H:%M"  # as a browser's field for date and time sends it


def moment_field(label: str, **values: Any) -> forms.DateTimeField:
    widget = forms.DateTimeInput(attrs={"type": "datetime-local"}, format=MINUTES)
    return forms.DateTimeField(label=label, widget=widget, input_formats=[MINUTES], **values)


class PatientForm(TablerForm, forms.Form):
    name = forms.CharField(
        max_length=MAX_NAME_LENGTH,
        help_text="Stored encrypted. It never leaves the hospital; models see a random number.",
        widget=forms.TextInput(attrs={"autocomplete": "off"}),
    )
    sex = forms.ChoiceField(label="Gender", choices=Sex.choices, required=False)
    birth_year = forms.IntegerField(
        label="Year of birth",
        required=False,
        help_text="The age at an admission follows from it.",
        widget=forms.NumberInput(attrs={"inputmode": "numeric"}),
    )
    phone = forms.CharField(
        max_length=MAX_PHONE_LENGTH,
        required=False,
        help_text="Stored encrypted.",
        widget=forms.TextInput(attrs={"type": "tel", "autocomplete": "off"}),
    )


class AdmissionForm(TablerForm, forms.Form):
    admitted_at = moment_field("Admitted (UTC)")
    hadm_id = forms.CharField(
        label="Number of the admission",
        max_length=MAX_ID_LENGTH,
        required=False,
        help_text="As the hospital's own system calls it. Leave it empty to get one.",
        widget=forms.TextInput(attrs={"autocomplete": "off"}),
    )


class DischargeForm(TablerForm, forms.Form):
    # answer -> discharged_home, died
    OUTCOMES = {
        "home": (True, False),
        "elsewhere": (False, False),
        "unknown": (None, False),
        "died": (None, True),
    }
    discharged_at = moment_field("When (UTC)")
    outcome = forms.ChoiceField(
        label="What happened",
        widget=forms.RadioSelect,
        choices=[
            ("home", "Discharged home"),
            ("elsewhere", "Discharged elsewhere, such as a nursing home or another hospital"),
            ("unknown", "Discharged, not known where to"),
            ("died", "Died in hospital"),
        ],
    )

    def discharge(self) -> dict[str, Any]:
        """What the service takes."""
        discharged_home, died = self.OUTCOMES[self.cleaned_data["outcome"]]
        return {
            "discharged_at": self.cleaned_data["discharged_at"],
            "discharged_home": discharged_home,
            "died": died,
        }


class RiskLevelForm(TablerForm, forms.Form):
    level = forms.TypedChoiceField(
        label="Your own judgement",
        choices=[("", "Not given"), *RiskLevel.choices],
        coerce=int,
        empty_value=None,
        required=False,
    )


class DiagnosisForm(TablerForm, forms.Form):
    icd_code = forms.CharField(
        label="Code, or words to search for",
        max_length=60,
        widget=forms.TextInput(
            attrs={
                "autocomplete": "off",
                "spellcheck": "false",
                "placeholder": "I50.9, or heart failure",
            }
        ),
    )
    icd_version = forms.TypedChoiceField(
        label="Version", choices=[(10, "ICD-10"), (9, "ICD-9")], coerce=int
    )
    seq_num = forms.IntegerField(
        label="Place",
        required=False,
        min_value=1,
        max_value=MAX_SEQ_NUM,
        help_text="1 is the main diagnosis. Empty: the next.",
    )
