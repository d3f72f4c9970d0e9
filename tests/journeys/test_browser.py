"""From a patient at the door to the patient's risk, clicked through in a real browser.

Tasks run within the request that enqueues them; the other journeys have real workers.
"""

from collections.abc import Iterator
from typing import Any

import pytest
from celery.app.task import Task
from playwright.sync_api import Browser

from diagnoses.models import IcdCode, Snapshot
from envoys.models import User
from inference.models import Prediction
from tests.conftest import WorkQueue
from tests.factories import make_user
from tests.federation import approve
from tests.journeys.browser import Person, chromium
from training import services
from training.models import ModelVersion

pytestmark = [
    pytest.mark.django_db(transaction=True),
    pytest.mark.filterwarnings("ignore:No directory at"),
]


@pytest.fixture
def browser(monkeypatch: pytest.MonkeyPatch) -> Iterator[Browser]:
    # Playwright's loop runs in this thread, where the test asks the database too.
    monkeypatch.setenv("DJANGO_ALLOW_ASYNC_UNSAFE", "true")
    with chromium() as browser:
        yield browser


@pytest.fixture
def workers(queue: WorkQueue, monkeypatch: pytest.MonkeyPatch) -> None:
    """Work is done as soon as it is enqueued, and what comes of it too."""
    is_working = False

    def work(task: Task, *args: Any, **kwargs: Any) -> None:
        nonlocal is_working
        queue.add(task, *args, **kwargs)
        if not is_working:
            is_working = True
            try:
                queue.work_and_sweep()
            finally:
                is_working = False

    monkeypatch.setattr(Task, "apply_async", work)


def test_a_patient_is_registered_and_ends_with_a_risk_by_the_federations_model(
    browser, live_server, workers, hospitals
):
    IcdCode.objects.create(code="I509", version=10, title="Heart failure, unspecified")
    IcdCode.objects.create(code="I10", version=10, title="Essential (primary) hypertension")
    study = services.study_for("risk_tier")
    plan = services.plan_for(study, num_rounds=2)
    for envoy in hospitals[1:3]:
        approve(study, envoy, plan)
    hospital = hospitals[0]
    make_user(username="amina", envoy=hospital)
    make_user(User.Role.DATA_SCIENTIST, username="ben")
    doctor, scientist = (Person(browser, live_server.url) for _ in range(2))

    doctor.log_in("amina")
    doctor.follow("Register a patient")
    doctor.page.get_by_label("Name").fill("Test Example")
    doctor.page.get_by_label("Gender").select_option("Female")
    doctor.page.get_by_label("Year of birth").fill("1950")
    doctor.press("Register and admit")
    patient_page = doctor.page.url
    code = doctor.page.get_by_label("Code, or words to search for")
    code.press_sequentially("heart failure")
    doctor.page.get_by_role("button", name="I509 Heart failure").click()
    doctor.press("Record")
    doctor.sees("I509, Heart failure, unspecified, has been recorded")
    code.fill("I10")
    doctor.press("Record")
    doctor.sees("I10, Essential (primary) hypertension, has been recorded")
    doctor.sees("has not received a model")
    doctor.follow("Discharge")
    doctor.page.get_by_label("Discharged home").check()
    doctor.press("Discharge")
    doctor.sees("If that was a mistake")

    doctor.go_to("Exports")
    doctor.press("Export now")
    doctor.sees("In storage")
    snapshot = Snapshot.objects.get(envoy=hospital)
    assert snapshot.sha256

    scientist.log_in("ben")
    scientist.go_to("Approvals")
    scientist.follow("Package a training")
    scientist.page.get_by_label("Rounds").fill("2")
    scientist.press("Package it")
    scientist.sees("Packaged for")

    doctor.go_to("Approvals")
    doctor.follow("Risk tier from diagnoses")
    doctor.sees(plan.sha256)
    doctor.press("Approve this plan")
    doctor.sees("Approved. The hospital takes part")

    scientist.go_to("Envoys")
    scientist.follow("Train by hand")
    for envoy in hospitals[:3]:
        scientist.press(f"Launch {envoy}")
        scientist.sees(f"{envoy} is launched")
    scientist.sees("3 of 3 launched hospitals have trained")
    scientist.press("Aggregate the chosen")
    scientist.follow("version 1")
    scientist.press("Release and distribute")
    scientist.sees("4 of 4 hospitals reached")
    version = ModelVersion.objects.of_federation().get()
    assert version.state == ModelVersion.State.ACTIVE

    doctor.page.goto(patient_page)
    risk = doctor.page.get_by_role("region", name="Risk")
    for model in ("Version 1 of", "What drives it", "How far to trust it"):
        assert risk.get_by_text(model).count() == 2, model  # the federation's and the hospital's
    predictions = Prediction.objects.filter(admission__patient__envoy=hospital)
    assert {prediction.model_version.envoy for prediction in predictions} == {None, hospital}
    assert doctor.complaints + scientist.complaints == []
