"""What docker-compose.yml starts, started here by the same commands with the same variables.

PostgreSQL, Redis and an S3 server that checks signatures; two web processes, two workers as on two
hosts, a scheduler. A run survives the loss of one worker to the simulation's bytes, a click is
followed into the worker, and of a patient no log says a word.
"""

import json
import os
import re
import secrets
import signal
import socket
import subprocess
import sys
import time
import urllib.error
import urllib.request
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import psycopg2
import pytest

from federated.synthetic import write_synthetic_cohort
from tests.journeys.product import ROOT, simulate
from tests.journeys.services import (  # noqa: F401  (fixtures)
    database_url,
    redis_url,
    s3_environment,
)
from tests.s3_server import free_port
from tests.test_deployment_files import SERVICES, words_of

pytestmark = [pytest.mark.journey, pytest.mark.services]

PATIENCE_SECONDS = 180
HOST = "techlife.example.org"
CLICK = "a-click-of-the-journey"
CANARY = "Quisquilia"
ROUNDS = 12

# What people do on pages beforehand: accounts, hospitals, an approved plan.
PREPARE = f"""
import django, sys
django.setup()
from pathlib import Path
from techlife import demonstration
from training import services
envoys = demonstration.import_hospitals(Path(sys.argv[1]), print)
doctors = demonstration.make_accounts(envoys)
study = services.study_for("risk_tier")
demonstration.approve_for_all(study, services.plan_for(study, num_rounds={ROUNDS}), envoys, doctors)
"""
# Compressing takes most of a minute of the processor, and nothing here asks for it.
COLLECT = """
import django
django.setup()
from django.core.management import call_command
from whitenoise.storage import CompressedManifestStaticFilesStorage
CompressedManifestStaticFilesStorage.post_process_with_compression = lambda self, files: files
call_command("collectstatic", interactive=False, verbosity=0)
"""


@dataclass
class Site:
    url: str
    folder: Path
    environment: dict[str, str]
    database: str
    workers: "list[subprocess.Popen[bytes]]"
    tokens: dict[str, str]

    def ask(
        self, path: str, body: Any = None, *, who: str = "", method: str = "", **headers: str
    ) -> tuple[int, Any]:
        headers = {name.replace("_", "-"): value for name, value in headers.items()}
        headers |= {"Host": HOST, "X-Forwarded-Proto": "https", "Content-Type": "application/json"}
        if who:
            headers["Authorization"] = f"Bearer {self.tokens[who]}"
        data = None if body is None else json.dumps(body).encode()
        asked = urllib.request.Request(
            f"{self.url}{path}", data, headers, method=method or ("GET" if data is None else "POST")
        )
        try:
            with urllib.request.urlopen(asked, timeout=60) as answer:
                return answer.status, answer.read().decode()
        except urllib.error.HTTPError as refused:
            with refused:
                return refused.code, refused.read().decode()

    def call(self, path: str, body: Any = None, *, who: str, code: int, **headers: str) -> Any:
        status, text = self.ask(path, body, who=who, **headers)
        assert status == code, text
        return json.loads(text)

    def rows(self, query: str) -> list[tuple[Any, ...]]:
        connection = psycopg2.connect(self.database)
        try:
            with connection.cursor() as cursor:
                cursor.execute(query)
                return cursor.fetchall()
        finally:
            connection.close()

    def logs(self) -> dict[str, str]:
        return {path.stem: path.read_text() for path in self.folder.glob("*.log")}

    def wait_for(self, what: Callable[[], Any]) -> Any:
        deadline = time.monotonic() + PATIENCE_SECONDS
        while not (found := what()):
            assert time.monotonic() < deadline, f"waited in vain: {self.logs()}"
            time.sleep(0.1)
        return found


def environment_of_compose(folder: Path, **elsewhere: str) -> dict[str, str]:
    """The variables of `web`, secrets in files too; only where the services are is of this host."""
    found = {"TECHLIFE_ALLOWED_HOSTS": HOST, "TECHLIFE_REQUIRE_TOTP": "false"}  # no phone here
    for name, value in SERVICES["web"]["environment"].items():
        found.setdefault(name, re.sub(r"\$\{\w+:[-?]([^}]*)\}", r"\1", str(value)))
        if name.endswith("_FILE"):
            path = folder / "secrets" / Path(value).name
            path.parent.mkdir(exist_ok=True)
            path.write_text(secrets.token_urlsafe(48) + "\n")
            found[name] = str(path)
    found |= elsewhere
    path = folder / "secrets" / "store_password"
    path.write_text(found.pop("AWS_SECRET_ACCESS_KEY"))
    del found["REDIS_PASSWORD_FILE"]  # the server of the tests has none
    found |= {"TECHLIFE_DATA_DIR": str(folder / "data"), "TECHLIFE_STATIC_DIR": f"{folder}/static"}
    found["PATH"] = f"{Path(sys.executable).parent}:{os.environ['PATH']}"
    found["PYTHONWARNINGS"] = "ignore"
    return found | {"OMP_NUM_THREADS": "1", "HOME": str(folder)}


@contextmanager
def running(
    name: str, argv: list[str], site_folder: Path, environment: dict[str, str]
) -> Iterator["subprocess.Popen[bytes]"]:
    with (site_folder / f"{name}.log").open("wb") as log:
        process = subprocess.Popen(
            argv, cwd=ROOT, env=environment, stdout=log, stderr=log, start_new_session=True
        )
    try:
        yield process
    finally:
        process.terminate()
        try:
            process.wait(30)
        except subprocess.TimeoutExpired:
            os.killpg(process.pid, signal.SIGKILL)
            process.wait()


@pytest.fixture
def site(
    tmp_path: Path,
    database_url: str,  # noqa: F811
    redis_url: str,  # noqa: F811
    s3_environment: dict[str, str],  # noqa: F811
) -> Iterator[Site]:
    folder = tmp_path / "site"
    folder.mkdir()
    s3 = {
        **s3_environment,
        "DIRECTOR_S3_BUCKET_NAME": "made-here",
        "ENVOY_S3_BUCKET_NAME": "theirs",
    }
    environment = environment_of_compose(
        folder, DATABASE_URL=database_url, REDIS_URL=redis_url, **s3
    )
    cohort = tmp_path / "cohort"
    write_synthetic_cohort(cohort, seed=8, scale=0.4)
    preparations = [
        [str(word) for word in SERVICES["migrate"]["command"]],
        ["python", "-c", COLLECT],
        ["python", "-c", PREPARE, str(cohort)],
    ]
    environment["DJANGO_SETTINGS_MODULE"] = "techlife.settings"
    for argv in preparations:
        done = subprocess.run(argv, cwd=ROOT, env=environment, capture_output=True, text=True)
        assert done.returncode == 0, done.stdout + done.stderr
    port = free_port()
    commands = {
        name: words_of(SERVICES[name]["command"])
        .replace("${TECHLIFE_WORKER_CONCURRENCY:-2}", "1")
        .replace("0.0.0.0:8000", f"127.0.0.1:{port}")
        .replace("/data/", f"{folder}/")
        .split()
        for name in ("web", "worker", "beat")
    }
    environment |= {"TECHLIFE_LEASE_SECONDS": "3", "TECHLIFE_SWEEP_SECONDS": "0.5"}
    with ExitStack() as all_of_them:
        processes = {
            name: all_of_them.enter_context(running(name, argv, folder, environment))
            for name, argv in {
                "web": commands["web"],
                "beat": commands["beat"],
                "worker-1": [*commands["worker"], "-n", "one@%h"],
                "worker-2": [*commands["worker"], "-n", "two@%h"],
            }.items()
        }
        workers = [processes["worker-1"], processes["worker-2"]]
        site = Site(f"http://127.0.0.1:{port}", folder, environment, database_url, workers, {})
        site.wait_for(lambda: port_is_open(port))
        yield site


def port_is_open(port: int) -> bool:
    with socket.socket() as probe:
        return probe.connect_ex(("127.0.0.1", port)) == 0


def test_the_stack_of_the_compose_file(site: Site, tmp_path: Path) -> None:
    site.wait_for(lambda: site.ask("/readyz")[0] == 200)
    assert json.loads(site.ask("/readyz")[1]) == {"ready": True, "troubles": {}}
    site.wait_for(lambda: site.rows("select count(*) from envoys_workersign")[0][0] == 2)
    for name in ("doc", "pass"):
        answer = site.ask("/api/login", {"username": name, "password": name})
        assert answer[0] == 200, answer
        site.tokens[name] = json.loads(answer[1])["token"]
    assert site.ask("/login/")[0] == 200  # a page, with the static files that were collected

    # a run, which loses a worker on the way
    run = site.call("/api/v1/runs", {"seed": 3}, who="pass", code=202, X_Request_ID=CLICK)
    number = (
        f"select coalesce(max(number), 0) from training_traininground where run_id = {run['id']}"
    )
    site.wait_for(lambda: site.rows(number)[0][0] >= 2)
    os.killpg(site.workers[0].pid, signal.SIGKILL)
    ended = f"select status, reason, final_sha256 from training_trainingrun where id = {run['id']}"
    site.wait_for(lambda: site.rows(ended)[0][0] not in ("PREPARING", "TRAINING"))
    status, reason, final_sha256 = site.rows(ended)[0]
    assert status == "FINISHED", reason
    options = (f"--rounds={ROUNDS}", "--seed=3")
    assert final_sha256 == simulate(tmp_path / "cohort", *options)

    check_metrics(site)
    leave_traces(site)
    check_logs(site)
    assert site.workers[1].poll() is None


def check_metrics(site: Site) -> None:
    """Of both web processes together, and behind the token."""
    for _ in range(40):
        site.ask("/healthz")
    token = Path(site.environment["TECHLIFE_METRICS_TOKEN_FILE"]).read_text().strip()
    assert site.ask("/metrics")[0] == 404
    found = {site.ask("/metrics", Authorization=f"Bearer {token}")[1] for _ in range(4)}
    for text in found:
        (counted,) = re.findall(r'techlife_requests_total\{.*view="healthz".*\} (\S+)', text)
        assert float(counted) == 40
        assert 'techlife_runs{status="FINISHED"} 1.0' in text
        assert re.search(r"techlife_workers [12]\.0", text)
        assert 'techlife_queue_length{queue="training"}' in text
        assert "techlife_storage_errors_total 0.0" in text


def leave_traces(site: Site) -> None:
    """Everything that a name could get into a log by."""
    patient = site.call(
        "/api/v1/patients", {"name": f"{CANARY} One", "sex": "F", "phone": "0"}, who="doc", code=201
    )
    site.call("/api/v1/patients/search", {"name": f"{CANARY} One"}, who="doc", code=200)
    assert site.ask(f"/api/v1/patients/{patient['id']}", who="doc")[0] == 200
    for path in (f"/{CANARY}/", f"/patients/{CANARY}/?name={CANARY}", f"/api/v1/{CANARY}"):
        assert site.ask(path, who="doc")[0] == 404
    assert site.ask("/api/v1/patients", {"name": CANARY, "sex": CANARY}, who="doc")[0] == 400
    assert site.ask("/login/", {"username": CANARY})[0] == 403
    for line in (f"GET /{CANARY} HTTP/9.9", f"{CANARY}", f"GET / HTTP/1.1\r\n{CANARY}"):
        host, port = site.url.removeprefix("http://").split(":")
        with socket.create_connection((host, int(port)), 10) as plain:
            plain.sendall(f"{line}\r\n\r\n".encode())
            plain.recv(1000)
    upload_what_is_refused(site)


def upload_what_is_refused(site: Site) -> None:
    content = f"subject_id,hadm_id,seq_num,icd_code,icd_version\n{CANARY},{CANARY},1,{CANARY},10\n"
    body = (
        f'--b\r\nContent-Disposition: form-data; name="diagnoses"; filename="{CANARY}.csv"\r\n'
        f"Content-Type: text/csv\r\n\r\n{content}\r\n--b--\r\n"
    )
    asked = urllib.request.Request(
        f"{site.url}/api/v1/imports",
        body.encode(),
        {
            "Host": HOST,
            "X-Forwarded-Proto": "https",
            "Authorization": f"Bearer {site.tokens['doc']}",
            "Content-Type": "multipart/form-data; boundary=b",
        },
    )
    with urllib.request.urlopen(asked, timeout=60) as answer:
        assert answer.status == 202
    site.wait_for(
        lambda: site.rows("select count(*) from diagnoses_upload where num_problems > 0")[0][0] == 1
    )


def check_logs(site: Site) -> None:
    logs = site.logs()
    entries: dict[str, list[dict[str, Any]]] = {}
    for name, text in logs.items():
        entries[name] = [json.loads(line) for line in text.splitlines() if line.startswith("{")]
        assert entries[name] or name == "beat", f"{name} has written no line: {text[:500]}"
        for value in (CANARY, CANARY.lower()):
            assert value not in text, f"{value} in the log of {name}"
        for variable, path in site.environment.items():
            if variable.endswith("_FILE"):
                assert Path(path).read_text().strip() not in text, f"{variable} in {name}"
    (click,) = [
        each
        for each in entries["web"]
        if each["request_id"] == CLICK and each["logger"] == "techlife.requests"
    ]
    assert (click["view"], click["status"]) == ("api:run-list", 202)
    followed = [
        each
        for name in ("worker-1", "worker-2")
        for each in entries[name]
        if each["request_id"] == CLICK
    ]
    assert any("export_snapshot_task" in each["message"] for each in followed)
    # And what a task enqueues has the task's.
    tasks: dict[str, set[str]] = {}
    for name in ("worker-1", "worker-2"):
        for each in entries[name]:
            if found := re.search(r"tasks\.(\w+)\[\S+ succeeded", each["message"]):
                tasks.setdefault(each["request_id"], set()).add(found[1])
    assert "" not in tasks
    trained = [names for names in tasks.values() if "train_clients_task" in names]
    assert any("report_run_task" in names for names in trained), tasks
    events = site.rows("select action || ' ' || target from envoys_auditevent")
    assert len(events) > 10
    assert not any(CANARY.lower() in event.lower() for (event,) in events)
