"""Reading all of an envoy's rows once, to refuse what is wrong and to warn of what is odd."""

import hashlib
from collections import Counter
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import Any

from federated.cohorts.csv_files import label_of, place_of, read_header, read_rows
from federated.cohorts.disk_dict import DiskDict
from federated.cohorts.layouts import EnvoyFiles, envoys_of_admissions
from federated.cohorts.reading import outcome_rows
from federated.cohorts.records import DIAGNOSES_HEADER
from federated.cohorts.values import (
    parse_code,
    parse_coded,
    parse_id,
    parse_seq_num,
    problems_of,
)
from federated.errors import CohortError, InvalidRowError, InvalidValueError
from federated.icd import CodeStatus, code_status

MAX_PROBLEMS = 20
PROGRESS_ROWS = 5_000
# A file with as many ICD-9 codes of digits has some below 100: infections, tuberculosis, sepsis.
MIN_ROWS_FOR_LOST_ZEROS = 100

ODD_CODES = {
    CodeStatus.NON_LEAF: "category or other ICD code that is not a leaf",
    CodeStatus.RETIRED_OR_UNKNOWN: "retired or unknown ICD code",
    CodeStatus.UNKNOWN_CATEGORY: "ICD code of an unknown category",
}
REPAIRED_ZEROS = "leading zeros of an ICD-9 code restored"
LOST_ZEROS = "no ICD-9 code has a leading zero: they have probably been lost"
SEX_DISAGREEMENT = "patient whose sex differs between admissions"
DISCHARGED_TOO_EARLY = "stay whose discharge is before its admission"
DEAD_AND_HOME = "stay that ended both with a death in hospital and with a discharge home"
NO_OUTCOMES_FILE = "no outcomes file"
NO_OUTCOME = "admission without an outcome"
NO_DIAGNOSES = "outcome without diagnoses"
NO_ENVOY = "diagnosis of an admission that belongs to no envoy"


@dataclass(frozen=True, slots=True)
class CohortSummary:
    num_rows: int
    num_admissions: int
    num_diagnoses: int
    source_sha256: str
    warnings: list[dict[str, Any]] = field(default_factory=list)  # "kind", "count", "example"


def check_envoy(
    files: EnvoyFiles,
    on_progress: Callable[[int], None] | None = None,
    *,
    num_told: int | None = None,
) -> CohortSummary:
    """Read all of an envoy's rows and refuse what is wrong with them.

    Args:
        on_progress: called now and then with the number of rows read so far.
        num_told: count every problem, and tell the first so many; None gives up at the 20th.
    Raises:
        CohortError: with the problems, each naming file, line and the value at fault, but never a
            patient's or an admission's identifier.
    """
    _refuse_swapped(files)
    with DiskDict[str]() as subjects, DiskDict[str]() as sexes, DiskDict[str]() as lines:
        check = _Check(files, subjects, on_progress, num_told)
        for read in (partial(check.read_outcomes, sexes), partial(check.read_diagnoses, lines)):
            try:
                read()
            except CohortError as error:  # of a whole file: the other one may be read all the same
                check.note(error)
                if num_told is None:
                    break
        return check.summary()


def first_places(files: EnvoyFiles, hadm_ids: set[str]) -> list[str]:
    """File and line at which each of these admissions first stands; of many, the first 20."""
    wanted = set(hadm_ids)
    places = []
    for path in (files.admissions, files.outcomes, files.diagnoses):
        if path is None:
            continue
        for line, (hadm_id,) in read_rows(path, ("hadm_id",)):
            if hadm_id in wanted:
                wanted.remove(hadm_id)
                places.append(place_of(path, line))
                if len(places) == MAX_PROBLEMS:
                    return places
    return places


def _refuse_swapped(files: EnvoyFiles) -> None:
    """A file of diagnoses has all columns that one of outcomes must have: each row would be wrong.

    Raises CohortError.
    """
    if files.outcomes is None or files.admissions is not None:
        return
    only_of_diagnoses = set(DIAGNOSES_HEADER[2:])
    if only_of_diagnoses <= set(read_header(files.outcomes)) and only_of_diagnoses.isdisjoint(
        read_header(files.diagnoses)
    ):
        raise CohortError(
            [
                f"{label_of(files.outcomes)}: the two files are swapped: this one has the columns"
                f" of diagnoses, and {label_of(files.diagnoses)} has not"
            ]
        )


class _TooManyError(CohortError):
    """There are so many problems that the rest is not read."""


class _Check:
    """One reading of an envoy's files: outcomes first, then diagnoses."""

    def __init__(
        self,
        files: EnvoyFiles,
        subjects: DiskDict[str],
        on_progress: Callable[[int], None] | None,
        num_told: int | None,
    ) -> None:
        self.num_told = num_told
        self.num_problems = 0
        self.files = files
        self.subjects = subjects  # the patient of each admission
        self.on_progress = on_progress
        self.num_rows = self.num_admissions = self.num_outcomes = self.num_diagnoses = 0
        self.problems: list[str] = []
        self.warnings = _WarningCounts()
        self.hashes: dict[str, str] = {}

    def read_outcomes(self, sexes: DiskDict[str]) -> None:
        disagreeing = set()
        for place, record in outcome_rows(self.files, self.hashes, self.refuse):
            self.count_row()
            if isinstance(record, InvalidValueError):
                self.refuse_row(place, record.problems)
                if not isinstance(record, InvalidRowError):
                    continue
            if record.hadm_id in self.subjects:
                self.refuse(f"{place}: its hadm_id is there twice")
                continue
            if record.subject_id and record.hadm_id:
                self.subjects[record.hadm_id] = record.subject_id
                self.num_admissions += 1
            if isinstance(record, InvalidRowError):
                continue
            if "" < record.discharged_at < record.admitted_at:
                self.warnings.add(DISCHARGED_TOO_EARLY, place)
            if record.died_in_hospital and record.discharged_home:
                self.warnings.add(DEAD_AND_HOME, place)
            subject_id, sex = record.subject_id, record.sex
            if sex and sexes.setdefault(subject_id, sex) != sex and subject_id not in disagreeing:
                disagreeing.add(subject_id)
                self.warnings.add(SEX_DISAGREEMENT, place)
        self.num_outcomes = self.num_admissions

    def read_diagnoses(self, lines: DiskDict[str]) -> None:
        path, envoys = self.files.diagnoses, envoys_of_admissions(self.files)
        codes, places = _CodeCounts(path), _Places(lines)
        admitted = ("", "")
        rows = read_rows(path, DIAGNOSES_HEADER, hashes=self.hashes, refuse=self.refuse)
        for line, values in rows:
            self.count_row()
            subject_id, hadm_id, seq_text, icd_code, icd_version = values
            if envoys is not None and envoys.get(hadm_id) != self.files.name:
                if hadm_id not in envoys:
                    self.warnings.add(NO_ENVOY, place_of(path, line))
                continue
            try:
                if (subject_id, hadm_id) != admitted:  # else as in the row before
                    parse_id(subject_id, "subject_id")
                    parse_id(hadm_id, "hadm_id")
                    self.admit(subject_id, hadm_id)
                    admitted = subject_id, hadm_id
                seq_num = parse_coded(seq_text, icd_code, icd_version).seq_num
            except InvalidValueError:
                known_seq_num = self.refuse_diagnosis(place_of(path, line), values)
                if known_seq_num is None:
                    continue
                seq_num = known_seq_num
            else:
                codes.add(icd_code, icd_version, line)
                self.num_diagnoses += 1
            first_line = places.take(hadm_id, seq_num, line)
            if first_line != line:
                self.refuse(
                    f"{place_of(path, line)}: seq_num {seq_num} of its hadm_id stands in line "
                    f"{first_line} already"
                )
        codes.warn(self.warnings)
        if places.num_admissions < self.num_admissions:
            self.warnings.add(NO_DIAGNOSES, "", self.num_admissions - places.num_admissions)

    def refuse_diagnosis(self, place: str, values: tuple[str, ...]) -> int | None:
        """Tell each wrong field; returns the seq_num if it, and whose it is, can be read."""
        subject_id, hadm_id, seq_text, icd_code, icd_version = values
        problems = problems_of(
            partial(parse_id, subject_id, "subject_id"), partial(parse_id, hadm_id, "hadm_id")
        ) or problems_of(partial(self.admit, subject_id, hadm_id))
        is_known = not problems and not problems_of(partial(parse_seq_num, seq_text))
        problems += problems_of(partial(parse_coded, seq_text, icd_code, icd_version))
        self.refuse_row(place, problems)
        return parse_seq_num(seq_text) if is_known else None

    def summary(self) -> CohortSummary:
        if not self.num_admissions and not self.problems:
            self.refuse(f"{self.files.name}: an empty hospital: its files hold no rows")
        if self.problems:
            raise CohortError(self.problems, num_problems=self.num_problems)
        if self.num_outcomes < self.num_admissions:
            has_outcomes = self.files.outcomes or self.files.admissions
            kind = NO_OUTCOME if has_outcomes else NO_OUTCOMES_FILE
            self.warnings.add(kind, "", self.num_admissions - self.num_outcomes)
        return CohortSummary(
            num_rows=self.num_rows,
            num_admissions=self.num_admissions,
            num_diagnoses=self.num_diagnoses,
            source_sha256=self.source_sha256(),
            warnings=self.warnings.as_list(),
        )

    def count_row(self) -> None:
        self.num_rows += 1
        if self.on_progress and self.num_rows % PROGRESS_ROWS == 0:
            self.on_progress(self.num_rows)

    def refuse_row(self, place: str, problems: Iterable[str]) -> None:
        for problem in problems:
            self.refuse(f"{place}: {problem}")

    def refuse(self, problem: str) -> None:
        self.num_problems += 1
        if len(self.problems) < (self.num_told or MAX_PROBLEMS):
            self.problems.append(problem)
        if self.num_told is None and self.num_problems >= MAX_PROBLEMS:
            raise _TooManyError(self.problems)

    def note(self, error: CohortError) -> None:
        """Put down what ended the reading of a file; it is told, however many were before it."""
        if not isinstance(error, _TooManyError):
            self.num_problems += len(error.problems)
            self.problems += error.problems

    def admit(self, subject_id: str, hadm_id: str) -> None:
        """Raises InvalidValueError if the admission has been another patient's."""
        standing = self.subjects.get(hadm_id)
        if standing is None:
            self.subjects[hadm_id] = subject_id
            self.num_admissions += 1
        elif standing != subject_id:
            raise InvalidValueError("its hadm_id belongs to two subject_ids")

    def source_sha256(self) -> str:
        """Of the files' unpacked contents; of files that envoys share, one hash an envoy."""
        lines = [f"{name} {sha256}" for name, sha256 in sorted(self.hashes.items())]
        if self.files.is_split:
            lines.append(f"envoy {self.files.name}")
        return hashlib.sha256("\n".join(lines).encode()).hexdigest()


class _Places:
    """In which line each seq_num of each admission stands first.

    An admission's rows mostly stand together: what came before them is looked up once for all.
    """

    def __init__(self, lines: DiskDict[str]) -> None:
        self._lines = lines  # of each hadm_id, " seq_num:line" of each place
        self.num_admissions = 0
        self._hadm_id = self._before = ""
        self._taken: dict[int, int] = {}  # seq_num -> line, of the rows that stand together

    def take(self, hadm_id: str, seq_num: int, line: int) -> int:
        """The line in which the seq_num stands already; the given one if it does not."""
        if hadm_id != self._hadm_id:
            self._begin(hadm_id)
        first_line = self._taken.setdefault(seq_num, line)
        if first_line == line and self._before:
            _, is_there, behind = self._before.partition(f" {seq_num}:")
            if is_there:
                first_line = self._taken[seq_num] = int(behind.partition(" ")[0])
        return first_line

    def _begin(self, hadm_id: str) -> None:
        if self._hadm_id:
            taken = "".join([f" {place}:{line}" for place, line in self._taken.items()])
            self._lines[self._hadm_id] = self._before + taken
        self._hadm_id, self._taken = hadm_id, {}
        self._before = self._lines.get(hadm_id) or ""
        self.num_admissions += not self._before


class _WarningCounts:
    """Counts of what is taken all the same, each with its first place."""

    def __init__(self) -> None:
        self.counts: Counter[str] = Counter()
        self.examples: dict[str, str] = {}

    def add(self, kind: str, example: str, count: int = 1) -> None:
        self.counts[kind] += count
        self.examples.setdefault(kind, example)

    def as_list(self) -> list[dict[str, Any]]:
        return [
            {"kind": kind, "count": count, "example": self.examples[kind]}
            for kind, count in self.counts.items()
        ]


class _CodeCounts:
    """How often each code stands in a file: there are few, so each is looked at once."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self.counts: Counter[tuple[str, str]] = Counter()
        self.first_lines: dict[tuple[str, str], int] = {}

    def add(self, icd_code: str, icd_version: str, line: int) -> None:
        self.counts[icd_code, icd_version] += 1
        self.first_lines.setdefault((icd_code, icd_version), line)

    def warn(self, warnings: _WarningCounts) -> None:
        num_numeric = num_zeros = 0
        for (given, given_version), count in self.counts.items():
            code, version, repair = parse_code(given, given_version)
            place = place_of(self.path, self.first_lines[given, given_version])
            example = f"{given} (ICD-{version}), {place}"
            if repair:
                warnings.add(REPAIRED_ZEROS, f"{given} read as {code}, {example}", count)
            kind = ODD_CODES.get(code_status(code, version))
            if kind:
                warnings.add(kind, example, count)
            if version == 9 and code.isdigit():
                num_numeric += count
                num_zeros += count if given.startswith("0") else 0
        if num_numeric >= MIN_ROWS_FOR_LOST_ZEROS and not num_zeros:
            warnings.add(LOST_ZEROS, label_of(self.path), num_numeric)
