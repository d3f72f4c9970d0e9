import pytest
from django.urls import reverse

from tests.factories import PASSWORD, make_envoy, make_user

# In tests nothing has been collected for WhiteNoise to serve.
NO_STATIC_ROOT = pytest.mark.filterwarnings("ignore:No directory at")
pytestmark = [pytest.mark.django_db, NO_STATIC_ROOT]


def test_a_user_logs_in_is_named_on_the_page_and_logs_out(client):
    make_user(username="amina", envoy=make_envoy(name="Kisumu County"))
    response = client.post(
        reverse("login"), {"username": "amina", "password": PASSWORD}, follow=True
    )
    assert response.redirect_chain == [
        (reverse("home"), 302),
        (reverse("inference:hospital-dashboard"), 302),
    ]
    content = response.content.decode()
    assert "amina" in content
    assert "Doctor, Kisumu County" in content
    assert client.get(reverse("logout")).status_code == 405
    assert client.post(reverse("logout")).headers["Location"] == reverse("login")
    assert client.get(reverse("home")).status_code == 302


def test_a_wrong_password_is_refused_in_words_and_logs_nobody_in(client):
    make_user(username="amina")
    response = client.post(reverse("login"), {"username": "amina", "password": "wrong"})
    assert response.status_code == 200
    assert "correct username and password" in response.content.decode()
    assert client.get(reverse("home")).status_code == 302


def test_an_inactive_account_does_not_log_in(client):
    make_user(username="amina", is_active=False)
    response = client.post(reverse("login"), {"username": "amina", "password": PASSWORD})
    assert response.status_code == 200


def test_after_login_one_is_where_one_wanted_to_go_but_never_on_another_site(client):
    make_user(username="amina")
    credentials = {"username": "amina", "password": PASSWORD}
    response = client.post(reverse("login"), {**credentials, "next": "/?page=2"})
    assert response.headers["Location"] == "/?page=2"
    client.post(reverse("logout"))
    response = client.post(reverse("login"), {**credentials, "next": "https://elsewhere.example/"})
    assert response.headers["Location"] == reverse("home")


def test_who_is_logged_in_is_not_asked_again(client):
    client.force_login(make_user())
    assert client.get(reverse("login")).headers["Location"] == reverse("home")


def test_a_forged_form_is_refused_with_advice(client):
    client.handler.enforce_csrf_checks = True
    response = client.post(reverse("login"), {"username": "amina", "password": PASSWORD})
    assert response.status_code == 403
    assert "reload the page" in response.content.decode()
