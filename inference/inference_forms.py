from django import forms

from envoys.forms import RowsField, TablerForm
from envoys.models import Envoy
from federated.targets import DIAGNOSES


class InferencesForm(TablerForm, forms.Form):
    """All or chosen hospitals, with the federation's model as it was delivered there."""

    envoys = RowsField(
        queryset=Envoy.objects.standing().with_dataset(DIAGNOSES),
        widget=forms.CheckboxSelectMultiple,
        label="Hospitals",
        initial=lambda: Envoy.objects.active().with_dataset(DIAGNOSES),
    )


class OwnInferenceForm(TablerForm, forms.Form):
    """One's own hospital, with either model."""

    model = forms.ChoiceField(
        label="Model",
        widget=forms.RadioSelect,
        choices=[("global", "The federation's model"), ("own", "The hospital's own model")],
        initial="global",
    )
