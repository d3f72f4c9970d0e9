"""The audit, for administrators. Who reads it is in it."""

from django.http import HttpResponse, StreamingHttpResponse
from django.http.response import HttpResponseBase
from django.shortcuts import render
from django.views.decorators.cache import never_cache
from django.views.decorators.http import require_safe

from envoys.audit_forms import AuditFilterForm
from envoys.audit_search import (
    find_events,
    known_actions,
    lines_of,
    page_of_events,
    seal_state,
)
from envoys.models import AuditEvent
from envoys.pages import UserRequest, id_of

EVENTS_PER_PAGE = 50
CURSORS = ("before", "after")


@never_cache
@require_safe
def audit_event_list(request: UserRequest) -> HttpResponse:
    form = AuditFilterForm(request.GET)
    is_valid = form.is_valid()
    before, after = (id_of(request.GET.get(name, "")) for name in CURSORS)
    events = find_events(**form.asked()) if is_valid else AuditEvent.objects.none()
    filters = request.GET.copy()
    for name in CURSORS:
        filters.pop(name, None)
    context = {
        "form": form,
        "page": page_of_events(events, size=EVENTS_PER_PAGE, before=before, after=after),
        "seals": seal_state(),
        "actions": known_actions(),
        "filters": filters.urlencode(),
        "is_filtered": any(filters.values()),
        "is_newest": before is None and after is None,
    }
    return render(request, "envoys/audit_event_list.html", context)


@never_cache
@require_safe
def audit_event_export(request: UserRequest) -> HttpResponseBase:
    """What is filtered as CSV; a filter that cannot be is explained on the page."""
    form = AuditFilterForm(request.GET)
    if not form.is_valid():
        return audit_event_list(request)
    return csv_response(form.asked())


def csv_response(asked: dict[str, object]) -> StreamingHttpResponse:
    events = find_events(**asked)  # type: ignore[arg-type]
    return StreamingHttpResponse(
        lines_of(events),
        content_type="text/csv; charset=utf-8",
        headers={"Content-Disposition": 'attachment; filename="audit.csv"'},
    )
