"""Every route of the access list, asked by everybody, about their own hospital and another."""

import re
from typing import Any

import pytest
from django.conf import settings
from django.contrib import admin
from django.core.cache import cache
from django.db import transaction
from django.test import Client
from django.urls import reverse

from envoys.access import ACTIONS, UNAUDITED, Capability, is_call, is_published
from envoys.models import AuditEvent, User
from tests.world import World, url_parameters
from tests.world_fixtures import folders as folders  # fixtures
from tests.world_fixtures import world as world

# In tests nothing has been collected for WhiteNoise to serve.
pytestmark = [pytest.mark.django_db, pytest.mark.filterwarnings("ignore:No directory at")]

C = Capability
EVERYBODY = {
    "anonymous",
    "doctor",
    "doctor without hospital",
    "data scientist",
    "public-health officer",
    "administrator",
}
FEDERATION = {"data scientist", "administrator"}
# The table of roles, said once more in people.
WHO_MAY: dict[Capability, set[str]] = {
    C.ANYONE: EVERYBODY,
    C.SIGNED_IN: EVERYBODY - {"anonymous"},
    C.PATIENTS: {"doctor"},
    C.READINGS: {"doctor"},
    C.APPROVAL: {"doctor"},
    C.FIGURES: EVERYBODY - {"anonymous"},
    C.PACKAGES: {"doctor", "doctor without hospital", *FEDERATION},
    C.SCORING: {"doctor", "doctor without hospital", *FEDERATION},
    C.FEDERATION: FEDERATION,
    C.PUBLIC_HEALTH: {*FEDERATION, "public-health officer"},
    C.THRESHOLDS: {"administrator", "public-health officer"},
    C.ACCOUNTS: {"administrator"},
}
OF_HOSPITALS = {"doctor", "doctor without hospital"}


def _capabilities() -> dict[str, set[Capability]]:
    found: dict[str, set[Capability]] = {}
    for action in ACTIONS:
        for route in action.routes:
            found.setdefault(route, set()).add(action.capability)
    return found


CAPABILITIES = {
    route: each for route, each in _capabilities().items() if not route.startswith("* ")
}
ROUTES = sorted(CAPABILITIES, key=lambda route: route.partition(" ")[2])
PATIENT_ROUTES = [route for route in ROUTES if CAPABILITIES[route] in ({C.PATIENTS}, {C.READINGS})]
# Of the routes about patients, those whose answer shows none.
SHOW_NO_PATIENT = {
    "GET diagnoses:patient-register",
    "GET diagnoses:export-list",
    "GET diagnoses:export-live",
    "GET api:export-list",
    "GET api:export-detail",
    "GET diagnoses:code-report",
    "GET diagnoses:import-list",
    "GET diagnoses:import-create",
    "GET diagnoses:import-live",
    "GET api:import-list",
    "GET inference:hospital-dashboard",
    "POST inference:patient-list",  # keeps what is searched for, and shows it with GET
    "GET api:hospital-summary",
    "GET publichealth:node-dashboard",
    "GET api:node-summary",
    "GET inference:patient-erasure-live",
}


class Answer:
    def __init__(self, response: Any) -> None:
        self.status: int = response.status_code
        self.location: str = response.headers.get("Location", "")
        self.text: str = "" if response.streaming else response.content.decode()
        self.events: list[AuditEvent] = []

    def __repr__(self) -> str:
        main = self.text.partition("<main")[2] or self.text
        words = " ".join(re.sub(r"<[^>]+>", " ", main).split())
        return f"{self.status} {self.location} {words[:600]}"


class Visitors:
    """Everybody, logged in once; one client, since a new one would load the middleware again."""

    def __init__(self, world: World) -> None:
        self.world = world
        self.client = Client()
        self.sessions = {person: self._log_in(user) for person, user in world.people.items()}

    def _log_in(self, user: User | None) -> str:
        if user is None:
            return ""
        self.client.force_login(user)
        return self.client.cookies.pop(settings.SESSION_COOKIE_NAME).value

    def send(self, person: str, method: str, url: str, **keywords: Any) -> Answer:
        """A request whose changes are undone, and which nothing remembers."""
        cache.clear()
        self.client.cookies.clear()
        if self.sessions[person]:
            self.client.cookies[settings.SESSION_COOKIE_NAME] = self.sessions[person]
        with transaction.atomic():
            num_before = AuditEvent.objects.count()
            answer = Answer(getattr(self.client, method.lower())(url, **keywords))
            answer.events = list(AuditEvent.objects.order_by("pk")[num_before:])
            transaction.set_rollback(True)
        return answer

    def ask(self, route: str, person: str, *, url_of: str = "own", body_of: str = "") -> Answer:
        """Ask for a route with rows of one hospital in its URL, and in its body unless given."""
        method, _, view_name = route.partition(" ")
        arguments = self.world.arguments(view_name, url_of, method)
        if "access-token" in view_name and person in self.world.tokens:  # no hospital's: one's own
            arguments = dict.fromkeys(arguments, self.world.tokens[person].pk)
        url = reverse(view_name, kwargs=arguments)
        data = self.world.body(route, body_of or url_of)
        has_files = isinstance(data, dict) and "diagnoses" in data
        is_json = (is_call(route) or is_published(route)) and method != "GET" and not has_files
        more = {"content_type": "application/json"} if is_json else {}
        return self.send(person, method, url, data=data, **more)


@pytest.fixture(scope="module")
def visitors(world: World) -> Visitors:
    return Visitors(world)


def people_who_may(route: str) -> set[str]:
    return set().union(*(WHO_MAY[capability] for capability in CAPABILITIES[route]))


def url_names_a_hospital(world: World, route: str) -> bool:
    """Whether the URL is of a row that belongs to a hospital."""
    view_name = route.partition(" ")[2]
    return world.arguments(view_name, "own") != world.arguments(view_name, "other")


def body_names_a_hospital(world: World, route: str) -> bool:
    return repr(world.body(route, "own")) != repr(world.body(route, "other"))


@pytest.mark.parametrize("route", ROUTES)
def test_a_route_is_open_to_who_may_use_it(world, visitors, route):
    for person in sorted(people_who_may(route)):
        answer = visitors.ask(route, person)
        if person == "doctor without hospital" and url_names_a_hospital(world, route):
            assert answer.status == 404, f"{person}: {answer}"
        elif person == "doctor without hospital" and body_names_a_hospital(world, route):
            assert 400 <= answer.status < 500 or not answer.location, f"{person}: {answer}"
        else:
            # Here no broker and no worker runs, and it says so.
            assert answer.status < 500 or route == "GET readyz", f"{person}: {answer}"
            assert answer.status not in (403, 404, 405), f"{person}: {answer}"
            assert not answer.location.startswith("/login/?"), f"{person}: {answer}"


@pytest.mark.parametrize("route", ROUTES)
def test_a_route_is_closed_to_everybody_else(world, visitors, route):
    for person in sorted(EVERYBODY - people_who_may(route)):
        answer = visitors.ask(route, person)
        if person != "anonymous":
            assert answer.status == 404, f"{person}: {answer}"
            assert_refusal_is_audited(world, route, person, answer)
        elif is_call(route) or is_published(route):
            assert answer.status == 401, f"{person}: {answer}"
        else:
            assert (answer.status, answer.location[:7]) == (302, "/login/"), f"{person}: {answer}"


@pytest.mark.parametrize(
    ("route", "status"),
    [
        ("POST envoys:envoy-resume", 302),
        ("POST api:envoy-resume", 200),
        ("POST inference:envoy-delete", 302),
        ("DELETE api:envoy-detail", 202),
        ("POST api:token-revoke", 204),
    ],
)
def test_what_needs_a_row_in_a_state_of_its_own_succeeds(world, visitors, route, status):
    for person in sorted(people_who_may(route)):
        answer = visitors.ask(route, person)
        assert answer.status == status, f"{person}: {answer}"


@pytest.mark.parametrize("route", ROUTES)
def test_another_hospitals_rows_are_not_there_for_a_doctor(world, visitors, route):
    if "doctor" not in people_who_may(route):
        return
    if url_names_a_hospital(world, route):
        answer = visitors.ask(route, "doctor", url_of="other", body_of="own")
        assert answer.status == 404
        assert_refusal_is_audited(world, route, "doctor", answer)
    if body_names_a_hospital(world, route):
        answer = visitors.ask(route, "doctor", url_of="own", body_of="other")
        assert 400 <= answer.status < 500, answer


@pytest.mark.parametrize("route", ROUTES)
def test_what_shows_or_changes_something_is_audited_once(world, visitors, route):
    for person in sorted(people_who_may(route) - {"anonymous"}):
        answer = visitors.ask(route, person)
        leads_on = route.startswith("GET ") and 300 <= answer.status < 400
        if answer.status in (403, 404):
            assert_refusal_is_audited(world, route, person, answer)
        elif answer.status >= 400 or leads_on or not is_audited(route):
            # Logging in and asking for an account record themselves.
            assert len(answer.events) <= (C.ANYONE in CAPABILITIES[route]), person
        else:
            targets = {event.target for event in answer.events}
            # One; more only where a service changes several rows, which says so of each.
            assert 1 <= len(answer.events) == len(targets), person
            assert len(answer.events) == 1 or not route.startswith("GET "), person
            assert {event.user for event in answer.events} == {world.people[person]}, person
            assert not any(event.action.startswith("refused: ") for event in answer.events)


@pytest.mark.parametrize("route", sorted(set(PATIENT_ROUTES) - SHOW_NO_PATIENT))
def test_what_shows_or_changes_a_patient_is_audited_with_the_row(world, visitors, route):
    answer = visitors.ask(route, "doctor")
    if answer.status >= 400:
        pytest.skip(f"the world's row does not allow it: {answer}")
    (event,) = answer.events
    assert event.row, event


def is_audited(route: str) -> bool:
    """Said once more: all but what is left out by name, or open to anyone."""
    is_open = C.ANYONE in CAPABILITIES[route]
    return not (is_open or route in UNAUDITED)


def assert_refusal_is_audited(world: World, route: str, person: str, answer: Answer) -> None:
    if not is_audited(route):
        assert answer.events == []
        return
    (event,) = answer.events
    assert event.user == world.people[person]
    assert event.action.startswith("refused: ")


@pytest.mark.parametrize(
    "route", ["GET api:model-version-detail", "GET training:model-version-detail"]
)
def test_the_federations_version_is_there_for_whoever_sees_figures(world, visitors, route):
    """Also for a doctor without a hospital; a hospital's own version is tried above."""
    method, _, view_name = route.partition(" ")
    url = reverse(view_name, args=[world.version.pk])
    for person in sorted(WHO_MAY[C.FIGURES]):
        answer = visitors.send(person, method, url)
        assert answer.status == 200, f"{person}: {answer}"


@pytest.mark.parametrize(
    ("method", "page", "data"),
    [
        ("GET", "training:package-list", {"envoy": "{}"}),
        ("GET", "training:model-version-list", {"study": "{}"}),
        ("GET", "training:model-choice-list", {"envoy": "{}"}),
        ("GET", "training:run-create", {"study": "{}", "plan": "x"}),
        ("POST", "training:round-aggregate", {"study": "{}", "envoys": ["1"]}),
        ("POST", "training:round-aggregate", {"study": "1", "envoys": ["{}"]}),
        ("POST", "training:run-create", {"study": "{}", "envoys": ["{}"]}),
        ("POST", "inference:inference-run-create", {"envoys": ["{}"]}),
    ],
)
@pytest.mark.parametrize("number", [str(10**30), "1.5", "²", "٣", "9" * 19])
def test_what_is_no_number_of_a_row_breaks_no_page(world, visitors, method, page, data, number):
    sent = {
        name: [each.format(number) for each in value]
        if isinstance(value, list)
        else value.format(number)
        for name, value in data.items()
    }
    answer = visitors.send("data scientist", method, reverse(page), data=sent)
    assert answer.status < 500, answer


METHODS = ("GET", "POST", "PUT", "PATCH", "DELETE", "OPTIONS", "TRACE")


@pytest.mark.parametrize("name", sorted({route.partition(" ")[2] for route in ROUTES}))
def test_a_method_that_a_route_does_not_have_does_nothing(world, visitors, name):
    routes = [route for route in ROUTES if route.partition(" ")[2] == name]
    methods = [route.partition(" ")[0] for route in routes]
    who_may = set().union(*(people_who_may(route) for route in routes))
    strangers = EVERYBODY - who_may - {"anonymous"}
    url = reverse(name, kwargs=world.arguments(name, "own", methods[0]))
    for method in set(METHODS) - set(methods):
        for person in [*sorted(who_may - {"doctor without hospital"})[-1:], *sorted(strangers)[:1]]:
            answer = visitors.send(person, method, url)
            wanted = 405 if person in who_may else 404
            assert answer.status == wanted, f"{method} by {person}: {answer}"
        if "anonymous" not in who_may:
            answer = visitors.send("anonymous", method, url)
            is_refused = answer.status == 401 or answer.location.startswith("/login/")
            assert is_refused, f"{method} by a stranger: {answer}"


def test_every_url_is_in_the_access_list():
    listed = {route.partition(" ")[2] for route in CAPABILITIES}
    urls = {name for name in url_parameters() if not name.startswith("admin:")}
    assert urls - listed == set()
    assert listed - urls == set()


ADMINISTRATORS_ROWS = {"user", "auditevent", "outstandingtoken", "servicetoken"}


def admin_pages(person: str) -> dict[str, int]:
    """The admin's pages, and what they answer to one of its staff."""
    pages = {reverse("admin:index"): 200, reverse("admin:password_change"): 302}
    for model in admin.site._registry:
        name = str(model._meta.model_name)
        hidden = name in ADMINISTRATORS_ROWS and person != "administrator"
        pages[reverse(f"admin:{model._meta.app_label}_{name}_changelist")] = 404 if hidden else 200
    return pages


@pytest.mark.parametrize("person", sorted(EVERYBODY))
def test_the_admin_is_there_for_its_staff_only(visitors, person):
    for page, status in admin_pages(person).items():
        answer = visitors.send(person, "GET", page)
        if person in FEDERATION:
            assert answer.status == status, page
        elif person == "anonymous":
            assert answer.location.startswith("/login/"), page
        else:
            assert answer.status == 404, page
