import re
from datetime import timedelta

import pytest
from django.urls import reverse
from django.utils import timezone

from diagnoses.models import CodeReport, Snapshot
from envoys.models import Envoy, User
from federated.code_report import seen_from_outside
from tests.factories import (
    make_assignment,
    make_envoy,
    make_participant,
    make_round,
    make_run,
    make_snapshot,
    make_study,
    make_update,
    make_user,
    make_version,
    sha256_of,
)
from tests.federation import approve, make_hospital
from training import services
from training.models import RoundAssignment, StudyMembership, TrainingRound, TrainingRun
from training.summary import federation_summary, labelled_patients

pytestmark = [pytest.mark.django_db, pytest.mark.filterwarnings("ignore:No directory at")]

LIST, MANUAL = "training:envoy-list", "training:manual-round"
DASHBOARD = "training:federation-dashboard"


def odd_codes(kind, *codes):
    names = ("code", "title", "is_listed", "num_patients")
    return {
        "kind": kind,
        "group": kind,
        "title": kind,
        "num_codes": len(codes),
        "codes": [dict(zip(names, code, strict=True)) | {"icd_version": 10} for code in codes],
    }


ODD_CODES = [
    odd_codes("unknown", ("U0JACK", "", False, 4711), ("U0JOHN", "", False, 3)),
    odd_codes("unspecific", ("I10", "Hypertension", True, 1234), ("I50", "Failure", True, 7)),
]
ROLES = [User.Role.DATA_SCIENTIST, User.Role.ADMINISTRATOR]


@pytest.fixture
def scientist(client):
    user = make_user(User.Role.DATA_SCIENTIST)
    client.force_login(user)
    return user


def counted(name, count):
    envoy = make_envoy(name=name)
    make_participant(make_run(), envoy, num_labelled_patients=count)
    return envoy


def package(envoy, study, **values):
    plan = {"study": study.name, "strategy": "fedavg", "num_rounds": 2}
    values.setdefault("packaged_at", timezone.now())
    return StudyMembership.objects.create(
        envoy=envoy,
        study=study,
        plan=plan,
        plan_sha256=sha256_of(f"{values['packaged_at']}"),
        package_sha256="0",
        **values,
    )


def get(client, name, *args):
    return client.get(reverse(name, args=args)).content.decode()


# Figures


def test_a_small_count_and_the_one_that_would_give_it_away_are_not_told():
    envoys = [counted("Alpha", 4), counted("Beta", 50), counted("Gamma", 300)]
    labelled = labelled_patients([*envoys, make_envoy(name="Delta")])
    assert labelled.by_envoy == {envoys[0].pk: None, envoys[1].pk: None, envoys[2].pk: 300}
    assert labelled.total == 354
    assert labelled.in_words(envoys[0]) == "–"
    assert labelled.in_words(Envoy.objects.get(name="Delta")) == "not counted yet"


def test_patients_are_counted_by_the_newest_run():
    envoy = counted("Alpha", 100)
    make_participant(make_run(), envoy, num_labelled_patients=120)
    make_participant(make_run(), envoy, num_labelled_patients=0, sits_out_because="suspended")
    assert labelled_patients([envoy]).by_envoy == {envoy.pk: 120}


def test_the_summary_tells_what_is_active_waits_and_has_failed(scientist):
    study = make_study()
    envoy = counted("Alpha", 100)
    TrainingRun.objects.update(study=study)
    version = make_version(
        make_round(make_run(status="FINISHED", study=study)),
        state="ACTIVE",
        approved_at=timezone.now() - timedelta(days=3),
    )
    package(envoy, study)
    make_snapshot(envoy, status="FAILED", enqueued_at=timezone.now())
    make_envoy(status=Envoy.Status.DELETED)
    summary = federation_summary(scientist)
    assert [line.envoy for line in summary.envoys] == [envoy]
    assert summary.num_labelled_patients == 100
    assert [run.pk for run in summary.active_runs] == [TrainingRun.objects.active().get().pk]
    model = next(each for each in summary.models if each.study == study)
    assert (model.version, model.since) == (version, version.approved_at)
    assert summary.num_approvals_waiting == 1
    assert [work.about for work in summary.failed] == ["Alpha"]

    doctor = federation_summary(make_user(envoy=counted("Beta", 40)))
    assert [line.envoy.name for line in doctor.envoys] == ["Beta"]
    assert (doctor.failed, doctor.num_approvals_waiting) == ([], 0)
    assert doctor.num_labelled_patients == 40


def test_public_health_sees_the_figures_and_no_button(client):
    counted("Alpha", 100)
    client.force_login(make_user(User.Role.PUBLIC_HEALTH))
    for url in (reverse(DASHBOARD), reverse(LIST)):
        page = client.get(url).content.decode()
        assert "Alpha" in page
        assert "Invite" not in page
        assert "Start a run" not in page
    envoy = Envoy.objects.get()
    page = get(client, "training:envoy-detail", envoy.pk)
    for button in ("Delete", "Suspend", "Launch", "Edit"):
        assert button not in page


@pytest.mark.parametrize("role", ROLES)
def test_who_runs_the_federation_has_the_buttons(client, role):
    make_study()
    client.force_login(make_user(role))
    envoy = counted("Alpha", 100)
    assert "Start a run" in get(client, DASHBOARD)
    page = get(client, "training:envoy-detail", envoy.pk)
    for button in ("Delete …", "Suspend", "Launch its training", "Package a training", "Edit"):
        assert button in page


def test_empty_pages_say_what_to_do_next(client, scientist):
    assert "Invite the first one" in get(client, LIST)
    page = get(client, DASHBOARD)
    assert "Invite the first." in page
    assert "No study yet." in page
    assert "Package a training" in get(client, MANUAL)


# Hospitals


def test_the_list_tells_answer_and_last_signs(client, scientist):
    study = make_study()
    alpha, beta = make_envoy(name="Alpha"), make_envoy(name="Beta")
    package(alpha, study, packaged_at=timezone.now() - timedelta(days=2))
    package(alpha, study, approved_at=timezone.now())
    make_envoy(name="Deleted one", status=Envoy.Status.DELETED)
    make_assignment(envoy=beta, status="SUBMITTED", submitted_at=timezone.now())
    response = client.get(reverse(LIST))
    lines = {line.envoy.name: line for line in response.context["lines"]}
    assert set(lines) == {"Alpha", "Beta"}
    assert lines["Alpha"].approval == "Approved"
    assert lines["Beta"].approval == "No package yet"
    assert lines["Beta"].newest_update_at is not None


def test_a_doctor_sees_the_own_hospital_only(client):
    own, other = make_envoy(name="Alpha"), make_envoy(name="Beta")
    client.force_login(make_user(envoy=own))
    assert "Beta" not in get(client, LIST)
    assert "Alpha" in get(client, "training:envoy-detail", own.pk)
    assert client.get(reverse("training:envoy-detail", args=[other.pk])).status_code == 404


def test_the_odd_codes_of_a_hospital_are_shown_as_of_their_export(client, scientist):
    alpha, beta = make_envoy(name="Alpha"), make_envoy(name="Beta")
    assert "No report yet" in get(client, "training:envoy-codes", alpha.pk)
    made_at = timezone.now()
    CodeReport.objects.create(envoy=alpha, num_codes=7, kinds=ODD_CODES, made_at=made_at)
    shown = get(client, "training:envoy-codes", alpha.pk)
    assert "Of its 7 different codes" in shown
    assert "I50" in shown
    call = client.get(reverse("api:envoy-codes", args=[alpha.pk])).json()
    assert call["num_codes"] == 7
    assert call["kinds"] == seen_from_outside(ODD_CODES)
    assert client.get(reverse("api:envoy-codes", args=[beta.pk])).json()["made_at"] is None
    client.force_login(make_user(envoy=beta))
    for name in ("training:envoy-codes", "api:envoy-codes"):
        assert client.get(reverse(name, args=[alpha.pk])).status_code == 404


def test_only_its_own_doctors_see_a_hospitals_rare_counts_and_codes_that_are_in_no_list(client):
    alpha = make_envoy(name="Alpha")
    CodeReport.objects.create(envoy=alpha, num_codes=7, kinds=ODD_CODES, made_at=timezone.now())
    people = {role: make_user(role) for role in User.Role if role != User.Role.DOCTOR}
    for user in (make_user(envoy=alpha), *people.values()):
        client.force_login(user)
        seen = [
            get(client, "training:envoy-codes", alpha.pk),
            client.get(reverse("api:envoy-codes", args=[alpha.pk])).content.decode(),
        ]
        if user.is_doctor:
            seen.append(get(client, "diagnoses:code-report"))
        for text in seen:
            assert ("U0JACK" in text, "U0JOHN" in text) == (user.is_doctor, user.is_doctor)
            assert "I10" in text
            assert "4711" in text.replace(",", "")
        assert (">7<" in seen[0], '"num_patients":7' in seen[1]) == (user.is_doctor,) * 2
        assert (">under 10<" in seen[0], ">not shown<" in seen[0]) == (not user.is_doctor,) * 2


def test_pages_need_no_more_queries_for_more_hospitals(
    client, scientist, django_assert_max_num_queries
):
    def add():
        study = make_study()
        envoy = counted("Hospital of " + study.name, 100)
        package(envoy, study)
        training_round = make_round(make_run(study=study, mode="MANUAL"), number=1)
        make_update(make_assignment(training_round, envoy, status="SUBMITTED"))

    def counts():
        found = []
        for name in (LIST, DASHBOARD, MANUAL):
            with django_assert_max_num_queries(40) as captured:
                client.get(reverse(name))
            found.append(len(captured))
        return found

    add()
    few = counts()
    for _ in range(4):
        add()
    assert counts() == few


# Manual mode


@pytest.fixture
def study():
    return services.study_for("risk_tier")


@pytest.fixture
def ready(study):
    hospitals = [make_hospital(name, num_patients=24) for name in ("Alpha", "Beta", "Gamma")]
    for envoy in hospitals:
        approve(study, envoy, services.plan_for(study, num_rounds=2))
    return hospitals


def text_of(page):
    return " ".join(re.sub(r"<[^>]+>", "", page).split())


def launch(client, envoy, study):
    url = reverse("training:envoy-launch", args=[envoy.pk])
    return client.post(url, {"study": study.pk}, follow=True).content.decode()


def test_a_hospital_is_launched_and_the_chosen_are_aggregated(
    client, queue, scientist, study, ready
):
    page = get(client, MANUAL)
    assert all(f"Launch {envoy}" in page for envoy in ready)
    for envoy in ready:
        page = launch(client, envoy, study)
    assert "Gamma is launched" in page
    assert "hx-get" in page
    assert "Freezing its data" in page
    queue.work_and_sweep()
    page = get(client, "training:manual-round-live")
    assert "3 of 3 launched hospitals have trained" in page
    assert "hx-get" not in page
    assert page.count("checked") == 3

    chosen = {"study": study.pk, "envoys": [envoy.pk for envoy in ready[:2]]}
    page = client.post(reverse("training:round-aggregate"), chosen, follow=True).content.decode()
    assert "a worker makes the model" in page
    assert "hx-get" in page
    queue.work_and_sweep()
    version = study.versions.of_federation().get()
    page = get(client, MANUAL)
    assert reverse("training:model-version-detail", args=[version.pk]) in page
    assert "Launch Alpha" in page
    lineage = version.manifest["lineage"]["updates"]
    assert [update["envoy"] for update in lineage] == ["alpha", "beta"]


def test_who_is_missing_from_a_manual_round_is_said_with_the_time_of_its_launch(
    client, queue, scientist, study, ready
):
    launch(client, ready[0], study)
    queue.work_and_sweep()
    run = TrainingRun.objects.get()
    run.rounds.update(opened_at=timezone.now() - timedelta(hours=3))
    launch(client, ready[1], study)
    asked = Snapshot.objects.get(envoy=ready[1]).created_at.strftime("%H:%M:%S")
    missing = f"missing: Beta since {asked} UTC"
    manual = text_of(get(client, MANUAL))
    assert f"1 of 2 launched hospitals has trained, {missing}. The round stays open" in manual
    page = text_of(client.get(reverse("training:run-detail", args=[run.pk])).content.decode())
    assert f"1 of 2 in, {missing} (waiting)." in page
    assert "A round needssomebody who aggregates what is in" in page
    assert "deadline" not in page


def test_what_is_refused_is_said_in_words(client, queue, scientist, study, ready):
    other = make_hospital("Delta", num_patients=24)
    assert "Delta has no training package" in launch(client, other, study)
    empty = client.post(
        reverse("training:round-aggregate"), {"study": study.pk}, follow=True
    ).content.decode()
    assert "no hospital has been launched" in empty
    launch(client, ready[0], study)
    page = client.post(
        reverse("training:round-aggregate"),
        {"study": study.pk, "envoys": [ready[0].pk]},
        follow=True,
    ).content.decode()
    assert "Alpha: waiting" in page
    assert not TrainingRound.objects.exclude(status="COLLECTING").exists()


def test_a_study_that_is_none_is_not_found(client, scientist):
    envoy = make_envoy()
    for study in ("", "x", "0"):
        url = reverse("training:envoy-launch", args=[envoy.pk])
        assert client.post(url, {"study": study}).status_code == 404


def test_a_failed_hospital_has_a_retry_button(client, scientist, study):
    run = make_run(study=study, mode="MANUAL")
    assignment = make_assignment(
        make_round(run, number=1), status=RoundAssignment.Status.FAILED, reason="diverged"
    )
    page = get(client, MANUAL)
    assert "diverged" in page
    assert reverse("training:assignment-retry", args=[assignment.pk]) in page
