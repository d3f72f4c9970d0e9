"""All of the environment is read here, typed, and nowhere else; `.env.example` lists the names."""

import hashlib
import os
import re
import secrets
import sys
import warnings
from datetime import timedelta
from pathlib import Path
from urllib.parse import quote

import environ
from csp.constants import NONE, SELF
from django.core.exceptions import ImproperlyConfigured

env = environ.Env()
BASE_DIR = Path(__file__).resolve().parent.parent
environ.Env.read_env(BASE_DIR / ".env")

# Of these <NAME>_FILE may name a file that holds the value, as secrets of containers are given.
SECRETS = (
    *("SECRET_KEY", "SECRET_KEY_FALLBACKS"),
    *("TECHLIFE_FIELD_KEY", "TECHLIFE_FIELD_KEYS"),
    *("TECHLIFE_NAME_INDEX_KEY", "TECHLIFE_NAME_INDEX_KEYS"),
    *("TECHLIFE_METRICS_TOKEN", "DATABASE_URL", "DATABASE_PASSWORD", "REDIS_URL", "REDIS_PASSWORD"),
    *("AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY"),
)


def secrets_in_files() -> dict[str, str]:
    """What those files hold; the environment itself, which children inherit, stays as it is."""
    found = {}
    for variable in SECRETS:
        path: str = env.str(f"{variable}_FILE", default="")
        if path:
            try:
                found[variable] = Path(path).read_text().strip()
            except (OSError, UnicodeDecodeError) as error:
                reason = getattr(error, "strerror", None) or "it is no text"
                raise ImproperlyConfigured(
                    f"{variable}_FILE names {path}, which cannot be read: {reason}"
                ) from error
    return found


env.ENVIRON = {**os.environ, **secrets_in_files()}

TESTING = "pytest" in sys.modules

# `embedded` runs everything from one command on SQLite, a bundled broker and folders; `production`
# takes services from the environment and refuses to start with a default secret.
MODE: str = env.str("TECHLIFE_MODE", default="embedded")
if MODE not in ("embedded", "production"):
    raise ImproperlyConfigured(f"TECHLIFE_MODE is {MODE!r}: it takes embedded or production")
EMBEDDED = MODE == "embedded"
DEBUG: bool = env.bool("TECHLIFE_DEBUG", default=False)

# Where the embedded mode keeps database, broker, objects and caches; workers keep their arrays here.
DATA_DIR = Path(env.str("TECHLIFE_DATA_DIR", default=str(BASE_DIR / "var"))).resolve()


def local_secret(name: str) -> str:
    """A secret made once and kept in the data folder, for the embedded mode only."""
    path = DATA_DIR / "secrets" / name
    try:
        return path.read_text()
    except FileNotFoundError:
        DATA_DIR.mkdir(mode=0o700, parents=True, exist_ok=True)  # diagnoses will lie in it
        path.parent.mkdir(mode=0o700, exist_ok=True)
        fresh = path.with_name(f".{name}.{secrets.token_hex(8)}")
        fresh.touch(mode=0o600)
        fresh.write_text(secrets.token_urlsafe(48))
        try:
            path.hardlink_to(fresh)  # of two first starts, one wins and both read its secret
        except FileExistsError:
            pass
        fresh.unlink()
        return path.read_text()


# What stands in examples and in generated projects, and is therefore no secret.
KNOWN_SECRETS = ("django-insecure", "change-me", "changeme", "change_me", "example", "secret")
SECRET_MIN_LENGTH = 32


def checked(variable: str, value: str) -> str:
    """Refuse to start in production with a key that others know or can guess; it is not quoted."""
    if EMBEDDED:
        return value
    advice = "make one with: python -c 'import secrets; print(secrets.token_urlsafe(48))'"
    if len(value) < SECRET_MIN_LENGTH:
        raise ImproperlyConfigured(
            f"{variable} has fewer than {SECRET_MIN_LENGTH} characters: {advice}"
        )
    if any(known in value.lower() for known in KNOWN_SECRETS) or len(set(value)) < 10:
        raise ImproperlyConfigured(f"{variable} is a default or an example: {advice}")
    return value


def keys(variable: str, name: str) -> list[str]:
    """The key that a variable gives; embedded the lines of a file, the key in use first."""
    value: str = env.str(variable, default="")
    if value:
        return [checked(variable, value)]
    if not EMBEDDED:
        raise ImproperlyConfigured(f"{variable} must be set in production")
    return local_secret(name).splitlines()


def older(variable: str, values: list[str]) -> list[str]:
    """Keys that are only read with: a weak one is told of, and does not keep one from leaving it."""
    for value in values:
        try:
            checked(variable, value)
        except ImproperlyConfigured as error:
            warnings.warn(f"of an older key: {error}", stacklevel=2)
    return values


def several(variable: str, single: str, name: str) -> list[str]:
    """The keys of a list, the first in use; or the one that the variable for a single key gives."""
    values: list[str] = env.list(variable, default=[])
    if not values:
        return keys(single, name)
    if env.str(single, default=""):
        raise ImproperlyConfigured(
            f"{variable} and {single} are both set: put the single key into the list, the one in use"
            f" first, and unset {single}"
        )
    return [checked(variable, values[0]), *older(variable, values[1:])]


# Of each kind the first key is in use, and what the others have made is still read, so that a key
# can be replaced without a break: docs/keys.md. Any string without a comma serves.
SECRET_KEY, *SECRET_KEY_FALLBACKS = keys("SECRET_KEY", "secret_key")
SECRET_KEY_FALLBACKS += older("SECRET_KEY_FALLBACKS", env.list("SECRET_KEY_FALLBACKS", default=[]))
# Encrypt names and phones; the Fernet keys are derived from them.
FIELD_KEYS = several("TECHLIFE_FIELD_KEYS", "TECHLIFE_FIELD_KEY", "field_key")
# Key the hash by which an exact name is found.
NAME_INDEX_KEYS = several("TECHLIFE_NAME_INDEX_KEYS", "TECHLIFE_NAME_INDEX_KEY", "name_index_key")

used = [SECRET_KEY, FIELD_KEYS[0], NAME_INDEX_KEYS[0]]
if not EMBEDDED and len(set(used)) < len(used):
    raise ImproperlyConfigured(
        "SECRET_KEY, the field key and the name index key must differ: who learns one of them would"
        " have the others"
    )
if not EMBEDDED and DEBUG:
    raise ImproperlyConfigured("TECHLIFE_DEBUG shows settings and rows to strangers: not here")

ALLOWED_HOSTS: list[str] = env.list(
    "TECHLIFE_ALLOWED_HOSTS", default=["localhost", "127.0.0.1", "[::1]"] if EMBEDDED else []
)
if not EMBEDDED and not ALLOWED_HOSTS:
    raise ImproperlyConfigured(
        "TECHLIFE_ALLOWED_HOSTS must be set in production: the names by which the site is asked for"
    )
CSRF_TRUSTED_ORIGINS: list[str] = env.list("TECHLIFE_CSRF_TRUSTED_ORIGINS", default=[])

INSTALLED_APPS = [
    "techlife.admin_config.TechLifeAdminConfig",
    "django.contrib.auth",
    "django.contrib.contenttypes",
    "django.contrib.sessions",
    "django.contrib.messages",
    "django.contrib.staticfiles",
    "django.contrib.humanize",
    "axes",
    "csp",
    "django_htmx",
    "rest_framework",
    "rest_framework_simplejwt.token_blacklist",
    "django_filters",
    "drf_spectacular",
    "drf_spectacular_sidecar",
    "techlife",
    "envoys",
    "diagnoses",
    "training",
    "inference",
    "publichealth",
]

MIDDLEWARE = [
    "techlife.middleware.RequestMiddleware",
    # Around the next, which refuses a wrong host by itself.
    "techlife.headers.PermissionsPolicyMiddleware",
    "csp.middleware.CSPMiddleware",
    "django.middleware.clickjacking.XFrameOptionsMiddleware",
    "django.middleware.security.SecurityMiddleware",
    "techlife.middleware.ProbeMiddleware",
    "publichealth.middleware.PredictMiddleware",
    "whitenoise.middleware.WhiteNoiseMiddleware",
    "django.contrib.sessions.middleware.SessionMiddleware",
    "django.middleware.common.CommonMiddleware",
    "django.middleware.csrf.CsrfViewMiddleware",
    "django.contrib.auth.middleware.AuthenticationMiddleware",
    "django.contrib.messages.middleware.MessageMiddleware",
    "django_htmx.middleware.HtmxMiddleware",
    "envoys.sessions.SessionLimits",
    "envoys.middleware.AccessMiddleware",
    "envoys.throttles.ThrottleMiddleware",
    "axes.middleware.AxesMiddleware",  # last: it answers in place of what was locked
]

ROOT_URLCONF = "techlife.urls"
WSGI_APPLICATION = "techlife.wsgi.application"
TEMPLATES = [
    {
        "BACKEND": "django.template.backends.django.DjangoTemplates",
        "DIRS": [BASE_DIR / "templates"],
        "APP_DIRS": True,
        "OPTIONS": {
            "context_processors": [
                "django.template.context_processors.request",
                "django.contrib.auth.context_processors.auth",
                "django.contrib.messages.context_processors.messages",
                "techlife.navigation.navigation",
            ],
        },
    },
]

# There while the demonstration still prepares what it shows; `/healthz` says so.
PREPARING_FLAG = DATA_DIR / "preparing"

# Database. SQLite in IMMEDIATE mode: with deferred transactions two writers lose work to
# "database is locked" instead of waiting their turn.
if not EMBEDDED and not env.str("DATABASE_URL", default=""):
    raise ImproperlyConfigured("DATABASE_URL must be set in production")
DATABASES = {"default": env.db("DATABASE_URL", default=f"sqlite:///{DATA_DIR / 'db.sqlite3'}")}
if DATABASES["default"]["ENGINE"] == "django.db.backends.sqlite3":
    DATABASES["default"]["OPTIONS"] = {
        "timeout": 30,
        "transaction_mode": "IMMEDIATE",
        # Each thread has a connection with a cache of its own. Without a bound, pages and statements
        # pile up to megabytes in each; the system has the file's pages in memory anyway.
        "cached_statements": 32,
        "init_command": "PRAGMA journal_mode=WAL;PRAGMA synchronous=NORMAL;PRAGMA cache_size=-512;",
    }
if DATABASES["default"]["ENGINE"] == "django.db.backends.postgresql":
    # A server that has gone without a word is noticed in seconds, not in a quarter of an hour.
    DATABASES["default"]["OPTIONS"] = {
        "connect_timeout": 5,
        "tcp_user_timeout": 20_000,
        **DATABASES["default"].get("OPTIONS", {}),
    }
if DATABASE_PASSWORD := env.str("DATABASE_PASSWORD", default=""):
    DATABASES["default"]["PASSWORD"] = DATABASE_PASSWORD  # where the URL holds none
DATABASES["default"]["CONN_MAX_AGE"] = 600

# Broker. Embedded: a bundled server on a private socket, started by `manage.py demo`. The socket
# lies in the temporary folder because a socket's path may not be longer than 107 bytes.
BROKER_PASSWORD = local_secret("broker_password") if EMBEDDED else ""
BROKER_SOCKET = (
    Path(env.str("TMPDIR", default="/tmp"))
    / f"techlife-{hashlib.sha256(str(DATA_DIR).encode()).hexdigest()[:16]}"
    / "broker.sock"
)
REDIS_URL: str = env.str(
    "REDIS_URL",
    default=f"redis+socket://:{BROKER_PASSWORD}@{BROKER_SOCKET}?virtual_host=0" if EMBEDDED else "",
)
if not REDIS_URL:
    raise ImproperlyConfigured("REDIS_URL must be set in production")
if REDIS_PASSWORD := env.str("REDIS_PASSWORD", default=""):  # where the URL holds none
    REDIS_URL = REDIS_URL.replace("://", f"://:{quote(REDIS_PASSWORD, safe='')}@", 1)
BROKER_IS_BUNDLED = EMBEDDED and not env.str("REDIS_URL", default="")

CELERY_BROKER_URL = REDIS_URL
CELERY_BROKER_CONNECTION_RETRY_ON_STARTUP = True
CELERY_BROKER_TRANSPORT_OPTIONS = {
    # Above the longest chunk of work; the sweeper and its leases recover sooner than this.
    "visibility_timeout": 3600,
    "unacked_restore_interval": 5,
    "unacked_restore_throttle": 1,
}
CELERY_TASK_IGNORE_RESULT = True  # our rows are the truth
CELERY_TASK_SERIALIZER = "json"
CELERY_ACCEPT_CONTENT = ["json"]
CELERY_TASK_DEFAULT_QUEUE = "training"
CELERY_WORKER_PREFETCH_MULTIPLIER = 1
CELERY_WORKER_HIJACK_ROOT_LOGGER = False
CELERY_DB_REUSE_MAX = 10**9  # Celery otherwise reconnects for every task
CELERY_TIMEZONE = "UTC"
# The sweeper: what is due and not in anybody's hands is enqueued again.
SWEEP_SECONDS: float = env.float("TECHLIFE_SWEEP_SECONDS", default=2.0)
# How long an event of the audit waits at most to be sealed.
AUDIT_SEAL_SECONDS: float = env.float("TECHLIFE_AUDIT_SEAL_SECONDS", default=60.0)
CELERY_BEAT_SCHEDULE = {
    "advance-runs": {
        "task": "training.tasks.advance_runs_task",
        "schedule": SWEEP_SECONDS,
        "options": {"expires": SWEEP_SECONDS * 5},  # after a stall one sweep is enough
    },
    "seal-audit": {
        "task": "envoys.tasks.seal_audit_task",
        "schedule": AUDIT_SEAL_SECONDS,
        "options": {"expires": AUDIT_SEAL_SECONDS * 5},
    },
    "forget-ended-logins": {"task": "envoys.tasks.forget_ended_logins_task", "schedule": 3600.0},
    "check-rounds": {
        "task": "training.tasks.check_rounds_task",
        "schedule": 60.0,
        "options": {"expires": 60.0},
    },
    "remove-old-objects": {
        "task": "training.tasks.remove_old_objects_task",
        "schedule": SWEEP_SECONDS * 5,
        "options": {"expires": SWEEP_SECONDS * 5},
    },
    "watch-readings": {
        "task": "publichealth.tasks.watch_readings_task",
        "schedule": SWEEP_SECONDS,
        "options": {"expires": SWEEP_SECONDS * 5},
    },
}
# Of so many of its newest rounds a run under way keeps updates and parameters, and of those younger
# than so long; one that was checked keeps its last round. Without rounds, all are kept.
KEEP_ROUNDS: int = env.int("TECHLIFE_KEEP_ROUNDS", default=10)
KEEP_HOURS: float = env.float("TECHLIFE_KEEP_HOURS", default=1.0)
if KEEP_ROUNDS < 0 or KEEP_HOURS < 0:
    raise ImproperlyConfigured("TECHLIFE_KEEP_ROUNDS and TECHLIFE_KEEP_HOURS cannot be below 0")
# How long a reading without an outcome, which no study trains on, is kept.
READING_DAYS: float = env.float("TECHLIFE_READING_DAYS", default=7.0)
# How often a node's newest readings are held against what the served model was trained on.
DRIFT_HOURS: float = env.float("TECHLIFE_DRIFT_HOURS", default=1.0)
# How long a claim on work lasts without a sign of life from the one who holds it.
LEASE_SECONDS: float = env.float("TECHLIFE_LEASE_SECONDS", default=20.0)
# How long a worker goes on with the rounds that it opens before others' work has its turn.
GO_ON_SECONDS: float = env.float("TECHLIFE_GO_ON_SECONDS", default=2.0)
# The processes of the hosted training pool; a round's clients are cut into as many chunks.
WORKER_PROCESSES: int = env.int("TECHLIFE_WORKER_PROCESSES", default=2)
# The processes of a web server, of eight threads each; the embedded mode has one.
WEB_PROCESSES: int = env.int("TECHLIFE_WEB_PROCESSES", default=2)

# Objects. With a director's bucket: S3. Without: folders below the data folder.
OBJECT_FOLDER = DATA_DIR / "objects"
AWS_ACCESS_KEY_ID: str | None = env.str("AWS_ACCESS_KEY_ID", default=None)
AWS_SECRET_ACCESS_KEY: str | None = env.str("AWS_SECRET_ACCESS_KEY", default=None)
AWS_REGION: str = env.str("AWS_REGION", default="eu-north-1")
AWS_S3_ENDPOINT_URL: str | None = env.str("AWS_S3_ENDPOINT_URL", default=None)
# Whether that endpoint may be an address of the own network; some never are, see envoys.endpoints.
S3_ENDPOINT_IS_INSIDE: bool = env.bool("TECHLIFE_S3_ENDPOINT_IS_INSIDE", default=EMBEDDED)
# How long a server may be silent before it is asked again, up to three times.
S3_TIMEOUT_SECONDS: float = env.float("TECHLIFE_S3_TIMEOUT_SECONDS", default=30.0)
DIRECTOR_S3_BUCKET_NAME: str = env.str("DIRECTOR_S3_BUCKET_NAME", default="")
ENVOY_S3_BUCKET_NAME: str = env.str("ENVOY_S3_BUCKET_NAME", default="")

# How often one address may ask for a risk without logging in: a number a second, minute or hour.
PREDICT_RATE: str = env.str("TECHLIFE_PREDICT_RATE", default="600/minute")
# How many proxies stand before the site, each of which adds to X-Forwarded-For whom it answers;
# without one the header is anybody's to write, and is not read.
NUM_PROXIES: int = env.int("TECHLIFE_NUM_PROXIES", default=0 if EMBEDDED else 1)
if not EMBEDDED:  # several web processes share the counts; embedded there is one
    CACHES = {
        "default": {
            "BACKEND": "django.core.cache.backends.redis.RedisCache",
            "LOCATION": REDIS_URL,
        }
    }

# The largest body of a call; files have a limit of their own.
CALL_MAX_BYTES: int = env.int("TECHLIFE_CALL_MAX_BYTES", default=20 * 2**20)
# The largest file a doctor may upload, unpacked.
UPLOAD_MAX_BYTES: int = env.int("TECHLIFE_UPLOAD_MAX_BYTES", default=200 * 2**20)
FILE_UPLOAD_HANDLERS = [
    "diagnoses.upload_handlers.LimitedUploadHandler",
    "django.core.files.uploadhandler.MemoryFileUploadHandler",
    "django.core.files.uploadhandler.TemporaryFileUploadHandler",
]

AUTH_USER_MODEL = "envoys.User"
AUTHENTICATION_BACKENDS = [
    "axes.backends.AxesStandaloneBackend",  # first: of who is locked out no password is looked at
    "django.contrib.auth.backends.ModelBackend",
]
PASSWORD_MIN_LENGTH = 12
AUTH_PASSWORD_VALIDATORS = [
    {"NAME": "django.contrib.auth.password_validation.UserAttributeSimilarityValidator"},
    {
        "NAME": "django.contrib.auth.password_validation.MinimumLengthValidator",
        "OPTIONS": {"min_length": PASSWORD_MIN_LENGTH},
    },
    {"NAME": "django.contrib.auth.password_validation.CommonPasswordValidator"},
    {"NAME": "django.contrib.auth.password_validation.NumericPasswordValidator"},
]
PASSWORD_HASHERS = [
    "django.contrib.auth.hashers.Argon2PasswordHasher",
    "django.contrib.auth.hashers.PBKDF2PasswordHasher",
]
# Wrong passwords and codes, counted by name and address in the database: see envoys/lockout.py.
AXES_FAILURE_LIMIT: int = env.int("TECHLIFE_LOCKOUT_FAILURES", default=5)
AXES_COOLOFF_TIME = timedelta(minutes=env.float("TECHLIFE_LOCKOUT_MINUTES", default=15.0))
AXES_LOCKOUT_PARAMETERS = [["username", "ip_address"]]
AXES_USERNAME_CALLABLE = "envoys.lockout.name_of"
AXES_CLIENT_IP_CALLABLE = "envoys.lockout.address_of"
AXES_LOCKOUT_CALLABLE = "envoys.lockout.answer"
AXES_RESET_COOL_OFF_ON_FAILURE_DURING_LOCKOUT = False
AXES_RESET_ON_SUCCESS = False  # a right password alone is half a login: `begin_session` resets
AXES_DISABLE_ACCESS_LOG = True  # the audit says who logged in
AXES_ENABLE_ADMIN = False
AXES_VERBOSE = False
AXES_SENSITIVE_PARAMETERS = [
    *("username", "ip_address", "code", "otp", "csrfmiddlewaretoken", "next"),
    *("old_password", "new_password1", "new_password2"),
]
# Who runs the federation logs in by two steps; for everybody else it is a choice.
REQUIRE_TOTP: bool = env.bool("TECHLIFE_REQUIRE_TOTP", default=not EMBEDDED)
# Calls a second, minute, hour or day of one account, or of one address without a login: see
# envoys/throttles.py for what each is about. TECHLIFE_RATES replaces some, as login=30/minute.
RATES: dict[str, str] = {
    "login": "60/minute",
    "refresh": "120/minute",
    "register": "20/hour",
    "password": "20/minute",
    "work": "60/minute",
}
for scope, rate in env.dict("TECHLIFE_RATES", default={}).items():
    if scope not in RATES or not re.fullmatch(r"[1-9][0-9]*/(second|minute|hour|day)", rate):
        raise ImproperlyConfigured(
            f"TECHLIFE_RATES has {scope}={rate}: it takes {', '.join(RATES)}, each with a number a"
            " second, minute, hour or day, as login=60/minute"
        )
    RATES[scope] = rate
REST_FRAMEWORK = {
    "DEFAULT_AUTHENTICATION_CLASSES": [
        "envoys.authentication.ServiceTokenAuthentication",
        "envoys.authentication.LoginTokenAuthentication",
        "rest_framework.authentication.SessionAuthentication",
    ],
    "DEFAULT_THROTTLE_CLASSES": ["envoys.throttles.RouteThrottle"],
    "DEFAULT_RENDERER_CLASSES": ["rest_framework.renderers.JSONRenderer"],
    "DEFAULT_PARSER_CLASSES": ["envoys.json_parser.JsonParser"],
    "DEFAULT_PAGINATION_CLASS": "envoys.rest.Pages",
    "DEFAULT_FILTER_BACKENDS": ["django_filters.rest_framework.DjangoFilterBackend"],
    "DEFAULT_SCHEMA_CLASS": "envoys.rest_schema.Schema",
    "EXCEPTION_HANDLER": "envoys.rest.answer_error",
    "DEFAULT_METADATA_CLASS": None,
    "TEST_REQUEST_DEFAULT_FORMAT": "json",
}
SIMPLE_JWT = {
    "ACCESS_TOKEN_LIFETIME": timedelta(minutes=15),
    "REFRESH_TOKEN_LIFETIME": timedelta(days=7),
    "ROTATE_REFRESH_TOKENS": True,
    "BLACKLIST_AFTER_ROTATION": True,
    "CHECK_REVOKE_TOKEN": True,  # a new password ends every token
    "UPDATE_LAST_LOGIN": True,
}
SPECTACULAR_SETTINGS = {
    "TITLE": "TechLife FL",
    "VERSION": "1",
    "DESCRIPTION": (
        "Hospitals train one patient-risk model together without showing a patient; nodes of"
        " wearables, city air and clinics train one of health risk, which anybody can ask at"
        " `POST /predict`. [Back to the site](/)"
    ),
    "SERVE_INCLUDE_SCHEMA": False,
    "SWAGGER_UI_DIST": "SIDECAR",
    "SWAGGER_UI_FAVICON_HREF": "SIDECAR",
    "REDOC_DIST": "SIDECAR",
    "COMPONENT_SPLIT_REQUEST": True,
    "ENUM_NAME_OVERRIDES": {
        "Role": "envoys.models.User.Role",
        "RoleToAskFor": "envoys.serializers.ROLE_CHOICES",
        "RiskLevel": "diagnoses.models.RiskLevel",
        "EnvoyStatus": "envoys.models.Envoy.Status",
        "EnvoyKind": "envoys.models.Envoy.Kind",
        "WorkStatus": "envoys.work.LeasedWork.Status",
        "RunStatus": "training.models.TrainingRun.Status",
        "RoundStatus": "training.models.TrainingRound.Status",
        "AssignmentStatus": "training.models.RoundAssignment.Status",
        "ModelKind": "training.models.ModelVersion.Kind",
        "PackageAnswer": "training.models.StudyMembership.Answer",
        "ProposalAnswer": "publichealth.models.RetrainingProposal.Answer",
    },
}

LOGIN_URL = "login"
LOGIN_REDIRECT_URL = "home"
LOGOUT_REDIRECT_URL = "login"

CONTENT_SECURITY_POLICY = {
    "DIRECTIVES": {
        "default-src": [NONE],
        "script-src": [SELF],
        "style-src": [SELF],
        "img-src": [SELF, "data:"],  # the icons inside the vendored style sheet
        "font-src": [SELF],
        "connect-src": [SELF],
        "form-action": [SELF],
        "frame-ancestors": [NONE],
        "base-uri": [NONE],
    }
}
X_FRAME_OPTIONS = "DENY"
SESSION_COOKIE_HTTPONLY = True
SESSION_COOKIE_SAMESITE = "Lax"
CSRF_COOKIE_HTTPONLY = True  # forms and htmx carry the token themselves
# A session ends after so long, and sooner when nothing is done in it.
SESSION_COOKIE_AGE: int = round(env.float("TECHLIFE_SESSION_HOURS", default=12.0) * 3600)
SESSION_IDLE_SECONDS: int = round(env.float("TECHLIFE_IDLE_MINUTES", default=60.0) * 60)
if not EMBEDDED:
    SECURE_PROXY_SSL_HEADER = ("HTTP_X_FORWARDED_PROTO", "https")
    SECURE_SSL_REDIRECT = True
    SECURE_REDIRECT_EXEMPT = ["^(healthz|readyz|metrics)$"]  # asked from within, without TLS
    SECURE_HSTS_SECONDS = 31_536_000
    SECURE_HSTS_INCLUDE_SUBDOMAINS = True
    SECURE_HSTS_PRELOAD = True
    SESSION_COOKIE_SECURE = True
    CSRF_COOKIE_SECURE = True
    # Browsers take these from this host only, never from a neighbour of the same domain.
    SESSION_COOKIE_NAME = "__Host-sessionid"
    CSRF_COOKIE_NAME = "__Host-csrftoken"

LANGUAGE_CODE = "en"
TIME_ZONE = "UTC"
USE_TZ = True
STATIC_URL = "static/"
if not EMBEDDED:
    STATIC_ROOT = Path(env.str("TECHLIFE_STATIC_DIR", default=str(BASE_DIR / "staticfiles")))
STATICFILES_DIRS = [BASE_DIR / "static"]
STORAGES = {
    "default": {"BACKEND": "django.core.files.storage.FileSystemStorage"},
    "staticfiles": {"BACKEND": "django.contrib.staticfiles.storage.StaticFilesStorage"},
}
# Static files are served from where they lie: no collectstatic before the first start.
WHITENOISE_USE_FINDERS = EMBEDDED
if not EMBEDDED:
    STORAGES["staticfiles"] = {"BACKEND": "whitenoise.storage.CompressedManifestStaticFilesStorage"}

# `line` for people, `json` for machines; docs/decisions/0027 says what is in neither.
LOG_FORMAT: str = env.str("TECHLIFE_LOG_FORMAT", default="line" if EMBEDDED else "json")
if LOG_FORMAT not in ("line", "json"):
    raise ImproperlyConfigured(f"TECHLIFE_LOG_FORMAT is {LOG_FORMAT!r}: it takes line or json")
THROUGH_ROOT = {"handlers": [], "propagate": True}
LOGGING = {
    "version": 1,
    "disable_existing_loggers": False,
    "formatters": {
        "line": {"()": "techlife.logs.LineFormatter"},
        "json": {"()": "techlife.logs.JsonFormatter"},
    },
    "filters": {"worth": {"()": "techlife.logs.WorthALine"}},
    "handlers": {
        "stderr": {
            "class": "logging.StreamHandler",
            "formatter": LOG_FORMAT,
            "filters": ["worth"],
        }
    },
    "loggers": {
        "axes": {"level": "WARNING"},  # it has a word for every login
        # One for what is sent and one for what has come: that it was done is enough.
        **{name: {"level": "WARNING"} for name in ("celery.beat", "celery.worker.strategy")},
        # At DEBUG these tell statements with their values, keys and bodies.
        **{name: {"level": "INFO"} for name in ("django.db.backends", "django.template")},
        **{name: {"level": "INFO"} for name in ("botocore", "boto3", "s3transfer", "urllib3")},
        # They have handlers of their own otherwise.
        **dict.fromkeys(("django", "django.server", "gunicorn.error"), THROUGH_ROOT),
    },
    "root": {"handlers": ["stderr"], "level": env.str("TECHLIFE_LOG_LEVEL", default="INFO")},
}
# Whoever reads `/metrics` shows it; without one there is no such page.
METRICS_TOKEN: str = env.str("TECHLIFE_METRICS_TOKEN", default="")

if TESTING:  # tests of these two turn them on
    AXES_ENABLED = False
    RATES = {}
    PASSWORD_HASHERS = ["django.contrib.auth.hashers.MD5PasswordHasher"]
