"""The public code list as rows: filled once, searched by code and by words."""

from functools import reduce
from operator import and_

from django.db import transaction
from django.db.models import Case, Q, QuerySet, Value, When
from django.db.models.functions import Length

from diagnoses.models import IcdCode
from diagnoses.services.batches import BATCH_ROWS, batched, insert_rows
from federated import icd

MAX_WORDS = 6


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


def search_icd_codes(
    text: str, *, version: int | None = None, limit: int = 20
) -> QuerySet[IcdCode]:
    """Codes that begin with a text, or whose title holds all of its words, the nearest first.

    The code itself comes first, then codes that begin with it, then titles, short ones first.

    Args:
        version: 9 or 10; both where not given.
    """
    words = text.split()[:MAX_WORDS]
    code = "".join(words).replace(".", "").upper()
    if not code:
        return IcdCode.objects.none()
    found = Q(code__startswith=code)
    if len(code) > 1:  # a letter is in almost every title
        found |= reduce(and_, (Q(title__icontains=word) for word in words))
    codes = IcdCode.objects.filter(found)
    if version is not None:
        codes = codes.filter(version=version)
    nearness = Case(
        When(code=code, then=Value(0)), When(code__startswith=code, then=Value(1)), default=Value(2)
    )
    first_word = Case(When(title__istartswith=words[0], then=Value(0)), default=Value(1))
    # Of equals ICD-10 before ICD-9: it is what is coded today.
    return codes.order_by(nearness, first_word, Length("title"), "-version", "code")[:limit]
