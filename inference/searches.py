"""What a doctor searches for: kept in the session, encrypted, since it may be a name."""

from django.contrib.auth import SESSION_KEY
from django.contrib.sessions.models import Session
from django.utils import timezone

from envoys.models import Envoy

SEARCH = "patient-search"


def forget_searches(envoy: Envoy) -> int:
    """Take what they searched for out of the sessions of a hospital's people; returns how many."""
    people = {str(pk) for pk in envoy.users.values_list("pk", flat=True)}
    num_forgotten = 0
    for session in Session.objects.filter(expire_date__gt=timezone.now()).iterator():
        kept = session.get_decoded()
        if SEARCH not in kept or kept.get(SESSION_KEY) not in people:
            continue
        del kept[SEARCH]
        # Whoever has saved the session since has gone on searching: that is theirs.
        unchanged = Session.objects.filter(pk=session.pk, session_data=session.session_data)
        num_forgotten += unchanged.update(session_data=Session.objects.encode(kept))
    return num_forgotten
