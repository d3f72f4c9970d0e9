from django import forms

from envoys.forms import TablerForm
from envoys.models import Envoy


class InferencesForm(TablerForm, forms.Form):
    """All or chosen hospitals, with the federation's model as it was delivered there."""

    envoys = forms.ModelMultipleChoiceField(
        queryset=Envoy.objects.standing(),
        widget=forms.CheckboxSelectMultiple,
        label="Hospitals",
        initial=Envoy.objects.active,
    )


class OwnInferenceForm(TablerForm, forms.Form):
    """One's own hospital, with either model."""

    model = forms.ChoiceField(
        label="Model",
        widget=forms.RadioSelect,
        choices=[("global", "The federation's model"), ("own", "The hospital's own model")],
        initial="global",
    )
