"""What the bar on top offers to whom: the access list decides."""

from dataclasses import dataclass
from typing import Any

from django.contrib.auth.models import AnonymousUser
from django.http import HttpRequest
from django.urls import reverse
from django.utils.functional import SimpleLazyObject

from envoys.access import may_use
from envoys.models import Envoy, User
from federated.targets import READINGS
from federated.words import Words, words_of
from training.models import ReceivedUpdate

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
    (
        "Envoys",
        "training:envoy-list",
        ("training:envoy-", "envoys:envoy-", "inference:envoy-", "inference:erasure-"),
    ),
    ("Studies", "training:study-list", ("training:study-",)),
    ("Approvals", "training:package-list", ("training:package-",)),
    ("Runs", "training:run-list", ("training:run-", "training:manual-round")),
    ("Quarantine", "training:quarantine-list", ("training:quarantine-",)),
    (
        "Models",
        "training:model-version-list",
        ("training:model-version-", "training:model-choice-"),
    ),
    ("Inference", "inference:inference-run-list", ("inference:inference-run-",)),
    ("Tasks", "envoys:task-list", ("envoys:task-",)),
    ("Audit", "envoys:audit-event-list", ("envoys:audit-",)),
    (
        "Public health",
        "publichealth:dashboard",
        ("publichealth:dashboard", "publichealth:drift"),
    ),
    ("My risk", "publichealth:citizen", ()),
)
# Of more entries than a line holds, those that one looks at now and then stand behind the last.
MAX_IN_LINE = 9
NOW_AND_THEN = (
    "training:quarantine-list",
    "inference:inference-run-list",
    "envoys:task-list",
    "envoys:audit-event-list",
    "publichealth:citizen",
)
# What is about patients, and open to others than doctors too: a node of readings has none.
OF_PATIENTS = ("inference:inference-run-list",)


@dataclass(frozen=True)
class Entry:
    title: str
    url: str
    is_current: bool
    is_now_and_then: bool
    count: int = 0  # of what waits there for this person


def navigation(request: HttpRequest) -> dict[str, Any]:
    if not getattr(request, "user", None):
        return {"navigation": []}
    words = SimpleLazyObject(lambda: _federation_words(request.user))
    match = request.resolver_match
    here = match.view_name if match else ""
    entries = [
        Entry(
            title,
            reverse(page),
            here == page or here.startswith(within),
            page in NOW_AND_THEN,
            _num_waiting(request, page),
        )
        for title, page, within in ENTRIES
        if may_use(request.user, page, "GET") and not _is_others(request, page)
    ]
    is_long = len(entries) > MAX_IN_LINE
    return {
        "navigation": entries,
        "navigation_line": [each for each in entries if not (is_long and each.is_now_and_then)],
        "navigation_more": [each for each in entries if is_long and each.is_now_and_then],
        "num_waiting": sum(each.count for each in entries),
        "federation_words": words,
    }


def _num_waiting(request: HttpRequest, page: str) -> int:
    """What waits on a page for somebody who may decide there."""
    if page != "training:quarantine-list" or not isinstance(request.user, User):
        return 0
    return ReceivedUpdate.objects.visible_to(request.user).in_quarantine().count()


def _federation_words(user: User | AnonymousUser) -> Words:
    """What to call who takes part: of all that somebody may know of, read where a page says it."""
    if not isinstance(user, User):
        return words_of([])
    kinds = Envoy.objects.standing().visible_to(user).order_by().values_list("kind", flat=True)
    return words_of(Envoy.Kind(kind).dataset for kind in kinds.distinct())


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
