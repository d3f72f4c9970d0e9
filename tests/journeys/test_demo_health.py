"""The second demonstration: three kinds of nodes, one model, and what it says of nine cities."""

import json
import urllib.request
from pathlib import Path
from typing import Any

import pytest

from tests.journeys.product import Demo, running_demo, wait_for
from tests.journeys.test_demo import FIGURES, Browser, free_port, paste, serves
from tests.shared_data import shared_data

pytestmark = pytest.mark.journey

BODY = {
    "heart_rate": 88,
    "spo2": 97,
    "steps": 4500,
    "sleep_hours": 6,
    "age": 30,
    "smoker": 0,
    "chronic": 0,
    "aqi": 60,
}


def predict(port: int, **values: float) -> dict[str, Any]:
    request = urllib.request.Request(
        f"http://127.0.0.1:{port}/predict",
        data=json.dumps(values).encode(),
        headers={"Content-Type": "application/json"},
    )
    opener = urllib.request.build_opener(urllib.request.ProxyHandler({}))
    with opener.open(request, timeout=30) as answer:
        found: dict[str, Any] = json.load(answer)
        return found


def test_three_kinds_of_nodes_learn_one_model_and_the_site_shows_it_at_work(tmp_path: Path) -> None:
    port = free_port()
    options = ("--rows=600", "--rounds=6", f"--port={port}")
    with running_demo(tmp_path, *options, command="demo_health") as demo:
        wait_for(lambda: serves(demo, port), demo)
        report = json.loads(demo.report_path.read_text())
        assert {node["kind"] for node in report["envoys"]} == {
            "WEARABLES",
            "ENVIRONMENT",
            "CLINIC",
        }
        for node in report["envoys"]:
            assert set(node["local"]) == set(node["global"]) == FIGURES
            assert len(node["rounds"]) == 6
            assert node["rounds"][-1]["loss"] < node["rounds"][0]["loss"]
            assert node["rounds"][-1]["accuracy"] > node["rounds"][0]["accuracy"]
            assert node["global"]["accuracy"] > 0.9

        found = predict(port, **BODY)
        assert 0 <= found["risk_score"] <= 1
        assert found["high_risk"] == (found["risk_score"] >= found["threshold"])
        assert predict(port, **BODY | {"aqi": 300, "chronic": 1})["risk_score"] > 0.9
        assert predict(port, aqi=20)["risk_score"] < predict(port, aqi=300)["risk_score"]

        assert paste("docs/health-api.md", port).count('"risk_score"') == 3
        assert "risk" in Browser(port).get("/health/")
        officer = Browser(port)
        assert "Lahore" in officer.log_in("health", "health")

        # The cities go on reporting, and every reading is scored.
        query = "SELECT count(*), count(risk_score) FROM publichealth_reading WHERE outcome IS NULL"
        before, _ = demo.rows(query)[0]
        wait_for(lambda: demo.rows(query)[0][0] >= before + 18, demo)
        num_readings, num_scored = demo.rows(query)[0]
        assert num_scored == num_readings


def test_real_people_of_seven_sites_train_the_same_model_path(tmp_path: Path) -> None:
    folder = shared_data("nhanes_2009_2012")
    demo = Demo(tmp_path, f"--data={folder}", "--rounds=2", "--no-serve", command="demo_health")
    report = demo.report()
    assert (report["study"], report["target"]) == ("health-tier", "health_tier")
    assert [node["name"] for node in report["envoys"]] == [f"NHANES site {n}" for n in range(7)]
    assert report["pooled_test"]["global"]["auroc"] > 0.6
