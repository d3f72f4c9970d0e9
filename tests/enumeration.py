"""`make bench-enumeration`: whether time tells another hospital's row from none.

Each route with a row in its address is asked in turn for another hospital's row and for a number
that no row has; it fails where the medians differ by more than 5 ms.
"""

import argparse
import logging
import os
import statistics
import sys
import tempfile
import time

MAX_DIFFERENCE = 0.005  # seconds


def main() -> int:
    parser = argparse.ArgumentParser(prog="make bench-enumeration", description=__doc__)
    parser.add_argument("--times", type=int, default=25, help="each of a pair, in turn")
    options = parser.parse_args()
    with tempfile.TemporaryDirectory(prefix="techlife-enumeration-") as folder:
        os.environ |= {
            "TECHLIFE_DATA_DIR": folder,
            "DATABASE_URL": f"sqlite:///{folder}/db.sqlite3",
            "DJANGO_SETTINGS_MODULE": "techlife.settings",
        }
        import django

        django.setup()
        logging.disable(logging.CRITICAL)
        return bench(options.times)


def bench(num_times: int) -> int:
    from django.conf import settings
    from django.core.management import call_command
    from django.db import transaction

    from tests.test_access_matrix import ROUTES, Visitors, people_who_may, url_names_a_hospital
    from tests.test_nothing_to_tell import requests_for_another_and_for_none
    from tests.world import make_world

    settings.ALLOWED_HOSTS = ["*"]
    call_command("migrate", verbosity=0)
    differences: dict[str, float] = {}
    with transaction.atomic():
        world = make_world()
        visitors = Visitors(world)
        for route in ROUTES:
            if "doctor" not in people_who_may(route) or not url_names_a_hospital(world, route):
                continue
            pair = requests_for_another_and_for_none(world, route)
            seconds: tuple[list[float], list[float]] = ([], [])
            for number in range(num_times + 1):
                both = list(zip(seconds, pair, strict=True))
                for taken, (url, keywords) in both[:: 1 if number % 2 else -1]:
                    started = time.perf_counter()
                    visitors.send("doctor", route.partition(" ")[0], url, **keywords)
                    if number:  # the first warms up
                        taken.append(time.perf_counter() - started)
            other, none = (statistics.median(each) for each in seconds)
            differences[route] = other - none
        transaction.set_rollback(True)
    worst = sorted(differences, key=lambda route: -abs(differences[route]))
    for route in worst[:5]:
        sys.stdout.write(f"{1000 * differences[route]:+6.2f} ms  {route}\n")
    largest = abs(differences[worst[0]])
    sys.stdout.write(
        f"{len(differences)} routes, {num_times} pairs each: the medians differ by"
        f" {1000 * largest:.2f} ms at most (bar {1000 * MAX_DIFFERENCE:g})\n"
    )
    return 0 if largest <= MAX_DIFFERENCE else 1


if __name__ == "__main__":
    sys.exit(main())
