"""ICD-9-CM and ICD-10-CM: what is a code, what it is called, and its 3-character ICD-10 category.

The tables are the public lists, never a hospital's own: ICD-10-CM of April 2026 with the codes of
FY2024 that were retired since, ICD-9-CM v32, and the GEMs of 2015 from ICD-9 to ICD-10. How they
were made: `icd_tables/build.py`. They are read when first needed.
"""

import csv
import gzip
import hashlib
import io
import re
from bisect import bisect_left
from collections.abc import Iterator
from enum import Enum
from functools import cache, lru_cache
from importlib.resources import files
from typing import NamedTuple

from federated.errors import InvalidCodeError

VERSIONS = (9, 10)
LEADING_ZEROS_REPAIRED = "leading zeros of an ICD-9 code were missing and have been restored"

_SHAPES = {
    9: re.compile(r"\d{3,5}|V\d{2,4}|E\d{3,4}"),
    10: re.compile(r"[A-Z]\d[0-9A-Z]{1,5}"),
}
_NUMERIC = re.compile(r"\d{1,3}(\.\d{0,2})?")
_LEAF, _NON_LEAF, _RETIRED = "L", "N", "R"


class CodeStatus(Enum):
    LEAF = "a current code"
    NON_LEAF = "a category, or another code that has been divided further"
    RETIRED_OR_UNKNOWN = "retired, or unknown within a known category"
    UNKNOWN_CATEGORY = "of an unknown category"


class CodeRow(NamedTuple):
    code: str  # without the dot
    version: int
    title: str
    category: str  # 3-character ICD-10; empty if the code maps to none
    chapter: str
    is_leaf: bool


@lru_cache(maxsize=8192)
def normalize_code(text: str, version: int) -> tuple[str, str | None]:
    """Write a code in the one way it is stored: upper case, without the dot.

    An ICD-9 category whose leading zeros a spreadsheet has eaten ("8", "38.9") is repaired; a code
    without a dot and with three digits or more ("389") might be whole, and stays.

    Returns:
        the code, and a warning in words if it had to be repaired.
    Raises:
        InvalidCodeError: it is no code of this version.
    """
    if version not in VERSIONS:
        raise InvalidCodeError(f"{version!r} is no version of ICD: it takes 9 or 10")
    code = "".join(text.split()).upper()
    warning = None
    category, _, rest = code.partition(".")
    if version == 9 and len(category) < 3 and _NUMERIC.fullmatch(code):
        category = category.zfill(3)
        code = category + rest
        warning = LEADING_ZEROS_REPAIRED
    elif "." in code:
        if len(category) != _category_length(category, version):
            raise InvalidCodeError(f"{text[:20]!r} is no ICD-{version} code: its dot is misplaced")
        code = category + rest
    if not code.isascii() or not _SHAPES[version].fullmatch(code):
        raise InvalidCodeError(f"{text[:20]!r} is no ICD-{version} code")
    return code, warning


def code_status(code: str, version: int) -> CodeStatus:
    """Where a normalised code stands in the public list."""
    kind = _kinds()[version].get(code)
    if kind == _LEAF:
        return CodeStatus.LEAF
    if kind == _NON_LEAF:
        return CodeStatus.NON_LEAF
    if kind == _RETIRED or code[: _category_length(code, version)] in _kinds()[version]:
        return CodeStatus.RETIRED_OR_UNKNOWN
    return CodeStatus.UNKNOWN_CATEGORY


def leaves_of(code: str, version: int) -> list[str]:
    """The current codes that a normalised code has been divided into; itself if it is one."""
    leaves = _leaves()[version]
    first = bisect_left(leaves, code)
    return leaves[first : bisect_left(leaves, code + "~", lo=first)]


def icd10_category(code: str, version: int) -> str | None:
    """The 3-character ICD-10 category of a normalised code; None if there is none.

    An ICD-9 leaf goes where most of its own GEM targets are. Any other ICD-9 code goes with its
    category, to where most leaves of that go: most real rows are categories, and the GEMs know
    leaves only. Of equals, the one that the
    lowest code maps to.

    Source: CMS General Equivalence Mappings 2015, ICD-9-CM to ICD-10-CM.
    """
    if version == 10:
        category = code[:3]
        return category if category in _chapter_by_category() else None
    mapped = _icd9_categories()
    return mapped.get(code) or mapped.get(code[: _category_length(code, 9)])


def chapter_of(category: str) -> str:
    """The title of the chapter of a 3-character ICD-10 category of `categories()`."""
    return _chapter_by_category()[category]


@cache
def chapters() -> tuple[str, ...]:
    """The 22 chapters of ICD-10-CM, in the order of their codes."""
    return tuple(dict.fromkeys(_chapter_by_category()[name] for name in categories()))


@cache
def categories() -> tuple[str, ...]:
    """Every 3-character category of ICD-10-CM, sorted."""
    return tuple(sorted(_chapter_by_category()))


@cache
def vocabulary_sha256() -> str:
    """What a code becomes as an input: a hash over categories, chapters and the ICD-9 mapping."""
    digest = hashlib.sha256()
    for table in (_chapter_by_category(), _icd9_categories()):
        for key in sorted(table):
            digest.update(f"{key}\t{table[key]}\n".encode())
        digest.update(b"\n")
    return digest.hexdigest()


def all_codes() -> Iterator[CodeRow]:
    """Every code of the public lists, ICD-9 first, with title, category and chapter.

    The public list of ICD-9 has no titles of categories: these are called by the ICD-10 category
    that they map to, and say so.
    """
    icd10_titles = {
        code: title for code, version, _kind, title in _rows("icd_codes.csv.gz") if version == "10"
    }
    for code, version_text, kind, title in _rows("icd_codes.csv.gz"):
        version = int(version_text)
        category = icd10_category(code, version) or ""
        if not title and category:
            title = f"(seen as ICD-10 {category}: {icd10_titles[category]})"
        chapter = chapter_of(category) if category else ""
        yield CodeRow(code, version, title, category, chapter, kind == _LEAF)


def title_of(code: str, version: int) -> str | None:
    """The title of a normalised code as in `all_codes`; None if it has none."""
    return _titles().get((code, version)) or None


def _category_length(code: str, version: int) -> int:
    return 4 if version == 9 and code.startswith("E") else 3


def _rows(table: str) -> Iterator[list[str]]:
    packed = files("federated").joinpath("icd_tables", table).read_bytes()
    with gzip.open(io.BytesIO(packed), "rt", encoding="utf-8", newline="") as file:
        reader = csv.reader(file)
        next(reader)
        yield from reader


@cache
def _chapter_by_category() -> dict[str, str]:
    shared: dict[str, str] = {}  # one string a chapter
    return {
        name: shared.setdefault(chapter, chapter) for name, chapter in _rows("categories.csv.gz")
    }


@cache
def _icd9_categories() -> dict[str, str]:
    shared = {name: name for name in categories()}
    return {code: shared[category] for code, category in _rows("icd9_categories.csv.gz")}


@cache
def _kinds() -> dict[int, dict[str, str]]:
    kinds: dict[int, dict[str, str]] = {9: {}, 10: {}}
    for code, version, kind, _title in _rows("icd_codes.csv.gz"):
        kinds[int(version)][code] = kind
    return kinds


@cache
def _leaves() -> dict[int, list[str]]:
    return {
        version: sorted(code for code, kind in kinds.items() if kind == _LEAF)
        for version, kinds in _kinds().items()
    }


@cache
def _titles() -> dict[tuple[str, int], str]:
    return {(row.code, row.version): row.title for row in all_codes()}
