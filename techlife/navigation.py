"""What the bar on top offers to whom: the access list decides."""

from dataclasses import dataclass
from typing import Any

from django.http import HttpRequest
from django.urls import reverse

from envoys.access import may_use
from envoys.models import User
from federated.targets import READINGS

# title, page, the pages for which it is marked as the current one
ENTRIES = (
    (
        "Dashboard",
        "home",
        (
            "inference:hospital-dashboard",
            "publichealth:node-dashboard",
            "training:federation-dashboard",
        ),
    ),
    (
        "Patients",
        "inference:patient-list",
        ("inference:patient-", "diagnoses:patient-", "diagnoses:admission-"),
    ),
    ("Imports", "diagnoses:import-list", ("diagnoses:import-",)),
    ("Exports", "diagnoses:export-list", ("diagnoses:export-", "diagnoses:code-report")),
    ("Hospitals", "training:envoy-list", ("training:envoy-", "envoys:envoy-", "inference:envoy-")),
    ("Studies", "training:study-list", ("training:study-",)),
    ("Approvals", "training:package-list", ("training:package-",)),
    ("Runs", "training:run-list", ("training:run-", "training:manual-round")),
    (
        "Models",
        "training:model-version-list",
        ("training:model-version-", "training:model-choice-"),
    ),
    ("Inference", "inference:inference-run-list", ("inference:inference-run-",)),
    ("Tasks", "envoys:task-list", ("envoys:task-",)),
    (
        "Public health",
        "publichealth:dashboard",
        ("publichealth:dashboard", "publichealth:drift"),
    ),
    ("My risk", "publichealth:citizen", ()),
)
# What is about patients: a node of readings has none.
OF_PATIENTS = (
    "inference:patient-list",
    "diagnoses:import-list",
    "inference:inference-run-list",
)


@dataclass(frozen=True)
class Entry:
    title: str
    url: str
    is_current: bool


def navigation(request: HttpRequest) -> dict[str, Any]:
    if not getattr(request, "user", None):
        return {"navigation": []}
    match = request.resolver_match
    here = match.view_name if match else ""
    return {
        "navigation": [
            Entry(title, reverse(page), here == page or here.startswith(within))
            for title, page, within in ENTRIES
            if may_use(request.user, page, "GET") and not _is_others(request, page)
        ]
    }


def _is_others(request: HttpRequest, page: str) -> bool:
    """What somebody reads elsewhere, or has none of.

    A doctor reads about their own hospital on the dashboard; the list is for who sees several. An
    officer's home is the public-health page. Who keeps a node of readings has no patients.
    """
    user = request.user
    if not isinstance(user, User):
        return False
    if page in OF_PATIENTS and user.envoy is not None and user.envoy.dataset == READINGS:
        return True
    of_several = page in ("training:envoy-list", "training:study-list")
    return (of_several and user.is_doctor) or (
        page == "home" and user.role == User.Role.PUBLIC_HEALTH
    )
