"""A hospital's files: what goes to its storage, and what comes in."""

from django.contrib import messages
from django.http import HttpResponse
from django.shortcuts import get_object_or_404, redirect, render
from django.views.decorators.cache import never_cache
from django.views.decorators.http import require_POST

from diagnoses import services
from diagnoses.models import CodeReport, Import, Snapshot, Upload
from diagnoses.upload_forms import UploadForm
from envoys import audit
from envoys.errors import StorageError
from envoys.lookup import hospital_of
from envoys.pages import UserRequest, errors_on, errors_shown, page_of

OPERATORS_IMPORTS = 10


@never_cache
def export_list(request: UserRequest) -> HttpResponse:
    return render(request, "diagnoses/export_list.html", _exports(request))


@never_cache
def export_live(request: UserRequest) -> HttpResponse:
    """The part of the page that asks for itself while an export is being written."""
    return render(request, "diagnoses/_export_live.html", _exports(request))


def _exports(request: UserRequest) -> dict[str, object]:
    snapshots = Snapshot.objects.visible_to(request.user).select_related("requested_by")
    page = page_of(request, snapshots)
    return {"page": page, "is_changing": any(snapshot.is_active for snapshot in page)}


@require_POST
def export_create(request: UserRequest) -> HttpResponse:
    services.ask_for_export(hospital_of(request.user), requested_by=request.user)
    messages.success(request, "The export has been started: it appears below as it is written.")
    return redirect("diagnoses:export-list")


@never_cache
def code_report(request: UserRequest) -> HttpResponse:
    envoy = hospital_of(request.user)
    report = CodeReport.objects.filter(envoy=envoy).first()
    kinds = report.kinds_shown_to(request.user) if report else []
    context = {"envoy": envoy, "report": report, "kinds": kinds}
    return render(request, "diagnoses/code_report.html", context)


def import_list(request: UserRequest) -> HttpResponse:
    uploads = Upload.objects.visible_to(request.user).select_related("uploaded_by")
    operators = Import.objects.visible_to(request.user).filter(uploads__isnull=True)
    # An upload's import that failed or is being written belongs to nobody yet, and is no news.
    operators = operators.filter(status=Import.Status.COMPLETE)[:OPERATORS_IMPORTS]
    context = {"page": page_of(request, uploads), "operators_imports": operators}
    return render(request, "diagnoses/import_list.html", context)


def import_create(request: UserRequest) -> HttpResponse:
    sent = (request.POST, request.FILES) if request.method == "POST" else ()
    form = UploadForm(*sent)
    if form.is_valid():
        outcomes = form.cleaned_data["outcomes"]
        with errors_on(form):
            upload = services.upload_files(
                hospital_of(request.user),
                diagnoses=form.cleaned_data["diagnoses"].file,
                outcomes=outcomes.file if outcomes else None,
                uploaded_by=request.user,
            )
        if form.is_valid():
            messages.success(
                request, "The files have arrived and are being checked. Nothing is imported yet."
            )
            return redirect("diagnoses:import-detail", upload.pk)
    return render(request, "diagnoses/import_form.html", {"form": form})


def visible_upload(request: UserRequest, upload_id: int) -> Upload:
    uploads = Upload.objects.visible_to(request.user)
    return get_object_or_404(
        uploads.select_related("envoy", "uploaded_by", "source_import"), pk=upload_id
    )


@never_cache
def import_detail(request: UserRequest, upload_id: int) -> HttpResponse:
    upload = visible_upload(request, upload_id)
    previews, lost = [], ""
    try:
        previews = services.preview(upload)
    except StorageError as error:
        lost = str(error)
    audit.record(request.user, "saw upload", upload)
    context = {"upload": upload, "previews": previews, "lost": lost}
    return render(request, "diagnoses/import_detail.html", context)


@never_cache
def import_live(request: UserRequest, upload_id: int) -> HttpResponse:
    """How far it is; once that has ended, the whole page shows what came of it."""
    upload = visible_upload(request, upload_id)
    if request.htmx and not upload.is_active:
        return HttpResponse(headers={"HX-Refresh": "true"})
    return render(request, "diagnoses/_import_live.html", {"upload": upload})


@require_POST
def import_confirm(request: UserRequest, upload_id: int) -> HttpResponse:
    upload = visible_upload(request, upload_id)
    with errors_shown(request):
        services.confirm_upload(upload, confirmed_by=request.user)
        messages.success(request, "The import has been started. You may leave this page.")
    return redirect("diagnoses:import-detail", upload.pk)


@require_POST
def import_discard(request: UserRequest, upload_id: int) -> HttpResponse:
    upload = visible_upload(request, upload_id)
    with errors_shown(request):
        services.discard_upload(upload, discarded_by=request.user)
        messages.success(request, "The upload has been discarded; its files are being removed.")
        return redirect("diagnoses:import-list")
    return redirect("diagnoses:import-detail", upload.pk)
