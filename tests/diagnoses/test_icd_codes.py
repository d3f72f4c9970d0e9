import pytest

from diagnoses import services
from diagnoses.models import IcdCode
from federated import icd

pytestmark = pytest.mark.django_db


@pytest.fixture
def few_codes(monkeypatch):
    rows = [row for row in icd.all_codes() if row.code in ("I10", "428", "4280")]
    monkeypatch.setattr(icd, "all_codes", lambda: iter(rows))
    return rows


def test_the_codes_are_loaded_once(few_codes):
    assert services.load_icd_codes() == 3
    assert services.load_icd_codes() == 0
    assert IcdCode.objects.count() == 3
    code = IcdCode.objects.get(code="I10", version=10)
    assert (code.title, code.category, code.is_leaf) == (
        "Essential (primary) hypertension",
        "I10",
        True,
    )


def test_another_edition_replaces_what_was_loaded(few_codes):
    IcdCode.objects.create(code="I10", version=10, title="An older title")
    IcdCode.objects.create(code="X9X", version=10, title="Withdrawn")
    assert services.load_icd_codes() == 3
    assert not IcdCode.objects.filter(code="X9X").exists()
    assert IcdCode.objects.get(code="I10").title == "Essential (primary) hypertension"


def test_every_code_of_the_public_lists_fits_its_column():
    assert services.load_icd_codes() == IcdCode.objects.count() == 115_754
