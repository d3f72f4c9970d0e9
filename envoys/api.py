"""Calls about oneself, and about the work that is done in the background."""

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from django.http import Http404
from django.shortcuts import get_object_or_404
from drf_spectacular.utils import OpenApiParameter, extend_schema
from rest_framework import exceptions, status
from rest_framework.decorators import action
from rest_framework.mixins import ListModelMixin
from rest_framework.request import Request
from rest_framework.response import Response
from rest_framework.viewsets import GenericViewSet

from envoys import account_services, serializers, service_tokens, work
from envoys.authentication import CodeNeeded
from envoys.errors import AccountRefusedError, CodeNeededError, LoginRefusedError
from envoys.models import ServiceToken, User, WorkerSign
from envoys.rest import Call, UserRequest, VisibleRows, starts_work, valid
from envoys.work_list import EndedWork, Work, active_work, failed_work

TASK_ID = OpenApiParameter(
    "id", str, OpenApiParameter.PATH, description="kind and number, as distribution-12"
)


class OpenCall(Call):
    """A call without a login; a token that is sent along, perhaps an old one, is not looked at."""

    authentication_classes = ()

    def get_authenticate_header(self, request: Request) -> str:
        return 'Bearer realm="api"'


@contextmanager
def login_refused() -> Iterator[None]:
    """What a service refuses to a stranger answers 401."""
    try:
        yield
    except CodeNeededError as error:
        raise CodeNeeded(str(error)) from error
    except LoginRefusedError as error:
        raise exceptions.AuthenticationFailed(str(error)) from error


@contextmanager
def account_refused() -> Iterator[None]:
    """What is wrong with an account is told field by field."""
    try:
        yield
    except AccountRefusedError as error:
        raise exceptions.ValidationError(error.problems) from error


class TokenView(OpenCall):
    @extend_schema(
        request=serializers.CredentialsSerializer, responses=serializers.TokensSerializer
    )
    def post(self, request: Request) -> Response:
        """Log in: two tokens for a name and a password.

        An account with two-step login sends its app's code as `otp`; without it the answer is a 401
        of type `otp_required`.
        """
        with login_refused():
            tokens = account_services.open_tokens(
                request=request._request, **valid(serializers.CredentialsSerializer, request)
            )
        return Response(serializers.TokensSerializer(tokens).data)


class TokenRefreshView(OpenCall):
    @extend_schema(request=serializers.RefreshSerializer, responses=serializers.TokensSerializer)
    def post(self, request: Request) -> Response:
        """Two new tokens for a refresh token, which serves once."""
        data = valid(serializers.RefreshSerializer, request)
        with login_refused():
            tokens = account_services.refresh_tokens(data["refresh"])
        return Response(serializers.TokensSerializer(tokens).data)


class TokenRevokeView(OpenCall):
    @extend_schema(request=serializers.RefreshSerializer, responses={204: None})
    def post(self, request: Request) -> Response:
        """Log out: the refresh token serves no more, the access token ends within minutes."""
        data = valid(serializers.RefreshSerializer, request)
        with login_refused():
            account_services.revoke_token(data["refresh"])
        return Response(status=status.HTTP_204_NO_CONTENT)


class AccountRegisterView(OpenCall):
    @extend_schema(
        request=serializers.AccountSerializer, responses={201: serializers.MessageSerializer}
    )
    def post(self, request: Request) -> Response:
        """Ask for an account; an administrator activates it."""
        with account_refused():
            account_services.register_account(**valid(serializers.AccountSerializer, request))
        return Response(
            {"message": "An administrator activates the account, and says which hospital."},
            status=status.HTTP_201_CREATED,
        )


class UnkeptCall(Call):
    """A call whose answer, or whose body's hash, is not kept for an `Idempotency-Key`.

    Nor is it one transaction: a wrong password has to stay counted.
    """

    def initial(self, request: Request, *args: Any, **kwargs: Any) -> None:
        super(Call, self).initial(request, *args, **kwargs)


class PasswordChangeView(UnkeptCall):
    @extend_schema(request=serializers.NewPasswordSerializer, responses={204: None})
    def post(self, request: UserRequest) -> Response:
        """Take a new password; every session and token ends, this one and programs' too."""
        data = valid(serializers.NewPasswordSerializer, request)
        with account_refused():
            account_services.change_password(request._request, request.user, **data)
        return Response(status=status.HTTP_204_NO_CONTENT)


class LoginsEndView(Call):
    @extend_schema(request=serializers.LoginsEndSerializer, responses={204: None})
    def post(self, request: UserRequest) -> Response:
        """End every session and every token of one's logins, this one's too."""
        data = valid(serializers.LoginsEndSerializer, request)
        account_services.end_own_logins(request.user, access_tokens=data["access_tokens"])
        return Response(status=status.HTTP_204_NO_CONTENT)


class AccessTokenViewSet(VisibleRows, UnkeptCall, ListModelMixin, GenericViewSet[ServiceToken]):
    """Access tokens of programs: one's own, and for an administrator all.

    A key is in the answer that makes one.
    """

    queryset = ServiceToken.objects.select_related("user", "created_by")
    serializer_class = serializers.AccessTokenSerializer

    @extend_schema(
        request=serializers.NewAccessTokenSerializer,
        responses={201: serializers.MadeAccessTokenSerializer},
    )
    def create(self, request: UserRequest) -> Response:
        """Make a token for a program. Its key is in this answer, and nowhere else."""
        data = valid(serializers.NewAccessTokenSerializer, request)
        account = data.pop("account", None)
        user = request.user if account is None else _account(request.user, account)
        with account_refused():
            token, key = service_tokens.ask_for_token(
                request._request, user=user, made_by=request.user, **data
            )
        answer = {**serializers.AccessTokenSerializer(token).data, "key": key}
        return Response(answer, status=status.HTTP_201_CREATED)

    def retrieve(self, request: UserRequest, pk: str) -> Response:
        return Response(self.get_serializer(self.get_object()).data)

    @extend_schema(request=None, responses=serializers.AccessTokenSerializer)
    @action(detail=True, methods=["post"])
    def revoke(self, request: UserRequest, pk: str) -> Response:
        """End a token at once; what uses it is refused from now on."""
        token = self.get_object()
        service_tokens.revoke_token(token, revoked_by=request.user)
        return Response(self.get_serializer(token).data)


def _account(user: User, username: str) -> User:
    found = service_tokens.accounts_for(user).filter(username=username).first()
    if found is None:
        known = "Choose your own account or a service account."
        raise exceptions.ValidationError({"account": [known]})
    return found


class MeView(Call):
    @extend_schema(responses=serializers.MeSerializer)
    def get(self, request: UserRequest) -> Response:
        """Who one is, and what one may do."""
        return Response(serializers.MeSerializer(request.user).data)


class TaskViewSet(Call, GenericViewSet[Any]):
    """Work in the background: what runs, waits, has failed or ended."""

    queryset = WorkerSign.objects.none()  # of many tables: the API's description asks for one
    serializer_class = serializers.TaskSerializer

    @extend_schema(parameters=[serializers.TaskQuerySerializer])
    def list(self, request: UserRequest) -> Response:
        query = serializers.TaskQuerySerializer(data=request.query_params)
        query.is_valid(raise_exception=True)
        rows = _work(query.validated_data.get("state"), query.validated_data.get("kind"))
        page = self.paginate_queryset(rows)
        return self.get_paginated_response(self.get_serializer(page, many=True).data)

    @extend_schema(parameters=[TASK_ID])
    def retrieve(self, request: UserRequest, pk: str) -> Response:
        return Response(self.get_serializer(_work_named(pk)).data)

    @starts_work
    @extend_schema(parameters=[TASK_ID], request=None, responses={202: serializers.TaskSerializer})
    @action(detail=True, methods=["post"])
    def retry(self, request: UserRequest, pk: str) -> Response:
        """Do again what has failed, counted from the first attempt."""
        found = _work_named(pk)
        work.retry(found.row, retried_by=request.user)
        return Response(self.get_serializer(found).data, status=status.HTTP_202_ACCEPTED)


def _work(state: str | None, kind: str | None) -> Any:
    chosen = [each for each in work.kinds() if kind in (None, each.name)]
    if state == "ended":
        return EndedWork(chosen)
    running, waiting = active_work()
    lists = {"running": running, "waiting": waiting, "failed": failed_work()}
    rows = lists[state] if state else [*running, *waiting, *lists["failed"]]
    return [each for each in rows if each.kind in chosen]


def _work_named(text: str) -> Work:
    name, _, pk = text.partition("-")
    for kind in work.kinds():
        if kind.name == name and pk.isdecimal():
            rows = kind.model.objects.select_related(kind.about)
            return Work(kind, get_object_or_404(rows, pk=pk))
    raise Http404


class WorkerViewSet(Call, ListModelMixin, GenericViewSet[WorkerSign]):
    """The workers that were heard of; one that has ended stays with the time of its last sign."""

    queryset = WorkerSign.objects.all()
    serializer_class = serializers.WorkerSerializer
