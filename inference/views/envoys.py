from typing import Any

from django import forms
from django.contrib import messages
from django.http import HttpResponse
from django.shortcuts import get_object_or_404, redirect, render
from django.views.decorators.http import require_http_methods

from envoys.forms import TablerForm
from envoys.models import Envoy
from envoys.pages import UserRequest, errors_on
from inference import services


class DeleteForm(TablerForm, forms.Form):
    name = forms.CharField(
        widget=forms.TextInput(attrs={"autocomplete": "off"}),
    )

    def __init__(self, *args: Any, envoy: Envoy, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self.fields["name"].label = f"The {envoy.words.place}'s name, to confirm"


@require_http_methods(["GET", "POST"])
def envoy_delete(request: UserRequest, envoy_id: int) -> HttpResponse:
    envoys = Envoy.objects.standing().visible_to(request.user)
    envoy = get_object_or_404(envoys, pk=envoy_id)
    form = DeleteForm(request.POST or None, envoy=envoy)
    if form.is_valid():
        with errors_on(form):
            erasure = services.delete_envoy(
                envoy, confirmed_name=form.cleaned_data["name"], deleted_by=request.user
            )
        if form.is_valid():
            messages.success(
                request, f"{envoy} is deleted. A worker erases what it held, and says what remains."
            )
            return redirect("inference:erasure-detail", erasure.pk)
    return render(
        request,
        "inference/envoy_delete.html",
        {"envoy": envoy, "form": form, "going": services.what_will_go(envoy)},
    )
