import pytest
from django.urls import reverse
from django.utils import timezone

from envoys.models import AuditEvent, User
from tests.factories import (
    make_envoy,
    make_participant,
    make_round,
    make_run,
    make_user,
    make_version,
)
from tests.federation import break_storage, finish
from tests.training.test_run_pages import text_of
from training.models import Distribution, ModelVersion

pytestmark = [pytest.mark.django_db, pytest.mark.filterwarnings("ignore:No directory at")]

LIST = reverse("training:model-version-list")
State, Status = ModelVersion.State, Distribution.Status


@pytest.fixture
def scientist(client) -> User:
    user = make_user(User.Role.DATA_SCIENTIST)
    client.force_login(user)
    return user


@pytest.fixture
def alpha():
    return make_envoy(name="Alpha")


@pytest.fixture
def beta():
    return make_envoy(name="Beta")


def manifest(*counts):
    return {
        "classes": ["Low", "Medium", "High"],
        "schema_sha256": "5" * 64,
        "lineage": {
            "strategy": "fedavg",
            "seed": 7,
            "updates": [{"envoy": name, "num_examples": number} for name, number in counts],
        },
    }


@pytest.fixture
def version(alpha, beta):
    run = make_run(report={"pooled_test": {"global": {"auroc": 0.7321, "brier": None}}})
    make_participant(run, alpha)
    return make_version(
        make_round(run), manifest=manifest(("alpha", 1234), ("beta", 7), ("gone", 50))
    )


def url(name, version):
    return reverse(f"training:model-version-{name}", args=[version.pk])


def deliver(version, envoy, status=Status.COMPLETE, **values):
    if status == Status.COMPLETE:
        values = {
            "seen_sha256": version.object_sha256,
            "delivered_at": timezone.now(),
            **values,
        }
    return Distribution.objects.create(version=version, envoy=envoy, status=status, **values)


def test_the_list_has_the_federations_versions_and_the_hospitals_own_apart(
    client, scientist, version, alpha
):
    assert "v1 run #" in text_of(client.get(LIST))
    make_version(version.training_round, envoy=alpha, number=6, metrics={"validation_auroc": 0.654})
    text = text_of(client.get(LIST))
    assert "Candidate 0.732" in text
    assert "v6" not in text
    own = text_of(client.get(LIST, {"of": "hospitals"}))
    assert "Alpha Fine-tuned at the hospital 0.654" in own
    assert "0.732" not in own
    assert "No version like that" in text_of(client.get(LIST, {"state": "ACTIVE"}))
    assert "v1" in text_of(client.get(LIST, {"state": "CANDIDATE", "study": version.study_id}))
    assert "v1" in text_of(client.get(LIST, {"state": "odd", "study": "odd"}))


def test_without_a_model_the_list_says_where_one_comes_from(client, scientist):
    assert "A run that finishes makes a version" in text_of(client.get(LIST))


def test_a_version_says_where_it_comes_from_and_how_good_it_is(client, scientist, version):
    text = text_of(client.get(url("detail", version)))
    assert "Risk tier: Low, Medium, High" in text
    assert f"Round 0 of run #{version.run_id} , by FedAvg, seed 7." in text
    assert "Alpha 1,234 Beta under 10 gone –" in text
    assert "AUROC 0.732" in text
    assert "Brier" not in text


def test_a_doctor_reads_of_other_hospitals_their_name_only(client, version, alpha, beta):
    deliver(version, alpha)
    deliver(version, beta)
    others = make_version(version.training_round, envoy=beta)
    own = make_version(version.training_round, envoy=alpha)
    client.force_login(make_user(envoy=alpha))
    text = text_of(client.get(url("detail", version)))
    assert "Alpha 1,234 Beta – gone –" in text
    assert "1 of 1 hospital reached" in text
    assert "Release" not in text
    assert client.get(url("detail", own)).status_code == 200
    for name in ("detail", "live"):
        assert client.get(url(name, others)).status_code == 404
    assert client.post(url("distribute", version)).status_code == 404
    assert "Beta" not in text_of(client.get(LIST, {"of": "hospitals"}))


def test_deliveries_show_what_arrived_where_and_what_failed(
    client, scientist, version, alpha, beta
):
    deliver(version, alpha, Status.FAILED, reason="an older try")
    deliver(version, alpha)
    failed = deliver(version, beta, Status.FAILED, reason="the bucket is away")
    page = client.get(url("detail", version))
    text = text_of(page)
    assert "1 of 2 hospitals reached, 1 failed." in text
    assert f"Alpha Arrived {version.object_sha256[:12]} as made" in text
    assert "Beta Failed the bucket is away Retry" in text
    assert "an older try" not in text
    retry = reverse("envoys:task-retry", args=["distribution", failed.pk])
    assert f'action="{retry}"' in page.content.decode()


def test_the_page_polls_only_while_something_is_on_its_way(client, scientist, version, alpha):
    poll = f'hx-get="{url("live", version)}"'
    delivery = deliver(version, alpha, Status.PENDING)
    for status in Status:
        Distribution.objects.filter(pk=delivery.pk).update(status=status)
        for name in ("detail", "live"):
            content = client.get(url(name, version)).content.decode()
            assert (poll in content) == (status in (Status.PENDING, Status.RUNNING))
            assert ("hx-trigger" in content) == (poll in content)


def test_more_hospitals_take_no_more_queries(
    client, scientist, version, django_assert_max_num_queries
):
    for _ in range(12):
        envoy = make_envoy()
        deliver(version, envoy)
        make_version(version.training_round, envoy=envoy)
    for page in (url("detail", version), url("live", version), LIST, f"{LIST}?of=hospitals"):
        with django_assert_max_num_queries(10):
            client.get(page)


def test_a_version_is_released_to_the_chosen_hospitals(
    client, scientist, hospitals, queue, settings
):
    version = finish(hospitals, queue).versions.of_federation().get()
    page = text_of(client.get(url("detail", version)))
    assert "This is your approval, under your name" in page
    break_storage(hospitals[1])
    AuditEvent.objects.all().delete()
    response = client.post(
        url("distribute", version), {"envoys": [envoy.pk for envoy in hospitals[:2]]}, follow=True
    )
    text = text_of(response)
    assert "Released, and on its way to 2 hospitals." in text
    assert "0 of 2 hospitals reached; on its way" in text
    version.refresh_from_db()
    assert (version.state, version.approved_by) == (State.ACTIVE, scientist)
    assert AuditEvent.objects.filter(action="distributed version").count() == 1
    queue.work()
    text = text_of(client.get(url("live", version)))
    assert "1 of 2 hospitals reached; on its way" in text  # its storage may come back
    assert "Attempt 1: " in text
    settings.LEASE_SECONDS = 0
    queue.work_and_sweep()
    text = text_of(client.get(url("live", version)))
    assert "1 of 2 hospitals reached, 1 failed." in text
    assert version.object_sha256[:12] in text


def test_too_few_contributors_are_told_before_and_refused_after(client, scientist, alpha):
    version = make_version(manifest=manifest(("alpha", 100), ("beta", 100)))
    page = text_of(client.get(url("detail", version)))
    assert "It cannot be released: it comes from 2 of 3 hospitals needed" in page
    assert "Release and distribute …" not in page
    response = client.post(url("distribute", version), {"envoys": [alpha.pk]}, follow=True)
    assert "could give one of them away" in text_of(response)
    version.refresh_from_db()
    assert version.state == State.CANDIDATE


def test_nobody_chosen_sends_nothing(client, scientist, version):
    text = text_of(client.post(url("distribute", version), follow=True))
    assert "Nothing was sent: choose at least one active hospital." in text
    assert not Distribution.objects.exists()


def test_a_hospitals_own_model_is_not_offered_to_others(client, scientist, version, alpha):
    own = make_version(version.training_round, envoy=alpha, metrics={"validation_loss": 0.5})
    text = text_of(client.get(url("detail", own)))
    assert "Alpha's own." in text.replace("&#x27;", "'")
    assert "Release and distribute" not in text
    assert "Loss on validation patients 0.500" in text
