"""What a login opens, sessions and tokens, and ending all of it at once."""

from django.contrib.sessions.models import Session
from django.db import transaction
from django.db.models import F
from django.utils import timezone
from rest_framework_simplejwt.token_blacklist.models import BlacklistedToken, OutstandingToken

from envoys.models import User


def end_tokens(user: User) -> None:
    """Refuse every refresh token that was given to this person."""
    standing = OutstandingToken.objects.filter(user=user, blacklistedtoken__isnull=True)
    BlacklistedToken.objects.bulk_create(
        (BlacklistedToken(token=token) for token in standing), ignore_conflicts=True
    )


@transaction.atomic
def end_logins(user: User) -> None:
    """End every session and every token that a login opened, access tokens too, from this moment."""
    User.objects.filter(pk=user.pk).update(login_epoch=F("login_epoch") + 1)
    user.refresh_from_db(fields=["login_epoch"])
    end_tokens(user)


def forget_ended_logins() -> None:
    """Rows of sessions and refresh tokens that have run out."""
    now = timezone.now()
    Session.objects.filter(expire_date__lt=now).delete()
    OutstandingToken.objects.filter(expires_at__lte=now).delete()
