"""The public code list as rows."""

from django.db import transaction

from diagnoses.models import IcdCode
from diagnoses.services.batches import BATCH_ROWS, batched, insert_rows
from federated import icd


def load_icd_codes() -> int:
    """Fill IcdCode from the public lists; returns how many rows were written, 0 if all stood."""
    num_codes = sum(1 for _ in icd.all_codes())
    if IcdCode.objects.count() == num_codes:
        return 0
    with transaction.atomic():
        IcdCode.objects.all().delete()
        for rows in batched(icd.all_codes(), BATCH_ROWS):
            insert_rows(IcdCode, icd.CodeRow._fields, rows)
    return num_codes
