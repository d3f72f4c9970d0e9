"""A dictionary whose entries lie in a temporary file."""

import sqlite3
from typing import Generic, Self, TypeVar

CACHE_KIB = 1024
NUM_RECENT = 4096  # kept in memory: rows of one admission, or patient, stand close together

Value = TypeVar("Value", str, int)


class DiskDict(Generic[Value]):
    """Texts to texts or to numbers; however many there are, they take about a megabyte of memory.

    To be used in a `with` block, at whose end it is gone; it is gone with a killed process, too.
    """

    def __enter__(self) -> Self:
        # No name: sqlite makes a temporary file, unlinks it, and fills it once the cache is full.
        self._database = sqlite3.connect("", isolation_level=None)
        self._database.executescript(
            f"PRAGMA journal_mode = OFF; PRAGMA cache_size = -{CACHE_KIB};"
            "CREATE TABLE entries (key TEXT PRIMARY KEY, value) WITHOUT ROWID; BEGIN;"
        )
        self._recent: dict[str, Value] = {}
        return self

    def __exit__(self, *_: object) -> None:
        self._database.close()

    def get(self, key: str) -> Value | None:
        if key in self._recent:
            return self._recent[key]
        row = self._database.execute("SELECT value FROM entries WHERE key = ?", (key,)).fetchone()
        if row is None:
            return None
        self[key] = row[0]
        return self._recent[key]

    def __contains__(self, key: str) -> bool:
        return self.get(key) is not None

    def __setitem__(self, key: str, value: Value) -> None:
        self._recent[key] = value
        if len(self._recent) > NUM_RECENT:
            entries = self._recent.items()
            self._database.executemany("INSERT OR REPLACE INTO entries VALUES (?, ?)", entries)
            self._recent = {key: value}

    def setdefault(self, key: str, value: Value) -> Value:
        """The value that stands; if none does, the given one from now on."""
        standing = self.get(key)
        if standing is None:
            self[key] = value
            return value
        return standing
