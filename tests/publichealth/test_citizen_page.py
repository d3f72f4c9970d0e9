"""The page for everybody: today's numbers in, a risk in words out, and nothing kept."""

import re

import pytest
from django.contrib.sessions.models import Session
from django.core import signing
from django.db import connection
from django.test import Client
from django.test.utils import CaptureQueriesContext
from django.urls import reverse

from envoys.models import AuditEvent, User
from federated.readings import INPUT_NAMES
from publichealth.models import Reading
from publichealth.services import serving
from publichealth.views.citizen import COOKIE
from tests.factories import make_user
from tests.health import make_serving, trained_on

pytestmark = [pytest.mark.django_db, pytest.mark.filterwarnings("ignore:No directory at")]

PAGE = "/health/"
POOR = {"aqi": "180", "smoker": "1", "spo2": "93", "age": "70"}


def text_of(response):
    main = response.content.decode().partition("<main")[2]
    return " ".join(re.sub(r"<[^>]+>", " ", main).split())  # no-break spaces too


def test_the_form_asks_for_what_the_model_knows_with_units_and_nothing_filled_in(client):
    make_serving(training_distribution=trained_on("age", "spo2", "cough"))
    response = client.get(PAGE)
    html = response.content.decode()
    assert response.status_code == 200
    asked = set(re.findall(r'name="(\w+)"', html)) & set(INPUT_NAMES)
    assert asked == {"age", "spo2", "cough"}
    assert 'placeholder="e.g. 97"' in html
    assert not re.search(r'<input type="number"[^>]* value=', html)
    assert [part["title"] for part in response.context["form"].parts()] == [
        "You",
        "Symptoms",
        "Your device",
    ]
    for name in asked:
        assert f'for="id_{name}"' in html
    assert html.count("<legend") == 3


def test_the_answer_tells_risk_drivers_air_and_what_to_do(client):
    make_serving()
    response = client.post(PAGE, POOR)
    text = text_of(response)
    assert response.status_code == 200
    assert "High risk" in text
    assert "Unhealthy AQI 180" in text
    assert "ask a doctor today" in text
    assert "Stopping smoking helps" in text
    assert re.search(r"Air quality index 180 raises it by \d+ points", text)
    assert re.search(r"Smoker yes raises it by \d+ points?", text)
    assert "Age 70 years hardly changes it" in text
    assert "not a diagnosis" in text
    # What was entered is there to be changed.
    assert 'value="180"' in response.content.decode()


def test_a_low_risk_is_not_called_high(client):
    make_serving()
    text = text_of(client.post(PAGE, {"aqi": "20", "spo2": "99"}))
    assert "Risk not high" in text
    assert "Good AQI 20" in text


def test_nobody_is_told_of_certainty(client):
    make_serving(slope=50.0, training_distribution=trained_on(*POOR))
    assert "more than 99 %" in text_of(client.post(PAGE, POOR))
    low = {"aqi": "10", "smoker": "0", "spo2": "97", "age": "30"}
    assert "less than 1 %" in text_of(client.post(PAGE, low))


def test_what_is_not_counted_is_named(client):
    of_two_kinds = trained_on("aqi", "smoker") | {"2": trained_on("bmi")["1"]}
    make_serving(training_distribution=of_two_kinds)
    text = text_of(client.post(PAGE, {"aqi": "120", "smoker": "1", "bmi": "30"}))
    assert "Not counted: Body mass index." in text
    assert "An estimate from 2 of 3 numbers" in text
    assert "Not counted" not in text_of(client.post(PAGE, {"aqi": "120"}))


def test_what_is_wrong_is_told_beside_the_field_and_on_top(client):
    make_serving()
    response = client.post(PAGE, {"spo2": "20", "age": "old", "aqi": "60"})
    html = response.content.decode()
    assert response.status_code == 200
    assert "This lies between 50 and 100 %, not 20." in html
    assert re.search(r'name="spo2"[^>]*aria-describedby="[^"]*id_spo2_error', html)
    assert 'id="id_spo2_error"' in html
    assert 'href="#id_age"' in html
    assert "Estimated risk" not in html


def test_an_empty_form_asks_for_one_number(client):
    make_serving()
    response = client.post(PAGE, {})
    assert response.status_code == 200
    assert "Enter at least one number" in text_of(response)


def test_nothing_is_stored_and_no_cookie_set_unless_asked(client, caplog):
    make_serving()
    with caplog.at_level("DEBUG"), CaptureQueriesContext(connection) as captured:
        response = client.post(PAGE, {"heart_rate": "131.25"})
        client.post(PAGE, {"heart_rate": "913.75"})
    changes = [q["sql"] for q in captured if not q["sql"].startswith("SELECT")]
    assert changes == []
    assert Reading.objects.count() == AuditEvent.objects.count() == Session.objects.count() == 0
    assert COOKIE not in response.cookies
    assert "131.25" not in caplog.text
    assert "913.75" not in caplog.text
    assert "no-store" in response.headers["Cache-Control"]


def test_who_asks_for_it_finds_the_numbers_again_until_they_are_forgotten(client):
    make_serving()
    response = client.post(PAGE, {**POOR, "remember": "on"})
    cookie = response.cookies[COOKIE]
    assert cookie["httponly"]
    assert cookie["path"] == PAGE
    assert cookie["max-age"] == 30 * 24 * 3600

    html = client.get(PAGE).content.decode()
    assert re.search(r'name="aqi" value="180"', html)
    assert re.search(r'<option value="1" selected>Yes', html)
    assert re.search(r'name="remember"[^>]*checked', html)
    assert "Forget them" in html

    response = client.post(PAGE, {"forget": "1"})
    assert response.cookies[COOKIE]["max-age"] == 0
    html = client.get(PAGE).content.decode()
    assert 'value="180"' not in html
    assert "Forget them" not in html


def test_the_numbers_are_no_longer_kept_once_the_box_is_empty(client):
    make_serving()
    client.post(PAGE, {**POOR, "remember": "on"})
    response = client.post(PAGE, POOR)
    assert response.cookies[COOKIE]["max-age"] == 0
    assert "Forget them" not in response.content.decode()


@pytest.mark.parametrize(
    "value",
    ["", "nonsense", signing.dumps({"aqi": 1})],
    ids=["empty", "nonsense", "another salt"],  # a signature differs with every start
)
def test_a_cookie_that_is_not_ours_is_not_read(client, value):
    make_serving()
    client.cookies[COOKIE] = value
    response = client.get(PAGE)
    assert response.status_code == 200
    assert "checked" not in response.content.decode()


def test_before_the_first_release_the_page_says_so(client):
    response = client.get(PAGE)
    assert response.status_code == 200
    assert "No model of health risk has been released yet" in text_of(response)
    assert client.post(PAGE, POOR).status_code == 503


def test_another_site_cannot_send_the_form():
    make_serving()
    assert Client(enforce_csrf_checks=True).post(PAGE, POOR).status_code == 403


def test_who_asks_too_often_is_told_to_wait(client, settings):
    settings.PREDICT_RATE = "1/hour"
    make_serving()
    client.post(PAGE, POOR)
    response = client.post(PAGE, POOR)
    assert response.status_code == 429
    assert int(response.headers["Retry-After"]) > 0
    assert "Too many calls" in text_of(response)


@pytest.mark.parametrize("role", [None, *User.Role.values])
def test_everybody_finds_the_page_from_the_bar_on_top(client, role):
    make_serving()
    if role:
        client.force_login(make_user(role))
    html = client.get(PAGE).content.decode()
    assert f'href="{PAGE}" aria-current="page"' in html
    assert ("Log in</a>" in html) == (role is None)


def test_the_login_page_links_to_it(client):
    assert f'href="{PAGE}"' in client.get(reverse("login")).content.decode()


def test_a_model_of_tiers_is_answered_with_too(client):
    from tests.health import make_health_version, make_params

    make_serving(
        make_health_version(make_params({"age": 3.0}, num_classes=3), target="health_tier")
    )
    serving.forget_served()
    assert "High risk" in text_of(client.post(PAGE, {"age": "80"}))
