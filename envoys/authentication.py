"""Who calls: by a program's access token, or by the token that a login opened."""

from typing import Any

from rest_framework import exceptions
from rest_framework.authentication import BaseAuthentication
from rest_framework.request import Request
from rest_framework_simplejwt.authentication import JWTAuthentication

from envoys import two_step
from envoys.errors import LoginRefusedError
from envoys.models import ServiceToken, User
from envoys.service_tokens import PREFIX, token_of_key

REALM = 'Bearer realm="api"'


class CodeNeeded(exceptions.AuthenticationFailed):
    default_code = "otp_required"


class ServiceTokenAuthentication(BaseAuthentication):
    def authenticate(self, request: Request) -> tuple[User, ServiceToken] | None:
        scheme, _, key = request.headers.get("Authorization", "").partition(" ")
        if scheme != "Bearer" or not key.startswith(PREFIX):
            return None
        try:
            token = token_of_key(key)
        except LoginRefusedError as error:
            raise exceptions.AuthenticationFailed(str(error)) from error
        return token.user, token

    def authenticate_header(self, request: Request) -> str:
        return REALM


class LoginTokenAuthentication(JWTAuthentication):
    """An access token ends with the logins it belongs to, and carries whether there were two steps."""

    def get_user(self, validated_token: Any) -> Any:
        user: Any = super().get_user(validated_token)
        if validated_token.get("epoch", 0) != user.login_epoch:
            raise exceptions.AuthenticationFailed("This login has been ended: log in again")
        if two_step.is_required(user) and not validated_token.get("two_step"):
            raise CodeNeeded("This account logs in by two steps: log in again, with `otp`")
        return user
