from datetime import timedelta
from html.parser import HTMLParser

import pytest
from django.db import connection
from django.test.utils import CaptureQueriesContext
from django.urls import reverse
from django.utils import timezone

from envoys.models import Envoy, User
from publichealth.models import AlertThreshold
from tests.api import Program
from tests.factories import make_envoy, make_reading, make_user, make_version
from tests.health import make_serving
from tests.publichealth.test_surveillance import health_run as health_run
from tests.training.test_run_pages import text_of
from training import services
from training.models import ModelVersion

# In tests nothing has been collected for WhiteNoise to serve.
pytestmark = [pytest.mark.django_db, pytest.mark.filterwarnings("ignore:No directory at")]

PAGE, LIVE = reverse("publichealth:dashboard"), reverse("publichealth:dashboard-live")


@pytest.fixture
def wearables():
    return make_envoy(name="Wearables", kind=Envoy.Kind.WEARABLES)


@pytest.fixture
def monitors():
    return make_envoy(name="Monitors", kind=Envoy.Kind.ENVIRONMENT)


@pytest.fixture
def officer(client):
    user = make_user(User.Role.PUBLIC_HEALTH, username="officer")
    client.force_login(user)
    return user


def make_readings(envoy, number=12, *, city="Lahore", **values):
    now = timezone.now()
    for n in range(number):
        make_reading(envoy, city=city, measured_at=now - timedelta(seconds=1 + n), **values)


def url_of(name, figure):
    return reverse(f"publichealth:{name}", args=[figure])


class Ids(HTMLParser):
    """The elements that have an id, and whether a poll's answer replaces them."""

    def __init__(self, html):
        super().__init__()
        self.found = {}
        self.twice = set()
        self.feed(html)

    def handle_starttag(self, tag, attrs):
        given = dict(attrs)
        if given.get("id") in self.found:
            self.twice.add(given["id"])
        if "id" in given:
            self.found[given["id"]] = "hx-swap-oob" in given or "hx-get" in given


def test_an_officers_home_is_the_public_health_page(client, officer):
    assert client.get("/").headers["Location"] == PAGE
    html = client.get(PAGE).content.decode()
    assert f'href="{PAGE}" aria-current="page"' in html
    for role in (User.Role.DATA_SCIENTIST, User.Role.ADMINISTRATOR):
        client.force_login(make_user(role))
        assert client.get("/").headers["Location"] == reverse("training:federation-dashboard")
        assert (
            f'href="{PAGE}"'
            in client.get(reverse("training:federation-dashboard")).content.decode()
        )


def test_without_readings_the_page_says_where_they_come_from(client, officer, monitors):
    text = text_of(client.get(PAGE))
    assert "No readings yet" in text
    assert "manage.py stream_readings" in text
    assert "No run of a study of readings has finished yet" in text
    make_reading(monitors, city="Lahore", measured_at=timezone.now() - timedelta(days=3))
    assert "No reading of a city in the last 24 hours" in text_of(client.get(PAGE))


def test_the_empty_page_loads_anew_once_there_is_a_reading(client, officer, monitors):
    poll = f"{LIVE}?empty=1"
    assert poll in client.get(PAGE).content.decode()
    assert "HX-Refresh" not in client.get(poll).headers
    make_reading(monitors, city="Lahore", aqi=10)
    assert client.get(poll).headers["HX-Refresh"] == "true"


def test_before_a_model_is_released_the_page_shows_air_only(client, officer, monitors):
    make_readings(monitors, aqi=160, pm25=30)
    text = text_of(client.get(PAGE))
    assert "No health-risk model is released yet, so this page shows air only" in text
    assert "160 Unhealthy" in text
    assert "At high risk" not in text
    assert "Mean air quality index, city by hour" in text
    assert "Mean air quality index, city by hour" in text_of(client.get(f"{PAGE}?map=risk"))
    version = make_version(state=ModelVersion.State.ACTIVE)
    ModelVersion.objects.filter(pk=version.pk).update(study=services.study_for("health_risk"))
    assert "has not scored a reading of the last 24 hours yet" in text_of(client.get(PAGE))


def test_the_page_shows_each_city_and_its_alerts(client, officer, monitors):
    make_readings(monitors, 20, city="Karachi", risk_score=0.2, aqi=40, pm25=8)
    make_readings(monitors, 20, city="Lahore", risk_score=0.8, aqi=160, pm25=60)
    text = text_of(client.get(PAGE))
    assert "Alerts in 1 of 2 cities" in text
    assert "Lahore : Mean risk 80 %, Air quality index 160, PM2.5 60.0 µg/m³" in text
    assert "Karachi 20 % under 50 % 40 Good 40 8.0 20" in text
    assert "Lahore 80 % over 50 % 160 Unhealthy 160 60.0 20" in text
    assert "Of 40 readings with a risk." in text


def test_an_id_is_on_the_page_once(client, officer, monitors):
    make_readings(monitors, risk_score=0.5, aqi=40)
    ids = Ids(client.get(PAGE).content.decode())
    assert {f"id_{name}_value_field" for name in ("risk", "aqi", "pm25")} <= ids.found.keys()
    assert not ids.twice


def test_a_poll_brings_what_came_in_since(client, officer, monitors):
    make_readings(monitors, city="Karachi", aqi=40)
    assert "Lahore" not in text_of(client.get(LIVE))
    make_readings(monitors, city="Lahore", aqi=40)
    assert "Lahore" in text_of(client.get(LIVE))


@pytest.mark.parametrize("query", ["", "?window=1h&map=aqi", "?window=24h&map=risk"])
def test_each_part_of_a_poll_has_its_place_on_the_page(client, officer, monitors, query):
    make_readings(monitors, risk_score=0.5, aqi=40)
    page = Ids(client.get(PAGE + query).content.decode()).found
    live = Ids(client.get(LIVE + query).content.decode()).found
    replaced = {name for name, is_replaced in live.items() if is_replaced}
    assert len(replaced) >= 8
    assert replaced <= page.keys()


@pytest.mark.parametrize("query", ["?window=1h&map=aqi", "?window=24h&map=risk"])
def test_a_poll_asks_on_for_the_window_and_map_that_are_looked_at(client, officer, monitors, query):
    make_readings(monitors, risk_score=0.5, aqi=40)
    for url in (PAGE, LIVE):
        html = client.get(url + query).content.decode()
        assert (LIVE + query).replace("&", "&amp;") in html


def test_a_window_that_there_is_not_is_the_shortest(client, officer, monitors):
    make_readings(monitors, aqi=40)
    assert "over the last 15 minutes" in text_of(client.get(f"{PAGE}?window=forever&map=x"))


def test_a_session_that_has_ended_is_sent_to_log_in(client):
    assert client.get(PAGE).headers["Location"].startswith(reverse("login"))
    answer = client.get(LIVE, headers={"HX-Request": "true"})
    assert answer.headers["HX-Refresh"] == "true"


def test_the_training_is_shown_node_by_node(client, officer, health_run):
    response = client.get(PAGE)
    text = text_of(response)
    assert "The newest finished run" in text
    assert reverse("training:run-benefit", args=[health_run.pk]) in response.content.decode()
    assert "1 0.4000 0.6000" in text  # Clinic, Wearables
    assert "0 0.8000 0.800 0.800" in text


def test_an_officer_sets_a_threshold_and_takes_it_back(client, officer, monitors):
    make_readings(monitors, aqi=120)
    assert "No alert" in text_of(client.get(PAGE))
    response = client.post(url_of("threshold-set", "aqi"), {"value": "120"}, follow=True)
    text = text_of(response)
    assert "Air quality index: alerts from 120 on." in text
    assert "Alerts in 1 of 1 cities" in text
    assert "Set by officer on" in text
    text = text_of(client.post(url_of("threshold-reset", "aqi"), follow=True))
    assert "alerts from 150 on again, the default" in text
    assert "No alert" in text
    assert not AlertThreshold.objects.exists()


def test_a_risk_is_set_in_percent_and_stored_as_a_program_gives_it(client, officer, monitors):
    make_readings(monitors, 20, risk_score=0.6)
    page = client.post(url_of("threshold-set", "risk"), {"value": "55"}, follow=True)
    assert "Mean risk: alerts from 55 % on." in text_of(page)
    assert "Mean risk 60 %" in text_of(page)
    assert 'value="55"' in page.content.decode()
    assert AlertThreshold.objects.get().value == 0.55
    assert "alerts from 70 % on again" in text_of(
        client.post(url_of("threshold-reset", "risk"), follow=True)
    )


def test_both_thresholds_are_explained_in_the_same_unit(client, officer, monitors):
    make_readings(monitors, 20, risk_score=0.6)
    assert "Another threshold" not in text_of(client.get(PAGE))
    make_serving(threshold=0.284)
    text = text_of(client.get(PAGE))
    assert "Another threshold, 28 %, was found with the released model" in text
    assert "High: at or above 28 %, the threshold released" in text
    assert "Default 70 %. A choice of this product, not a standard." in text


@pytest.mark.parametrize(
    ("figure", "value", "why"),
    [
        ("risk", "150", "Mean risk lies between 0 and 100 %, not 150"),
        ("pm25", "-1", "PM2.5 lies between 0 and 1000 µg/m³, not -1"),
        ("aqi", "bad", "Enter a number."),
        ("aqi", "nan", "Enter a number."),
        ("aqi", "", "This field is required."),
    ],
)
def test_what_is_no_threshold_is_refused_beside_its_field(client, officer, figure, value, why):
    response = client.post(url_of("threshold-set", figure), {"value": value})
    assert response.status_code == 200
    assert why in text_of(response)
    assert not AlertThreshold.objects.exists()


def test_a_figure_that_there_is_not_has_no_threshold(client, officer):
    assert client.post(url_of("threshold-set", "noise"), {"value": "1"}).status_code == 404
    assert client.post(url_of("threshold-reset", "noise")).status_code == 404
    assert client.get(url_of("threshold-set", "aqi")).status_code == 405


def test_a_data_scientist_reads_the_thresholds_and_sets_none(client):
    client.force_login(make_user(User.Role.DATA_SCIENTIST))
    response = client.get(PAGE)
    assert "Public-health officers and administrators set them" in text_of(response)
    assert url_of("threshold-set", "aqi") not in response.content.decode()
    assert client.post(url_of("threshold-set", "aqi"), {"value": "1"}).status_code == 404
    assert not AlertThreshold.objects.exists()


def test_the_page_asks_as_many_queries_for_many_cities_as_for_one(client, officer, monitors):
    def num_queries():
        with CaptureQueriesContext(connection) as queries:
            client.get(PAGE)
        return len(queries)

    make_readings(monitors, risk_score=0.5, aqi=10)
    num_queries()  # the first of a session may write into it
    before = num_queries()
    for n in range(5):
        make_readings(monitors, city=f"City {n}", risk_score=0.5, aqi=10)
    assert num_queries() == before


def test_a_program_reads_what_the_page_shows(monitors, health_run):
    make_readings(monitors, 20, city="Lahore", risk_score=0.8, aqi=160, pm25=60)
    program = Program(make_user(User.Role.PUBLIC_HEALTH))
    found = program.get("/api/v1/public-health?window=1h")
    (city,) = found["cities"]
    assert (city["city"], city["num_readings"], city["aqi_band"]) == ("Lahore", 20, "Unhealthy")
    assert city["mean_risk"] == pytest.approx(0.8)
    assert [alert["figure"] for alert in found["alerts"]] == ["risk", "aqi", "pm25"]
    assert (
        len(found["hours"]) == len(found["trend"]) == len(found["heat_map"][0]["mean_risk"]) == 24
    )
    assert found["heat_map"][0]["mean_aqi"][-1] in (160, None)  # None right after the full hour
    assert found["breakdown"]["total"] == 20
    assert found["training"]["run"] == health_run.pk
    assert {n["name"]: n["train_loss"] for n in found["training"]["nodes"]}["Clinic"] == [0.4, 0.2]
    assert program.get("/api/v1/public-health")["window"] == "15min"
    refused = program.get("/api/v1/public-health?window=1y", code=400)
    assert list(refused["errors"]) == ["window"]


def test_a_program_sets_a_threshold_and_takes_it_back():
    officer = Program(make_user(User.Role.PUBLIC_HEALTH, username="officer"))
    values = {each["figure"]: each["value"] for each in officer.get("/api/v1/alert-thresholds")}
    assert values == {"risk": 0.7, "aqi": 150, "pm25": 55.4}
    new = officer.patch("/api/v1/alert-thresholds/aqi", {"value": 120})
    assert (new["value"], new["is_default"], new["set_by"]) == (120, False, "officer")
    for body in ({"value": 2000}, {"value": None}, {}):
        assert officer.patch("/api/v1/alert-thresholds/aqi", body, code=400)["type"] == "invalid"
    officer.patch("/api/v1/alert-thresholds/noise", {"value": 1}, code=404)
    new = officer.post("/api/v1/alert-thresholds/aqi/reset", code=200)
    assert (new["value"], new["is_default"], new["set_by"]) == (150, True, None)
    scientist = Program(make_user(User.Role.DATA_SCIENTIST))
    assert len(scientist.get("/api/v1/alert-thresholds")) == 3
    scientist.patch("/api/v1/alert-thresholds/aqi", {"value": 120}, code=404)
    scientist.post("/api/v1/alert-thresholds/aqi/reset", code=404)
