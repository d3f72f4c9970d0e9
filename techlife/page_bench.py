"""How long the pages take with a large hospital, in this process and through all middleware."""

import gzip
import math
import re
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import asdict, dataclass
from functools import cache, partial
from typing import Any

from django.db import connection
from django.test import Client
from django.test.utils import CaptureQueriesContext
from django.urls import URLPattern, URLResolver, get_resolver, reverse

from envoys.access import ACTIONS, Capability, may
from envoys.models import Envoy, User
from techlife.page_world import PageWorld

MAX_PAGE_MS = 100.0
# No pages: archives, as long as there is something to put into them.
DOWNLOADS = frozenset({"inference:patient-data", "inference:hospital-data"})
MAX_RISK_MS = 50.0
MAX_PAGE_KB = 300.0
# Swagger UI and ReDoc are one vendored application each, which a browser keeps: only what we serve
# for them is held to the bar.
VENDORED_READERS = {"docs", "redoc"}
LINKED_FILES = re.compile(r'<(?:script|link|img)\b[^>]*?\b(?:src|href)="(/static/[^"]+)"')


@dataclass(frozen=True)
class PageFigures:
    page: str
    person: str
    p50_ms: float
    p95_ms: float
    cpu_p95_ms: float  # of this process: what is left on a machine that does nothing else
    num_queries: int
    num_queries_small: int  # of the same page in the small hospital
    html_kb: float  # compressed
    total_kb: float  # with the scripts, styles and pictures it links, compressed too
    problems: list[str]

    @property
    def is_good(self) -> bool:
        return not self.problems


@dataclass(frozen=True)
class Route:
    """A page that is asked for with GET, and who asks."""

    view_name: str
    person: str

    @property
    def parameters(self) -> list[str]:
        return _url_parameters()[self.view_name]


def get_routes() -> list[Route]:
    """Every GET page of the access list; one that several may see once for each of two."""
    found: dict[Route, None] = {}
    for action in ACTIONS:
        for route in action.pages:
            method, _, view_name = route.partition(" ")
            if method == "GET" and view_name not in DOWNLOADS:
                found.update({Route(view_name, each): None for each in _people(action.capability)})
    return list(found)


def _people(capability: Capability) -> list[str]:
    if capability is Capability.ANYONE:
        return ["anyone"]
    people = {
        "doctor": User(role=User.Role.DOCTOR, envoy=Envoy(pk=1, kind=Envoy.Kind.HOSPITAL)),
        "node's keeper": User(role=User.Role.DOCTOR, envoy=Envoy(pk=2, kind=Envoy.Kind.CLINIC)),
        "data scientist": User(role=User.Role.DATA_SCIENTIST),
    }
    if capability is Capability.READINGS:
        del people["doctor"]  # who is sent to the hospital's page
    else:
        del people["node's keeper"]  # who sees there what a doctor sees
    return [name for name, user in people.items() if may(user, capability)]


@cache
def _url_parameters() -> dict[str, list[str]]:
    """The names in each URL, by the name of its view."""

    def walk(
        patterns: list[URLPattern | URLResolver], prefix: str
    ) -> Iterator[tuple[str, list[str]]]:
        for pattern in patterns:
            if isinstance(pattern, URLResolver):
                inside = f"{prefix}{pattern.namespace}:" if pattern.namespace else prefix
                yield from walk(pattern.url_patterns, inside)
            else:
                yield f"{prefix}{pattern.name}", list(pattern.pattern.regex.groupindex)

    return dict(walk(get_resolver().url_patterns, ""))


class Bench:
    """Asks for pages as people who are logged in, a fresh client for each."""

    def __init__(self, world: PageWorld) -> None:
        self.world = world
        self.clients = {
            person: Client(raise_request_exception=False, headers={"host": "localhost"})
            for person in ("anyone", "doctor", "node's keeper", "data scientist")
        }
        self.clients["doctor"].force_login(world.doctor)
        self.clients["node's keeper"].force_login(world.keeper)
        self.clients["data scientist"].force_login(world.scientist)
        self._file_sizes: dict[str, int] = {}

    def url(self, route: Route, index: int) -> str:
        names = route.parameters
        return reverse(
            route.view_name,
            kwargs={name: self.world.arguments(name, index) for name in names},
        )

    def get(self, route: Route, url: str) -> Any:
        return self.clients[route.person].get(url)

    def count_queries(self, route: Route) -> int:
        """The most of a few rows' pages, each asked for twice: the first may fill a cache."""
        most = 0
        for index in range(4 if route.parameters else 1):
            url = self.url(route, index)
            self.get(route, url)
            with CaptureQueriesContext(connection) as captured:
                self.get(route, url)
            most = max(most, len(captured))
        return most

    def measure(self, route: Route, *, num_requests: int, num_queries_small: int) -> PageFigures:
        """Time a page; the first request warms up and does not count."""
        urls = [self.url(route, index) for index in range(num_requests + 1)]
        response = self.get(route, urls[0])
        content = response.content
        timings = [milliseconds(partial(self.get, route, url)) for url in urls[1:]]
        times, cpu_times = zip(*timings, strict=True)
        html = len(gzip.compress(content))
        linked = sum(self.file_size(path) for path in set(LINKED_FILES.findall(content.decode())))
        p50, p95 = percentile(times, 0.5), percentile(times, 0.95)
        num_queries = self.count_queries(route)
        counted = html if route.view_name in VENDORED_READERS else html + linked
        problems = []
        if response.status_code >= 400:
            problems.append(f"answers {response.status_code}")
        if p95 > MAX_PAGE_MS:
            problems.append("slow")
        if num_queries > num_queries_small:
            problems.append("queries grow")
        if counted > MAX_PAGE_KB * 1000:
            problems.append("large")
        return PageFigures(
            page=route.view_name,
            person=route.person,
            p50_ms=round(p50, 1),
            p95_ms=round(p95, 1),
            cpu_p95_ms=round(percentile(cpu_times, 0.95), 1),
            num_queries=num_queries,
            num_queries_small=num_queries_small,
            html_kb=round(html / 1000, 1),
            total_kb=round((html + linked) / 1000, 1),
            problems=problems,
        )

    def file_size(self, path: str) -> int:
        if path not in self._file_sizes:
            response = self.clients["anyone"].get(path)
            content = b"".join(response.streaming_content)  # type: ignore[attr-defined]
            self._file_sizes[path] = len(gzip.compress(content))
        return self._file_sizes[path]


def measure_risk(world: PageWorld, *, num_requests: int) -> tuple[float, float]:
    """Median and 95th percentile in ms of computing a patient's risk by both models anew."""
    from diagnoses.models import Admission
    from inference.models import Prediction
    from inference.services import patient_risk

    admissions = [
        Admission.objects.select_related("envoy", "patient").get(
            pk=world.arguments("admission_id", index)
        )
        for index in range(num_requests + 1)
    ]
    times = []
    for admission in admissions:
        Prediction.objects.filter(admission=admission).delete()
        taken, _ = milliseconds(partial(patient_risk, admission, requested_by=world.doctor))
        times.append(taken)
    return round(percentile(times[1:], 0.5), 1), round(percentile(times[1:], 0.95), 1)


def milliseconds(work: Callable[[], object]) -> tuple[float, float]:
    """On the clock, and of this process's CPU."""
    started, cpu_started = time.perf_counter(), time.process_time()
    work()
    cpu_ended, ended = time.process_time(), time.perf_counter()
    return (ended - started) * 1000, (cpu_ended - cpu_started) * 1000


def percentile(values: Sequence[float], share: float) -> float:
    """The smallest value that this share of them does not exceed."""
    return sorted(values)[max(0, math.ceil(share * len(values)) - 1)]


def table(pages: list[PageFigures]) -> Iterator[str]:
    width = max(len(f"{page.page} ({page.person})") for page in pages)
    yield (
        f"{'page':{width}}  {'p50 ms':>7}  {'p95 ms':>7}  {'CPU p95':>7}  {'queries':>7}"
        f"  {'HTML kB':>7}  {'all kB':>7}"
    )
    for page in pages:
        name = f"{page.page} ({page.person})"
        yield (
            f"{name:{width}}  {page.p50_ms:7.1f}  {page.p95_ms:7.1f}  {page.cpu_p95_ms:7.1f}"
            f"  {page.num_queries:7}"
            f"  {page.html_kb:7.1f}  {page.total_kb:7.1f}  {', '.join(page.problems) or 'good'}"
        )


def report_json(pages: list[PageFigures], **more: Any) -> dict[str, Any]:
    return {**more, "pages": [asdict(page) for page in pages]}
