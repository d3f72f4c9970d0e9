import pytest
from django.urls import reverse

from envoys.models import AuditEvent, Envoy, User
from federated.plan import MAX_SEED
from tests.factories import (
    make_assignment,
    make_envoy,
    make_participant,
    make_round,
    make_run,
    make_user,
    make_version,
)
from tests.federation import approve, make_hospital
from tests.training.test_run_pages import text_of
from training import services
from training.models import RoundAssignment, StudyMembership, TrainingRun

pytestmark = [pytest.mark.django_db, pytest.mark.filterwarnings("ignore:No directory at")]

CREATE = reverse("training:run-create")
Status = RoundAssignment.Status


@pytest.fixture
def scientist(client) -> User:
    user = make_user(User.Role.DATA_SCIENTIST)
    client.force_login(user)
    return user


@pytest.fixture
def study():
    return services.study_for("risk_tier")


@pytest.fixture
def plan(study):
    return services.plan_for(study, num_rounds=2)


@pytest.fixture
def hospitals(study, plan) -> list[Envoy]:
    """Ready can take part, Few has too few patients, Silent has not answered."""
    ready, few, silent = (
        make_hospital(name, num_patients=number)
        for name, number in (("Ready", 20), ("Few", 3), ("Silent", 20))
    )
    approve(study, ready, plan)
    approve(study, few, plan)
    services.package_training(study, silent, plan)
    return [ready, few, silent]


def chosen(study, plan):
    return {"study": study.pk, "plan": plan.sha256}


def run_values(study, plan, envoys, **values):
    return {
        **chosen(study, plan),
        "envoys": [envoy.pk for envoy in envoys],
        "seed": 11,
        "quorum": "",
        "deadline_minutes": 30,
        **values,
    }


def test_one_chooses_a_plan_that_hospitals_were_asked_about(client, scientist, study, plan):
    assert "No plan has been packaged yet" in text_of(client.get(CREATE))
    approve(study, make_envoy(), plan)
    services.package_training(study, make_envoy(), plan)
    response = client.get(CREATE)
    assert "FedAvg, 2 rounds 1 of 2" in text_of(response)
    assert f"?study={study.pk}&amp;plan={plan.sha256}" in response.content.decode()
    assert "No plan has been packaged yet" in text_of(client.get(CREATE, {"study": study.pk + 1}))
    for odd in ({"study": "x", "plan": "y"}, {"study": study.pk, "plan": "0" * 64}):
        assert "Choose a plan" in text_of(client.get(CREATE, odd))


def test_before_the_start_it_is_said_who_can_take_part_and_why_others_cannot(
    client, scientist, study, plan, hospitals
):
    text = text_of(client.get(CREATE, chosen(study, plan)))
    assert "Hospitals: 1 of 3 can take part" in text
    assert "Ready 20 or more Yes" in text
    assert "Few – Sits out Few: under 10 of 20 patients with an outcome" in text
    assert "Silent has not approved the plan" in text
    assert not TrainingRun.objects.exists()


def test_a_run_is_started_with_what_was_chosen(client, scientist, study, plan, hospitals, queue):
    ready, few, _ = hospitals
    AuditEvent.objects.all().delete()
    response = client.post(CREATE, run_values(study, plan, [ready, few], quorum=1), follow=True)
    run = TrainingRun.objects.get()
    assert "Started." in text_of(response)
    assert response.redirect_chain[0][0] == reverse("training:run-detail", args=[run.pk])
    assert (run.seed, run.quorum, run.deadline_seconds) == (11, 1, 1800)
    assert run.started_by == scientist
    assert {participant.envoy for participant in run.participants.all()} == {ready, few}
    assert AuditEvent.objects.filter(action="started run").count() == 1


def test_a_refused_start_says_why_and_keeps_what_was_filled_in(
    client, scientist, study, plan, hospitals
):
    _, few, silent = hospitals
    response = client.post(CREATE, run_values(study, plan, [few, silent]))
    text = text_of(response)
    assert "nobody can take part in Risk tier from diagnoses: Few: under 10 of 20" in text
    page = response.content.decode()
    assert 'value="11"' in page
    assert f'value="{few.pk}" checked' in page
    assert f'value="{hospitals[0].pk}" checked' not in page
    response = client.post(CREATE, run_values(study, plan, [], deadline_minutes=0))
    assert "greater than or equal to 1" in text_of(response)
    response = client.post(CREATE, run_values(study, plan, hospitals, seed=MAX_SEED + 1))
    assert f"less than or equal to {MAX_SEED}" in text_of(response)
    assert not TrainingRun.objects.exists()


def test_a_plan_of_another_program_cannot_be_started(client, scientist, study, plan, hospitals):
    StudyMembership.objects.update(plan={"strategy": "of old"})
    for response in (
        client.get(CREATE, chosen(study, plan)),
        client.post(CREATE, run_values(study, plan, hospitals)),
    ):
        assert "cannot be run" in text_of(response)
    assert not TrainingRun.objects.exists()


def test_a_running_run_of_the_study_is_named(client, scientist, study, plan, hospitals):
    run = make_run(study=study)
    assert f"run #{run.pk}" in text_of(client.get(CREATE, chosen(study, plan)))


def test_a_run_is_stopped_after_a_second_question(client, scientist):
    run = make_run()
    detail = reverse("training:run-detail", args=[run.pk])
    make_participant(run)
    assert "A stopped run cannot go on" in text_of(client.get(detail))
    stop = reverse("training:run-stop", args=[run.pk])
    assert client.get(stop).status_code == 405
    text = text_of(client.post(stop, follow=True))
    assert "Stopped. What the hospitals have sent so far is kept." in text
    assert "A stopped run cannot go on" not in text
    assert "had ended already" in text_of(client.post(stop, follow=True))


@pytest.fixture
def assignment():
    run = make_run()
    participant = make_participant(run)
    return make_assignment(
        make_round(run), participant.envoy, status=Status.FAILED, reason="out of memory"
    )


def test_a_hospital_that_failed_is_retried_from_the_page_of_its_run(client, scientist, assignment):
    detail = reverse("training:run-detail", args=[assignment.training_round.run_id])
    retry = reverse("training:assignment-retry", args=[assignment.pk])
    page = client.get(detail)
    assert "Can be asked again" in text_of(page)
    assert f'action="{retry}"' in page.content.decode()
    text = text_of(client.post(retry, follow=True))
    assert f"{assignment.envoy} has been asked again." in text
    assert "Can be asked again" not in text
    assignment.refresh_from_db()
    assert assignment.status == Status.PENDING
    assert "has not failed: waiting" in text_of(client.post(retry, follow=True))


def test_who_only_watches_sees_no_buttons(client, assignment):
    run = assignment.training_round.run
    make_version(assignment.training_round)
    pages = [reverse("training:run-detail", args=[run.pk]), reverse("training:run-list")]
    for user in (make_user(User.Role.PUBLIC_HEALTH), make_user(envoy=assignment.envoy)):
        client.force_login(user)
        for page in pages:
            content = client.get(page).content.decode()
            for name in ("Stop the run", "Retry", "Release and distribute", "Start a run"):
                assert name not in content
        assert client.get(CREATE).status_code == 404
        stop = reverse("training:run-stop", args=[run.pk])
        retry = reverse("training:assignment-retry", args=[assignment.pk])
        assert [client.post(url).status_code for url in (stop, retry)] == [404, 404]


def test_a_finished_run_leads_to_its_model(client, scientist):
    run = make_run(status=TrainingRun.Status.FINISHED)
    make_participant(run)
    version = make_version(make_round(run), number=3)
    page = client.get(reverse("training:run-detail", args=[run.pk]))
    assert "This run made model v3 ." in text_of(page)
    detail = reverse("training:model-version-detail", args=[version.pk])
    assert f'href="{detail}#distribute"' in page.content.decode()
