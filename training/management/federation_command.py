"""What the commands of manual mode share."""

import time
from collections.abc import Sequence
from typing import Any

from django.core.management.base import BaseCommand, CommandError, CommandParser
from django.db import OperationalError as DatabaseError
from kombu.exceptions import OperationalError as BrokerError

from federated.errors import FederatedError
from training import services
from training.models import Study

POLL_SECONDS = 0.5


class FederationCommand(BaseCommand):
    """A command in which whatever the services refuse ends in their words, not in a traceback."""

    def execute(self, *args: Any, **options: Any) -> str | None:
        try:
            return super().execute(*args, **options)
        except FederatedError as error:
            raise CommandError(str(error)) from error
        except BrokerError as error:
            raise CommandError(
                "The broker does not answer: nothing was handed to a worker yet. Embedded, start"
                " `make demo` in another terminal; what is due is then taken up"
            ) from error
        except DatabaseError as error:
            raise CommandError(
                "The database is not there or not up to date: start `make demo`, or run"
                " `manage.py migrate`"
            ) from error

    def wait_for(self, rows: Sequence[Any]) -> None:
        """Say how far rows of background work are, until all have ended."""
        said: dict[int, str] = {}
        while True:
            for row in rows:
                row.refresh_from_db()
                state = progress_of(row)
                if said.get(row.pk) != state:
                    said[row.pk] = state
                    self.stdout.write(f"  {row.envoy}: {state}")
            if not any(row.is_active for row in rows):
                return
            time.sleep(POLL_SECONDS)


def progress_of(row: Any) -> str:
    state = row.get_status_display().lower()
    if row.is_active and row.num_total:
        state += f", {row.num_done:,} of {row.num_total:,}"
    return f"{state}. {row.reason}" if row.reason else str(state)


def add_study_arguments(parser: CommandParser) -> None:
    """Which study: what it predicts, by which network."""
    parser.add_argument("--target", default="risk_tier", help="what is predicted (risk_tier)")
    parser.add_argument(
        "--network", default="logistic_regression", help="by which network (logistic_regression)"
    )


def add_wait_argument(parser: CommandParser) -> None:
    parser.add_argument(
        "--wait", action="store_true", help="until a worker has done it, and say how it went"
    )


def study_of(options: dict[str, Any]) -> Study:
    """Raises UnknownTargetError, UnknownNetworkError."""
    return services.study_for(options["target"], network=options["network"])
