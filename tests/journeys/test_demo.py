import http.cookiejar
import os
import re
import socket
import subprocess
import sys
import urllib.parse
import urllib.request
from pathlib import Path

import pytest

from tests.journeys.product import ROOT, Demo, processes_with, running_demo, wait_for

pytestmark = pytest.mark.journey

FIGURES = {"auroc", "auprc", "accuracy", "brier"}
MODELS = {"rule_of_thumb", "local", "global", "pooled"}


class Browser:
    """Follows redirects and keeps cookies, as a person's browser would."""

    def __init__(self, port: int) -> None:
        self.site = f"http://127.0.0.1:{port}"
        self.opener = urllib.request.build_opener(
            urllib.request.ProxyHandler({}),
            urllib.request.HTTPCookieProcessor(http.cookiejar.CookieJar()),
        )

    def get(self, path: str) -> str:
        with self.opener.open(self.site + path, timeout=30) as answer:
            page: str = answer.read().decode()
            return page

    def log_in(self, username: str, password: str) -> str:
        token = re.search(r'name="csrfmiddlewaretoken" value="(\w+)"', self.get("/login/"))
        assert token
        form = {
            "username": username,
            "password": password,
            "csrfmiddlewaretoken": token.group(1),
        }
        body = urllib.parse.urlencode(form).encode()
        with self.opener.open(f"{self.site}/login/", body, timeout=30) as answer:
            page: str = answer.read().decode()
            return page


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port: int = probe.getsockname()[1]
        return port


def serves(demo: Demo, port: int) -> bool:
    return f"Serving http://localhost:{port}/" in demo.output


def test_one_command_trains_serves_refuses_a_second_start_and_leaves_nothing(
    tmp_path: Path,
) -> None:
    port = free_port()
    with running_demo(tmp_path, f"--port={port}") as demo:
        wait_for(lambda: f"http://localhost:{port}/runs/1/" in demo.output, demo)
        scientist = Browser(port)
        scientist.log_in("pass", "pass")
        assert "Risk tier from diagnoses" in scientist.get("/runs/1/")  # live, while it trains

        wait_for(lambda: serves(demo, port), demo)
        assert Browser(port).get("/healthz") == "ok\n"

        assert "Admissions by risk" in Browser(port).log_in("doc", "doc")
        assert "The federation" in scientist.get("/")
        assert "Finished" in scientist.get("/runs/")
        assert "winterholm-cottage" in scientist.get("/runs/1/")
        scientist.get("/runs/1/live/")
        scientist.get("/runs/1/curves/")
        assert_documented_calls_work(port)
        assert_no_training_library_in_web_processes(demo)

        second = subprocess.run(
            [sys.executable, "manage.py", "demo", "--no-serve"],
            cwd=ROOT,
            env=demo.environment,
            capture_output=True,
            text=True,
        )
        assert second.returncode == 1
        assert "is in use by process" in second.stderr

        assert demo.interrupt() == 0, demo.output
    assert processes_with(str(demo.data_dir)) == {}
    assert_report_is_complete(demo)


def paste(document: str, port: int) -> str:
    """What every block of a document prints, pasted one after the other."""
    blocks = re.findall(r"```bash\n(.*?)```", (ROOT / document).read_text(), re.DOTALL)
    session = subprocess.run(
        ["bash", "-euo", "pipefail", "-c", "\n".join(blocks)],
        env={**os.environ, "SITE": f"http://127.0.0.1:{port}", "NO_PROXY": "127.0.0.1"},
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
    )
    assert session.returncode == 0, session.stdout + session.stderr
    assert '"type":' not in session.stdout, session.stdout  # no answer but the last was an error
    return session.stdout


def assert_documented_calls_work(port: int) -> None:
    printed = paste("docs/api.md", port)
    assert printed.count('"predicted_risk"') >= 3  # by v1, by global and by own model


def assert_no_training_library_in_web_processes(demo: Demo) -> None:
    """Read from the maps of what each process has loaded, a thing of Linux."""
    mapped = [
        Path(f"/proc/{pid}/maps").read_text()
        for pid in processes_with("techlife.wsgi")
        if str(demo.data_dir).encode() in Path(f"/proc/{pid}/environ").read_bytes()
    ]
    assert any("sqlite" in maps for maps in mapped)  # the process that has served the pages
    for library in ("/torch/", "/pandas/", "/sklearn/"):
        assert not any(library in maps for maps in mapped), f"a web process has loaded {library}"


def assert_report_is_complete(demo: Demo) -> None:
    report = demo.report()
    assert set(report) == {
        *("study", "target", "strategy", "rounds", "seed", "num_envoys", "num_examples"),
        *("final_sha256", "seconds", "pooled_test", "mean_of_envoys", "envoys"),
        "from_histograms",
    }
    assert set(report["seconds"]) == {"import", "train", "per_round_median"}
    assert report["num_envoys"] == len(report["envoys"]) == 5
    for figure in report["from_histograms"].values():
        assert figure["low"] <= figure["value"] <= figure["high"]
    for row in (report["pooled_test"], report["mean_of_envoys"], *report["envoys"]):
        assert set(row) >= MODELS
        assert all(set(row[model]) == FIGURES for model in MODELS)


def test_a_folder_with_bad_data_stops_the_demonstration_with_words(tmp_path: Path) -> None:
    hospital = tmp_path / "cohort" / "envoys" / "kutrrh"
    hospital.mkdir(parents=True)
    (hospital / "diagnoses_icd.csv").write_text(
        "subject_id,hadm_id,seq_num,icd_code,icd_version\n1,1,1,I10,10\n1,1,2,banana,10\n"
    )
    with running_demo(tmp_path, f"--data={tmp_path / 'cohort'}", "--no-serve") as demo:
        assert demo.wait() == 1
        assert demo.rows("select count(*) from diagnoses_diagnosis") == [(0,)]
    assert "line 3" in demo.output
    assert "banana" in demo.output.lower()
    assert "Traceback" not in demo.output
