"""What Prometheus reads at `/metrics`, with the token only. Counts of work and time, of no patient.

Requests are counted in each process, added up over the processes of one web server (gunicorn.conf.py);
what the database and the broker know is asked when it is read.
"""

import hmac
from collections.abc import Iterator
from functools import cache
from typing import TYPE_CHECKING, Any

from django.conf import settings
from django.db.models import Count, Min, QuerySet
from django.http import HttpRequest, HttpResponse
from django.utils import timezone

from envoys.models import WorkerSign
from envoys.storage_errors import count_storage_errors
from envoys.work import kinds
from envoys.workers import read_broker
from training.models import RoundAssignment, TrainingRound, TrainingRun

if TYPE_CHECKING:
    from prometheus_client.core import Metric

METHODS = ("GET", "HEAD", "POST", "PATCH", "PUT", "DELETE", "OPTIONS")
SECONDS = (0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 30.0)
# Answered before the URL is looked up.
PROBES = {
    "/healthz": "healthz",
    "/readyz": "readyz",
    "/metrics": "metrics",
    "/predict": "published:predict",
}


def may_read(request: HttpRequest) -> bool:
    """Whether the request has the token; nobody has where none is set."""
    expected = f"Bearer {settings.METRICS_TOKEN}".encode()
    given = request.headers.get("Authorization", "").encode()
    return bool(settings.METRICS_TOKEN) and hmac.compare_digest(given, expected)


def method_of(request: HttpRequest) -> str:
    return request.method if request.method in METHODS else "other"


def view_of(request: HttpRequest) -> str:
    """The name of the view: never the address, in which anything may stand."""
    if request.resolver_match is not None:
        return request.resolver_match.view_name or "unnamed"
    if request.path_info.startswith(f"/{settings.STATIC_URL.strip('/')}/"):
        return "static"
    return PROBES.get(request.path_info, "none")


def count_request(request: HttpRequest, response: HttpResponse, view: str, seconds: float) -> None:
    if not settings.METRICS_TOKEN:
        return
    requests, latency = _counters()
    requests.labels(view, method_of(request), str(response.status_code)).inc()
    latency.labels(view).observe(seconds)


def answer() -> HttpResponse:
    from prometheus_client import CONTENT_TYPE_LATEST, CollectorRegistry, generate_latest

    registry = CollectorRegistry()
    registry.register(_Requests())
    registry.register(_Installation())
    return HttpResponse(generate_latest(registry), content_type=CONTENT_TYPE_LATEST)


@cache
def _counters() -> Any:
    # Imported here: an installation without a token does without.
    from prometheus_client import CollectorRegistry, Counter, Histogram

    registry = CollectorRegistry()
    requests = Counter(
        "techlife_requests",
        "Requests answered",
        ["view", "method", "status"],
        registry=registry,
    )
    latency = Histogram(
        "techlife_request_seconds",
        "Time to answer, without what is sent afterwards",
        ["view"],
        buckets=SECONDS,
        registry=registry,
    )
    return requests, latency


class _Requests:
    """The counters above: of all processes of this web server, where there are several."""

    def collect(self) -> "Iterator[Metric]":
        import os

        from prometheus_client import CollectorRegistry
        from prometheus_client.multiprocess import MultiProcessCollector

        if "PROMETHEUS_MULTIPROC_DIR" in os.environ:
            yield from MultiProcessCollector(CollectorRegistry()).collect()
            return
        for counter in _counters():
            yield from counter.collect()


class _Installation:
    """What database and broker know, the same from whichever web server it is read."""

    def collect(self) -> "Iterator[Metric]":
        from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily

        for name, words, model in (
            ("techlife_runs", "Runs by status", TrainingRun),
            ("techlife_rounds", "Rounds by status", TrainingRound),
        ):
            family = GaugeMetricFamily(name, words, labels=["status"])
            counts = dict(model.objects.order_by().values_list("status").annotate(Count("pk")))
            for status in model.Status.values:
                family.add_metric([status], counts.get(status, 0))
            yield family

        yield GaugeMetricFamily(
            "techlife_assignments_due",
            "Assignments of open rounds that nobody works on and nobody was asked to a moment ago",
            value=_assignments_due(),
        )
        waiting = GaugeMetricFamily(
            "techlife_work_waiting", "Work that waits or whose worker is silent", labels=["kind"]
        )
        oldest = GaugeMetricFamily(
            "techlife_work_oldest_seconds",
            "For how long the oldest of it waits, since it was made or begun",
            labels=["kind"],
        )
        for kind, count, seconds in _waiting():
            waiting.add_metric([kind], count)
            oldest.add_metric([kind], seconds)
        yield waiting
        yield oldest

        signs = list(WorkerSign.objects.all())
        yield GaugeMetricFamily(
            "techlife_workers",
            "Workers heard of lately",
            value=sum(not sign.is_silent for sign in signs),
        )
        yield GaugeMetricFamily(
            "techlife_worker_processes",
            "Their processes",
            value=sum(sign.num_processes for sign in signs if not sign.is_silent),
        )
        broker = read_broker()
        yield GaugeMetricFamily(
            "techlife_broker_up", "Whether the broker answers", value=int(not broker.trouble)
        )
        if not broker.trouble:
            length = GaugeMetricFamily(
                "techlife_queue_length", "Messages that wait", labels=["queue"]
            )
            for queue in broker.queues:
                length.add_metric([queue.name], queue.num_messages)
            yield length
            yield GaugeMetricFamily(
                "techlife_messages_taken", "Messages that workers hold", value=broker.num_taken
            )
        errors = count_storage_errors()
        if errors is not None:
            yield CounterMetricFamily(
                "techlife_storage_errors",
                "Objects that could not be stored, found or read, in web and workers of all hosts",
                value=errors,
            )


def _assignments_due() -> int:
    collecting = RoundAssignment.objects.filter(
        training_round__status=TrainingRound.Status.COLLECTING
    )
    return int(collecting.due().count())


def _waiting() -> Iterator[tuple[str, int, float]]:
    """Of every kind of work: how much nobody does, and the age of the oldest in seconds."""
    now = timezone.now()
    for kind in kinds():
        rows: QuerySet[Any] = kind.model.objects.claimable()
        made_at = "created_at"
        if kind.model is RoundAssignment:
            made_at = "training_round__opened_at"
            rows = rows.filter(training_round__status=TrainingRound.Status.COLLECTING)
        found = rows.aggregate(count=Count("pk"), oldest=Min(made_at))
        age = (now - found["oldest"]).total_seconds() if found["oldest"] else 0.0
        yield kind.name, found["count"], max(age, 0.0)
