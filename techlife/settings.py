"""All of the environment is read here, typed, and nowhere else; `.env.example` lists the names."""

import hashlib
import secrets
import sys
from datetime import timedelta
from pathlib import Path

import environ
from csp.constants import NONE, SELF
from django.core.exceptions import ImproperlyConfigured

env = environ.Env()
BASE_DIR = Path(__file__).resolve().parent.parent
environ.Env.read_env(BASE_DIR / ".env")

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


def secret(variable: str, name: str) -> str:
    value: str = env.str(variable, default="")
    if value:
        return value
    if not EMBEDDED:
        raise ImproperlyConfigured(f"{variable} must be set in production")
    return local_secret(name)


SECRET_KEY = secret("SECRET_KEY", "secret_key")
# Names and phones are encrypted with the first of these keys and read with any of them, so that a
# key can be rotated. Any string serves: the Fernet key is derived from it.
FIELD_KEYS: list[str] = env.list("TECHLIFE_FIELD_KEYS", default=[])
FIELD_KEYS = FIELD_KEYS or [secret("TECHLIFE_FIELD_KEY", "field_key")]
# Keys the hash by which an exact name is found; apart from the encryption keys, which rotate.
NAME_INDEX_KEY = secret("TECHLIFE_NAME_INDEX_KEY", "name_index_key")

ALLOWED_HOSTS: list[str] = env.list(
    "TECHLIFE_ALLOWED_HOSTS", default=["localhost", "127.0.0.1", "[::1]"] if EMBEDDED else []
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
    "django.middleware.security.SecurityMiddleware",
    "csp.middleware.CSPMiddleware",
    "django.middleware.clickjacking.XFrameOptionsMiddleware",
    "publichealth.middleware.PredictMiddleware",
    "whitenoise.middleware.WhiteNoiseMiddleware",
    "django.contrib.sessions.middleware.SessionMiddleware",
    "django.middleware.common.CommonMiddleware",
    "django.middleware.csrf.CsrfViewMiddleware",
    "django.contrib.auth.middleware.AuthenticationMiddleware",
    "django.contrib.messages.middleware.MessageMiddleware",
    "django_htmx.middleware.HtmxMiddleware",
    "envoys.middleware.AccessMiddleware",
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
        "init_command": "PRAGMA journal_mode=WAL;PRAGMA synchronous=NORMAL;",
    }
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
CELERY_BEAT_SCHEDULE = {
    "advance-runs": {
        "task": "training.tasks.advance_runs_task",
        "schedule": SWEEP_SECONDS,
        "options": {"expires": SWEEP_SECONDS * 5},  # after a stall one sweep is enough
    },
    "watch-readings": {
        "task": "publichealth.tasks.watch_readings_task",
        "schedule": SWEEP_SECONDS,
        "options": {"expires": SWEEP_SECONDS * 5},
    },
}
# How long a reading without an outcome, which no study trains on, is kept.
READING_DAYS: float = env.float("TECHLIFE_READING_DAYS", default=7.0)
# How often a node's newest readings are held against what the served model was trained on.
DRIFT_HOURS: float = env.float("TECHLIFE_DRIFT_HOURS", default=1.0)
# How long a claim on work lasts without a sign of life from the one who holds it.
LEASE_SECONDS: float = env.float("TECHLIFE_LEASE_SECONDS", default=20.0)
# The processes of the hosted training pool; a round's clients are cut into as many chunks.
WORKER_PROCESSES: int = env.int("TECHLIFE_WORKER_PROCESSES", default=2)

# Objects. With a director's bucket: S3. Without: folders below the data folder.
OBJECT_FOLDER = DATA_DIR / "objects"
AWS_ACCESS_KEY_ID: str | None = env.str("AWS_ACCESS_KEY_ID", default=None)
AWS_SECRET_ACCESS_KEY: str | None = env.str("AWS_SECRET_ACCESS_KEY", default=None)
AWS_REGION: str = env.str("AWS_REGION", default="eu-north-1")
AWS_S3_ENDPOINT_URL: str | None = env.str("AWS_S3_ENDPOINT_URL", default=None)
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

# The largest file a doctor may upload, unpacked.
UPLOAD_MAX_BYTES: int = env.int("TECHLIFE_UPLOAD_MAX_BYTES", default=200 * 2**20)
FILE_UPLOAD_HANDLERS = [
    "diagnoses.upload_handlers.LimitedUploadHandler",
    "django.core.files.uploadhandler.MemoryFileUploadHandler",
    "django.core.files.uploadhandler.TemporaryFileUploadHandler",
]

AUTH_USER_MODEL = "envoys.User"
AUTH_PASSWORD_VALIDATORS = [
    {"NAME": "django.contrib.auth.password_validation.UserAttributeSimilarityValidator"},
    {"NAME": "django.contrib.auth.password_validation.MinimumLengthValidator"},
    {"NAME": "django.contrib.auth.password_validation.CommonPasswordValidator"},
    {"NAME": "django.contrib.auth.password_validation.NumericPasswordValidator"},
]
PASSWORD_HASHERS = [
    "django.contrib.auth.hashers.Argon2PasswordHasher",
    "django.contrib.auth.hashers.PBKDF2PasswordHasher",
]
REST_FRAMEWORK = {
    "DEFAULT_AUTHENTICATION_CLASSES": [
        "rest_framework_simplejwt.authentication.JWTAuthentication",  # first: it says what a 401 wants
        "rest_framework.authentication.SessionAuthentication",
    ],
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
    "DESCRIPTION": "Hospitals train one patient-risk model together without showing a patient.",
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
if not EMBEDDED:
    SECURE_PROXY_SSL_HEADER = ("HTTP_X_FORWARDED_PROTO", "https")
    SECURE_SSL_REDIRECT = True
    SECURE_HSTS_SECONDS = 31_536_000
    SECURE_HSTS_INCLUDE_SUBDOMAINS = True
    SECURE_HSTS_PRELOAD = True
    SESSION_COOKIE_SECURE = True
    CSRF_COOKIE_SECURE = True

LANGUAGE_CODE = "en"
TIME_ZONE = "UTC"
USE_TZ = True
STATIC_URL = "static/"
if not EMBEDDED:
    STATIC_ROOT = BASE_DIR / "staticfiles"
STATICFILES_DIRS = [BASE_DIR / "static"]
STORAGES = {
    "default": {"BACKEND": "django.core.files.storage.FileSystemStorage"},
    "staticfiles": {"BACKEND": "django.contrib.staticfiles.storage.StaticFilesStorage"},
}
# Static files are served from where they lie: no collectstatic before the first start.
WHITENOISE_USE_FINDERS = EMBEDDED
if not EMBEDDED:
    STORAGES["staticfiles"] = {"BACKEND": "whitenoise.storage.CompressedManifestStaticFilesStorage"}

LOGGING = {
    "version": 1,
    "disable_existing_loggers": False,
    "formatters": {"line": {"format": "%(asctime)s %(levelname)s %(name)s: %(message)s"}},
    "handlers": {"stderr": {"class": "logging.StreamHandler", "formatter": "line"}},
    "root": {"handlers": ["stderr"], "level": env.str("TECHLIFE_LOG_LEVEL", default="INFO")},
}

if TESTING:
    PASSWORD_HASHERS = ["django.contrib.auth.hashers.MD5PasswordHasher"]
