"""Names and phones are stored encrypted; an exact name is found by a keyed hash.

The first of several keys is in use, the others are only read with: `techlife.key_rotation` takes
what they have made to the first.
"""

import base64
import hashlib
import hmac
import unicodedata
from functools import cache
from typing import Any

from cryptography.fernet import Fernet, InvalidToken, MultiFernet
from django.conf import settings
from django.db import models


@cache
def _fernet(keys: tuple[str, ...]) -> MultiFernet:
    return MultiFernet(
        [Fernet(base64.urlsafe_b64encode(hashlib.sha256(key.encode()).digest())) for key in keys]
    )


def encrypt(text: str) -> str:
    return _fernet(tuple(settings.FIELD_KEYS)).encrypt(text.encode()).decode()


def decrypt(token: str) -> str:
    """Raises `cryptography.fernet.InvalidToken` where no configured key fits."""
    return _fernet(tuple(settings.FIELD_KEYS)).decrypt(token.encode()).decode()


def is_of_first_key(token: str) -> bool:
    try:
        _fernet((settings.FIELD_KEYS[0],)).decrypt(token.encode())
    except InvalidToken:
        return False
    return True


def name_index(name: str) -> str:
    """The keyed hash under which exactly this name is kept, whatever its case and spacing."""
    return _name_index(name, settings.NAME_INDEX_KEYS[0])


def name_indexes(name: str) -> list[str]:
    """All hashes under which it may be kept while a key is being replaced."""
    return [_name_index(name, key) for key in settings.NAME_INDEX_KEYS]


def _name_index(name: str, key: str) -> str:
    folded = " ".join(unicodedata.normalize("NFKC", name).casefold().split())
    return hmac.new(key.encode(), folded.encode(), hashlib.sha256).hexdigest()


class EncryptedTextField(models.TextField):
    """Text in Python, a Fernet token in the database; empty stays empty."""

    def from_db_value(self, value: str | None, *args: Any) -> str | None:
        return decrypt(value) if value else value

    def get_prep_value(self, value: Any) -> Any:
        value = super().get_prep_value(value)
        return encrypt(value) if value else value
