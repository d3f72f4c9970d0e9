import pytest
from django.urls import reverse

from envoys.models import AuditEvent, User
from tests.factories import (
    make_envoy,
    make_participant,
    make_round,
    make_run,
    make_user,
    make_version,
)
from tests.training.test_run_pages import text_of
from training import services
from training.models import Study

pytestmark = [pytest.mark.django_db, pytest.mark.filterwarnings("ignore:No directory at")]


@pytest.fixture
def scientist(client):
    user = make_user(User.Role.DATA_SCIENTIST)
    client.force_login(user)
    return user


@pytest.fixture
def study():
    return services.study_for("died_in_hospital")


def test_without_a_study_the_list_says_how_to_make_one(client, scientist):
    text = text_of(client.get(reverse("training:study-list")))
    assert "No study yet" in text
    assert "Make a study" in text
    client.force_login(make_user(User.Role.PUBLIC_HEALTH))
    assert "Make a study" not in text_of(client.get(reverse("training:study-list")))


def test_a_study_is_made_from_what_the_program_can_predict(client, scientist):
    page = text_of(client.get(reverse("training:study-create")))
    assert "Readmission within 30 days. Readmitted within 30 days of discharge" in page
    assert "Shallow network." in page
    response = client.post(
        reverse("training:study-create"),
        {"target": "readmitted_30d", "network": "shallow_network"},
    )
    study = Study.objects.get()
    assert response.headers["Location"] == reverse("training:study-detail", args=[study.pk])
    assert (study.target, study.network) == ("readmitted_30d", "shallow_network")
    assert AuditEvent.objects.get().target == f"study:{study.pk}"


def test_a_study_that_there_is_already_is_not_made_twice(client, scientist, study):
    response = client.post(
        reverse("training:study-create"),
        {"target": "died_in_hospital", "network": "logistic_regression"},
    )
    assert "there is a study of this target and network already" in text_of(response)
    assert Study.objects.count() == 1
    assert AuditEvent.objects.get().action == "asked: make a study"


def test_the_page_of_a_study_says_what_from_what_and_how_far_it_is(client, scientist, study):
    services.package_training(study, make_envoy(name="Alpha"), services.plan_for(study))
    run = make_run(study=study, num_rounds=7)
    make_participant(run)
    make_version(make_round(run), number=4, state="ACTIVE")
    text = text_of(client.get(reverse("training:study-detail", args=[study.pk])))
    assert "Death in hospital : survived, died." in text
    assert "without the codes that say “dead or dying”" in text
    assert "v4" in text
    assert "0 of 7 rounds" in text
    assert "Alpha Waiting for an answer" in text
    assert "v4" in text_of(client.get(reverse("training:study-list")))


def test_a_doctor_sees_of_a_study_their_own_hospitals_part(client, study):
    alpha, beta = make_envoy(name="Alpha"), make_envoy(name="Beta")
    for envoy in (alpha, beta):
        services.package_training(study, envoy, services.plan_for(study))
    make_participant(make_run(study=study, num_rounds=7), beta)
    client.force_login(make_user(envoy=alpha))
    text = text_of(client.get(reverse("training:study-detail", args=[study.pk])))
    assert "Alpha Waiting for an answer" in text
    assert "Beta" not in text
    assert "of 7 rounds" not in text
    assert "Package a training" not in text
    client.force_login(make_user(User.Role.PUBLIC_HEALTH))
    assert "Waiting" not in text_of(client.get(reverse("training:study-detail", args=[study.pk])))


def test_the_pages_take_no_more_queries_for_more_rows(
    client, scientist, study, django_assert_max_num_queries
):
    for _ in range(12):
        run = make_run(study=study)
        make_participant(run)
        make_version(make_round(run))
        services.package_training(study, make_envoy(), services.plan_for(study))
    for page in (
        reverse("training:study-list"),
        reverse("training:study-detail", args=[study.pk]),
    ):
        with django_assert_max_num_queries(9):
            client.get(page)
