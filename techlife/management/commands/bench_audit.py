import statistics
from argparse import ArgumentParser
from contextlib import ExitStack, nullcontext
from functools import partial
from pathlib import Path
from typing import Any
from unittest import mock

from django.core.management.base import CommandError

from envoys import audit
from envoys.models import AuditEvent
from techlife.demonstration import progress_bar
from techlife.management.commands import bench_pages
from techlife.page_bench import Bench, Route, milliseconds, percentile
from techlife.page_world import grow, make_small_world

MAX_RATIO = 1.1
PAGES = ("inference:patient-detail", "inference:patient-list", "inference:patient-risk")


class Command(bench_pages.Command):
    help = (
        "Time a patient's pages with the audit and without, in turn, in a database made for it and"
        " removed again. Fails where the audit makes the patient's page take more than 1.1 times"
        " as long."
    )

    def add_arguments(self, parser: ArgumentParser) -> None:
        parser.add_argument("--patients", type=int, default=2_000, help="of the hospital")
        parser.add_argument("--events", type=int, default=100_000, help="in the audit before")
        parser.add_argument("--pairs", type=int, default=300, help="of requests, for each page")

    def bench(self, folder: Path, options: dict[str, Any]) -> None:
        self.stdout.write("Training five small hospitals")
        world = make_small_world(folder)
        grow(world, folder, num_patients=options["patients"])
        AuditEvent.objects.bulk_create(
            (
                AuditEvent(user=world.doctor, action="saw patient", target=f"patient:{number}")
                for number in range(options["events"])
            ),
            batch_size=1_000,
        )
        bench, ratios = Bench(world), {}
        for page in PAGES:
            ratios[page] = self.compare(bench, Route(page, "doctor"), options["pairs"])
        if ratios[PAGES[0]] > MAX_RATIO:
            raise CommandError(
                f"NOT GOOD ENOUGH: {PAGES[0]} takes {ratios[PAGES[0]]:.3f} times as long with the"
                f" audit, {MAX_RATIO} are allowed"
            )
        self.stdout.write(f"good: at most {MAX_RATIO} times as long")

    def compare(self, bench: Bench, route: Route, num_pairs: int) -> float:
        """The median over pairs of neighbouring requests for one page, which goes first in turn."""
        times: dict[bool, list[float]] = {True: [], False: []}
        num_before = AuditEvent.objects.count()
        with progress_bar(route.view_name, unit="pairs") as bar:
            bar.total = num_pairs
            for pair in range(-10, num_pairs):  # the first warm up
                url = bench.url(route, pair + 10)
                for is_audited in (True, False) if pair % 2 else (False, True):
                    with nullcontext() if is_audited else without_audit():
                        taken, _ = milliseconds(partial(bench.get, route, url))
                    if pair >= 0:
                        times[is_audited].append(taken)
                bar.update(pair >= 0)
        num_events = AuditEvent.objects.count() - num_before
        assert num_events == num_pairs + 10, f"{num_events} events, of each pair one is expected"
        ratio = statistics.median(a / b for a, b in zip(times[True], times[False], strict=True))
        self.stdout.write(
            f"{route.view_name}: {percentile(times[True], 0.5):.2f} ms with the audit (p95"
            f" {percentile(times[True], 0.95):.2f}), {percentile(times[False], 0.5):.2f} ms without"
            f" (p95 {percentile(times[False], 0.95):.2f}), ratio {ratio:.3f}"
        )
        return ratio


def without_audit() -> ExitStack:
    """The same pages as if there were no audit: not even its mark on a request is made."""
    stack = ExitStack()
    for name in ("record", "record_request"):
        stack.enter_context(mock.patch.object(audit, name, new=nothing))
    stack.enter_context(mock.patch.object(audit, "one_request", new=nullcontext))
    return stack


def nothing(*args: object) -> None:
    """Quicker than what `mock` would make: the pages without the audit must not be slowed."""
