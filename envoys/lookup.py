"""Rows by what a person calls them; where there is no such row, the error says which there are."""

from django.http import Http404

from envoys.models import Envoy, EnvoyQuerySet, User
from federated.errors import FederatedError


class UnknownNameError(FederatedError):
    """Nothing is called that."""


def envoy_named(text: str) -> Envoy:
    """An envoy by name, slug or id, in this order."""
    if envoy := find_envoy(text, Envoy.objects.standing()):
        return envoy
    known = ", ".join(Envoy.objects.standing().values_list("name", flat=True)) or "none yet"
    raise UnknownNameError(f"There is no envoy {text!r}. There are: {known}.")


def find_envoy(text: str, envoys: EnvoyQuerySet) -> Envoy | None:
    """Of these envoys the one of this name, slug or id, in this order."""
    fields = ["name", "slug", *(["pk"] if text.isascii() and text.isdigit() else [])]
    for field in fields:
        if envoy := envoys.filter(**{field: text}).first():
            return envoy
    return None


def visible_envoy(user: User, named: int | str) -> Envoy:
    """The envoy that a path names, if this person may see it: a stranger's is a 404.

    Args:
        named: its id as a number, or a text as `find_envoy` takes it.
    """
    envoys = Envoy.objects.standing().visible_to(user)
    is_id = isinstance(named, int)
    envoy = envoys.filter(pk=named).first() if is_id else find_envoy(str(named), envoys)
    if envoy is None:
        raise Http404
    return envoy


def hospital_of(user: User) -> Envoy:
    """A doctor's own: without one the access list lets nobody through."""
    assert user.envoy is not None
    return user.envoy


def user_named(username: str) -> User:
    """A user who can log in, by username."""
    active = User.objects.filter(is_active=True)
    if user := active.filter(username=username).first():
        return user
    names = active.order_by("username").values_list("username", flat=True)
    raise UnknownNameError(
        f"There is no active user {username!r}. There are: {', '.join(names) or 'none yet'}."
    )
