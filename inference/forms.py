from django import forms

from diagnoses.models import Sex
from envoys.forms import TablerForm


class SearchForm(TablerForm, forms.Form):
    """Sent by POST: a name, or what identifies a patient, belongs in no address."""

    text = forms.CharField(
        label="Name, or beginning of a subject_id or hadm_id",
        max_length=200,
        required=False,
        widget=forms.TextInput(attrs={"type": "search", "autocomplete": "off"}),
    )


class FilterForm(TablerForm, forms.Form):
    sex = forms.ChoiceField(
        label="Gender",
        required=False,
        choices=[("", "All"), (Sex.FEMALE, Sex.FEMALE.label), (Sex.MALE, Sex.MALE.label)],
    )
    risk = forms.TypedChoiceField(label="Risk", required=False, coerce=int, empty_value=None)
    open = forms.BooleanField(label="In the hospital now", required=False)

    def __init__(self, *args: object, classes: list[str], **kwargs: object) -> None:
        super().__init__(*args, **kwargs)
        self.fields["risk"].choices = [("", "All"), *enumerate(classes)]  # type: ignore[attr-defined]
