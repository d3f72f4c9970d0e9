from django.http import HttpResponse
from django.shortcuts import render
from django.views.decorators.cache import never_cache

from envoys.pages import UserRequest
from inference.hospital import hospital_summary


@never_cache
def hospital_dashboard(request: UserRequest) -> HttpResponse:
    assert request.user.envoy is not None  # the access list has seen to it
    context = {"summary": hospital_summary(request.user.envoy)}
    return render(request, "inference/hospital_dashboard.html", context)
