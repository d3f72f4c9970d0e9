import pytest
from django.urls import reverse

from envoys.models import AuditEvent, Envoy, User
from inference.models import InferenceRun
from inference.tiers import tier_counts
from tests.api import Program
from tests.factories import make_admission, make_envoy, make_study, make_user, make_version
from training.models import Distribution

pytestmark = [pytest.mark.django_db, pytest.mark.filterwarnings("ignore:No directory at")]

LIST, CREATE = "inference:inference-run-list", "inference:inference-run-create"
CLASSES = ["Low", "Medium", "High"]


@pytest.fixture
def scientist(client):
    user = make_user(User.Role.DATA_SCIENTIST)
    client.force_login(user)
    return user


@pytest.fixture
def version():
    return make_version(state="ACTIVE", manifest={"classes": CLASSES})


def deliver(version, envoy):
    return Distribution.objects.create(version=version, envoy=envoy, status="COMPLETE")


def scored(version, envoy, counts, **values):
    values.setdefault("status", InferenceRun.Status.COMPLETE)
    return InferenceRun.objects.create(envoy=envoy, model_version=version, counts=counts, **values)


def test_small_counts_and_what_would_give_them_away_are_not_told(version):
    run = scored(version, make_envoy(), {"High": 40, "Low": 300, "Medium": 4})
    counts = tier_counts(run)
    assert counts is not None
    assert counts.tiers == {"Low": 300, "Medium": None, "High": None}
    assert counts.total == 344
    assert counts.in_words() == [("Low", "300"), ("Medium", "–"), ("High", "–"), ("All", "344")]
    run.counts = {}
    assert tier_counts(run) is None


def test_a_data_scientist_starts_one_task_for_each_hospital(client, queue, scientist, version):
    ready, other, without = (make_envoy(name=name) for name in ("Alpha", "Beta", "Gamma"))
    for envoy in (ready, other):
        deliver(version, envoy)
        make_admission(envoy=envoy)
    data = {"envoys": [ready.pk, without.pk]}
    page = client.post(reverse(CREATE), data, follow=True).content.decode()
    run = InferenceRun.objects.get()
    assert (run.envoy, run.model_version, run.requested_by) == (ready, version, scientist)
    assert queue.names() == ["predict_envoy_task"]
    assert AuditEvent.objects.filter(action="requested inference").count() == 1
    assert "Scoring has begun: Alpha." in page
    assert "Not scored: Gamma has not received a model" in page

    page = client.post(reverse(CREATE), data, follow=True).content.decode()
    assert "Alpha is being scored with" in page
    assert InferenceRun.objects.count() == 1


def test_without_a_hospital_chosen_nothing_starts(client, scientist, version):
    make_envoy()
    page = client.post(reverse(CREATE), {}).content.decode()
    assert "This field is required" in page
    assert not InferenceRun.objects.exists()


def test_a_doctor_scores_the_own_hospital_with_either_model(client, queue, version):
    envoy = make_envoy()
    client.force_login(make_user(envoy=envoy))
    deliver(version, envoy)
    own = make_version(envoy=envoy, training_round=version.training_round, manifest={})
    other = make_envoy()
    deliver(version, other)
    for of in ("global", "own"):
        client.post(reverse(CREATE), {"model": of, "envoys": [other.pk]})
    runs = InferenceRun.objects.order_by("pk")
    assert [(run.envoy, run.model_version) for run in runs] == [(envoy, version), (envoy, own)]


def test_a_doctor_sees_the_own_hospitals_runs_only(client, version):
    own, other = make_envoy(name="Alpha"), make_envoy(name="Beta")
    client.force_login(make_user(envoy=own))
    for envoy in (own, other):
        scored(version, envoy, {"Low": 300, "Medium": 50, "High": 40})
    for name in (LIST, "inference:inference-run-live"):
        page = client.get(reverse(name)).content.decode()
        assert "Alpha" in page
        assert "Beta" not in page
        assert "300" in page


def test_the_list_asks_for_itself_only_while_hospitals_are_scored(client, scientist, version):
    run = scored(version, make_envoy(), {}, status="RUNNING", num_done=30, num_total=60)
    page = client.get(reverse(LIST)).content.decode()
    assert "hx-get" in page
    assert 'value="50" max="100"' in page
    InferenceRun.objects.filter(pk=run.pk).update(status="COMPLETE")
    assert "hx-get" not in client.get(reverse(LIST)).content.decode()


def test_the_list_needs_no_more_queries_for_more_runs(
    client, scientist, version, django_assert_max_num_queries
):
    make_study()
    for _ in range(20):
        scored(version, make_envoy(), {"Low": 300, "Medium": 50, "High": 40})
    with django_assert_max_num_queries(12):
        client.get(reverse(LIST))


def test_nodes_of_readings_are_not_offered_and_refused_in_words(client, queue, scientist, version):
    node = make_envoy(name="Watches", kind=Envoy.Kind.WEARABLES)
    page = client.get(reverse(LIST)).content.decode()
    assert "There is no hospital to score" in page
    assert "Watches" not in page
    hospital = make_envoy(name="Alpha")
    deliver(version, hospital)
    page = client.get(reverse(LIST)).content.decode()
    assert "Alpha" in page
    assert "Watches" not in page
    client.post(reverse(CREATE), {"envoys": [node.pk]})
    assert not InferenceRun.objects.exists()

    program, url = Program(scientist), reverse("api:inference-run-list")
    assert "Watches is a node: only hospitals can be scored" in str(
        program.post(url, {"envoys": [node.pk]}, code=409)
    )
    assert program.post(url, {}, code=202)["problems"] == []
    assert InferenceRun.objects.get().envoy == hospital


def test_without_a_model_the_page_says_what_comes_first(client, scientist):
    make_envoy()
    assert "There is no model yet" in client.get(reverse(LIST)).content.decode()
