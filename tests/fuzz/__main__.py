"""`make fuzz`: so many calls and forms, in a database of its own; fails where something is found."""

import argparse
import json
import logging
import os
import sys
import tempfile
import time


def main() -> int:
    parser = argparse.ArgumentParser(prog="make fuzz", description=__doc__)
    parser.add_argument("--cases", type=int, default=10_000)
    parser.add_argument("--seed", type=int, default=0)
    options = parser.parse_args()
    with tempfile.TemporaryDirectory(prefix="techlife-fuzz-") as folder:
        os.environ |= {
            "TECHLIFE_DATA_DIR": folder,
            "DATABASE_URL": "sqlite://:memory:",
            "DJANGO_SETTINGS_MODULE": "techlife.settings",
        }
        import django

        django.setup()
        logging.disable(logging.CRITICAL)  # a word for each refusal would bury what is found
        return fuzz(options.cases, options.seed)


def fuzz(num_cases: int, seed: int) -> int:
    from django.conf import settings
    from django.core.management import call_command
    from django.db import transaction

    from tests.fuzz.calls import CallFuzzer
    from tests.fuzz.forms import FormFuzzer, pages
    from tests.world import make_world

    settings.ALLOWED_HOSTS = ["*"]
    call_command("migrate", verbosity=0)
    with transaction.atomic():
        world = make_world()
        calls, forms = CallFuzzer(world), FormFuzzer(world)
        num_failures = 0
        for name, found, each, ask in (
            ("calls", calls.found, calls.operations(), calls.ask),
            ("pages", forms.found, pages(), forms.fill_in),
        ):
            started = time.monotonic()
            for number, one in enumerate(each):
                share = -(-(num_cases - found.num_cases) // (len(each) - number))
                ask(one, num_cases=max(share, 1), seed_number=seed)
            num_failures += len(found.failures)
            for what, words in sorted(found.failures.items()):
                sys.stdout.write(f"{what}\n    {words[:1500]}\n")
            told = {
                "fuzzed": name,
                "of": len(each),
                "cases": found.num_cases,
                "seed": seed,
                "seconds": round(time.monotonic() - started),
                "by_status": dict(sorted(found.by_status.items())),
                "by_person": dict(sorted(found.by_person.items())),
                "failures": len(found.failures),
            }
            sys.stdout.write(f"{json.dumps(told)}\n")
            sys.stdout.flush()
        transaction.set_rollback(True)
    return 1 if num_failures else 0


if __name__ == "__main__":
    sys.exit(main())
