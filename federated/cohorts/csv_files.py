"""The rows of a CSV file, gzipped or not, hashed as they go by."""

import csv
import gzip
import hashlib
import io
import zlib
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager
from functools import lru_cache
from itertools import chain
from operator import itemgetter
from pathlib import Path
from typing import Any, BinaryIO, TypeAlias

from federated.errors import CohortError

GZIP_MAGIC = b"\x1f\x8b"
# Comma is the only one read: what a spreadsheet writes depends on its language.
OTHER_SEPARATORS = {";": "semicolons", "\t": "tabs", "|": "vertical bars"}
NO_TEXT = "is not UTF-8 text: is it a CSV file? If it is, save it as CSV UTF-8"
MAX_HEADER_BYTES = 2**16

Rows: TypeAlias = Iterator[tuple[int, tuple[str, ...]]]  # line and values
Refuse: TypeAlias = Callable[[str], None]


@lru_cache(maxsize=16)
def label_of(path: Path) -> str:
    """How a problem names a file: with its folder, which is the hospital's."""
    return f"{path.parent.name}/{path.name}"


def place_of(path: Path, line: int) -> str:
    """How a problem names a row."""
    return f"{label_of(path)} line {line}"


def read_rows(
    path: Path,
    required: Sequence[str],
    optional: Sequence[str] = (),
    hashes: dict[str, str] | None = None,
    refuse: Refuse | None = None,
) -> Rows:
    """Line and values of each row: of the required columns, then of the optional ones.

    An absent optional column is empty. When the file has been read to its end, the sha256 of its
    unpacked content is put into `hashes` under the file's name.

    Args:
        refuse: is told of a row with too few or many fields, and the next one is read.
    Raises:
        CohortError: it cannot be read, a column is missing, or a row has too few or many fields.
    """
    with _open_plain(path) as plain:
        hashing = _HashingReader(plain)
        buffered = io.BufferedReader(hashing, buffer_size=2**16)
        with io.TextIOWrapper(buffered, encoding="utf-8-sig", newline="") as text:
            yield from parse_rows(text, path, required, optional, refuse)
            if hashes is not None:
                hashes[path.name.removesuffix(".gz")] = hashing.digest.hexdigest()


def read_header(path: Path) -> list[str]:
    """The names of a file's columns; none if they cannot be read: who reads its rows is told."""
    try:
        with _open_plain(path) as plain:
            first_line = plain.readline(MAX_HEADER_BYTES).decode("utf-8-sig")
        return _names(next(csv.reader([first_line], strict=True), []))
    except (CohortError, UnicodeDecodeError, csv.Error):
        return []


def parse_rows(
    text: Iterable[str],
    path: Path,
    required: Sequence[str],
    optional: Sequence[str] = (),
    refuse: Refuse | None = None,
) -> Rows:
    """As `read_rows`, of a text that is open; `path` is only what its problems name."""
    lines = iter(text)
    try:
        first_line = next(lines, "")
        _check_first_line(first_line, path, (*required, *optional))
        reader = csv.reader(chain((first_line,), lines), strict=True)
        header = _names(next(reader, []))
        _check_header(header, path, required, optional)
        # Each row gets one empty value behind its last: that of an absent column. To pick one more
        # than is wanted gives a tuple even where that is one.
        positions = [
            header.index(name) if name in header else -1 for name in (*required, *optional)
        ]
        num_fields, num_wanted = len(header), len(positions)
        pick = itemgetter(*positions, -1)
        strip = str.strip
        for row in reader:
            if len(row) != num_fields:
                if not row:
                    continue  # an empty line
                place = place_of(path, reader.line_num)
                problem = f"{place}: {len(row)} fields, the header has {len(header)}"
                if refuse is None:
                    raise CohortError([problem])
                refuse(problem)
                continue
            row.append("")
            yield reader.line_num, tuple(map(strip, pick(row)))[:num_wanted]
    except csv.Error as error:
        raise CohortError([f"{place_of(path, reader.line_num)}: {error}"]) from error
    except UnicodeDecodeError as error:
        place = place_of(path, _first_line_not_utf8(path))
        raise CohortError([f"{place}: {NO_TEXT}"]) from error


def _names(header: Iterable[str]) -> list[str]:
    return [name.strip().lower() for name in header]


def _check_first_line(first_line: str, path: Path, wanted: Sequence[str]) -> None:
    if "\0" in first_line:
        raise CohortError([f"{place_of(path, 1)}: {NO_TEXT}"])
    for separator, words in OTHER_SEPARATORS.items():
        # Quotes are no matter here, and behind them csv would stumble over the separator.
        names = _names(first_line.replace('"', "").split(separator))
        if len(set(wanted).intersection(names)) > 1:
            raise CohortError([f"{label_of(path)}: is separated by {words}, and must be by commas"])


def _check_header(
    header: Sequence[str], path: Path, required: Sequence[str], optional: Sequence[str]
) -> None:
    problems = [
        f"{place_of(path, 1)}: the column {name} is there twice"
        for name in (*required, *optional)
        if header.count(name) > 1
    ]
    missing = [name for name in required if name not in header]
    if missing:
        plural = "s" if len(missing) > 1 else ""
        problems.insert(0, f"{label_of(path)}: missing column{plural} {', '.join(missing)}")
    if problems:
        raise CohortError(problems)


def _first_line_not_utf8(path: Path) -> int:
    with _open_plain(path) as plain:
        for number, line in enumerate(plain, start=1):
            try:
                line.decode()
            except UnicodeDecodeError:
                return number
    return 1


@contextmanager
def _open_plain(path: Path) -> Iterator[BinaryIO]:
    """The file's content, unpacked if it is gzip, whatever its name says."""
    try:
        with path.open("rb") as file:
            is_gzip = file.read(2) == GZIP_MAGIC
            file.seek(0)
            if is_gzip:
                with gzip.open(file) as unpacked:
                    yield unpacked  # type: ignore[misc]
            else:
                yield file
    except (EOFError, zlib.error, gzip.BadGzipFile) as error:
        raise CohortError([f"{label_of(path)}: truncated or damaged gzip ({error})"]) from error
    except OSError as error:
        raise CohortError([f"{label_of(path)}: cannot be read: {error.strerror}"]) from error


class _HashingReader(io.RawIOBase):
    """Passes a stream on and hashes what goes through."""

    def __init__(self, stream: BinaryIO) -> None:
        self.stream = stream
        self.digest = hashlib.sha256()

    def readable(self) -> bool:
        return True

    def readinto(self, buffer: Any) -> int:
        chunk = self.stream.read(len(buffer))
        self.digest.update(chunk)
        buffer[: len(chunk)] = chunk
        return len(chunk)
