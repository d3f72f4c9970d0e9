from datetime import date
from typing import Any

from django import forms

from envoys.audit_search import kinds_of_rows
from envoys.forms import TablerForm
from envoys.models import Envoy, User
from envoys.pages import MAX_ID


class AuditFilterForm(TablerForm, forms.Form):
    """Which events are shown; in an address, so nothing of it is a name."""

    user = forms.ModelChoiceField(
        User.objects.order_by("username"), required=False, label="Person", empty_label="Anybody"
    )
    envoy = forms.ModelChoiceField(
        Envoy.objects.standing(), required=False, label="Hospital or node", empty_label="Any"
    )
    action = forms.CharField(
        max_length=60,
        required=False,
        label="Action begins with",
        widget=forms.TextInput(attrs={"list": "actions", "autocomplete": "off"}),
    )
    kind = forms.ChoiceField(required=False, label="Kind of row")
    number = forms.IntegerField(
        min_value=0,
        max_value=MAX_ID,
        required=False,
        label="Its number",
        widget=forms.TextInput(attrs={"inputmode": "numeric"}),
    )
    since = forms.DateField(
        required=False, label="From", widget=forms.DateInput(attrs={"type": "date"})
    )
    until = forms.DateField(
        required=False, label="To", widget=forms.DateInput(attrs={"type": "date"})
    )

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        kind = self.fields["kind"]
        assert isinstance(kind, forms.ChoiceField)
        kind.choices = [("", "Any"), *kinds_of_rows()]

    def clean(self) -> dict[str, Any]:
        cleaned: dict[str, Any] = super().clean() or self.cleaned_data
        if cleaned.get("number") is not None and not cleaned.get("kind"):
            self.add_error("kind", "Choose of which kind the row with this number is.")
        since: date | None = cleaned.get("since")
        until: date | None = cleaned.get("until")
        if since and until and until < since:
            self.add_error("until", "This day is before the first.")
        return cleaned

    def asked(self) -> dict[str, Any]:
        """The arguments of `find_events`."""
        values = self.cleaned_data
        return {
            "user_id": values["user"].pk if values["user"] else None,
            "envoy_id": values["envoy"].pk if values["envoy"] else None,
            **{name: values[name] for name in ("action", "kind", "number", "since", "until")},
        }
