"""CSV that a spreadsheet opens without running what somebody typed."""

import csv
from collections.abc import Iterable, Iterator
from typing import Any

from federated.plain_text import is_formula


def safe_cell(value: Any) -> Any:
    """A text that would be a formula with an apostrophe before it; a number as it is."""
    return f"'{value}" if isinstance(value, str) and is_formula(value) else value


class _Line:
    """What csv writes to: hands a line back instead of keeping it."""

    def write(self, text: str) -> str:
        return text


def csv_lines(header: Iterable[str], rows: Iterable[Iterable[Any]]) -> Iterator[str]:
    """The lines of a CSV file one by one, each cell safe; for a response that streams."""
    writer = csv.writer(_Line())
    yield writer.writerow(header)
    for row in rows:
        yield writer.writerow([safe_cell(value) for value in row])
