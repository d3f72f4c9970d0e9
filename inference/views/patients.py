"""A hospital's patients to look at; what is changed is changed by the pages of `diagnoses`."""

from typing import Any

from cryptography.fernet import InvalidToken
from django.http import Http404, HttpResponse
from django.shortcuts import redirect, render
from django.utils import timezone
from django.views.decorators.cache import never_cache

from diagnoses.forms import DiagnosisForm, RiskLevelForm
from diagnoses.models import Admission, Diagnosis, IcdCode, Patient
from diagnoses.views.patients import visible_patient
from envoys import audit
from envoys.encryption import decrypt, encrypt
from envoys.pages import UserRequest
from inference.explaining import category_titles, explain
from inference.forms import FilterForm, SearchForm
from inference.hospital import model_in_use
from inference.patients import (
    PatientFilters,
    num_standing,
    page_of_patients,
    patients_of,
    time_order,
)
from inference.searches import SEARCH
from inference.services import ModelRisk, PatientRisk, risk_of
from training.choice_words import TITLES
from training.models import ModelVersion


@never_cache
def patient_list(request: UserRequest) -> HttpResponse:
    """POST searches and keeps the words in the session; GET shows what they and filters find."""
    assert request.user.envoy is not None  # the access list has seen to it
    if request.method == "POST":
        form = SearchForm(request.POST)
        if form.is_valid():
            request.session[SEARCH] = encrypt(form.cleaned_data["text"])
        return redirect("inference:patient-list")
    delivered = model_in_use(request.user.envoy)
    version = delivered.version if delivered else None
    classes = version.manifest["classes"] if version else []
    filter_form = FilterForm(request.GET, classes=classes)
    chosen = filter_form.cleaned_data if filter_form.is_valid() else {}
    filters = PatientFilters(
        text=_searched(request),
        sex=chosen.get("sex", ""),
        is_open=chosen.get("open", False),
        risk=chosen.get("risk"),
    )
    page = page_of_patients(
        patients_of(request.user, filters, version),
        version,
        older_than=_key(request, "older"),
        newer_than=_key(request, "newer"),
    )
    audit.record(request.user, "listed patients", request.user.envoy)
    context = {
        "page": page,
        "filters": filters,
        "is_filtered": filters != PatientFilters(),
        "search_form": SearchForm(initial={"text": filters.text}),
        "filter_form": filter_form,
        "version": version,
        "classes": classes,
    }
    return render(request, "inference/patient_list.html", context)


@never_cache
def patient_detail(request: UserRequest, patient_id: int) -> HttpResponse:
    """A patient with one admission open: the one asked for, or else the newest."""
    patient = visible_patient(request, patient_id)
    context = _risk_context(request, patient)
    audit.record(request.user, "saw patient", patient)
    return render(request, "inference/patient_detail.html", context)


@never_cache
def patient_risk(request: UserRequest, patient_id: int) -> HttpResponse:
    """The risk of an admission alone, as a part of a page."""
    patient = visible_patient(request, patient_id)
    context = _risk_context(request, patient)
    audit.record(request.user, "saw risk", patient)
    template = "_patient_risk" if request.htmx else "patient_risk"
    return render(request, f"inference/{template}.html", context)


def _searched(request: UserRequest) -> str:
    try:
        return decrypt(request.session[SEARCH]) if SEARCH in request.session else ""
    except InvalidToken:  # the keys have changed since
        return ""


def _key(request: UserRequest, name: str) -> int | None:
    text = request.GET.get(name, "")
    return int(text) if text.isascii() and text.isdigit() and len(text) < 19 else None


def _risk_context(request: UserRequest, patient: Patient) -> dict[str, Any]:
    admissions = sorted(
        Admission.objects.visible_to(request.user).filter(patient=patient),
        key=time_order,
        reverse=True,
    )
    counts = num_standing(admissions)
    context: dict[str, Any] = {
        "patient": patient,
        "admissions": [(admission, counts[admission.pk]) for admission in admissions],
        "has_open": any(admission.is_open for admission in admissions),
    }
    asked = _key(request, "admission")
    if asked is not None and asked not in counts:
        raise Http404
    if not admissions:
        return context
    of_now = next((a for a in admissions if a.is_open), admissions[0])
    admission = next((a for a in admissions if a.pk == asked), of_now)
    admission.patient, admission.envoy = patient, patient.envoy  # no need to ask again
    diagnoses = list(admission.diagnoses.select_related("recorded_by", "struck_out_by"))
    diagnoses.sort(key=lambda diagnosis: (diagnosis.seq_num, diagnosis.pk))
    titles = _titles(diagnoses)
    risk = risk_of(admission, requested_by=request.user)
    return context | {
        "admission": admission,
        "diagnoses": [
            (diagnosis, titles.get((diagnosis.icd_code, diagnosis.icd_version), ""))
            for diagnosis in diagnoses
        ],
        # What the models take for it: after a strike-out, the next place.
        "main_diagnosis": next((each for each in diagnoses if each.struck_out_at is None), None),
        "risk": risk,
        "models": _models(risk, counts[admission.pk]),
        "diagnosis_form": DiagnosisForm(),
        "risk_level_form": RiskLevelForm(initial={"level": admission.clinician_risk_level}),
    }


def _titles(diagnoses: list[Diagnosis]) -> dict[tuple[str, int], str]:
    codes = IcdCode.objects.filter(code__in={diagnosis.icd_code for diagnosis in diagnoses})
    return {
        (code, version): title
        for code, version, title in codes.values_list("code", "version", "title")
    }


def _models(risk: PatientRisk, num_diagnoses: int) -> list[dict[str, Any]]:
    """Both models side by side, the one that suits the hospital first; a missing one with why."""
    titles = category_titles(m.prediction for m in (risk.by_global, risk.by_own) if m.prediction)
    now = timezone.now()

    def shown(model: ModelRisk, title: str, *, suits: bool) -> dict[str, Any]:
        prediction = model.prediction
        return {
            "title": TITLES[ModelVersion.Kind(prediction.model_version.kind)]
            if prediction
            else title,
            "prediction": prediction,
            "explanation": explain(
                prediction,
                admission=risk.admission,
                titles=titles,
                num_diagnoses=num_diagnoses,
                now=now,
            )
            if prediction
            else None,
            "missing": model.missing,
            "choice": risk.choice if suits else None,
        }

    models = [
        shown(risk.by_global, "The federation's model", suits=not risk.own_suits),
        shown(risk.by_own, "This hospital's own model", suits=risk.own_suits),
    ]
    return models[::-1] if risk.own_suits else models
