"""`POST /predict`: a risk for whoever asks."""

import json
import math
import subprocess
import sys
import time

import pytest
from django.core.exceptions import ImproperlyConfigured
from django.db import connection
from django.test import Client, RequestFactory
from django.test.utils import CaptureQueriesContext
from redis.exceptions import RedisError

from envoys.access import Capability, capabilities_of
from federated.readings import INPUT_NAMES
from publichealth import rate_limit
from publichealth.advice import DISCLAIMER, advice_for, air_band
from publichealth.answers import MAX_BATCH
from publichealth.services import serving
from techlife.predict_bench import TODAY
from tests.health import make_serving, trained_on

pytestmark = [pytest.mark.django_db, pytest.mark.filterwarnings("ignore:No directory at")]

PATHS = ("/predict", "/api/v1/health-risk")


def ask(body, path="/predict", code=200, **headers):
    text = body if isinstance(body, str | bytes) else json.dumps(body)
    client = Client(enforce_csrf_checks=True)
    response = client.post(path, text, content_type="application/json", headers=headers)
    assert response.status_code == code, response.content.decode()[:500]
    assert response.headers["Cache-Control"] == "no-store"
    return response.json()


@pytest.mark.parametrize("path", PATHS)
def test_the_risk_is_answered_with_what_drives_it_and_what_to_do(path):
    make_serving(slope=2.0, intercept=0.5, threshold=0.3, training_distribution=trained_on(*TODAY))
    answer = ask(TODAY, path)
    assert set(answer) == {
        *("risk_score", "high_risk", "threshold"),
        *("drivers", "ignored", "model_version", "advice"),
    }
    # Scaled: heart rate 0.4, oxygen 1, AQI -0.8; nothing else weighs, and nothing is missing.
    odds = 0.5 * 0.4 - 1.0 * 1 + 2.0 * -0.8
    risk = 1 / (1 + math.exp(-(2.0 * odds + 0.5)))
    assert answer["risk_score"] == pytest.approx(risk, abs=1e-6)
    assert answer["high_risk"] is False
    assert answer["threshold"] == 0.3
    assert answer["model_version"] == "health-risk v1"
    assert [driver["input"] for driver in answer["drivers"]][:1] == ["aqi"]
    assert {driver["input"] for driver in answer["drivers"]} == set(TODAY)
    assert answer["drivers"][0]["title"] == "Air quality index"
    assert answer["drivers"][0]["change"] < 0
    assert answer["advice"][-1] == DISCLAIMER


def test_predict_passes_by_sessions_and_keeps_the_security_headers(monkeypatch):
    assert set(capabilities_of("published:predict", "POST")) == {Capability.ANYONE}
    make_serving(training_distribution=trained_on(*TODAY))
    monkeypatch.setattr("django.contrib.sessions.middleware.SessionMiddleware.__call__", None)
    response = Client().post("/predict", json.dumps(TODAY), content_type="application/json")
    assert response.status_code == 200
    assert not response.cookies
    assert response.headers["Content-Length"] == str(len(response.content))
    assert response.headers["X-Frame-Options"] == "DENY"
    assert response.headers["X-Content-Type-Options"] == "nosniff"
    assert "default-src 'none'" in response.headers["Content-Security-Policy"]


def test_the_threshold_itself_is_high():
    make_serving(threshold=0.5)
    answer = ask({"age": 40})  # weighs nothing: the risk is exactly a half
    assert (answer["risk_score"], answer["high_risk"]) == (0.5, True)


@pytest.mark.parametrize("path", PATHS)
@pytest.mark.parametrize(
    ("body", "field"),
    [
        ({}, ""),
        ({"heart_rate": None}, ""),
        ({"hart_rate": 80}, "hart_rate"),
        ({"heart_rate": "80"}, "heart_rate"),
        ({"heart_rate": True}, "heart_rate"),
        ({"heart_rate": [80]}, "heart_rate"),
        ({"heart_rate": 251}, "heart_rate"),
        ({"spo2": 49.9}, "spo2"),
        ({"spo2": 10**400}, "spo2"),
        ({"smoker": 0.5}, "smoker"),
        ({"smoker": 2}, "smoker"),
        ([{"age": 30}], ""),
        ("text", ""),
        (None, ""),
    ],
)
def test_what_is_no_reading_is_refused_by_field(path, body, field):
    make_serving()
    answer = ask(json.dumps(body), path, code=400)
    assert answer["type"] == "invalid"
    assert answer["detail"]
    named = set(answer["errors"]) - {"non_field_errors"}
    assert named == ({field} if field else set())


@pytest.mark.parametrize(
    "body", [" ", "{", b"\xff", '{"age": NaN}', '{"age": 1e999}', '{"age": Infinity}', "[" * 10**5]
)
def test_what_is_no_json_is_refused(body):
    make_serving()
    assert ask(body, code=400)["type"] == "invalid"


def test_every_wrong_field_is_told_at_once_with_range_and_unit():
    make_serving()
    errors = ask({"spo2": 20, "temperature": 99, "x": 1, "age": 30}, code=400)["errors"]
    assert set(errors) == {"spo2", "temperature", "x"}
    assert errors["spo2"] == ["spo2 lies between 50 and 100 %, not 20"]
    assert "°C" in errors["temperature"][0]


def test_a_missing_value_may_be_null_and_a_flag_true():
    make_serving()
    assert ask({"smoker": True, "spo2": None}) == ask({"smoker": 1})


@pytest.mark.parametrize("path", PATHS)
def test_what_no_node_like_it_measured_is_ignored_and_named(path):
    make_serving(training_distribution=trained_on("aqi", "smoker"))
    answer = ask({"aqi": 120, "bmi": 50}, path)
    assert answer["ignored"] == ["bmi"]
    assert [driver["input"] for driver in answer["drivers"]] == ["aqi"]
    alone = ask({"aqi": 120}, path)
    assert (answer["risk_score"], alone["ignored"]) == (alone["risk_score"], [])


@pytest.mark.parametrize("path", PATHS)
def test_where_nothing_is_left_it_says_what_to_give(path):
    make_serving(training_distribution=trained_on("aqi", "smoker"))
    refused = ask({"bmi": 50}, path, code=400)
    assert "trained without bmi" in str(refused)
    assert "smoker, aqi" in str(refused)
    batch = ask({"readings": [{"aqi": 9}, {"bmi": 50}]}, f"{path}/batch", code=400)
    assert set(batch["errors"]) == {"readings.1"}


def test_every_input_alone_is_enough():
    make_serving()
    for name in INPUT_NAMES:
        low = {"heart_rate": 60, "spo2": 95, "bmi": 20, "temperature": 1}.get(name, 1)
        assert 0 <= ask({name: low})["risk_score"] <= 1


@pytest.mark.parametrize("path", PATHS)
def test_before_the_first_release_it_says_so(path):
    answer = ask(TODAY, path, code=503)
    assert answer["type"] == "not_released"
    assert "No model" in answer["detail"]


def test_other_methods_and_other_bodies_are_refused_in_words():
    make_serving()
    response = Client().get("/predict")
    assert (response.status_code, response.headers["Allow"]) == (405, "POST")
    assert response.json()["detail"]
    response = Client().post("/predict", {"age": 30})
    assert response.status_code == 415
    response = Client().post("/predict", b"[" + b"1," * 2_000_000, content_type="application/json")
    assert response.status_code == 413


def test_a_call_asks_the_database_nothing():
    make_serving()
    ask(TODAY)
    serving.served_model()
    with CaptureQueriesContext(connection) as captured:
        second = int(time.monotonic())
        ask(TODAY)
    if int(time.monotonic()) == second:
        assert len(captured) == 0


# Many at once


@pytest.mark.parametrize("path", ["/predict/batch", "/api/v1/health-risk/batch"])
def test_a_batch_is_answered_in_order(path):
    make_serving()
    readings = [{"aqi": 20}, {"aqi": 300}, TODAY]
    predictions = ask({"readings": readings}, path)["predictions"]
    assert predictions == [ask(reading) for reading in readings]


@pytest.mark.parametrize("path", ["/predict/batch", "/api/v1/health-risk/batch"])
def test_a_batch_tells_which_reading_is_wrong(path):
    make_serving()
    answer = ask({"readings": [{"aqi": 20}, {"aqi": -1}, {}]}, path, code=400)
    assert set(answer["errors"]) == {"readings.1.aqi", "readings.2"}


@pytest.mark.parametrize(
    "body",
    [[], {}, {"readings": []}, {"readings": {}}, {"readings": [{"aqi": 1}], "more": 1}],
)
def test_a_batch_has_its_form(body):
    make_serving()
    ask({"readings": [{"aqi": 1}] * MAX_BATCH}, "/predict/batch")
    ask({"readings": [{"aqi": 1}] * (MAX_BATCH + 1)}, "/predict/batch", code=400)
    ask(body, "/predict/batch", code=400)


# How often


@pytest.mark.parametrize("is_embedded", [True, False])
@pytest.mark.parametrize("path", PATHS)
def test_who_asks_too_often_is_told_to_wait(path, is_embedded, settings):
    settings.PREDICT_RATE = "3/hour"
    settings.EMBEDDED = is_embedded  # else counted in the cache
    make_serving()
    for _ in range(3):
        ask(TODAY, path)
    response = Client().post(path, json.dumps(TODAY), content_type="application/json")
    assert response.status_code == 429
    assert 0 < int(response.headers["Retry-After"]) <= 3600
    assert response.json()["type"] == "throttled"
    other = Client(REMOTE_ADDR="192.0.2.7").post(
        path, json.dumps(TODAY), content_type="application/json"
    )
    assert other.status_code == 200


def test_a_window_ends(settings, monkeypatch):
    settings.PREDICT_RATE = "1/minute"
    now = 6000.0
    monkeypatch.setattr(rate_limit.time, "time", lambda: now)
    request = RequestFactory().post("/predict")
    assert rate_limit.seconds_to_wait(request) == 0
    now = 6055.0
    assert rate_limit.seconds_to_wait(request) == 6
    now = 6060.0
    assert rate_limit.seconds_to_wait(request) == 0


def test_a_cache_that_does_not_answer_stops_nobody(settings, monkeypatch):
    def refuse(*args):
        raise RedisError("gone")

    settings.EMBEDDED = False
    settings.PREDICT_RATE = "0/minute"
    monkeypatch.setattr(rate_limit.shared, "incr", refuse)
    assert rate_limit.seconds_to_wait(RequestFactory().post("/predict")) == 0


def test_a_batch_counts_for_each_twenty_readings(settings):
    settings.PREDICT_RATE = "10/hour"
    make_serving()
    ask({"readings": [{"aqi": 1}] * 180}, "/predict/batch")
    ask({"aqi": 1})
    ask({"aqi": 1}, code=429)


@pytest.mark.parametrize(
    ("num_proxies", "forwarded", "remote", "client"),
    [
        (0, "198.51.100.1", "203.0.113.9", "203.0.113.9"),
        (1, "198.51.100.1", "203.0.113.9", "198.51.100.1"),
        (1, "6.6.6.6, 198.51.100.1", "203.0.113.9", "198.51.100.1"),
        (2, "6.6.6.6, 198.51.100.1, 10.0.0.1", "203.0.113.9", "198.51.100.1"),
        (1, "", "203.0.113.9", "203.0.113.9"),
        (0, "", "2001:db8:1:2:3:4:5:6", "2001:db8:1:2::"),
        (0, "", "::ffff:203.0.113.9", "203.0.113.9"),
    ],
)
def test_only_our_own_proxies_say_whom_a_call_comes_from(
    settings, num_proxies, forwarded, remote, client
):
    settings.NUM_PROXIES = num_proxies
    headers = {"X-Forwarded-For": forwarded} if forwarded else {}
    request = RequestFactory().post("/predict", headers=headers, REMOTE_ADDR=remote)
    assert rate_limit.client_of(request) == client


@pytest.mark.parametrize("rate", ["", "600", "x/minute", "-1/minute", "6/day", "²/minute"])
def test_a_rate_that_cannot_be_read_is_refused(rate):
    with pytest.raises(ImproperlyConfigured, match="TECHLIFE_PREDICT_RATE"):
        rate_limit.read_rate(rate)


# What is advised


def advice(**values):
    return " ".join(advice_for(values, is_high=False)[:-1])


def test_low_oxygen_comes_first_and_sends_to_a_doctor():
    lines = advice_for({"aqi": 400, "spo2": 88}, is_high=True, drivers=["aqi", "spo2"])
    assert "see a doctor now" in lines[0]
    assert "88 %" in lines[0]
    assert "hazardous" in lines[1]
    assert lines[-1] == DISCLAIMER
    assert "see a doctor now" in advice(spo2=92)
    assert "ask a doctor today" in advice(spo2=94)
    assert advice(spo2=95) == ""


@pytest.mark.parametrize(
    ("values", "name"),
    [
        ({"aqi": 0}, "Good"),
        ({"aqi": 50}, "Good"),
        ({"aqi": 51}, "Moderate"),
        ({"aqi": 150}, "Unhealthy for sensitive groups"),
        ({"aqi": 200}, "Unhealthy"),
        ({"aqi": 201}, "Very unhealthy"),
        ({"aqi": 900}, "Hazardous"),
        ({"pm25": 9.0}, "Good"),
        ({"pm25": 9.1}, "Moderate"),
        ({"pm25": 35.4}, "Moderate"),
        ({"pm25": 125.5}, "Very unhealthy"),
        ({"pm25": 226}, "Hazardous"),
        ({"pm25": 300, "aqi": 20}, "Good"),
    ],
)
def test_the_air_is_told_in_the_epas_words(values, name):
    band = air_band(values)
    assert band is not None
    assert band.name == name


def test_who_is_ill_or_old_is_advised_as_a_sensitive_group():
    assert "unhealthy for you" in advice(aqi=120, age=70)
    assert "unhealthy for you" in advice(aqi=120, chronic=1)
    assert "Others can be active" in advice(aqi=120, age=40, chronic=0)


def test_what_is_as_it_should_be_needs_no_advice():
    values = {"heart_rate": 70, "spo2": 98, "steps": 9000, "sleep_hours": 8, "smoker": 0, "age": 30}
    assert advice_for(values, is_high=False) == [DISCLAIMER]
    assert len(advice_for(values, is_high=True)) == 2


def test_what_drives_the_risk_is_advised_about_first():
    values = {"smoker": 1, "sleep_hours": 4}
    lines = advice_for(values, is_high=False, drivers=["sleep_hours", "smoker"])
    assert "sleep" in lines[0]
    assert "smoking" in lines[1]


# The process that answers


def test_the_web_process_does_not_load_torch(tmp_path):
    program = (
        "import sys, techlife.wsgi\n"
        "from django.urls import resolve\n"
        "resolve('/predict'); resolve('/health/')\n"
        "sys.exit('torch' in sys.modules)"
    )
    done = subprocess.run(
        [sys.executable, "-c", program],
        env={"TECHLIFE_DATA_DIR": str(tmp_path), "PATH": "", "PYTHONPATH": ":".join(sys.path)},
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr


def test_no_value_is_logged(caplog):
    make_serving()
    with caplog.at_level("DEBUG"):
        ask({"heart_rate": 131.25, "spo2": 71.5})
        ask({"heart_rate": 913.75}, code=400)
    assert "131.25" not in caplog.text
    assert "71.5" not in caplog.text
    assert "913.75" not in caplog.text
