"""Forms as Tabler draws them; a form class takes `TablerForm` as its first base."""

from typing import Any

from django import forms
from django.core.exceptions import ValidationError

from envoys.pages import id_of


class TablerForm(forms.BaseForm):
    """Gives each widget its class, and says which text describes or refuses it."""

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        for field in self.fields.values():
            widget = field.widget
            if isinstance(
                widget, forms.CheckboxInput | forms.CheckboxSelectMultiple | forms.RadioSelect
            ):
                css = "form-check-input"
            elif isinstance(widget, forms.Select):
                css = "form-select"
            else:
                css = "form-control"
            widget.attrs["class"] = f"{widget.attrs.get('class', '')} {css}".strip()


class RowsField(forms.ModelMultipleChoiceField):
    """Rows by their numbers; what is no number that a row can have is refused as one of no row.

    Django asks the database for any whole number, which a large one breaks.
    """

    def clean(self, value: Any) -> Any:
        for number in value if isinstance(value, list | tuple) else ():
            if id_of(str(number)) is None:
                raise ValidationError(
                    self.error_messages["invalid_pk_value"],
                    code="invalid_pk_value",
                    params={"pk": str(number)[:40]},
                )
        return super().clean(value)
