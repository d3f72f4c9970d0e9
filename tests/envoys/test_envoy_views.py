import pytest
from django.urls import reverse
from django.utils import timezone

from diagnoses.models import Snapshot
from envoys import workers
from envoys.models import Envoy, User, WorkerSign
from tests.factories import make_envoy, make_snapshot, make_user

pytestmark = [pytest.mark.django_db, pytest.mark.filterwarnings("ignore:No directory at")]


@pytest.fixture(autouse=True)
def broker(monkeypatch):
    monkeypatch.setattr(workers, "_lengths", lambda queues: (dict.fromkeys(queues, 7), 2))


@pytest.fixture
def scientist(client):
    user = make_user(User.Role.DATA_SCIENTIST)
    client.force_login(user)
    return user


def test_a_hospital_is_invited_by_its_name(client, scientist):
    assert "Invite a hospital" in client.get(reverse("envoys:envoy-create")).content.decode()
    response = client.post(reverse("envoys:envoy-create"), {"name": "Made-up Hospital"})
    envoy = Envoy.objects.get()
    assert response.url == reverse("training:envoy-detail", args=[envoy.pk])
    assert (envoy.slug, envoy.region) == ("made-up-hospital", "eu-north-1")


def test_what_the_service_refuses_is_said_on_the_form_and_what_was_typed_is_kept(client, scientist):
    make_envoy(name="Made-up Hospital")
    data = {"name": "Made-up Hospital", "prefix": "../x"}
    page = client.post(reverse("envoys:envoy-create"), data).content.decode()
    assert "there is a hospital Made-up Hospital already" in page
    assert 'value="../x"' in page
    assert Envoy.objects.count() == 1


def test_a_hospital_is_edited(client, scientist):
    envoy = make_envoy(name="Old", queue="own")
    url = reverse("envoys:envoy-edit", args=[envoy.pk])
    assert 'value="own"' in client.get(url).content.decode()
    client.post(url, {"name": "New", "region": "eu-west-1", "queue": ""})
    envoy.refresh_from_db()
    assert (envoy.name, envoy.region, envoy.queue) == ("New", "eu-west-1", "")
    page = client.post(url, {"name": "", "region": "eu-west-1"}).content.decode()
    assert "Edit New" in page
    assert "This field is required" in page


def test_a_hospital_is_suspended_and_returns(client, scientist):
    envoy = make_envoy()
    for name, status, words in (
        ("suspend", "SUSPENDED", "is suspended"),
        ("suspend", "SUSPENDED", f"{envoy} is suspended"),
        ("resume", "ACTIVE", "takes part again"),
    ):
        url = reverse(f"envoys:envoy-{name}", args=[envoy.pk])
        assert client.get(url).status_code == 405
        page = client.post(url, follow=True).content.decode()
        envoy.refresh_from_db()
        assert envoy.status == status
        assert words in page


def test_a_deleted_hospital_has_no_pages(client, scientist):
    envoy = make_envoy(status=Envoy.Status.DELETED)
    for name in ("envoys:envoy-edit", "training:envoy-detail", "inference:envoy-delete"):
        assert client.get(reverse(name, args=[envoy.pk])).status_code == 404


# Tasks


def test_the_page_shows_queues_workers_and_work_by_hospital(client, scientist):
    now = timezone.now()
    WorkerSign.objects.create(
        hostname="celery@made-up", queues=["training"], num_processes=2, started_at=now, seen_at=now
    )
    alpha = make_envoy(name="Alpha", queue="own")
    make_snapshot(alpha, status="RUNNING", num_done=3, num_total=4, enqueued_at=now)
    make_snapshot(make_envoy(name="Beta"), status="PENDING", enqueued_at=now)
    make_snapshot(
        make_envoy(name="Gamma"), status="FAILED", reason="no space left", enqueued_at=now
    )
    make_snapshot(make_envoy(name="Delta"), enqueued_at=now)
    page = client.get(reverse("envoys:task-list")).content.decode()
    for words in ("celery@made-up", "Only for Alpha", "75 %", "Beta", "no space left", "Delta"):
        assert words in page, words
    assert "hx-get" in page


def test_the_page_does_not_ask_for_itself_where_nothing_is_to_be_done(client, scientist):
    page = client.get(reverse("envoys:task-list")).content.decode()
    assert "hx-get" not in page
    assert "No worker has been heard of" in page


def test_a_broker_that_is_away_leaves_the_rest_of_the_page(client, scientist, monkeypatch):
    def refuse(queues):
        raise OSError

    monkeypatch.setattr(workers, "_lengths", refuse)
    page = client.get(reverse("envoys:task-list-live")).content.decode()
    assert "The broker does not answer" in page
    assert "Nothing is running" in page


def test_failed_work_is_retried_from_the_page(client, scientist, queue):
    snapshot = make_snapshot(status="FAILED", reason="no space left")
    url = reverse("envoys:task-retry", args=["snapshot", snapshot.pk])
    page = client.post(url, follow=True).content.decode()
    assert f"Export for {snapshot.envoy} is tried again" in page
    assert queue.names() == ["export_snapshot_task"]
    assert "only work that has failed" in client.post(url, follow=True).content.decode()
    assert client.post(reverse("envoys:task-retry", args=["patient", 1])).status_code == 404
    assert client.post(reverse("envoys:task-retry", args=["snapshot", 0])).status_code == 404


def test_ended_work_is_paged_newest_first_and_by_kind(client, scientist):
    envoy = make_envoy()
    now = timezone.now()
    ids = [make_snapshot(envoy, enqueued_at=now).pk for _ in range(30)]
    rows = [client.get(reverse("envoys:task-list") + f"?page={n}").context["page"] for n in (1, 2)]
    assert [each.row.pk for page in rows for each in page] == ids[::-1]
    page = client.get(reverse("envoys:task-list") + "?kind=erasure").context["page"]
    assert list(page) == []


def test_the_page_needs_no_more_queries_for_more_work(
    client, scientist, django_assert_max_num_queries
):
    def count():
        with django_assert_max_num_queries(60) as captured:
            client.get(reverse("envoys:task-list"))
        return len(captured)

    def make():
        for status in Snapshot.Status:
            make_snapshot(make_envoy(), status=status, enqueued_at=timezone.now())

    make()
    few = count()
    for _ in range(5):
        make()
    assert count() == few
