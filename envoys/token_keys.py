"""The tokens of a login are signed with SECRET_KEY; what a key before it has signed is still taken."""

from typing import Any

from django.conf import settings
from rest_framework_simplejwt.backends import TokenBackend
from rest_framework_simplejwt.exceptions import TokenBackendError


class KeyedTokenBackend(TokenBackend):
    """Signs with the key in use, and reads with each key that there is."""

    def encode(self, payload: dict[str, Any]) -> str:
        return TokenBackend(self.algorithm, settings.SECRET_KEY).encode(payload)

    def decode(self, token: Any, verify: bool = True) -> dict[str, Any]:
        keys = [settings.SECRET_KEY, *settings.SECRET_KEY_FALLBACKS]
        for key in keys[:-1]:
            try:
                return TokenBackend(self.algorithm, key).decode(token, verify)
            except TokenBackendError:
                continue
        return TokenBackend(self.algorithm, keys[-1]).decode(token, verify)


def use_every_key() -> None:
    """The package has a setting for one key only, and takes its backend from this name."""
    from rest_framework_simplejwt import state

    state.token_backend = KeyedTokenBackend(state.token_backend.algorithm)
