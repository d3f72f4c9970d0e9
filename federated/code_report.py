"""Which of a hospital's codes are unknown, retired or suspicious, and how many patients have them.

Only what the public tables show is said. A code that is right for nobody can be told from them; a
code that is wrong for this patient cannot, but for sex and age:

    unknown      its category is in no list of its version
    retired      in neither list as it is, though its category is known: retired, or never a code
    suspicious   given with one version and known to the other's list alone; a category, or another
                 code that has been divided further; of one sex, at a patient of the other; of a
                 newborn, at an adult

The tables tell retired from misspelt for ICD-10-CM codes retired since 2024 only, so both are one
kind. They do not mark codes by sex: categories are taken from a list that does, and a code counts as
of a sex or of newborns where all codes that it has been divided into do. Perinatal codes may be
right in later life: suspicious is not wrong.

The report is the hospital's. `seen_from_outside` is what may be shown to others.
"""

from collections.abc import Iterable
from dataclasses import asdict, dataclass
from enum import Enum
from functools import lru_cache
from typing import Any

from federated import icd
from federated.cohorts import AdmissionRecord
from federated.icd import CodeStatus
from federated.small_counts import MIN_PATIENTS

MOST_SHOWN = 20  # codes of a kind; all are counted
ADULT_YEARS = 18

# First and last category of each run of categories all of whose codes are of one sex: those of CMS,
# "Definitions of Medicare Code Edits" v37 (FY2020), sections 5A, "Diagnoses for females only", and
# 5C, "Diagnoses for males only". Categories that hold codes of either sex, as C50, Z30 or R97, are
# left out.
_OF_WOMEN = (
    ("A34", "A34"),
    ("C51", "C58"),
    ("D06", "D06"),
    ("D25", "D28"),
    ("D39", "D39"),
    ("E28", "E28"),
    ("F53", "F53"),
    ("N70", "N77"),
    ("N80", "N98"),
    ("O00", "O9A"),
    ("Q50", "Q52"),
    ("Q96", "Q97"),
    ("R87", "R87"),
    ("Y76", "Y76"),
    ("Z33", "Z34"),
    ("Z36", "Z37"),
    ("Z39", "Z39"),
    ("Z3A", "Z3A"),
)
_OF_MEN = (
    ("C60", "C63"),
    ("D29", "D29"),
    ("D40", "D40"),
    ("E29", "E29"),
    ("N40", "N53"),
    ("Q53", "Q55"),
    ("R86", "R86"),
)
_OF_NEWBORNS = (("P00", "P96"), ("Z38", "Z38"))


class CodeKind(Enum):
    """What may be wrong with a code: its group, and how it is said."""

    UNKNOWN = ("unknown", "Of no category that the list of its version knows")
    RETIRED = ("retired", "Retired, or never a code, within a known category")
    OTHER_VERSION = ("suspicious", "Known to the list of the other version alone")
    OTHER_SEX = ("suspicious", "Of one sex, at patients of the other")
    NEWBORN = ("suspicious", "Of newborns, at patients of 18 years or more")
    UNSPECIFIC = ("suspicious", "A category, or a code that has been divided further")

    def __init__(self, group: str, title: str) -> None:
        self.group = group
        self.title = title


@dataclass(frozen=True)
class OddCode:
    """A code and how many patients have it that way.

    Attributes:
        title: of its own version, else of the other; empty where neither has one.
        is_listed: whether a public list has it. Of another, nobody knows what its text says.
    """

    code: str
    icd_version: int
    title: str
    is_listed: bool
    num_patients: int


@dataclass(frozen=True)
class OddCodes:
    """The codes of one kind: how many there are, and the most frequent of them."""

    kind: CodeKind
    num_codes: int
    codes: tuple[OddCode, ...]

    def to_json(self) -> dict[str, Any]:
        return {
            "kind": self.kind.name.lower(),
            "group": self.kind.group,
            "title": self.kind.title,
            "num_codes": self.num_codes,
            "codes": [asdict(code) for code in self.codes],
        }


@dataclass(frozen=True)
class CodeReport:
    """Every kind, also one without a code; num_codes is of all different codes of the hospital."""

    num_codes: int
    kinds: tuple[OddCodes, ...]

    def to_json(self) -> dict[str, Any]:
        return {"num_codes": self.num_codes, "kinds": [kind.to_json() for kind in self.kinds]}


@lru_cache(maxsize=8192)
def kinds_of(code: str, icd_version: int) -> tuple[CodeKind, ...]:
    """What may be wrong with a normalised code, whoever has it."""
    status = icd.code_status(code, icd_version)
    if status is CodeStatus.LEAF:
        return ()
    if status is CodeStatus.NON_LEAF:
        return (CodeKind.UNSPECIFIC,)
    if icd.code_status(code, _other(icd_version)) in (CodeStatus.LEAF, CodeStatus.NON_LEAF):
        return (CodeKind.OTHER_VERSION,)
    if status is CodeStatus.RETIRED_OR_UNKNOWN:
        return (CodeKind.RETIRED,)
    return (CodeKind.UNKNOWN,)


def _other(icd_version: int) -> int:
    return 9 if icd_version == 10 else 10


@lru_cache(maxsize=8192)
def sex_of(code: str, icd_version: int) -> str:
    """F or M of a code that only one sex can have; else empty."""
    if _is_within(code, icd_version, _OF_WOMEN):
        return "F"
    return "M" if _is_within(code, icd_version, _OF_MEN) else ""


@lru_cache(maxsize=8192)
def is_of_newborns(code: str, icd_version: int) -> bool:
    return _is_within(code, icd_version, _OF_NEWBORNS)


def _is_within(code: str, icd_version: int, headings: tuple[tuple[str, str], ...]) -> bool:
    """Whether everything that a code has been divided into stands under one of the headings."""
    found = {
        icd.icd10_category(leaf, icd_version) or "" for leaf in icd.leaves_of(code, icd_version)
    }
    return bool(found) and all(
        any(first <= category <= last for first, last in headings) for category in found
    )


class CodeCounts:
    """How many patients have each odd code, taken record by record."""

    def __init__(self) -> None:
        self._codes: set[tuple[int, str]] = set()
        # By kind, version and code: how many patients, and who was the last of them.
        self._patients: dict[tuple[CodeKind, int, str], tuple[int, str]] = {}

    def add(self, record: AdmissionRecord) -> None:
        """Count an admission; those of a patient come one after another."""
        for diagnosis in record.diagnoses:
            code, version = diagnosis.icd_code, diagnosis.icd_version
            self._codes.add((version, code))
            for kind in kinds_of(code, version):
                self._count(kind, version, code, record.subject_id)
            sex = sex_of(code, version)
            if sex and record.sex and record.sex != sex:
                self._count(CodeKind.OTHER_SEX, version, code, record.subject_id)
            is_adult = record.age is not None and record.age >= ADULT_YEARS
            if is_adult and is_of_newborns(code, version):
                self._count(CodeKind.NEWBORN, version, code, record.subject_id)

    def _count(self, kind: CodeKind, version: int, code: str, subject_id: str) -> None:
        number, last = self._patients.get((kind, version, code), (0, None))
        if last != subject_id:
            self._patients[kind, version, code] = (number + 1, subject_id)

    def report(self) -> CodeReport:
        """What the hospital sees; the order of rare codes says nothing of how often they occur."""
        found: dict[CodeKind, list[OddCode]] = {kind: [] for kind in CodeKind}
        for (kind, version, code), (number, _) in self._patients.items():
            found[kind].append(_odd_code(code, version, number))
        return CodeReport(
            num_codes=len(self._codes),
            kinds=tuple(
                OddCodes(kind, len(codes), tuple(sorted(codes, key=_order)[:MOST_SHOWN]))
                for kind, codes in found.items()
            ),
        )


def _odd_code(code: str, icd_version: int, num_patients: int) -> OddCode:
    versions = (icd_version, _other(icd_version))
    titles = [icd.title_of(code, version) for version in versions]
    statuses = [icd.code_status(code, version) for version in versions]
    return OddCode(
        code,
        icd_version,
        title=next((title for title in titles if title), ""),
        is_listed=any(titles) or CodeStatus.LEAF in statuses or CodeStatus.NON_LEAF in statuses,
        num_patients=num_patients,
    )


def _order(odd: OddCode) -> tuple[int, int, str]:
    number = odd.num_patients if odd.num_patients >= MIN_PATIENTS else 0
    return (-number, odd.icd_version, odd.code)


def seen_from_outside(kinds: Iterable[dict[str, Any]]) -> list[dict[str, Any]]:
    """What whoever may not read the hospital's patients sees of `OddCodes` as JSON.

    A count under ten is None. A code that no list has loses its text, which may be anything, a name
    too, and is left out where its count is hidden as well.
    """
    return [
        {**kind, "codes": [odd for code in kind["codes"] if (odd := _from_outside(code))]}
        for kind in kinds
    ]


def _from_outside(odd: dict[str, Any]) -> dict[str, Any] | None:
    is_listed = odd.get("is_listed", False)  # older reports do not say
    number = odd["num_patients"] or 0
    if not is_listed and number < MIN_PATIENTS:
        return None
    return {
        **odd,
        "code": odd["code"] if is_listed else "",
        "is_listed": is_listed,
        "num_patients": number if number >= MIN_PATIENTS else None,
    }


def code_report(records: Iterable[AdmissionRecord]) -> CodeReport:
    """The report of a hospital's admissions, sorted so that a patient's stand together."""
    counts = CodeCounts()
    for record in records:
        counts.add(record)
    return counts.report()
