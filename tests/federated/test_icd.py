import subprocess
import sys

import pytest

from federated import icd
from federated.errors import InvalidCodeError
from federated.icd import CodeStatus


@pytest.mark.parametrize(
    ("text", "version", "code"),
    [
        ("250.00", 9, "25000"),
        ("0389", 9, "0389"),
        (" v58.67 ", 9, "V5867"),
        ("E849.0", 9, "E8490"),
        ("250", 9, "250"),
        ("389", 9, "389"),  # hearing loss, or septicaemia without its zero: it stays
        ("i10", 10, "I10"),
        ("S02.0XXB", 10, "S020XXB"),
        ("E11.", 10, "E11"),
    ],
)
def test_a_code_is_written_in_one_way(text, version, code):
    assert icd.normalize_code(text, version) == (code, None)


@pytest.mark.parametrize(
    ("text", "code"), [("8", "008"), ("38.9", "0389"), ("8.5", "0085"), ("41", "041")]
)
def test_leading_zeros_that_a_spreadsheet_ate_are_restored_with_a_warning(text, code):
    assert icd.normalize_code(text, 9) == (code, icd.LEADING_ZEROS_REPAIRED)


@pytest.mark.parametrize(
    ("text", "version"),
    [
        ("", 9),
        ("", 10),
        ("?", 9),
        ("250.000", 9),
        ("2500.1", 9),
        ("1.2.3", 9),
        ("V1", 9),
        ("E84", 9),
        ("I1", 10),
        ("410", 10),
        ("I10", 9),
        ("E1.19", 10),
        ("S020XXBXX", 10),
        ("NoDx", 10),
        ("٣٨٩", 9),  # digits, but not of a code list
    ],
)
def test_what_is_no_code_is_refused(text, version):
    with pytest.raises(InvalidCodeError, match="ICD"):
        icd.normalize_code(text, version)


def test_a_version_other_than_9_and_10_is_refused():
    with pytest.raises(InvalidCodeError, match="11"):
        icd.normalize_code("5A11", 11)


@pytest.mark.parametrize(
    ("code", "version", "status"),
    [
        ("E119", 10, CodeStatus.LEAF),
        ("E11", 10, CodeStatus.NON_LEAF),
        ("E780", 10, CodeStatus.NON_LEAF),  # divided since
        ("S030XXA", 10, CodeStatus.RETIRED_OR_UNKNOWN),
        ("I5X", 10, CodeStatus.UNKNOWN_CATEGORY),
        ("25000", 9, CodeStatus.LEAF),
        ("250", 9, CodeStatus.NON_LEAF),
        ("25099", 9, CodeStatus.RETIRED_OR_UNKNOWN),
        ("E849", 9, CodeStatus.NON_LEAF),
        ("E8499", 9, CodeStatus.LEAF),
        ("E8599", 9, CodeStatus.UNKNOWN_CATEGORY),
    ],
)
def test_where_a_code_stands(code, version, status):
    assert icd.code_status(code, version) is status


@pytest.mark.parametrize(
    ("code", "version", "category"),
    [
        ("E1165", 10, "E11"),
        ("I5X", 10, None),
        ("25000", 9, "E11"),  # its own GEM target
        ("250", 9, "E11"),  # as many leaves go to E10 as to E11
        ("25099", 9, "E11"),  # unknown: with its category
        ("428", 9, "I50"),
        ("41401", 9, "I25"),
        ("E849", 9, "Y92"),
        ("V30", 9, "Z38"),
        ("E930", 9, None),  # the GEMs know none for drugs in therapeutic use
        ("999", 10, None),
    ],
)
def test_the_icd10_category_of_a_code(code, version, category):
    assert icd.icd10_category(code, version) == category


def test_the_vocabulary_is_every_category_in_22_chapters():
    assert len(icd.categories()) == 1918
    assert list(icd.categories()) == sorted(icd.categories())
    assert len(icd.chapters()) == 22
    assert {icd.chapter_of(category) for category in icd.categories()} == set(icd.chapters())
    assert icd.chapter_of("I50") == "Diseases of the circulatory system"


def test_the_vocabulary_hash_is_pinned():
    """Every model version carries it: a change refuses all of them, so make it knowingly."""
    assert icd.vocabulary_sha256() == (
        "078f3c21bf0c757bda51555c2cc16eeb395fda2b440eee0a2800af39e6e44c77"
    )


def test_every_code_is_listed_once_with_its_title():
    rows = list(icd.all_codes())
    assert len({(row.code, row.version) for row in rows}) == len(rows) == 115_754
    assert max(len(row.title) for row in rows) <= 400
    by_code = {(row.code, row.version): row for row in rows}
    assert by_code["I10", 10] == (
        "I10",
        10,
        "Essential (primary) hypertension",
        "I10",
        "Diseases of the circulatory system",
        True,
    )
    assert by_code["428", 9].title == "(seen as ICD-10 I50: Heart failure)"
    assert not by_code["428", 9].is_leaf
    assert all(row.category in icd.categories() for row in rows if row.version == 10)


def test_the_title_of_a_code():
    assert icd.title_of("0389", 9) == "Unspecified septicemia"
    assert icd.title_of("S020XXB", 10) == (
        "Fracture of vault of skull, initial encounter for open fracture"
    )
    assert icd.title_of("I5X", 10) is None


def test_the_tables_are_not_read_before_they_are_needed():
    program = "from federated import icd; print(icd._kinds.cache_info().currsize)"
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True)
    assert done.stdout.strip() == "0", done.stderr
