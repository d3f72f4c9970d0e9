import signal
from argparse import ArgumentParser, ArgumentTypeError
from collections.abc import Iterator
from contextlib import contextmanager
from threading import Event
from typing import Any

from django.core.management.base import BaseCommand, CommandError
from django.utils import timezone

from envoys.errors import NotNowError
from federated.errors import FederatedError
from federated.synthetic_cities import CITY_INPUTS
from publichealth.services.readings import record_readings
from publichealth.services.synthetic_nodes import CITY_MONITORS, city_readings, open_node


class Command(BaseCommand):
    help = (
        "Report a synthetic reading of each of the nine cities every few seconds, until stopped or"
        " their node is deleted."
    )

    def add_arguments(self, parser: ArgumentParser) -> None:
        parser.add_argument("--seconds", type=_pause, default=4.0, help="between two readings")
        parser.add_argument("--seed", type=int, default=0)
        parser.add_argument("--count", type=int, help="stop after so many readings of each city")
        parser.add_argument(
            "--shift",
            type=_shift,
            action="append",
            default=[],
            metavar="INPUT=SD",
            help="move an input by so many of its standard deviations, to show drift; repeatable",
        )

    def handle(self, *args: Any, **options: Any) -> None:
        shift, num_rounds = dict(options["shift"]), 0
        try:
            envoy = open_node(CITY_MONITORS.name, CITY_MONITORS.kind)
            with _stopped_by_signals() as stop:
                while options["count"] is None or num_rounds < options["count"]:
                    if num_rounds and stop.wait(options["seconds"]):
                        break
                    new = city_readings(timezone.now(), seed=options["seed"], shift=shift)
                    try:
                        record_readings(envoy, new)
                    except NotNowError as error:  # deleted: it is not to come back
                        self.stdout.write(str(error))
                        break
                    num_rounds += 1
        except FederatedError as error:
            raise CommandError(str(error)) from error
        self.stdout.write(f"{envoy}: {num_rounds:,} readings of each city.")


@contextmanager
def _stopped_by_signals() -> Iterator[Event]:
    """Set by SIGTERM and Ctrl-C, between two readings: a transaction is not cut off."""
    stop = Event()
    standing = {
        number: signal.signal(number, lambda *_: stop.set())
        for number in (signal.SIGINT, signal.SIGTERM)
    }
    try:
        yield stop
    finally:
        for number, handler in standing.items():
            signal.signal(number, handler)


def _pause(text: str) -> float:
    seconds = float(text)
    if not 0 < seconds <= 86_400:
        raise ArgumentTypeError(f"{text} is no number of seconds from above 0 to a day")
    return seconds


def _shift(text: str) -> tuple[str, float]:
    name, _, distance = text.partition("=")
    if name not in CITY_INPUTS:
        raise ArgumentTypeError(f"no input is called {name!r}: there are {', '.join(CITY_INPUTS)}")
    try:
        return name, float(distance)
    except ValueError:
        raise ArgumentTypeError(f"{text!r} is not as pm25=1.5") from None
