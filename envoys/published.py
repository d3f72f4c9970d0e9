"""The published paths about accounts and envoys: a contract with existing clients."""

from drf_spectacular.utils import extend_schema
from rest_framework.request import Request
from rest_framework.response import Response

from envoys import account_services, serializers, services
from envoys.api import OpenCall, account_refused, login_refused
from envoys.models import Envoy
from envoys.rest import Call, UserRequest, starts_work, valid


class LoginView(OpenCall):
    @extend_schema(
        request=serializers.CredentialsSerializer, responses=serializers.PublishedTokensSerializer
    )
    def post(self, request: Request) -> Response:
        """Log in: `token` is the access token, to send as `Authorization: Bearer …`.

        An account with two-step login sends its app's code as `otp`; without it the answer is a 401
        of type `otp_required`.
        """
        with login_refused():
            tokens = account_services.open_tokens(
                request=request._request, **valid(serializers.CredentialsSerializer, request)
            )
        return Response(serializers.PublishedTokensSerializer(tokens).data)


class RegisterView(OpenCall):
    @extend_schema(request=serializers.AccountSerializer, responses=serializers.MessageSerializer)
    def post(self, request: Request) -> Response:
        """Ask for an account; an administrator activates it."""
        with account_refused():
            account_services.register_account(**valid(serializers.AccountSerializer, request))
        return Response(
            {"message": "Registered: an administrator activates the account, then one can log in."}
        )


class EnvoyListView(Call):
    @extend_schema(responses=serializers.PublishedEnvoySerializer(many=True))
    def get(self, request: UserRequest) -> Response:
        """Every envoy; a doctor sees their own."""
        envoys = Envoy.objects.standing().visible_to(request.user).order_by("pk")
        return Response(serializers.PublishedEnvoySerializer(envoys, many=True).data)


class EnvoyCreateView(Call):
    @starts_work
    @extend_schema(
        request=serializers.PublishedEnvoyCreateSerializer,
        responses=serializers.PublishedEnvoyCreatedSerializer,
    )
    def post(self, request: UserRequest) -> Response:
        """Invite an envoy."""
        data = valid(serializers.PublishedEnvoyCreateSerializer, request)
        envoy = services.create_envoy(
            name=data["name"],
            bucket=data["s3_bucket"] or "",
            prefix=data["s3_prefix"] or "",
            region=data["region"],
            created_by=request.user,
        )
        return Response(
            {
                "message": f"{envoy} is invited.",
                "id": envoy.pk,
                "serial_id": envoy.serial_id,
            }
        )
