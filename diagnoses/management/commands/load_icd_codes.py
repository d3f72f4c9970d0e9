from typing import Any

from django.core.management.base import BaseCommand

from diagnoses import services


class Command(BaseCommand):
    help = "Fill the table of ICD codes from the public lists."

    def handle(self, *args: Any, **options: Any) -> None:
        num_written = services.load_icd_codes()
        self.stdout.write(f"{num_written} ICD codes written." if num_written else "Nothing to do.")
