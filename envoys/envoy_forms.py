from django import forms
from django.conf import settings

from envoys.forms import TablerForm
from envoys.models import Envoy


class EnvoyForm(TablerForm, forms.ModelForm):
    """What a person decides about a hospital; the service checks it."""

    class Meta:
        model = Envoy
        fields = ["name", "kind", "bucket", "prefix", "region", "queue"]
        labels = {"name": "Name of the hospital", "queue": "Queue of its own"}
        help_texts = {
            "kind": "What it holds: patients with diagnoses, or readings. It cannot be changed later.",
            "bucket": "Where its exports and models lie; empty for the default bucket.",
            "prefix": "Its part of the bucket; empty for envoys/ and its short name.",
            "queue": "Only for a hospital that is trained on a host of its own: workers there"
            " listen to this queue. Empty for the shared one.",
        }

    def __init__(self, *args: object, **kwargs: object) -> None:
        super().__init__(*args, **kwargs)
        self.fields["kind"].required = False
        if self.instance.pk:
            del self.fields["kind"]  # its rows are of that kind
        self.fields["region"].required = False
        self.fields["region"].help_text = f"Of the bucket; empty for {settings.AWS_REGION}."

    def clean_kind(self) -> str:
        return self.cleaned_data["kind"] or Envoy.Kind.HOSPITAL

    def validate_unique(self) -> None:
        """The service's words say more."""

    def _post_clean(self) -> None:
        """The form's row stays as it was: the service changes it, or refuses."""
