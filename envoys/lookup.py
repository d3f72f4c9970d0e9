"""Rows by what a person calls them; where there is no such row, the error says which there are."""

from envoys.models import Envoy, User
from federated.errors import FederatedError


class UnknownNameError(FederatedError):
    """Nothing is called that."""


def envoy_named(text: str) -> Envoy:
    """An envoy by name, slug or id, in this order."""
    fields = ["name", "slug", *(["pk"] if text.isascii() and text.isdigit() else [])]
    for field in fields:
        if envoy := Envoy.objects.filter(**{field: text}).first():
            return envoy
    known = ", ".join(Envoy.objects.values_list("name", flat=True)) or "none yet"
    raise UnknownNameError(f"There is no envoy {text!r}. There are: {known}.")


def user_named(username: str) -> User:
    """A user who can log in, by username."""
    active = User.objects.filter(is_active=True)
    if user := active.filter(username=username).first():
        return user
    names = active.order_by("username").values_list("username", flat=True)
    raise UnknownNameError(
        f"There is no active user {username!r}. There are: {', '.join(names) or 'none yet'}."
    )
