import re
from datetime import timedelta

import pytest
from django.core.cache import cache
from django.db import connection
from django.template.loader import get_template
from django.test.utils import CaptureQueriesContext
from django.urls import reverse
from django.utils import timezone

from diagnoses.models import Snapshot
from envoys.models import User
from tests.factories import (
    make_assignment,
    make_envoy,
    make_participant,
    make_round,
    make_run,
    make_snapshot,
    make_update,
    make_user,
)
from training.models import (
    ReceivedUpdate,
    RoundAssignment,
    RunReport,
    TrainingRound,
    TrainingRun,
)

# In tests nothing has been collected for WhiteNoise to serve.
NO_STATIC_ROOT = pytest.mark.filterwarnings("ignore:No directory at")
pytestmark = [pytest.mark.django_db, NO_STATIC_ROOT]

Status = RoundAssignment.Status
COLLECTING, AGGREGATED = TrainingRound.Status.COLLECTING, TrainingRound.Status.AGGREGATED
RUN_PAGES = ["training:run-detail", "training:run-live", "training:run-curves"]


@pytest.fixture
def alpha():
    return make_envoy(name="Alpha")


@pytest.fixture
def beta():
    return make_envoy(name="Beta")


@pytest.fixture
def run(alpha, beta):
    """Alpha and Beta take part, Gamma sits out; round 0 is done."""
    run = make_run(num_rounds=3)
    for envoy in (alpha, beta):
        make_participant(run, envoy)
    make_participant(
        run, make_envoy(name="Gamma"), sits_out_because="12 of 20 patients with an outcome"
    )
    statistics = make_round(run, status=AGGREGATED)
    for envoy in (alpha, beta):
        assignment = make_assignment(statistics, envoy, status=Status.SUBMITTED, attempt=1)
        make_update(assignment, metrics={})
    return run


@pytest.fixture
def scientist(client):
    user = make_user(User.Role.DATA_SCIENTIST)
    client.force_login(user)
    return user


def login_doctor(client, envoy):
    client.force_login(make_user(envoy=envoy))


def submit(training_round, envoy, **metrics):
    assignment = make_assignment(training_round, envoy, status=Status.SUBMITTED, attempt=1)
    num_examples = metrics.pop("num_examples", 100)
    return make_update(assignment, num_examples=num_examples, metrics=metrics)


def text_of(response):
    """What a reader sees, with single spaces."""
    return " ".join(re.sub(r"<[^>]+>", " ", response.content.decode()).split())


def url(name, run):
    return reverse(name, args=[run.pk])


@pytest.mark.parametrize("name", RUN_PAGES)
def test_a_run_is_shown_to_the_federation_and_its_hospitals_and_to_nobody_else(
    client, run, alpha, name
):
    assert client.get(url(name, run)).headers["Location"].startswith(reverse("login"))
    login_doctor(client, make_envoy(name="Stranger"))
    assert client.get(url(name, run)).status_code == 404
    login_doctor(client, alpha)
    assert client.get(url(name, run)).status_code == 200
    client.force_login(make_user(User.Role.DATA_SCIENTIST))
    assert client.get(url(name, run)).status_code == 200


def test_the_page_polls_only_while_the_run_is_active(client, scientist, run):
    poll = f'hx-get="{url("training:run-live", run)}"'
    for status in TrainingRun.Status:
        TrainingRun.objects.filter(pk=run.pk).update(status=status)
        run.refresh_from_db()
        for name in ("training:run-detail", "training:run-live"):
            content = client.get(url(name, run)).content.decode()
            assert (poll in content) == run.is_active
            assert ("hx-trigger" in content) == run.is_active


def test_the_page_polls_until_the_report_of_a_finished_run_is_there(client, scientist, run):
    def polls() -> bool:
        return "hx-trigger" in client.get(url("training:run-live", run)).content.decode()

    finished = TrainingRun.objects.filter(pk=run.pk)
    finished.update(status=TrainingRun.Status.FINISHED, finished_at=timezone.now())
    assert polls()  # somebody may be about to ask for it
    finished.update(finished_at=timezone.now() - timedelta(minutes=1))
    assert not polls()

    work = RunReport.objects.create(run=run, num_done=3, num_total=60)
    assert polls()
    page = client.get(url("training:run-detail", run)).content.decode()
    assert "Comparing models: 3 of 60 rounds" in page
    RunReport.objects.filter(pk=work.pk).update(status=RunReport.Status.FAILED)
    assert not polls()


def test_without_javascript_an_active_run_has_a_link_to_refresh(client, scientist, run):
    link = f'<noscript><a class="btn" href="{url("training:run-detail", run)}">Refresh</a>'
    assert link in client.get(url("training:run-detail", run)).content.decode()
    TrainingRun.objects.filter(pk=run.pk).update(status=TrainingRun.Status.FINISHED)
    assert link not in client.get(url("training:run-detail", run)).content.decode()


def test_the_current_round_names_who_is_missing_and_since_when(client, scientist, run, alpha, beta):
    training_round = make_round(run, status=COLLECTING)
    make_assignment(training_round, alpha, status=Status.SUBMITTED, attempt=1)
    make_assignment(training_round, beta, status=Status.TRAINING, attempt=2)
    text = text_of(client.get(url("training:run-detail", run)))
    since = training_round.opened_at.strftime("%H:%M:%S")
    assert f"Round 1: 1 of 2 in , missing: Beta since {since} UTC (retrying, attempt 2)." in text
    assert "Gamma: 12 of 20 patients with an outcome" in text


def test_every_cell_of_the_matrix_has_words(client, scientist, run, alpha, beta):
    training_round = make_round(run, status=COLLECTING)
    make_assignment(training_round, alpha, status=Status.TRAINING, attempt=3)
    make_assignment(
        training_round, beta, status=Status.FAILED, attempt=1, reason="not finite in weight"
    )
    response = client.get(url("training:run-detail", run))
    rows = re.findall(r'<th scope="row">(\w+)</th>(.*?)</tr>', response.content.decode(), re.DOTALL)
    words = {name: re.findall(r'<td title="([^"]*)">', cells) for name, cells in rows}
    later = ["Not open yet", "Not open yet"]
    assert words["Alpha"] == ["Submitted", "Training, attempt 3", *later]
    assert words["Beta"] == ["Submitted", "Failed: not finite in weight", *later]
    assert words["Gamma"] == ["Sits out", "Sits out", *later]
    assert "Round 1, Beta: Failed: not finite in weight" in text_of(response)


def test_a_missed_round_is_told_with_its_reason(client, scientist, run, alpha):
    make_assignment(
        make_round(run, status=AGGREGATED), alpha, status=Status.MISSED, reason="past the deadline"
    )
    text = text_of(client.get(url("training:run-live", run)))
    assert "Round 1, Alpha: Missed: past the deadline" in text


def test_while_data_is_frozen_the_page_shows_how_far_each_hospital_is(client, scientist, alpha):
    run = make_run(status=TrainingRun.Status.PREPARING)
    freezing = make_snapshot(alpha, status=Snapshot.Status.RUNNING, num_done=30, num_total=120)
    make_participant(run, alpha, snapshot=freezing)
    make_participant(run)
    text = text_of(client.get(url("training:run-detail", run)))
    assert "1 of 2 hospitals frozen" in text
    assert "Freezing, 25 %" in text


def test_the_reason_of_a_failed_run_is_shown(client, scientist, run):
    reason = "Round 1: 1 of 2 needed updates came in. Beta: no update before the deadline"
    TrainingRun.objects.filter(pk=run.pk).update(status=TrainingRun.Status.FAILED, reason=reason)
    assert reason in text_of(client.get(url("training:run-detail", run)))


def test_the_loss_is_a_mean_weighted_by_patients_and_the_auroc_a_line_per_hospital(
    client, scientist, run, alpha, beta
):
    training_round = make_round(run, status=AGGREGATED)
    submit(
        training_round,
        alpha,
        num_examples=100,
        train_loss=0.5,
        validation_loss=0.4,
        validation_auroc=0.7,
        num_validation=30,
    )
    submit(
        training_round,
        beta,
        num_examples=300,
        train_loss=0.9,
        validation_loss=0.8,
        validation_auroc=None,
        num_validation=10,
    )
    curves = client.get(url("training:run-curves", run)).json()
    assert curves["after_rounds"] == [0, 1, 2]
    assert curves["validation_loss"] == [pytest.approx(0.5), None, None]
    assert curves["train_loss"] == [pytest.approx(0.8), None, None]
    assert curves["hospitals"] == [
        {"name": "Alpha", "validation_auroc": [0.7, None, None]},
        {"name": "Beta", "validation_auroc": [None, None, None]},
    ]
    text = text_of(client.get(url("training:run-detail", run)))
    assert "0 0.5000 0.8000 0.700 –" in text


def test_a_mean_waits_for_its_round_to_close_and_a_refused_update_counts_for_nothing(
    client, scientist, run, alpha, beta
):
    training_round = make_round(run, status=COLLECTING)
    submit(training_round, alpha, validation_loss=0.4, validation_auroc=0.7, num_validation=30)
    refused = submit(
        training_round, beta, validation_loss=9.0, validation_auroc=0.1, num_validation=30
    )
    ReceivedUpdate.objects.filter(pk=refused.pk).update(verdict=ReceivedUpdate.Verdict.REFUSED)
    curves = client.get(url("training:run-curves", run)).json()
    assert curves["validation_loss"] == [None, None, None]
    assert [h["validation_auroc"][0] for h in curves["hospitals"]] == [0.7, None]
    TrainingRound.objects.filter(pk=training_round.pk).update(status=AGGREGATED)
    curves = client.get(url("training:run-curves", run)).json()
    assert curves["validation_loss"] == [pytest.approx(0.4), None, None]


def report(*names, num_examples=1234):
    def figures(first):
        aurocs = {"rule_of_thumb": first, "local": first + 0.1, "global": first + 0.15}
        return {name: {"auroc": auroc, "accuracy": 0.6} for name, auroc in aurocs.items()} | {
            "pooled": None
        }

    return {
        "num_examples": num_examples,
        "pooled_test": figures(0.511),
        "mean_of_envoys": figures(0.522),
        "envoys": [
            {"name": name, "num_examples": num_examples, **figures(0.6 + 0.01 * index)}
            for index, name in enumerate(names)
        ],
    }


def test_the_report_compares_the_models_hospital_by_hospital(client, scientist, run):
    TrainingRun.objects.filter(pk=run.pk).update(
        status=TrainingRun.Status.FINISHED, report=report("alpha", "beta")
    )
    text = text_of(client.get(url("training:run-detail", run)))
    assert "Alpha 1,234 0.600 0.700 0.750 – – +0.050" in text
    assert "All test patients together 2,468 0.511 0.611 0.661 – – +0.050" in text


def full_report(*names):
    """A report with intervals, sentences and the global model's assessment."""

    def gain(first, sentence):
        interval = {"estimate": first, "low": first - 0.02, "high": first + 0.02}
        models = ("rule_of_thumb", "local", "global", "pooled")
        return {
            "intervals": dict.fromkeys(models, interval),
            "difference": interval,
            "sentence": sentence,
        }

    return report(*names) | {
        "benefit": {
            "num_resamples": 500,
            "pooled_test": gain(0.35, "The global model beats the hospitals' own by 0.05"),
            "envoys": [
                {"name": name, **gain(0.4 + 0.1 * index, f"The global model helps {name}")}
                for index, name in enumerate(names)
            ],
        },
        "calibration": [
            {
                "class": "High",
                "slope": 0.951,
                "intercept": -0.123,
                "in_the_large": 0.01,
                "curve": [
                    {"predicted": 0.25, "observed": 0.27, "num_admissions": 1500},
                    {"predicted": 0.75, "observed": None, "num_admissions": None},
                ],
            }
        ],
        "confusion": {
            "classes": ["Low", "High"],
            "cells": [[1020, 30], [None, None]],
            "row_totals": [1050, None],
            "column_totals": [None, 44],
            "total": None,
            "macro_f1": 0.654,
        },
        "subgroups": {
            "age": [
                {"name": "40–64", "num_patients": 1100, "auroc": 0.71, "auprc": 0.4, "brier": 0.2},
                {
                    "name": "18–39",
                    "num_patients": None,
                    "auroc": None,
                    "auprc": None,
                    "brier": None,
                },
            ],
            "sex": [],
        },
    }


def test_a_report_shows_intervals_the_gain_in_words_and_how_good_the_global_model_is(
    client, scientist, run
):
    TrainingRun.objects.filter(pk=run.pk).update(report=full_report("Alpha", "Beta"))
    text = text_of(client.get(url("training:run-detail", run)))
    assert (
        "Alpha 1,234 0.600 0.700 0.380 to 0.420 0.750 0.380 to 0.420 – – +0.050 0.380 to 0.420"
        in text
    )
    assert "All test patients together: The global model beats the hospitals' own by 0.05." in (
        text.replace("&#x27;", "'")
    )
    assert "Beta: The global model helps Beta." in text
    assert "High 0.95 -0.12" in text
    assert "High 0.250 0.270 1,500 High 0.750 – –" in text
    assert "1,020" not in text  # the matrix hides cells
    assert "Macro-F1 is –, accuracy 0.600." in text
    assert "Age: 40–64 1,100 0.710 0.400 0.200 Age: 18–39 – – – –" in text


def test_a_gain_is_highlighted_only_where_it_is_more_than_chance(client, scientist, run):
    made = full_report("Alpha", "Beta")
    differences = [{"estimate": 0.05, "low": low, "high": 0.1} for low in (0.01, -0.01)]
    for gain, difference in zip(made["benefit"]["envoys"], differences, strict=True):
        gain["difference"] = difference
    made["benefit"]["pooled_test"]["difference"] = None
    TrainingRun.objects.filter(pk=run.pk).update(report=made)
    html = " ".join(client.get(url("training:run-detail", run)).content.decode().split())
    assert html.count('class="gain"') == 1
    assert '<span class="gain">+0.050</span>' in html
    assert "0.010 to 0.100" in html
    assert "<span>+0.050</span> <span" in html  # Beta's, with its interval
    assert "-0.010 to 0.100" in html


def test_a_doctor_sees_the_gain_of_their_own_hospital_and_of_all_together(client, run, alpha):
    TrainingRun.objects.filter(pk=run.pk).update(report=full_report("Alpha", "Beta"))
    login_doctor(client, alpha)
    text = text_of(client.get(url("training:run-detail", run)))
    assert "0.380 to 0.420" in text  # Alpha's
    assert "0.330 to 0.370" in text  # of all
    assert "The global model helps Alpha." in text
    assert "Macro-F1 is –, accuracy 0.600." in text
    assert "helps Beta" not in text
    assert "0.480 to 0.520" not in text


def test_a_count_under_ten_and_what_would_give_it_away_are_not_shown(client, scientist, run, alpha):
    found = report("alpha", "beta")
    found["envoys"][0]["num_examples"] = 7
    TrainingRun.objects.filter(pk=run.pk).update(report=found)
    text = text_of(client.get(url("training:run-detail", run)))
    assert "Alpha – 0.600" in text
    assert "Beta – 0.610" in text  # the total less this one
    assert "All test patients together 1,241 0.511" in text
    login_doctor(client, alpha)
    text = text_of(client.get(url("training:run-detail", run)))
    assert "Alpha – 0.600" in text
    assert "1,241" not in text


def test_a_doctor_sees_of_other_hospitals_their_status_only(client, run, alpha, beta):
    training_round = make_round(run, status=AGGREGATED)
    submit(
        training_round,
        alpha,
        train_loss=0.41,
        validation_loss=0.42,
        validation_auroc=0.743,
        num_validation=30,
    )
    submit(
        training_round,
        beta,
        train_loss=0.91,
        validation_loss=0.92,
        validation_auroc=0.893,
        num_validation=30,
    )
    late = make_round(run, status=AGGREGATED)
    make_assignment(late, beta, status=Status.FAILED, reason="3 patients too few")
    TrainingRun.objects.filter(pk=run.pk).update(
        status=TrainingRun.Status.FAILED,
        reason="Round 2: Beta: 3 patients too few",
        report=report("Alpha", "Beta"),
    )
    login_doctor(client, alpha)
    text = text_of(client.get(url("training:run-detail", run)))
    assert "Beta" in text
    assert "Round 2, Beta: Failed" in text
    assert "0.4200 0.4100 0.743" in text
    assert "Alpha 1,234 0.600" in text
    for hidden in ("0.893", "0.92", "3 patients", "12 of 20", "0.610", "0.760", "0.522", "2,468"):
        assert hidden not in text
    assert client.get(url("training:run-curves", run)).json() == {
        "after_rounds": [0, 1, 2],
        "validation_loss": [pytest.approx(0.42), None, None],
        "train_loss": [pytest.approx(0.41), None, None],
        "hospitals": [{"name": "Alpha", "validation_auroc": [0.743, None, None]}],
    }


@pytest.mark.parametrize("name", RUN_PAGES)
def test_a_longer_run_of_more_hospitals_takes_no_more_queries(
    client, scientist, run, alpha, beta, name, django_assert_num_queries
):
    with CaptureQueriesContext(connection) as short:
        client.get(url(name, run))
    hospitals = [alpha, beta, *(make_envoy() for _ in range(4))]
    for envoy in hospitals[2:]:
        make_participant(run, envoy)
    for _ in range(5):
        training_round = make_round(run, status=AGGREGATED)
        for envoy in hospitals:
            submit(training_round, envoy, validation_loss=0.4, num_validation=30)
    assert len(short) <= 13
    cache.clear()  # parts that ask by themselves are recorded once an hour
    with django_assert_num_queries(len(short)):
        client.get(url(name, run))


def test_the_list_has_the_visible_runs_newest_first(client, run, alpha, beta):
    make_round(run, status=AGGREGATED)
    newer = make_run(num_rounds=5)
    make_participant(newer, beta)
    client.force_login(make_user(User.Role.DATA_SCIENTIST))
    text = text_of(client.get(reverse("training:run-list")))
    assert text.index(f"#{newer.pk}") < text.index(f"#{run.pk}")
    assert "1 of 3 rounds 2 " in text  # two hospitals take part
    login_doctor(client, alpha)
    text = text_of(client.get(reverse("training:run-list")))
    assert f"#{run.pk}" in text
    assert f"#{newer.pk}" not in text


def test_the_list_takes_no_more_queries_for_more_runs(
    client, scientist, run, alpha, django_assert_max_num_queries
):
    for _ in range(30):
        make_participant(make_run(), alpha)
    with django_assert_max_num_queries(7):
        text = text_of(client.get(reverse("training:run-list")))
    assert "Page 1 of 2" in text


def test_without_a_run_the_list_says_what_to_do_next(client, alpha):
    client.force_login(make_user(User.Role.DATA_SCIENTIST))
    assert "make demo" in text_of(client.get(reverse("training:run-list")))
    login_doctor(client, alpha)
    assert "Alpha takes part in" in text_of(client.get(reverse("training:run-list")))
    client.force_login(make_user(User.Role.PUBLIC_HEALTH, username="unassigned"))
    User.objects.filter(username="unassigned").update(role=User.Role.DOCTOR)
    assert "Ask an administrator" in text_of(client.get(reverse("training:run-list")))


def test_the_time_taken_stops_when_the_run_ends(client, scientist, run):
    started_at = timezone.now() - timedelta(hours=5)
    finished_at = started_at + timedelta(minutes=3, seconds=7)
    TrainingRun.objects.filter(pk=run.pk).update(
        status=TrainingRun.Status.FINISHED, started_at=started_at, finished_at=finished_at
    )
    assert "Took 3 min 7 s" in text_of(client.get(url("training:run-detail", run)))


def test_no_page_holds_an_inline_script_or_style(client, run, alpha):
    TrainingRun.objects.filter(pk=run.pk).update(report=full_report("Alpha", "Beta"))
    pages = [client.get(reverse("login"))]
    client.force_login(make_user(User.Role.DATA_SCIENTIST))
    pages += [client.get(reverse("training:run-list")), client.get("/no-such-page")]
    pages += [client.get(url(name, run)) for name in RUN_PAGES[:2]]
    for page in pages:
        policy = page.headers["Content-Security-Policy"].split("; ")
        assert {"default-src 'none'", "script-src 'self'", "style-src 'self'"} <= set(policy)
        content = page.content.decode()
        assert not re.search(r"<style|\sstyle=|\son\w+=|\shx-on|javascript:", content)
        assert not re.search(r"<script(?![^>]*\ssrc=)", content)
        assert not re.search(r'(src|href)="(https?:)?//', content)


def test_the_page_for_an_error_needs_neither_user_nor_request():
    assert "Something went wrong" in get_template("500.html").render()


def test_a_page_that_watched_a_run_to_its_end_is_shown_anew(client, scientist, run):
    def asked_again():
        return client.get(url("training:run-live", run), headers={"HX-Request": "true"})

    TrainingRun.objects.filter(pk=run.pk).update(status=TrainingRun.Status.TRAINING)
    assert "HX-Refresh" not in asked_again()
    TrainingRun.objects.filter(pk=run.pk).update(status=TrainingRun.Status.STOPPED)
    assert asked_again()["HX-Refresh"] == "true"
