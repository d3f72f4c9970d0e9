"""What calls about accounts, envoys and tasks take and answer."""

from typing import Any

from django.urls import reverse
from rest_framework import serializers

from envoys.account_services import ROLES_TO_ASK_FOR, may_do
from envoys.models import Envoy, ServiceToken, User, WorkerSign
from envoys.rest import UrlField
from envoys.service_tokens import DEFAULT_DAYS, MAX_DAYS
from envoys.storage import bucket_of
from envoys.work_list import Work
from federated.errors import InvalidValueError
from federated.plain_text import check_plain

ROLE_CHOICES = [(role.value, role.label) for role in ROLES_TO_ASK_FOR]


class EnvoyNameSerializer(serializers.ModelSerializer[Envoy]):
    class Meta:
        model = Envoy
        fields = ["id", "name"]


class EnvoySerializer(serializers.ModelSerializer[Envoy]):
    class Meta:
        model = Envoy
        fields = [
            "id",
            "name",
            "slug",
            "serial_id",
            "kind",
            "placement",
            "bucket",
            "prefix",
            "region",
            "queue",
            "status",
            "last_seen_at",
            "created_at",
        ]
        read_only_fields = fields


class EnvoyChangeSerializer(serializers.Serializer[Any]):
    """What one decides about an envoy; what is left out keeps its value or default."""

    name = serializers.CharField(max_length=200)
    bucket = serializers.CharField(
        max_length=63, required=False, allow_blank=True, help_text="empty: the default bucket"
    )
    prefix = serializers.CharField(
        max_length=200, required=False, allow_blank=True, help_text="empty: envoys/<slug>"
    )
    region = serializers.CharField(max_length=40, required=False, help_text="as eu-north-1")
    queue = serializers.CharField(
        max_length=80, required=False, allow_blank=True, help_text="empty: the shared queue"
    )

    def validate_name(self, name: str) -> str:
        try:
            return check_plain(name, "the name")
        except InvalidValueError as error:
            raise serializers.ValidationError(str(error)) from None


class EnvoyCreateSerializer(EnvoyChangeSerializer):
    kind = serializers.ChoiceField(
        choices=Envoy.Kind.choices,
        required=False,
        help_text="what its rows are; without it a hospital. It cannot be changed later",
    )


class EnvoyDeletionSerializer(serializers.Serializer[Any]):
    name = serializers.CharField(help_text="the envoy's name, to confirm what cannot be undone")


class PublishedEnvoySerializer(serializers.ModelSerializer[Envoy]):
    s3_bucket = serializers.SerializerMethodField()
    s3_prefix = serializers.CharField(source="storage_prefix")
    s3_output_prefix = serializers.SerializerMethodField(help_text="where its own models lie")

    class Meta:
        model = Envoy
        fields = [
            "id",
            "name",
            "serial_id",
            "region",
            "s3_bucket",
            "s3_prefix",
            "s3_output_prefix",
        ]

    def get_s3_bucket(self, envoy: Envoy) -> str:
        return bucket_of(envoy)

    def get_s3_output_prefix(self, envoy: Envoy) -> str:
        return f"{envoy.storage_prefix}/trained_model"


class PublishedEnvoyCreateSerializer(serializers.Serializer[Any]):
    name = serializers.CharField(max_length=200)
    s3_bucket = serializers.CharField(
        max_length=63,
        required=False,
        allow_blank=True,
        allow_null=True,
        default="",
        help_text="empty or null: the default bucket",
    )
    s3_prefix = serializers.CharField(
        max_length=200,
        required=False,
        allow_blank=True,
        allow_null=True,
        default="",
        help_text="empty or null: envoys/<slug>",
    )
    region = serializers.CharField(max_length=40, required=False, default="eu-north-1")


class PublishedEnvoyCreatedSerializer(serializers.Serializer[Any]):
    message = serializers.CharField()
    id = serializers.IntegerField()
    serial_id = serializers.CharField()


class PublishedTokensSerializer(serializers.Serializer[Any]):
    token = serializers.CharField(source="access")
    refresh = serializers.CharField()
    role = serializers.ChoiceField(choices=User.Role.choices, source="user.role")


class MessageSerializer(serializers.Serializer[Any]):
    message = serializers.CharField()


class CredentialsSerializer(serializers.Serializer[Any]):
    username = serializers.CharField(max_length=150)
    password = serializers.CharField(max_length=128, trim_whitespace=False)
    otp = serializers.CharField(
        max_length=32,
        required=False,
        allow_blank=True,
        default="",
        help_text="the code of the second step, or a recovery code, where an account has one",
    )


class LoginsEndSerializer(serializers.Serializer[Any]):
    access_tokens = serializers.BooleanField(
        default=False, help_text="whether one's programs' access tokens are revoked as well"
    )


class AccessTokenSerializer(serializers.ModelSerializer[ServiceToken]):
    url = UrlField("api:access-token-detail")
    account = serializers.CharField(source="user.username", help_text="who the program acts as")
    made_by = serializers.CharField(source="created_by.username")
    is_standing = serializers.BooleanField(help_text="neither revoked nor expired")
    is_ending_soon = serializers.BooleanField(help_text="ends within 14 days: make a new one")

    class Meta:
        model = ServiceToken
        fields = [
            "id",
            "url",
            "name",
            "account",
            "key_start",
            "actions",
            "made_by",
            "created_at",
            "expires_at",
            "last_used_at",
            "revoked_at",
            "is_standing",
            "is_ending_soon",
        ]


class MadeAccessTokenSerializer(AccessTokenSerializer):
    key = serializers.CharField(help_text="to send as `Authorization: Bearer …`; shown this once")

    class Meta(AccessTokenSerializer.Meta):
        fields = [*AccessTokenSerializer.Meta.fields, "key"]


class NewAccessTokenSerializer(serializers.Serializer[Any]):
    name = serializers.CharField(max_length=80, help_text="what it is for")
    account = serializers.CharField(
        max_length=150,
        required=False,
        help_text="username of a service account, for administrators; without it one's own",
    )
    actions = serializers.ListField(
        child=serializers.CharField(max_length=80),
        help_text="what the program may do, as `GET /api/v1/me` names it",
    )
    days = serializers.IntegerField(
        default=DEFAULT_DAYS, min_value=1, max_value=MAX_DAYS, help_text="until it ends"
    )
    password = serializers.CharField(
        max_length=128,
        trim_whitespace=False,
        write_only=True,
        help_text="one's own, once more: a token lasts longer than a login",
    )
    otp = serializers.CharField(
        max_length=32,
        required=False,
        allow_blank=True,
        default="",
        write_only=True,
        help_text="the code of the second step, or a recovery code, where one's account has one",
    )


class TokensSerializer(serializers.Serializer[Any]):
    access = serializers.CharField(help_text="to send as `Authorization: Bearer …`; 15 minutes")
    refresh = serializers.CharField(help_text="for the next two tokens, once; 7 days")
    role = serializers.ChoiceField(choices=User.Role.choices, source="user.role")


class RefreshSerializer(serializers.Serializer[Any]):
    refresh = serializers.CharField()


class AccountSerializer(serializers.Serializer[Any]):
    username = serializers.CharField(max_length=150)
    password = serializers.CharField(max_length=128, trim_whitespace=False, write_only=True)
    email = serializers.EmailField()
    phone = serializers.CharField(max_length=32, required=False, allow_blank=True, default="")
    role = serializers.ChoiceField(choices=ROLE_CHOICES)


class NewPasswordSerializer(serializers.Serializer[Any]):
    old_password = serializers.CharField(max_length=128, trim_whitespace=False)
    new_password = serializers.CharField(max_length=128, trim_whitespace=False)


class MeSerializer(serializers.ModelSerializer[User]):
    envoy = EnvoyNameSerializer(allow_null=True)
    may = serializers.SerializerMethodField(help_text="what one may do, in words")

    class Meta:
        model = User
        fields = ["id", "username", "email", "phone", "role", "envoy", "may"]

    def get_may(self, user: User) -> list[str]:
        return may_do(user)


class WorkerSerializer(serializers.ModelSerializer[WorkerSign]):
    class Meta:
        model = WorkerSign
        fields = ["id", "hostname", "queues", "num_processes", "started_at", "seen_at"]


class TaskSerializer(serializers.Serializer[Any]):
    """A piece of work in the background; `id` is its kind and number, as distribution-12."""

    id = serializers.SerializerMethodField()
    url = serializers.SerializerMethodField()
    kind = serializers.CharField(source="kind.name")
    title = serializers.CharField(source="kind.title")
    about = serializers.CharField(help_text="what it is done for, as a hospital's name")
    status = serializers.CharField(source="row.status")
    is_active = serializers.BooleanField(source="row.is_active", help_text="waits or runs")
    is_silent = serializers.BooleanField(
        help_text="its worker has not been heard of: it is handed out again"
    )
    reason = serializers.CharField(source="row.reason", help_text="why it failed")
    attempt = serializers.IntegerField(source="row.attempt")
    percent = serializers.IntegerField()
    enqueued_at = serializers.DateTimeField(source="row.enqueued_at", allow_null=True)

    def get_id(self, work: Work) -> str:
        return f"{work.kind.name}-{work.row.pk}"

    def get_url(self, work: Work) -> str:
        return reverse("api:task-detail", args=[self.get_id(work)])


class TaskQuerySerializer(serializers.Serializer[Any]):
    state = serializers.ChoiceField(
        choices=["running", "waiting", "failed", "ended"],
        required=False,
        help_text="all but what has ended well where not given",
    )
    kind = serializers.CharField(required=False, help_text="as snapshot or distribution")
