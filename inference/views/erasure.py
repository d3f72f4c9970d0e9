"""Handing over what is stored, erasing it, and what remains then."""

from io import BytesIO
from typing import cast

from django import forms
from django.contrib import messages
from django.http import FileResponse, HttpResponse, StreamingHttpResponse
from django.shortcuts import get_object_or_404, redirect, render
from django.views.decorators.cache import never_cache
from django.views.decorators.http import require_GET, require_http_methods, require_POST

from diagnoses.models import PatientErasure
from diagnoses.services import let_return
from diagnoses.views.patients import visible_patient
from envoys import audit
from envoys.forms import TablerForm
from envoys.models import Envoy
from envoys.pages import UserRequest, errors_on, errors_shown, page_of
from inference import services
from inference.hospital_data import archive_response
from inference.models import Erasure
from inference.patient_data import patient_data as data_of
from inference.patient_data import write_archive


class EraseForm(TablerForm, forms.Form):
    subject_id = forms.CharField(
        label="The patient's subject ID, to confirm",
        widget=forms.TextInput(attrs={"autocomplete": "off", "spellcheck": "false"}),
    )


@never_cache
@require_GET
def patient_data(request: UserRequest, patient_id: int) -> FileResponse:
    """Everything stored of a patient, to download; the file's name has the patient's number alone."""
    patient = visible_patient(request, patient_id)
    file = BytesIO()  # small, and on no disk
    write_archive(data_of(patient), file)
    file.seek(0)
    audit.record(request.user, "exported patient", patient)
    name = f"patient-{patient.pk}.zip"
    return FileResponse(file, as_attachment=True, filename=name, content_type="application/zip")


@never_cache
@require_http_methods(["GET", "POST"])
def patient_erase(request: UserRequest, patient_id: int) -> HttpResponse:
    patient = visible_patient(request, patient_id)
    form = EraseForm(request.POST or None)
    is_sent = request.method == "POST"
    if is_sent and form.is_valid():
        with errors_on(form):
            erasure = services.erase_patient(
                patient,
                confirmed_subject_id=form.cleaned_data["subject_id"],
                erased_by=request.user,
            )
        if form.is_valid():
            messages.success(request, "The patient is erased here. This page says what remains.")
            return redirect("inference:patient-erasure-detail", erasure.pk)
    audit.record(request.user, "saw patient", patient)
    context = {"patient": patient, "form": form, "going": services.what_goes_with(patient)}
    status = 400 if is_sent else 200
    return render(request, "inference/patient_erase.html", context, status=status)


@never_cache
def patient_erasure_list(request: UserRequest) -> HttpResponse:
    page = page_of(request, PatientErasure.objects.visible_to(request.user))
    audit.record(request.user, "saw erasures", cast(Envoy, request.user.envoy))
    return render(request, "inference/patient_erasure_list.html", {"page": page})


def _visible(request: UserRequest, patient_erasure_id: int) -> PatientErasure:
    erasures = PatientErasure.objects.visible_to(request.user)
    return cast(PatientErasure, get_object_or_404(erasures, pk=patient_erasure_id))


@never_cache
def patient_erasure_detail(request: UserRequest, patient_erasure_id: int) -> HttpResponse:
    erasure = _visible(request, patient_erasure_id)
    audit.record(request.user, "saw erasure", erasure)
    context = {"erasure": erasure, "live": "inference:patient-erasure-live"}
    return render(request, "inference/patient_erasure_detail.html", context)


@never_cache
def patient_erasure_live(request: UserRequest, patient_erasure_id: int) -> HttpResponse:
    """The part of the page that asks for itself while there is something left to erase."""
    erasure = _visible(request, patient_erasure_id)
    context = {"erasure": erasure, "live": "inference:patient-erasure-live"}
    return render(request, "inference/_erasure_live.html", context)


@require_POST
def patient_erasure_return(request: UserRequest, patient_erasure_id: int) -> HttpResponse:
    erasure = _visible(request, patient_erasure_id)
    with errors_shown(request):
        let_return(erasure, allowed_by=request.user)
        messages.success(request, "Imports may bring this patient again.")
    return redirect("inference:patient-erasure-detail", erasure.pk)


@never_cache
@require_GET
def hospital_data(request: UserRequest) -> StreamingHttpResponse:
    assert request.user.envoy is not None  # the access list has seen to it
    audit.record(request.user, "exported hospital", request.user.envoy)
    return archive_response(request.user.envoy)


@never_cache
def erasure_list(request: UserRequest) -> HttpResponse:
    page = page_of(request, Erasure.objects.select_related("requested_by"))
    return render(request, "inference/erasure_list.html", {"page": page})


@never_cache
def erasure_detail(request: UserRequest, erasure_id: int) -> HttpResponse:
    erasure = get_object_or_404(Erasure, pk=erasure_id)
    audit.record(request.user, "saw erasure", erasure)
    context = {"erasure": erasure, "live": "inference:erasure-live"}
    return render(request, "inference/erasure_detail.html", context)


@never_cache
def erasure_live(request: UserRequest, erasure_id: int) -> HttpResponse:
    """The part of the page that asks for itself while there is something left to erase."""
    erasure = get_object_or_404(Erasure, pk=erasure_id)
    context = {"erasure": erasure, "live": "inference:erasure-live"}
    return render(request, "inference/_erasure_live.html", context)
