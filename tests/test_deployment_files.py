"""Every command, path and variable that image, compose file and CI name is one that there is."""

import re
import shlex
import subprocess
import sys
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import pytest
import yaml
from celery.app.utils import find_app
from celery.bin.celery import celery as celery_command
from django.core.management import get_commands, load_command_class
from django.utils.module_loading import import_string
from gunicorn.config import Config

from techlife import settings as product

ROOT = Path(__file__).parents[1]
COMPOSE: dict[str, Any] = yaml.safe_load((ROOT / "docker-compose.yml").read_text())
SERVICES: dict[str, dict[str, Any]] = COMPOSE["services"]
OURS = ("migrate", "web", "worker", "beat")
CI: dict[str, Any] = yaml.safe_load((ROOT / ".github/workflows/ci.yml").read_text())
MAKEFILE = (ROOT / "Makefile").read_text()
SETTINGS = (ROOT / "techlife/settings.py").read_text()
DOCUMENTS = ("docs/operations.md", "README.md", "docs/keys.md")
# Of the images that are not ours, as their makers describe them.
OF_OTHERS = {
    "postgres": {
        "POSTGRES_USER",
        "POSTGRES_DB",
        "POSTGRES_PASSWORD_FILE",
        "POSTGRES_HOST_AUTH_METHOD",
    },
    "store": {"MINIO_ROOT_USER", "MINIO_ROOT_PASSWORD", "HOME"},
    "redis": {"REDISCLI_AUTH"},
}
OF_PYTHON = {"PATH", "PYTHONUNBUFFERED", "PYTHONDONTWRITEBYTECODE", "HOME"}
OF_TORCH = {"OMP_NUM_THREADS", "MKL_NUM_THREADS", "OPENBLAS_NUM_THREADS"}


def variables_of_the_product() -> set[str]:
    calls = re.findall(r"(?:env\.\w+|\bkeys|\bseveral)\(([^()]*)", SETTINGS)
    named = {name for call in calls for name in re.findall(r'"([A-Z][A-Z0-9_]{3,})"', call)}
    named -= {"INFO"}  # a default
    return named | {f"{name}_FILE" for name in product.SECRETS}


def stages() -> dict[str, list[tuple[str, str]]]:
    """Of each stage of the Dockerfile: its instructions, with continued lines joined."""
    text = re.sub(r"^\s*#.*\n", "", (ROOT / "Dockerfile").read_text(), flags=re.M)
    found: dict[str, list[tuple[str, str]]] = {}
    for line in text.replace("\\\n", " ").splitlines():
        instruction, _, rest = line.strip().partition(" ")
        if instruction == "FROM":
            name = rest.rpartition(" AS ")[2]
            found[name] = []
        if instruction:
            found[name].append((instruction, rest.strip()))
    return found


def last(stage: str, instruction: str) -> str:
    return [rest for name, rest in stages()[stage] if name == instruction][-1]


def words_of(command: Any) -> str:
    """A command in one line, as a shell would be given it."""
    if isinstance(command, str):
        return command
    return " ".join(str(word) for word in command)


def all_commands() -> list[tuple[str, str]]:
    """Where a command stands, and the command, with variables as compose would fill them in."""
    found = []
    for stage, instructions in stages().items():
        for name, rest in instructions:
            if name == "RUN":
                found.append((f"Dockerfile, {stage}", rest))
            if name == "CMD":
                found.append((f"Dockerfile, {stage}", words_of(yaml.safe_load(rest))))
    for name, service in SERVICES.items():
        for key in ("command", "healthcheck"):
            command = service.get(key, {})
            command = command.get("test", [])[1:] if isinstance(command, dict) else command
            filled = re.sub(r"\$\{\w+:-([^}]*)\}", r"\1", words_of(command)).replace("$$", "$")
            found.append((f"compose, {name}", filled))
    for job in CI["jobs"].values():
        found += [("ci", step["run"]) for step in job["steps"] if "run" in step]
    for document in DOCUMENTS:
        if (ROOT / document).exists():
            blocks = re.findall(
                r"```\w*\n(.*?)```|`([^`\n]+)`", (ROOT / document).read_text(), re.S
            )
            found += [(document, block or inline) for block, inline in blocks]
    return found


COMMANDS = all_commands()


def test_every_command_of_the_project_is_one_that_there_is():
    seen = set()
    for where, command in COMMANDS:
        for name in re.findall(r"manage\.py ([a-z_]+)", command):
            assert name in get_commands(), f"{where}: {name}"
            seen.add(name)
    assert {"migrate", "load_icd_codes", "make_buckets", "collectstatic", "backup"} <= seen


def test_their_options_are_ones_that_they_take():
    seen = set()
    for where, command in COMMANDS:
        for line in re.findall(r"manage\.py ([a-z_]+ [^\n&|;…)]*)", command):
            name, *rest = shlex.split(line, comments=True)
            parser = load_command_class(get_commands()[name], name).create_parser("", name)
            known = {option for action in parser._actions for option in action.option_strings}
            for option in rest:
                if option.startswith("--"):
                    assert option.partition("=")[0] in known, f"{where}: {name} {option}"
                    seen.add(option)
    assert {"--no-input", "--replace"} <= seen


def test_celery_finds_the_application_and_takes_every_option():
    assert find_app("celery_app").main == "techlife"
    subcommands = []
    for where, command in COMMANDS:
        for line in re.findall(r"celery -A (celery_app \w+[^\n`]*)", command):
            _, name, *rest = shlex.split(line)
            if where.startswith("compose"):
                group = celery_command.commands[name]
                group.make_context(name, rest, resilient_parsing=True)
                known = {option for each in group.params for option in each.opts}
                given = {option.partition("=")[0] for option in rest if option.startswith("-")}
                assert given <= known, f"{where}: {given - known}"
            assert name in celery_command.commands, where
            subcommands.append((where, name))
    assert ("compose, worker", "worker") in subcommands
    assert [where for where, name in subcommands if name == "beat" and "compose" in where] == [
        "compose, beat"
    ]
    assert "-B" not in words_of(SERVICES["worker"]["command"])  # the scheduler is by itself


def test_gunicorn_finds_the_application_and_takes_every_option():
    seen = 0
    for _, command in COMMANDS:
        for line in re.findall(r"(?:^|`|\s)gunicorn (techlife\.\S+[^\n`]*)", command):
            options = Config().parser().parse_args(shlex.split(line))
            module, _, name = options.args[0].partition(":")
            assert callable(import_string(f"{module}.{name or 'application'}"))
            seen += 1
    assert seen >= 3
    defined = set(re.findall(r"^(\w+) =", (ROOT / "gunicorn.conf.py").read_text(), re.M))
    assert defined <= set(Config().settings)


def test_the_s3_server_takes_every_option():
    for where, command in COMMANDS:
        for name, line in re.findall(r"juicefs (format|gateway) ([^\n&]*)", command):
            program = str(Path(sys.executable).with_name("juicefs"))
            told = subprocess.run([program, name, "--help"], capture_output=True, text=True).stdout
            for option in re.findall(r"--[\w-]+", line):
                assert option in told, f"{where}: {option}"


def test_every_make_target_is_one_that_there_is():
    targets = set(re.findall(r"^([\w-]+):", MAKEFILE, re.M))
    named = {name for _, command in COMMANDS for name in re.findall(r"^make ([\w-]+)", command)}
    assert {"install", "test"} <= named <= targets


def test_every_path_that_is_copied_is_there_and_none_holds_a_secret():
    copied = []
    for name, instructions in stages().items():
        for instruction, rest in instructions:
            if instruction == "COPY" and "--from=" not in rest:
                copied += [(name, path) for path in rest.split()[:-1]]
    for name, path in copied:
        assert (ROOT / path).exists(), f"{name} copies {path}"
        assert path not in (".", "secrets", ".env", "var"), name
    in_image = {path for name, path in copied if name == "app"}
    packages = {path.parent.name for path in ROOT.glob("*/__init__.py")} - {"tests"}
    assert packages | {"templates", "static", "manage.py", "celery_app.py"} <= in_image
    ignored = (ROOT / ".dockerignore").read_text().split()
    assert {".env", "secrets", "var", ".git"} <= set(ignored)
    assert "/secrets/" in (ROOT / ".gitignore").read_text().split()


def test_images_are_installed_by_hash_and_the_store_as_tests_use_it():
    for stage, instructions in stages().items():
        for instruction, rest in instructions:
            for line in re.findall(r"pip install[^|&]*", rest) if instruction == "RUN" else []:
                assert "--require-hashes" in line, stage
                assert "--no-deps" in line, stage
    lines = (ROOT / "requirements-store.txt").read_text().splitlines()[1:]
    assert "\n".join(lines) in (ROOT / "requirements-dev.txt").read_text()


def test_every_variable_is_one_that_is_read():
    ours = variables_of_the_product() | OF_TORCH | OF_PYTHON
    assert {"SECRET_KEY_FILE", "TECHLIFE_LOG_FORMAT", "DATABASE_PASSWORD"} <= ours
    for name, service in SERVICES.items():
        for variable in service.get("environment", {}):
            known = ours if name in OURS else OF_OTHERS[name]
            assert variable in known, f"{name}: {variable}"
    for instruction, rest in stages()["app"]:
        if instruction == "ENV":
            for variable in re.findall(r"(\w+)=", rest):
                assert variable in ours, variable
    # What whoever starts it sets: ours, or how many processes a worker has.
    filled_in = set(re.findall(r"(?<!\$)\$\{(\w+)", (ROOT / "docker-compose.yml").read_text()))
    assert filled_in <= ours | {"TECHLIFE_WORKER_CONCURRENCY"}


def test_every_variable_that_is_read_is_listed_and_the_other_way_round():
    listed = set(re.findall(r"^# ([A-Z][A-Z0-9_]+)=", (ROOT / ".env.example").read_text(), re.M))
    of_files = {f"{name}_FILE" for name in product.SECRETS}
    assert listed == variables_of_the_product() - of_files - {"TMPDIR"}


def test_ports_agree():
    bind = re.findall(r"0\.0\.0\.0:(\d+)", words_of(SERVICES["web"]["command"]))[0]
    assert re.findall(r"0\.0\.0\.0:(\d+)", last("app", "CMD")) == [bind]
    assert last("app", "EXPOSE") == bind
    (published,) = SERVICES["web"]["ports"]
    assert published.rpartition(":")[2] == bind
    assert published.startswith("127.0.0.1:")  # what ends TLS stands before it
    assert f":{bind}/healthz" in words_of(SERVICES["web"]["healthcheck"]["test"])
    environment = SERVICES["web"]["environment"]
    expected = {"DATABASE_URL": ("postgres", 5432), "REDIS_URL": ("redis", 6379)}
    for variable, place in expected.items():
        url = urlsplit(environment[variable])
        assert (url.hostname, url.port) == place
        assert url.hostname in SERVICES
        assert url.password is None
    store = urlsplit(environment["AWS_S3_ENDPOINT_URL"])
    assert store.hostname == "store"
    assert str(store.port) == last("store", "EXPOSE")
    assert f"0.0.0.0:{store.port}" in words_of(SERVICES["store"]["command"])
    assert str(store.port) in words_of(SERVICES["store"]["healthcheck"]["test"])
    for name, service in SERVICES.items():
        assert name == "web" or "ports" not in service, f"{name} is open to the network"


@pytest.mark.parametrize("name", SERVICES)
def test_a_service_is_checked_and_runs_without_rights(name):
    service = SERVICES[name]
    if name == "migrate":  # once
        assert service["restart"] == "no"
    else:
        assert service["healthcheck"]["test"]
        assert service["restart"] == "unless-stopped"
    assert str(service["user"]).partition(":")[0] not in ("", "0", "root")
    assert not service.get("privileged")
    if name in OURS:
        assert service["read_only"] is True
        assert service["cap_drop"] == ["ALL"]
    for needed, condition in service.get("depends_on", {}).items():
        assert condition["condition"] in ("service_healthy", "service_completed_successfully")
        assert needed in SERVICES


@pytest.mark.parametrize("stage", ["app", "store"])
def test_an_image_runs_without_rights(stage):
    assert last(stage, "USER").partition(":")[0] not in ("", "0", "root")
    names = [name for name, _ in stages()[stage]]
    assert names.index("USER") > max(n for n, name in enumerate(names) if name == "RUN")


def test_what_is_kept_lies_on_volumes_that_are_declared():
    used = set()
    for service in SERVICES.values():
        for volume in service.get("volumes", []):
            source, _, target = volume.partition(":")
            assert source in COMPOSE["volumes"]
            assert target.startswith("/")
            used.add(source)
    assert used == set(COMPOSE["volumes"])


def test_no_secret_stands_in_any_file_and_each_is_a_file_of_its_own():
    assert set(COMPOSE["secrets"]) == set(SERVICES["web"]["secrets"])
    for name, secret in COMPOSE["secrets"].items():
        assert secret == {"file": f"./secrets/{name}"}
    for service in SERVICES.values():
        mounted = {f"/run/secrets/{name}" for name in service.get("secrets", [])}
        for variable, value in service.get("environment", {}).items():
            if variable.endswith("_FILE"):
                assert value in mounted
            else:
                assert not re.search(r"PASSWORD|SECRET|KEY$|TOKEN", variable), variable
        named = set(re.findall(r"/run/secrets/\w+", yaml.safe_dump(service)))
        assert named <= mounted
    for instruction, rest in stages()["app"]:
        if instruction in ("ENV", "ARG"):
            assert not re.search(r"PASSWORD|SECRET|KEY|TOKEN", rest)


def test_ci_runs_the_tests_with_the_services_that_compose_runs():
    job = CI["jobs"]["test"]
    assert job["env"]["REQUIRE_SERVICES"] == "1"
    assert [step["run"] for step in job["steps"] if "run" in step][-2:] == [
        "make install",
        "make test",
    ]
    for name in ("postgres", "redis"):
        assert job["services"][name]["image"] == SERVICES[name]["image"]
        variables = set(job["services"][name].get("env", {}))
        assert variables <= OF_OTHERS[name]
    read = "".join(path.read_text() for path in (ROOT / "tests").rglob("*.py"))
    for variable in job["env"]:
        assert variable in read
    runs = [command for where, command in COMMANDS if where == "ci"]
    built = {target for command in runs for target in re.findall(r"--target (\w+)", command)}
    assert built == {
        service["build"]["target"] for service in SERVICES.values() if "build" in service
    }
    assert built <= set(stages())
