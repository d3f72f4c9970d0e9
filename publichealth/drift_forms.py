from typing import Any

from django import forms

from envoys.forms import TablerForm
from envoys.models import User
from publichealth.models import DriftCheck
from publichealth.services import drift


class ProposalForm(TablerForm, forms.Form):
    drift_check = forms.ModelChoiceField(
        queryset=DriftCheck.objects.none(), label="Because of", empty_label=None
    )
    reason = forms.CharField(
        label="Why",
        max_length=1000,
        widget=forms.Textarea(attrs={"rows": 3}),
        help_text="Who runs the federation reads it. Nothing about a person belongs here.",
    )

    def __init__(self, *args: Any, user: User, nodes: list[drift.NodeDrift], **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        field: Any = self.fields["drift_check"]
        # Any complete check is taken: a newer one may have come since the page was opened.
        field.queryset = DriftCheck.objects.visible_to(user).filter(
            status=DriftCheck.Status.COMPLETE
        )
        drifted_first = sorted(
            (node.check for node in nodes if node.check), key=lambda check: not check.is_alert
        )
        field.choices = [(check.pk, _title(check)) for check in drifted_first]


def _title(check: DriftCheck) -> str:
    drifted = ", ".join(check.alert_titles) or "nothing has drifted"
    return f"{check.envoy}: {drifted}"
