"""What is kept of a person's calls and pages for a while, and may tell of patients: to be forgotten."""

from datetime import timedelta

from django.contrib.auth import SESSION_KEY
from django.contrib.sessions.models import Session
from django.db.models import Q
from django.utils import timezone

from envoys.models import Envoy, IdempotentCall, User

KEY_LIVES = timedelta(hours=24)  # of a call that may be sent again


def forget_old_answers() -> int:
    """Delete the answers that no call gets any more; returns how many."""
    old = IdempotentCall.objects.filter(created_at__lt=timezone.now() - KEY_LIVES)
    return old.delete()[0]


def forget_answers_of(envoy: Envoy) -> int:
    """Delete whatever was answered about a hospital, also to people who have left it."""
    of_hospital = IdempotentCall.objects.filter(Q(envoy=envoy) | Q(user__envoy=envoy))
    return of_hospital.delete()[0]


def forget_what_was_shown(user: User) -> None:
    """Delete what a person was answered and has searched for: they are somebody else from now on.

    Their sessions are emptied rather than removed: a request under way saves its own in peace.
    """
    IdempotentCall.objects.filter(user=user).delete()
    for session in Session.objects.filter(expire_date__gt=timezone.now()).iterator():
        if session.get_decoded().get(SESSION_KEY) == str(user.pk):
            emptied = Session.objects.encode({})
            Session.objects.filter(pk=session.pk).update(session_data=emptied)
