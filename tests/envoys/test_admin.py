"""The admin: who sees which rows, what can be changed, and what its actions ask the services."""

import re
from typing import Any

import pytest
from django.contrib import admin
from django.db import models
from django.test import Client
from django.urls import reverse
from django.utils import timezone
from rest_framework_simplejwt.token_blacklist.models import OutstandingToken
from rest_framework_simplejwt.tokens import RefreshToken

from diagnoses.models import CodeReport, IcdCode, Import, Upload
from envoys import audit
from envoys.models import AuditEvent, Envoy, ServiceToken, TwoStepDevice, User, WorkerSign
from envoys.service_tokens import make_token
from inference.models import Erasure, InferenceRun
from publichealth.models import AlertThreshold, DriftCheck, RetrainingProposal, Serving
from tests import factories
from tests.factories import PASSWORD, make_envoy, make_run, make_user, make_version
from tests.federation import approved_plan, finish
from training import services
from training.models import (
    Distribution,
    ModelVersion,
    RoundAssignment,
    RunReport,
    StudyMembership,
    TrainingRound,
)

pytestmark = [pytest.mark.django_db, pytest.mark.filterwarnings("ignore:No directory at")]

Role = User.Role
ACCOUNTS = (User, ServiceToken, AuditEvent, OutstandingToken)
HOSPITALS_OWN = ("Patient", "Admission", "Diagnosis", "Prediction", "Reading", "IdempotentCall")


def page(model: type[models.Model], name: str, *args: Any) -> str:
    return reverse(f"admin:{model._meta.app_label}_{model._meta.model_name}_{name}", args=args)


def logged_in(role: str) -> tuple[Client, User]:
    client, user = Client(), make_user(role)
    client.force_login(user)
    return client, user


def do(client: Client, action: str, *rows: Any, **values: Any) -> list[str]:
    """Run an action of the list on these rows; returns what the admin says."""
    response = client.post(
        page(type(rows[0]), "changelist"),
        {"action": action, "_selected_action": [row.pk for row in rows], **values},
        follow=True,
    )
    return [str(message) for message in response.context["messages"]]


@pytest.fixture
def rows() -> dict[type[models.Model], models.Model]:
    """A row of every model that the admin holds."""
    envoy = make_envoy(name="Kisumu County")
    user = make_user(envoy=envoy)
    update = factories.make_update()
    assignment = update.assignment
    run = assignment.training_round.run
    version = make_version(assignment.training_round)
    worker = {"started_at": timezone.now(), "seen_at": timezone.now()}
    RefreshToken.for_user(user)
    made = [
        user,
        envoy,
        update,
        assignment,
        assignment.training_round,
        run,
        run.study,
        factories.make_participant(run, assignment.envoy),
        version,
        assignment.snapshot,
        audit.record(user, "asked for an account", user),
        OutstandingToken.objects.get(user=user),
        make_token(name="nightly", user=user, actions=["see envoys"], made_by=user)[0],
        WorkerSign.objects.create(hostname="worker-1", **worker),
        IcdCode.objects.create(code="I10", version=10, title="Essential hypertension"),
        Import.objects.create(envoy=envoy, source_name="cohort", source_sha256="0" * 64),
        CodeReport.objects.create(envoy=envoy, num_codes=0, made_at=timezone.now()),
        Upload.objects.create(envoy=envoy, problems=["line 3: 1931 is not a year"]),
        StudyMembership.objects.create(
            study=run.study,
            envoy=envoy,
            plan={},
            plan_sha256="0" * 64,
            package_sha256="0" * 64,
            packaged_at=timezone.now(),
        ),
        factories.make_choice(run, envoy),
        Distribution.objects.create(version=version, envoy=envoy),
        RunReport.objects.create(run=run),
        InferenceRun.objects.create(envoy=envoy, model_version=version),
        Erasure.objects.create(envoy=envoy),
        Serving.objects.create(version=version),
        AlertThreshold.objects.create(figure=AlertThreshold.Figure.AQI, value=100, set_by=user),
        DriftCheck.objects.create(envoy=envoy, version=version, figures=[{"input": "aqi"}]),
        RetrainingProposal.objects.create(study=run.study, reason="it has drifted"),
    ]
    return {type(row): row for row in made}


def test_the_admin_holds_every_row_but_the_hospitals_own(rows):
    held = set(admin.site._registry)
    assert held == set(rows)
    assert not {model.__name__ for model in held} & set(HOSPITALS_OWN)


@pytest.mark.parametrize("role", Role.values)
def test_who_runs_the_federation_opens_every_row_and_others_find_nothing(role, rows):
    client, _ = logged_in(role)
    is_staff = role in (Role.DATA_SCIENTIST, Role.ADMINISTRATOR)
    assert client.get(reverse("admin:index")).status_code == (200 if is_staff else 404)
    for model, row in rows.items():
        sees = role == Role.ADMINISTRATOR or (is_staff and model not in ACCOUNTS)
        for url in (
            page(model, "changelist"),
            page(model, "changelist") + "?q=kisumu",
            page(model, "change", row.pk),
        ):
            assert client.get(url).status_code == (200 if sees else 404), (role, url)


def test_nobody_enters_the_admin_without_the_sites_login(client, rows):
    for url in (reverse("admin:index"), page(Envoy, "changelist"), reverse("admin:login")):
        response = client.get(url)
        assert response.status_code == 302
        assert response.headers["Location"].startswith(reverse("login"))


@pytest.mark.parametrize("role", [Role.DATA_SCIENTIST, Role.ADMINISTRATOR])
def test_nothing_is_added_or_deleted_here_but_accounts(role, rows):
    client, _ = logged_in(role)
    for model, row in rows.items():
        if model is Envoy:
            continue
        expected = 200 if (model, role) == (User, Role.ADMINISTRATOR) else 404
        assert client.get(page(model, "add")).status_code == expected, model
        assert client.post(page(model, "delete", row.pk), {"post": "yes"}).status_code == 404, model
        client.post(
            page(model, "changelist"),
            {"action": "delete_selected", "_selected_action": [row.pk], "post": "yes"},
        )
        assert model.objects.filter(pk=row.pk).exists()


def test_envoys_are_invited_and_deleted_on_their_own_pages(rows):
    client, _ = logged_in(Role.DATA_SCIENTIST)
    envoy = rows[Envoy]
    response = client.get(page(Envoy, "add"))
    assert response.headers["Location"] == reverse("envoys:envoy-create")
    for response in (
        client.get(page(Envoy, "delete", envoy.pk)),
        client.post(page(Envoy, "delete", envoy.pk), {"post": "yes"}),
    ):
        assert response.headers["Location"] == reverse("inference:envoy-delete", args=[envoy.pk])
    assert Envoy.objects.filter(pk=envoy.pk).exists()


def test_what_would_lie_if_it_were_changed_cannot_be_posted(rows):
    client, _ = logged_in(Role.ADMINISTRATOR)
    for model, row in rows.items():
        if model in (User, Envoy):
            continue
        before = model.objects.filter(pk=row.pk).values().get()
        posted = dict.fromkeys(before, "COMPLETE") | {"status": "FAILED", "number": 7}
        client.post(page(model, "change", row.pk), posted)
        assert model.objects.filter(pk=row.pk).values().get() == before, model


def test_a_lists_number_of_queries_does_not_grow_with_its_rows(rows, django_assert_max_num_queries):
    client, _ = logged_in(Role.ADMINISTRATOR)
    for _ in range(3):
        update = factories.make_update()
        version = make_version(update.assignment.training_round)
        factories.make_participant(update.assignment.training_round.run)
        make_version(update.assignment.training_round, envoy=update.assignment.envoy)
        Distribution.objects.create(version=version, envoy=update.assignment.envoy)
        InferenceRun.objects.create(envoy=update.assignment.envoy, model_version=version)
        audit.record(make_user(), "logged in", version)
    for model in rows:
        with django_assert_max_num_queries(10):
            client.get(page(model, "changelist"))


def test_what_a_hospitals_files_said_is_not_shown(rows):
    client, _ = logged_in(Role.DATA_SCIENTIST)
    assert b"1931" not in client.get(page(Upload, "change", rows[Upload].pk)).content


def test_small_counts_inside_json_are_hidden(rows):
    client, _ = logged_in(Role.DATA_SCIENTIST)
    metrics = {"train_loss": 0.5, "num_validation": 9, "num_epochs_run": 11}
    update = factories.make_update(metrics=metrics)
    lineage = {"updates": [{"envoy": "alpha", "num_examples": 7}]}
    version = factories.make_version(metrics=metrics, manifest={"lineage": lineage})
    content = client.get(page(type(update), "change", update.pk)).content.decode()
    assert "num_validation&quot;: &quot;under 10" in content
    assert "num_epochs_run&quot;: 11" in content
    content = client.get(page(type(version), "change", version.pk)).content.decode()
    assert "num_validation&quot;: &quot;under 10" in content
    assert "num_examples&quot;: &quot;under 10" in content


def test_small_counts_are_hidden_and_rows_link_to_each_other(rows):
    client, _ = logged_in(Role.DATA_SCIENTIST)
    update = factories.make_update(num_examples=9)
    content = client.get(page(type(update), "changelist")).content.decode()
    assert "under 10" in content
    assert page(RoundAssignment, "change", update.assignment.pk) in content
    content = client.get(page(Envoy, "change", rows[Envoy].pk)).content.decode()
    assert f"{page(Distribution, 'changelist')}?envoy__id__exact={rows[Envoy].pk}" in content
    shown = client.get(page(Distribution, "changelist"), {"envoy__id__exact": rows[Envoy].pk})
    assert str(rows[Distribution]) in shown.content.decode()
    snapshot = factories.make_snapshot(num_done=1, num_total=4, num_bytes=31415)
    content = client.get(page(type(snapshot), "change", snapshot.pk)).content.decode()
    assert "25%" in content
    assert "31415" not in content  # so few bytes are few patients


# Settings of an envoy and of a study


def settings_of(envoy: Envoy, **values: str) -> dict[str, str]:
    names = ("name", "bucket", "prefix", "region", "queue")
    return {name: getattr(envoy, name) for name in names} | values


def test_an_envoys_settings_are_changed_by_the_service_that_the_page_calls():
    client, user = logged_in(Role.DATA_SCIENTIST)
    envoy, other = make_envoy(name="Kisumu County"), make_envoy(name="Eldoret")
    url = page(Envoy, "change", envoy.pk)
    client.post(url, settings_of(envoy, queue="kisumu", status=Envoy.Status.DELETED))
    envoy.refresh_from_db()
    assert (envoy.queue, envoy.status) == ("kisumu", Envoy.Status.ACTIVE)
    assert AuditEvent.objects.filter(user=user, action="edited envoy").count() == 1
    response = client.post(url, settings_of(envoy, prefix=other.storage_prefix), follow=True)
    assert "overlap in one bucket" in response.content.decode()
    envoy.refresh_from_db()
    assert envoy.prefix == ""


def test_a_deleted_envoy_is_shown_with_its_status_and_cannot_be_changed():
    client, _ = logged_in(Role.ADMINISTRATOR)
    envoy = make_envoy(status=Envoy.Status.DELETED)
    assert "Deleted" in client.get(page(Envoy, "changelist")).content.decode()
    url = page(Envoy, "change", envoy.pk)
    assert "_save" not in client.get(url).content.decode()
    assert client.post(url, settings_of(envoy, queue="kisumu")).status_code == 404


def test_a_studys_thresholds_may_rise_but_not_fall_below_their_defaults():
    client, user = logged_in(Role.DATA_SCIENTIST)
    study = factories.make_study()
    url = page(type(study), "change", study.pk)
    values = {"title": study.title, "min_examples": 50, "min_contributors": 4}
    client.post(url, values)
    study.refresh_from_db()
    assert (study.min_examples, study.min_contributors) == (50, 4)
    assert AuditEvent.objects.get(action="changed study").user == user
    response = client.post(url, values | {"min_contributors": 2})
    assert "At least 3: fewer could give somebody away" in response.content.decode()


# Accounts


def account(user: User, **values: Any) -> dict[str, Any]:
    return {"username": user.username, "role": user.role, "email": user.email, **values}


def test_an_administrator_activates_an_account_once_the_doctor_has_a_hospital():
    client, administrator = logged_in(Role.ADMINISTRATOR)
    envoy = make_envoy()
    doctor = User.objects.create_user("amina", password=PASSWORD, is_active=False)
    url = page(User, "change", doctor.pk)
    response = client.post(url, account(doctor, is_active="on"))
    assert "Choose the doctor&#x27;s hospital before you activate" in response.content.decode()
    doctor.refresh_from_db()
    assert not doctor.is_active
    client.post(url, account(doctor, is_active="on", envoy=envoy.pk))
    doctor.refresh_from_db()
    assert (doctor.is_active, doctor.envoy) == (True, envoy)
    events = AuditEvent.objects.filter(target=f"user:{doctor.pk}").order_by("pk")
    assert [(event.user, event.action) for event in events] == [
        (administrator, "asked: use the admin"),
        (administrator, "activated account"),
    ]
    assert Client().login(username="amina", password=PASSWORD)


def test_closing_an_account_ends_its_tokens_and_nobody_closes_their_own():
    client, administrator = logged_in(Role.ADMINISTRATOR)
    user = make_user(Role.DATA_SCIENTIST)
    RefreshToken.for_user(user)
    client.post(page(User, "change", user.pk), account(user))
    user.refresh_from_db()
    assert not user.is_active
    assert AuditEvent.objects.get(target=f"user:{user.pk}").action == "closed account"
    assert OutstandingToken.objects.get(user=user).blacklistedtoken

    url = page(User, "change", administrator.pk)
    for values in ({}, {"is_active": "on", "role": Role.DATA_SCIENTIST}):
        response = client.post(url, account(administrator, **values), follow=True)
        assert "another administrator can" in response.content.decode()
        administrator.refresh_from_db()
        assert (administrator.is_active, administrator.role) == (True, Role.ADMINISTRATOR)


def test_an_administrator_makes_an_account_and_sets_its_password():
    client, _ = logged_in(Role.ADMINISTRATOR)
    passwords = {"password1": PASSWORD, "password2": PASSWORD, "usable_password": "true"}
    values = {"username": "ben", "role": Role.DATA_SCIENTIST, **passwords}
    client.post(page(User, "add"), values)
    ben = User.objects.get(username="ben")
    new = {"password1": "another long password", "password2": "another long password"}
    RefreshToken.for_user(ben)
    client.post(
        reverse("admin:auth_user_password_change", args=[ben.pk]),
        {**new, "usable_password": "true"},
    )
    ben.refresh_from_db()
    assert ben.check_password("another long password")
    assert OutstandingToken.objects.get(user=ben).blacklistedtoken
    actions = AuditEvent.objects.filter(target=f"user:{ben.pk}").values_list("action", flat=True)
    assert list(actions) == ["set password", "created account"]


def test_an_administrators_own_password_and_second_step_are_not_set_here():
    client, administrator = logged_in(Role.ADMINISTRATOR)
    new = "another long password"
    url = reverse("admin:auth_user_password_change", args=[administrator.pk])
    for response in (
        client.get(url),
        client.post(url, {"password1": new, "password2": new, "usable_password": "true"}),
    ):
        assert response.headers["Location"] == reverse("password_change")
    assert "asks for the old one" in client.get(reverse("password_change")).content.decode()
    administrator.refresh_from_db()
    assert administrator.check_password(PASSWORD)
    device = TwoStepDevice(user=administrator, confirmed=True)
    device.new_secret()
    device.save()
    (said,) = do(client, "reset_two_step", administrator)
    assert "another administrator resets" in said
    assert "under Security" in said
    assert TwoStepDevice.objects.filter(user=administrator).exists()
    other, _ = logged_in(Role.ADMINISTRATOR)
    do(other, "reset_two_step", administrator)
    assert not TwoStepDevice.objects.filter(user=administrator).exists()


@pytest.mark.parametrize("mark", ["\u202e", "\0", "\u200b"])
@pytest.mark.parametrize("field", ["first_name", "last_name", "email", "phone", "username"])
def test_what_is_not_seen_is_refused_in_what_is_known_of_a_person(field, mark):
    client, _ = logged_in(Role.ADMINISTRATOR)
    user = make_user(Role.DATA_SCIENTIST)
    before = User.objects.values().get(pk=user.pk)
    odd = f"a@x{mark}y.example" if field == "email" else f"amina{mark}x"
    values = account(user, is_active="on") | {field: odd}
    response = client.post(page(User, "change", user.pk), values)
    assert list(response.context["adminform"].form.errors) == [field]
    assert User.objects.values().get(pk=user.pk) == before
    passwords = {"password1": PASSWORD, "password2": PASSWORD, "usable_password": "true"}
    values = {"username": "ben", "role": Role.DATA_SCIENTIST, **passwords} | {field: odd}
    response = client.post(page(User, "add"), values)
    assert list(response.context["adminform"].form.errors) == [field]
    assert User.objects.count() == 2


def test_a_token_cannot_be_read_and_an_event_leads_to_its_row():
    client, administrator = logged_in(Role.ADMINISTRATOR)
    token = RefreshToken.for_user(administrator)
    row = OutstandingToken.objects.get()
    for url in (page(OutstandingToken, "changelist"), page(OutstandingToken, "change", row.pk)):
        assert str(token) not in client.get(url).content.decode()
    envoy, patient = make_envoy(), factories.make_patient()
    audit.record(administrator, "edited envoy", envoy)
    audit.record(administrator, "saw patient", patient)
    content = client.get(page(AuditEvent, "changelist")).content.decode()
    assert page(Envoy, "change", envoy.pk) in content
    assert re.search(rf">patient:{patient.pk}<", content)


# Actions


def test_envoys_are_packaged_launched_and_aggregated_and_the_version_is_distributed(
    queue, hospitals
):
    client, user = logged_in(Role.DATA_SCIENTIST)
    envoys = hospitals[:3]
    assert "has no training package" in do(client, "launch", envoys[0])[0]
    assert "waits for a doctor" in do(client, "package", *envoys)[0]
    study = services.study_for("risk_tier")
    assert StudyMembership.objects.filter(study=study).count() == 3
    approved_plan(study, envoys, num_rounds=10)
    told = do(client, "launch", *envoys, study=study.pk)
    assert told == [f"{envoy}: launched; aggregate once it has submitted" for envoy in envoys]
    assert "waiting" in do(client, "aggregate", *envoys)[0]
    queue.work_and_sweep()
    assert "a new version is on its way" in do(client, "aggregate", *envoys)[0]
    queue.work_and_sweep()
    version = ModelVersion.objects.of_federation().get()
    own = ModelVersion.objects.filter(envoy__isnull=False)
    assert "Choose one version" in do(client, "distribute", version, own[0])[0]
    assert "stays there" in do(client, "distribute", own[0])[0]
    assert "on its way to the hospitals" in do(client, "distribute", version)[0]
    version.refresh_from_db()
    assert (version.state, version.approved_by) == (ModelVersion.State.ACTIVE, user)


def test_failed_work_and_a_failed_assignment_are_tried_again(queue, hospitals):
    client, _ = logged_in(Role.DATA_SCIENTIST)
    run = finish(hospitals[:3], queue)
    version = run.versions.of_federation().get()
    distribution = Distribution.objects.create(
        version=version, envoy=hospitals[0], status=Distribution.Status.FAILED, reason="no storage"
    )
    assert "will be tried again" in do(client, "retry", distribution)[0]
    distribution.refresh_from_db()
    assert distribution.is_active
    assert "will be tried again" not in do(client, "retry", distribution)[0]

    training_round = factories.make_round(make_run(), status=TrainingRound.Status.COLLECTING)
    failed = factories.make_assignment(training_round, status=RoundAssignment.Status.FAILED)
    assert "will be tried again" in do(client, "retry", failed)[0]
    failed.refresh_from_db()
    assert failed.status == RoundAssignment.Status.PENDING
