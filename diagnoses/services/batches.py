"""Rows in batches: so many at a time that a transaction stays short."""

from collections.abc import Iterable, Iterator, Mapping, Sequence
from itertools import islice
from typing import Any, TypeVar, cast

from django.db import connection
from django.db.models import Field, Model

BATCH_ROWS = 2_000  # one transaction: short enough for others to get their turn

Item = TypeVar("Item")


def batched(items: Iterable[Item], size: int) -> Iterator[list[Item]]:
    remaining = iter(items)
    while batch := list(islice(remaining, size)):
        yield batch


def insert_rows(
    model: type[Model],
    names: Sequence[str],
    rows: Sequence[Sequence[Any]],
    *,
    keys: Mapping[str, str] | None = None,
    keep_standing: bool = False,
) -> None:
    """INSERT plain values: `bulk_create` spends nine tenths of an import on model instances.

    The statement is the same for every batch: the driver keeps a hundred different ones, and
    those that list a batch's identifiers fill its memory.

    Args:
        rows: for each, the values that look up the foreign keys of `keys`, then those of `names`.
        keys: field → `key_where` of the row that it refers to.
        keep_standing: skip a row that a unique constraint forbids.
    """
    values = {**(keys or {}), **dict.fromkeys(names, "%s")}
    columns = ", ".join(_column(model, name) for name in values)
    insert = f"INSERT INTO {_table(model)} ({columns}) VALUES ({', '.join(values.values())})"
    with connection.cursor() as cursor:
        cursor.executemany(insert + (" ON CONFLICT DO NOTHING" if keep_standing else ""), rows)


def key_where(model: type[Model], *names: str) -> str:
    """SQL for the primary key of the row with these values; where there is none, NULL."""
    conditions = " AND ".join(f"{_column(model, name)} = %s" for name in names)
    return f"(SELECT {_column(model, 'id')} FROM {_table(model)} WHERE {conditions})"


def _table(model: type[Model]) -> str:
    return connection.ops.quote_name(model._meta.db_table)


def _column(model: type[Model], name: str) -> str:
    field = cast("Field[Any, Any]", model._meta.get_field(name))
    return connection.ops.quote_name(str(field.column))
