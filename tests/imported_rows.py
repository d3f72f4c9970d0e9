"""Imports files into the database of the environment, and prints what stands then, or is refused.

`python -m tests.imported_rows FOLDER`: as JSON, without keys and times, which differ.
"""

import json
import os
import sys
from pathlib import Path
from typing import Any

import django


def imported_rows(data: Path) -> dict[str, Any]:
    from diagnoses.models import Admission, Diagnosis, Import, Patient
    from diagnoses.services import import_cohort
    from envoys.models import Envoy
    from federated.cohorts import find_envoys
    from federated.errors import CohortError

    told: dict[str, Any] = {}
    for files in find_envoys(data):
        slug = files.client_id.partition("-")[0]
        envoy, _ = Envoy.objects.get_or_create(slug=slug, name=slug)
        try:
            row = import_cohort(envoy, files)
            told[files.name] = [row.num_admissions, row.num_diagnoses, row.warnings]
        except CohortError as error:
            told[files.name] = error.problems
    rows: dict[str, list[Any]] = {}
    for model, order, left_out in (
        (Patient, ("envoy__slug", "subject_id"), {"created_at"}),
        (Admission, ("envoy__slug", "hadm_id"), {"created_at"}),
        (Diagnosis, ("admission__hadm_id", "seq_num"), {"recorded_at"}),
    ):
        names = [
            field.name
            for field in model._meta.fields
            if not field.is_relation and field.name not in left_out | {"id"}
        ]
        rows[model.__name__] = [
            *model._default_manager.order_by(*order).values_list(*order, *names)
        ]
    statuses = Import.objects.order_by("pk").values_list("status", "reason")
    return {"told": told, "rows": rows, "imports": [*statuses]}


if __name__ == "__main__":
    os.environ["DJANGO_SETTINGS_MODULE"] = "techlife.settings"
    django.setup()
    from django.core.management import call_command

    call_command("migrate", verbosity=0, interactive=False)
    sys.stdout.write(json.dumps(imported_rows(Path(sys.argv[1])), default=str) + "\n")
