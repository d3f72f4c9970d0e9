"""What `tests.screens` looks at: the pages, and hospitals with something on each of them."""

from collections import Counter
from pathlib import Path

from django.contrib.auth import BACKEND_SESSION_KEY, HASH_SESSION_KEY, SESSION_KEY
from django.contrib.sessions.backends.db import SessionStore
from django.test import Client
from django.urls import reverse
from django.utils import timezone

from diagnoses.models import Admission
from envoys.models import User, WorkerSign
from techlife import demonstration
from techlife.page_bench import Bench, get_routes
from techlife.page_world import PageWorld, make_small_world
from tests.screens import Screen
from training import services
from training.models import Distribution, ReceivedUpdate

SCALE, NUM_ROUNDS = 0.3, 6
ADMIN_PAGES = ("index", "envoys_envoy_changelist", "envoys_user_changelist")


def prepare(folder: Path) -> tuple[list[Screen], dict[str, str]]:
    world = make_small_world(folder, scale=SCALE, num_rounds=NUM_ROUNDS)
    administrator = User.objects.get(username=demonstration.ADMINISTRATOR)
    _let_something_wait(world)
    sessions = {
        "doctor": _session_of(world.doctor),
        "node's keeper": _session_of(world.keeper),
        "data scientist": _session_of(world.scientist),
        "administrator": _session_of(administrator),
    }
    return [*_screens(world), *_more_screens()], sessions


def _session_of(user: User) -> str:
    session = SessionStore()
    session[SESSION_KEY] = str(user.pk)
    session[BACKEND_SESSION_KEY] = "django.contrib.auth.backends.ModelBackend"
    session[HASH_SESSION_KEY] = user.get_session_auth_hash()
    session.create()
    assert session.session_key is not None
    return session.session_key


def _let_something_wait(world: PageWorld) -> None:
    """An open admission, a package to answer, a failed delivery, a worker, an odd update."""
    newest = Admission.objects.filter(envoy=world.envoy).order_by("-pk")[:5]
    Admission.objects.filter(pk__in=[admission.pk for admission in newest]).update(
        admitted_at=timezone.now(),
        discharged_at=None,
        los_days=None,
        risk_tier=None,
        discharged_home=None,
        died_in_hospital=None,
        readmit_30d=None,
    )
    plan = services.plan_for(world.study, num_rounds=20)
    services.package_training(world.study, world.envoy, plan)
    version = world.run.versions.of_federation().get()
    Distribution.objects.create(
        version=version,
        envoy=world.envoy,
        status=Distribution.Status.FAILED,
        reason="the storage of this hospital does not answer: ask who runs it",
    )
    updates = ReceivedUpdate.objects.filter(assignment__training_round__run=world.run)
    for number, verdict in ((3, "REJECTED"), (4, "QUARANTINED")):
        held = updates.filter(
            assignment__training_round__number=number, assignment__envoy=world.envoy
        ).get()
        held.verdict = verdict
        held.reason = (
            "it has turned round: its cosine with its own last update is −0.93, where the others'"
            " median is +0.95"
        )
        held.screening = {
            "norm_ratio": 1.1,
            "control_ratio": None,
            "others_cosine": 0.08,
            "others_median": -0.02,
            "own_cosine": -0.93,
            "own_median": 0.95,
        }
        if verdict == "REJECTED":
            held.decided_by, held.decided_at = world.scientist, timezone.now()
        held.save()
    WorkerSign.objects.create(
        hostname="worker@example",
        queues=["training"],
        num_processes=2,
        started_at=timezone.now(),
        seen_at=timezone.now(),
    )


def _screens(world: PageWorld) -> list[Screen]:
    """Every GET page of the access list that is a whole page, by everybody who sees it."""
    bench, found = Bench(world), []
    routes = get_routes()
    num_seeing = Counter(route.view_name for route in routes)
    for route in routes:
        path = bench.url(route, 0)
        response = bench.clients[route.person].get(path)
        if response.status_code != 200 or b"<html" not in response.content:
            continue  # a part of a page, a redirect, or data
        name = route.view_name.replace(":", "-").replace("_", "-")
        if num_seeing[route.view_name] > 1:
            name += f"-{route.person.replace(' ', '-')}"
        found.append(Screen(name, route.person, path))
    return found


def _more_screens() -> list[Screen]:
    screens = [Screen("error-404", "doctor", "/no-such-page/", status=404)]
    client = Client(headers={"host": "localhost"})
    for page in ADMIN_PAGES:
        path = reverse(f"admin:{page}")
        assert client.get(path).status_code == 302
        screens.append(Screen(f"admin-{page.replace('_', '-')}", "administrator", path))
    return screens
