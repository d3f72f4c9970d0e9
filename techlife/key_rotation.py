"""Taking what older keys have encrypted or hashed to the keys in use, beside a site that runs.

Every model is looked through for encrypted fields, so that a new one needs no word here. A value is
changed only while it is what was read: what somebody saves meanwhile stays. Done again from
anywhere, it goes on with what is left.
"""

from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from typing import Any

from cryptography.fernet import InvalidToken
from django.apps import apps
from django.db import transaction
from django.db.models import ExpressionWrapper, F, Model, TextField

from diagnoses.models import Patient
from envoys.encryption import EncryptedTextField, decrypt, is_of_first_key, name_index

BATCH_ROWS = 500  # read at once, and written in one transaction


@dataclass
class Found:
    """What a pass over every encrypted value has found, and done.

    Attributes:
        num_values: values that are not empty.
        num_older: of them those under an older key, or whose name has the hash of one.
        num_changed: of those, the ones that are under the key in use now.
        num_unreadable: values that no key opens.
    """

    num_values: int = 0
    num_older: int = 0
    num_changed: int = 0
    num_unreadable: int = 0

    @property
    def num_left(self) -> int:
        return self.num_older - self.num_changed


@dataclass
class _Change:
    """A row's new values, and the tokens that it must still have."""

    pk: Any
    values: dict[str, str] = field(default_factory=dict)
    tokens: dict[str, str] = field(default_factory=dict)


def num_rows() -> int:
    return sum(model._base_manager.count() for model, _ in encrypted_fields())


def encrypted_fields() -> Iterator[tuple[type[Model], list[str]]]:
    for model in apps.get_models():
        names = [each.name for each in model._meta.fields if isinstance(each, EncryptedTextField)]
        if names:
            yield model, names


def look_through(
    *, is_changing: bool, on_batch: Callable[[int], object] = lambda num_rows: None
) -> Found:
    """Count what is under older keys, and if asked to take it to the keys in use.

    Args:
        on_batch: told the number of rows after each batch.
    """
    found = Found()
    for model, names in encrypted_fields():
        raw = {_raw(name): ExpressionWrapper(F(name), output_field=TextField()) for name in names}
        index = ["name_index"] if model is Patient else []
        rows = model._base_manager.annotate(**raw).order_by("pk")
        last: dict[str, Any] = {}
        while batch := list(rows.filter(**last).values("pk", *raw, *index)[:BATCH_ROWS]):
            changes = [change for row in batch if (change := _change_of(row, names, found)).values]
            if is_changing and changes:
                with transaction.atomic():
                    for change in changes:
                        held = rows.filter(pk=change.pk, **change.tokens).order_by()
                        if held.update(**change.values):
                            found.num_changed += len(change.tokens)
            last = {"pk__gt": batch[-1]["pk"]}
            on_batch(len(batch))
    return found


def _raw(name: str) -> str:
    return f"token_of_{name}"


def _change_of(row: dict[str, Any], names: list[str], found: Found) -> _Change:
    change = _Change(row["pk"])
    for name in names:
        token = row[_raw(name)]
        if not token:
            continue
        found.num_values += 1
        has_index = name == "name" and "name_index" in row
        is_newest = is_of_first_key(token)
        if is_newest and not has_index:
            continue
        try:
            text = decrypt(token)
        except InvalidToken:
            found.num_unreadable += 1
            continue
        if has_index and row["name_index"] != name_index(text):
            change.values["name_index"] = name_index(text)
        elif is_newest:
            continue
        if not is_newest:
            change.values[name] = text
        change.tokens[_raw(name)] = token
        found.num_older += 1
    return change
