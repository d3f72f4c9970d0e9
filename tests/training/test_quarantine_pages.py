import pytest
from django.urls import reverse

from envoys.models import User
from tests.api import Program
from tests.factories import (
    make_assignment,
    make_envoy,
    make_participant,
    make_round,
    make_run,
    make_update,
    make_user,
)
from training.models import ReceivedUpdate, RoundAssignment, TrainingRound, TrainingRun

pytestmark = pytest.mark.django_db

FIGURES = {
    "norm_ratio": 97.3,
    "control_ratio": None,
    "others_cosine": -0.81,
    "others_median": 0.86,
    "own_cosine": None,
    "own_median": None,
}


@pytest.fixture
def held(db):
    """An update in quarantine in a round that went on without it."""
    run = make_run(TrainingRun.Status.TRAINING)
    envoy = make_envoy(name="Northern")
    make_participant(run, envoy)
    training_round = make_round(run, number=1, status=TrainingRound.Status.AGGREGATED)
    return make_update(
        make_assignment(training_round, envoy, status=RoundAssignment.Status.SUBMITTED),
        verdict=ReceivedUpdate.Verdict.QUARANTINED,
        reason="its change is 97.3 times as long as the others'",
        screening=FIGURES,
    )


@pytest.fixture
def dana(client):
    user = make_user(User.Role.DATA_SCIENTIST, username="dana")
    client.force_login(user)
    return user


def page(client):
    return client.get(reverse("training:quarantine-list")).content.decode()


def test_the_page_shows_who_is_held_where_and_why_with_its_figures(client, dana, held):
    shown = page(client)
    assert "Northern" in shown
    assert f"#{held.assignment.training_round.run_id}" in shown
    assert "Its change is 97.3 times as long as the others&#x27;." in shown
    assert '<meter min="-1" max="1" low="-0.25" optimum="1" value="-0.81"' in shown
    assert "The run went on without it" in shown


def test_with_nothing_held_the_page_says_so_and_the_bar_shows_no_count(client, dana):
    shown = page(client)
    assert "Nothing waits for a decision" in shown
    assert "waiting</span>" not in shown


def test_the_bar_counts_what_waits_for_who_may_decide(client, dana, held):
    assert '1<span class="visually-hidden"> waiting</span>' in page(client)
    doctor = make_user(envoy=held.assignment.envoy)
    client.force_login(doctor)
    home = client.get(reverse("training:run-list")).content.decode()
    assert reverse("training:quarantine-list") not in home


def test_an_update_without_figures_says_why_there_are_none(client, dana, held):
    held.screening = dict.fromkeys(FIGURES)
    held.save(update_fields=["screening"])
    assert "too few others in this round" in page(client)


def test_released_it_moves_to_what_is_decided(client, dana, held):
    url = reverse("training:update-release", args=[held.pk])
    answer = client.post(url, follow=True).content.decode()
    assert "Released. The round is over" in answer
    assert "Released, too late to count" in answer
    assert "Nothing waits for a decision" in answer
    again = client.post(url, follow=True).content.decode()
    assert "has been released already by dana" in again


def test_rejected_it_moves_to_what_is_decided(client, dana, held):
    url = reverse("training:update-reject", args=[held.pk])
    answer = client.post(url, follow=True).content.decode()
    assert "Rejected. Nothing that Northern sends in this run counts." in answer
    held.refresh_from_db()
    assert held.verdict == ReceivedUpdate.Verdict.REJECTED


def test_the_runs_page_names_what_is_held_and_links_there(client, dana, held):
    run = held.assignment.training_round.run
    shown = client.get(reverse("training:run-detail", args=[run.pk])).content.decode()
    assert "<strong>In quarantine:</strong> Northern." in shown
    assert reverse("training:quarantine-list") in shown
    assert 'class="sign sign-quarantined"' in shown


def test_a_round_that_waits_says_so_on_the_runs_page(client, dana, held):
    training_round = held.assignment.training_round
    training_round.status = TrainingRound.Status.CLOSED
    training_round.reason = "2 of 3 needed updates count: the round waits for a decision"
    training_round.save()
    make_participant(training_round.run, make_envoy(name="Southern"))
    run_page = reverse("training:run-detail", args=[training_round.run_id])
    assert "Waiting for a decision:</strong> 2 of 3 needed" in client.get(run_page).content.decode()
    assert "The round waits for it" in page(client)
    client.force_login(make_user(envoy=held.assignment.envoy))
    doctors = client.get(run_page).content.decode()
    assert "the round waits for a data scientist" in doctors
    assert "its change is 97.3 times" in doctors  # of their own hospital
    assert reverse("training:quarantine-list") not in doctors


def test_another_hospitals_doctor_reads_no_figure(client, held):
    run = held.assignment.training_round.run
    other = make_envoy(name="Southern")
    make_participant(run, other)
    client.force_login(make_user(envoy=other))
    shown = client.get(reverse("training:run-detail", args=[run.pk])).content.decode()
    assert "In quarantine" in shown
    assert "97.3" not in shown


def test_calls_list_release_and_reject_updates(dana, held):
    counted = make_update(screening={})
    program = Program(dana)
    (row,) = program.get("/api/v1/updates?verdict=QUARANTINED")["results"]
    assert (row["id"], row["envoy_name"], row["round_number"]) == (held.pk, "Northern", 1)
    assert row["screening"] == FIGURES
    assert program.get(f"/api/v1/updates/{counted.pk}")["screening"] == dict.fromkeys(FIGURES)
    released = program.post(f"/api/v1/updates/{held.pk}/release", code=200)
    assert (released["verdict"], released["decided_by"]) == ("LATE", "dana")
    refused = program.post(f"/api/v1/updates/{held.pk}/reject", code=409)
    assert "released already by dana" in refused["detail"]


def test_the_page_of_manual_rounds_says_what_one_waits_for(client, dana, held):
    training_round = held.assignment.training_round
    training_round.status = TrainingRound.Status.CLOSED
    training_round.reason = "2 of 3 needed updates count: the round waits for a decision"
    training_round.save()
    TrainingRun.objects.update(mode=TrainingRun.Mode.MANUAL)
    shown = client.get(reverse("training:manual-round")).content.decode()
    assert "Waiting for a decision:</strong> 2 of 3 needed" in shown
    assert "a worker makes the model" not in shown
