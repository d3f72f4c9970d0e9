from typing import Any

from django import forms
from django.conf import settings
from django.template.defaultfilters import filesizeformat

from envoys.forms import TablerForm

CSV_FILES = {"accept": ".csv,.gz,text/csv,application/gzip"}


class UploadForm(TablerForm, forms.Form):
    diagnoses = forms.FileField(
        label="Diagnoses",
        widget=forms.FileInput(attrs=CSV_FILES),
        help_text="A CSV file, gzipped or not, with the columns subject_id, hadm_id, seq_num,"
        " icd_code and icd_version: a row for each diagnosis.",
    )
    outcomes = forms.FileField(
        label="Outcomes",
        required=False,
        widget=forms.FileInput(attrs=CSV_FILES),
        help_text="If you have them: a row for each admission, with subject_id, hadm_id and what is"
        " known of it.",
    )

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        most = filesizeformat(settings.UPLOAD_MAX_BYTES)
        self.fields["outcomes"].help_text += f" A file has {most} at the most, unpacked."
