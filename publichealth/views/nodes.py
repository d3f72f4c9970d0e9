from django.http import HttpResponse
from django.shortcuts import redirect, render
from django.views.decorators.cache import never_cache

from envoys.lookup import hospital_of
from envoys.pages import UserRequest
from federated.targets import READINGS
from publichealth.services.nodes import node_summary


@never_cache
def node_dashboard(request: UserRequest) -> HttpResponse:
    """A node at a glance, for who keeps it; a hospital has a page of its own."""
    envoy = hospital_of(request.user)
    if envoy.dataset != READINGS:
        return redirect("inference:hospital-dashboard")
    return render(request, "publichealth/node_dashboard.html", {"summary": node_summary(envoy)})
