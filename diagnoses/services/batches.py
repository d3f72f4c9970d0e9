"""Rows in batches: so many at a time that a transaction stays short."""

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import islice
from typing import Any, TypeVar, cast

from django.db import connection
from django.db.models import Field, Model

BATCH_ROWS = 5_000  # one transaction: short enough for others to get their turn

Item = TypeVar("Item")


def batched(items: Iterable[Item], size: int) -> Iterator[list[Item]]:
    remaining = iter(items)
    while batch := list(islice(remaining, size)):
        yield batch


@dataclass(frozen=True)
class Key:
    """The primary key of the row with these values; where there is none, NULL."""

    model: type[Model]
    names: Sequence[str]

    def select(self, values: Iterable[str]) -> str:
        """SQL, given that of each value."""
        named = zip(self.names, values, strict=True)
        conditions = " AND ".join(f"{_column(self.model, name)} = {value}" for name, value in named)
        key = _column(self.model, "id")
        return f"(SELECT {key} FROM {_table(self.model)} WHERE {conditions})"


def insert_rows(
    model: type[Model],
    names: Sequence[str],
    rows: Sequence[Sequence[Any]],
    *,
    keys: Mapping[str, Key] | None = None,
    keep_standing: bool = False,
) -> None:
    """INSERT plain values: `bulk_create` spends nine tenths of an import on model instances.

    Args:
        rows: for each, the values that look up the foreign keys of `keys`, then those of `names`.
        keys: field → the row that it refers to.
        keep_standing: skip a row that a unique constraint forbids.
    """
    if not rows:
        return
    keys = keys or {}
    columns = ", ".join(_column(model, name) for name in (*keys, *names))
    insert = f"INSERT INTO {_table(model)} ({columns})"
    conflict = " ON CONFLICT DO NOTHING" if keep_standing else ""
    of_rows = [(key.model, name) for key in keys.values() for name in key.names]
    of_rows += [(model, name) for name in names]
    with connection.cursor() as cursor:
        if connection.vendor != "postgresql":
            # The statement is the same for every batch: the driver keeps a hundred different ones,
            # and those that list a batch's identifiers fill its memory.
            values = ", ".join(_values(keys, ["%s"] * len(of_rows)))
            cursor.executemany(f"{insert} VALUES ({values}){conflict}", rows)
            return
        # One statement a batch, with an array for each column: over a connection, a statement for
        # each row takes many times as long.
        arrays = ", ".join(f"%s::{_db_type(*each)}[]" for each in of_rows)
        given = [f"given.c{number}" for number in range(len(of_rows))]
        named = ", ".join(f"c{number}" for number in range(len(of_rows)))
        values = ", ".join(_values(keys, given))
        cursor.execute(
            f"{insert} SELECT {values} FROM unnest({arrays}) AS given ({named}){conflict}",
            [_array(column) for column in zip(*rows, strict=True)],
        )


def commit_soon() -> None:
    """Do not let this transaction's commit wait for PostgreSQL's disk; the next other one does.

    For rows that count only once a later transaction says so.
    """
    if connection.vendor == "postgresql":
        with connection.cursor() as cursor:
            cursor.execute("SET LOCAL synchronous_commit TO OFF")


def _array(values: Sequence[Any]) -> str:
    """PostgreSQL's text of an array: the driver takes several times as long to write one."""
    elements = {value: _element(value) for value in set(values)}  # most columns repeat a few
    return f"{{{','.join([elements[value] for value in values])}}}"


def _element(value: Any) -> str:
    if value is None:
        return "NULL"
    text = str(value).replace("\\", "\\\\").replace('"', '\\"')
    return f'"{text}"'


def _values(keys: Mapping[str, Key], given: Sequence[str]) -> Iterator[str]:
    """SQL for each column: the keys looked up, the other values as they are."""
    remaining = iter(given)
    for key in keys.values():
        yield key.select(islice(remaining, len(key.names)))
    yield from remaining


def _table(model: type[Model]) -> str:
    return connection.ops.quote_name(model._meta.db_table)


def _column(model: type[Model], name: str) -> str:
    return connection.ops.quote_name(str(_field(model, name).column))


def _db_type(model: type[Model], name: str) -> str:
    return str(_field(model, name).db_type(connection))


def _field(model: type[Model], name: str) -> "Field[Any, Any]":
    return cast("Field[Any, Any]", model._meta.get_field(name))
