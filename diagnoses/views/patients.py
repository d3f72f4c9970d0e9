"""What a doctor changes; the pages that show a patient are those of `inference`."""

from django.contrib import messages
from django.http import HttpResponse, HttpResponseRedirect, QueryDict
from django.shortcuts import get_object_or_404, redirect, render
from django.urls import reverse
from django.utils import timezone
from django.utils.http import urlencode
from django.views.decorators.cache import never_cache
from django.views.decorators.http import require_http_methods, require_POST

from diagnoses import services
from diagnoses.forms import (
    MINUTES,
    AdmissionForm,
    DiagnosisForm,
    DischargeForm,
    PatientForm,
    RiskLevelForm,
)
from diagnoses.models import Admission, Diagnosis, IcdCode, Patient
from envoys import audit
from envoys.pages import UserRequest, errors_on, errors_shown
from federated import icd
from federated.errors import InvalidCodeError

SUGGESTIONS = 8
RESULTS = 50


def visible_patient(request: UserRequest, patient_id: int) -> Patient:
    patients = Patient.objects.visible_to(request.user).select_related("envoy")
    return get_object_or_404(patients, pk=patient_id)


def visible_admission(request: UserRequest, admission_id: int) -> Admission:
    admissions = Admission.objects.visible_to(request.user).select_related("envoy", "patient")
    return get_object_or_404(admissions, pk=admission_id)


def visible_diagnosis(request: UserRequest, diagnosis_id: int) -> Diagnosis:
    diagnosis = get_object_or_404(
        Diagnosis.objects.select_related("admission"),
        pk=diagnosis_id,
        admission__in=Admission.objects.visible_to(request.user),
    )
    return diagnosis


def _sent(request: UserRequest) -> QueryDict | None:
    return request.POST if request.method == "POST" else None


def to_admission(admission: Admission) -> HttpResponseRedirect:
    """To the patient's page, with this admission open."""
    page = reverse("inference:patient-detail", args=[admission.patient_id])
    return redirect(f"{page}?{urlencode({'admission': admission.pk})}")


@never_cache
def patient_register(request: UserRequest) -> HttpResponse:
    form = PatientForm(_sent(request))
    if request.method == "POST" and form.is_valid():
        with errors_on(form):
            assert request.user.envoy is not None  # the access list has seen to it
            admission = services.register_patient(
                request.user.envoy, **form.cleaned_data, registered_by=request.user
            )
            messages.success(
                request, "Registered and admitted. Record the diagnoses to see the risk."
            )
            return to_admission(admission)
    return render(request, "diagnoses/patient_register.html", {"form": form})


@never_cache
def patient_edit(request: UserRequest, patient_id: int) -> HttpResponse:
    patient = visible_patient(request, patient_id)
    facts = {name: getattr(patient, name) for name in ("name", "sex", "birth_year", "phone")}
    form = PatientForm(_sent(request), initial=facts)
    form.fields["name"].required = bool(patient.name)  # an imported patient has none
    if request.method == "POST" and form.is_valid():
        with errors_on(form):
            services.edit_patient(patient, **form.cleaned_data, edited_by=request.user)
            messages.success(request, "Saved.")
            return redirect("inference:patient-detail", patient.pk)
    audit.record(request.user, "saw patient", patient)
    return render(request, "diagnoses/patient_edit.html", {"form": form, "patient": patient})


@never_cache
def admission_create(request: UserRequest, patient_id: int) -> HttpResponse:
    patient = visible_patient(request, patient_id)
    now = timezone.now().strftime(MINUTES)
    form = AdmissionForm(_sent(request), initial={"admitted_at": now})
    if request.method == "POST" and form.is_valid():
        with errors_on(form):
            admission = services.admit_patient(
                patient,
                admitted_by=request.user,
                admitted_at=form.cleaned_data["admitted_at"],
                hadm_id=form.cleaned_data["hadm_id"] or None,
            )
            messages.success(request, "Admitted. Record the diagnoses to see the risk.")
            return to_admission(admission)
    audit.record(request.user, "saw patient", patient)
    return render(request, "diagnoses/admission_create.html", {"form": form, "patient": patient})


@never_cache
def admission_discharge(request: UserRequest, admission_id: int) -> HttpResponse:
    admission = visible_admission(request, admission_id)
    now = timezone.now().strftime(MINUTES)
    form = DischargeForm(_sent(request), initial={"discharged_at": now})
    if request.method == "POST" and form.is_valid():
        with errors_on(form):
            services.discharge_patient(admission, **form.discharge(), discharged_by=request.user)
            messages.success(request, "Discharged. If that was a mistake, reopen the admission.")
            return to_admission(admission)
    audit.record(request.user, "saw patient", admission.patient)
    context = {"form": form, "admission": admission, "patient": admission.patient}
    return render(request, "diagnoses/admission_discharge.html", context)


@require_POST
def admission_reopen(request: UserRequest, admission_id: int) -> HttpResponse:
    admission = visible_admission(request, admission_id)
    with errors_shown(request):
        services.reopen_admission(admission, reopened_by=request.user)
        messages.success(request, "Open again; the outcome has been taken back.")
    return to_admission(admission)


@require_POST
def admission_risk_level(request: UserRequest, admission_id: int) -> HttpResponse:
    admission = visible_admission(request, admission_id)
    form = RiskLevelForm(request.POST)
    if form.is_valid():
        with errors_shown(request):
            services.set_risk_level(admission, form.cleaned_data["level"], set_by=request.user)
            messages.success(request, "Your judgement has been saved.")
    else:
        messages.error(request, "Not saved: choose Low, Medium, High or Not given.")
    return to_admission(admission)


@require_POST
@never_cache
def diagnosis_create(request: UserRequest, admission_id: int) -> HttpResponse:
    """Record a code. Words are answered with the codes to choose from, here and not under an
    address of their own: that would say in every log what a patient may have."""
    admission = visible_admission(request, admission_id)
    form = DiagnosisForm(request.POST)
    context = {"form": form, "admission": admission, "patient": admission.patient}
    if form.is_valid():
        text, version = form.cleaned_data["icd_code"], form.cleaned_data["icd_version"]
        if _is_code(text, version):
            with errors_on(form):
                diagnosis = services.record_diagnosis(
                    admission, **form.cleaned_data, recorded_by=request.user
                )
                messages.success(request, f"{_in_words(diagnosis)} has been recorded.")
                return to_admission(admission)
        else:
            context["codes"] = services.search_icd_codes(text, version=version, limit=RESULTS)
            context["text"] = text
    audit.record(request.user, "saw patient", admission.patient)
    return render(request, "diagnoses/diagnosis_create.html", context)


@require_POST
def diagnosis_strike_out(request: UserRequest, diagnosis_id: int) -> HttpResponse:
    diagnosis = visible_diagnosis(request, diagnosis_id)
    with errors_shown(request):
        services.strike_out_diagnosis(diagnosis, struck_out_by=request.user)
        messages.success(
            request, f"{diagnosis.icd_code} has been struck out. It can be restored below."
        )
    return to_admission(diagnosis.admission)


@require_POST
def diagnosis_restore(request: UserRequest, diagnosis_id: int) -> HttpResponse:
    diagnosis = visible_diagnosis(request, diagnosis_id)
    with errors_shown(request):
        services.restore_diagnosis(diagnosis, restored_by=request.user)
        messages.success(request, f"{diagnosis.icd_code} counts again.")
    return to_admission(diagnosis.admission)


@require_http_methods(["GET", "POST"])
def icd_code_search(request: UserRequest) -> HttpResponse:
    """Codes by code and by words: a page of its own, or suggestions while typing.

    Those are asked for by POST: what is typed beside a patient must not stand in an address.
    """
    asked = request.POST if request.method == "POST" else request.GET
    text = asked.get("icd_code", "")[:200]
    version = {"9": 9, "10": 10}.get(asked.get("icd_version", ""))
    limit, template = RESULTS, "diagnoses/icd_code_search.html"
    if request.method == "POST":
        limit, template = SUGGESTIONS, "diagnoses/_icd_suggestions.html"
    codes = services.search_icd_codes(text, version=version, limit=limit)
    context = {"codes": codes, "text": text.strip(), "version": version, "limit": limit}
    return render(request, template, context)


def _is_code(text: str, version: int) -> bool:
    try:
        icd.normalize_code(text, version)
    except InvalidCodeError:
        return any(character.isdigit() for character in text)  # let the service say what is wrong
    return True


def _in_words(diagnosis: Diagnosis) -> str:
    code = IcdCode.objects.filter(code=diagnosis.icd_code, version=diagnosis.icd_version).first()
    return f"{diagnosis.icd_code}, {code.title}," if code and code.title else diagnosis.icd_code
