from typing import Any

import pytest
from django.test import Client
from django.urls import reverse

from envoys.models import AuditEvent, User
from federated.params import from_bytes
from inference.services import own_version
from tests.factories import (
    make_choice,
    make_distribution,
    make_envoy,
    make_round,
    make_run,
    make_user,
    make_version,
)
from tests.federation import break_storage, envoy_path, start
from training import services
from training.errors import ConflictError, NotAllowedError, NotReadyError, TrainingError
from training.models import ModelChoice, ModelVersion, TrainingRun

pytestmark = [pytest.mark.django_db, pytest.mark.filterwarnings("ignore:No directory at")]

Kind = ModelVersion.Kind
FIGURES = {
    "losses": {"global": 0.64, "fine_tuned": 0.612, "local": None},
    "lower_by": {"fine_tuned": {"estimate": 0.028, "low": 0.011, "high": 0.046}, "local": None},
}


@pytest.fixture
def doctor() -> User:
    return make_user(envoy=make_envoy(name="Alpha"))


@pytest.fixture
def choice(doctor) -> ModelChoice:
    """The global model, where a fine-tuned one is there too."""
    run = make_run(status=TrainingRun.Status.FINISHED)
    training_round = make_round(run, number=3)
    make_version(training_round)
    make_version(training_round, envoy=doctor.envoy)
    return make_choice(run, doctor.envoy, figures=FIGURES)


def overrule(choice, by, kind: str = Kind.FINE_TUNED, reason="it knows our patients"):
    return services.overrule_choice(choice, kind=kind, reason=reason, overruled_by=by)


# Made with the report


def check_choice(choice: ModelChoice) -> None:
    """It follows from its figures: another model only where its loss is surely lower."""
    losses, lower_by = choice.figures["losses"], choice.figures["lower_by"]
    assert set(losses) == {"global", "fine_tuned", "local"}
    if choice.reason.startswith("There are under 10 validation patients"):
        assert set(losses.values()) == {None}
        assert choice.kind == Kind.GLOBAL
        return
    assert choice.reason.startswith("On ")
    for model, difference in lower_by.items():
        assert difference["estimate"] == pytest.approx(losses["global"] - losses[model])
    better = [model for model, found in lower_by.items() if round(found["low"], 4) > 0]
    best = min(better, key=lambda model: losses[model], default="global")
    assert choice.kind == best.upper()


def test_a_report_chooses_for_each_hospital_and_keeps_what_can_be_served(queue, hospitals):
    run = start(hospitals)
    queue.work_and_sweep()
    choices = {choice.envoy: choice for choice in run.choices.all()}
    assert set(choices) == set(hospitals[:3])
    assert any(choice.reason.startswith("On ") for choice in choices.values())
    for envoy, choice in choices.items():
        check_choice(choice)
        alone = run.versions.get(envoy=envoy, kind=Kind.LOCAL)
        assert alone.storage_key == f"trained_model/{run.started_at:%Y%m%dT%H%M%SZ}-local"
        content = envoy_path(envoy, f"{alone.storage_key}/model.safetensors").read_bytes()
        assert from_bytes(content)
        assert alone.manifest["lineage"]["updates"][0]["envoy"] == envoy.slug

    ModelChoice.objects.update(kind=Kind.LOCAL)
    served = own_version(run.study, hospitals[0])
    assert served.kind == Kind.LOCAL
    ModelChoice.objects.update(kind=Kind.GLOBAL)
    assert own_version(run.study, hospitals[0]).kind == Kind.FINE_TUNED


def test_what_cannot_be_stored_cannot_be_chosen_and_stops_nobody(queue, hospitals):
    run = start(hospitals)
    finished = TrainingRun.objects.filter(pk=run.pk, status=TrainingRun.Status.FINISHED)
    queue.work_and_sweep(until=finished.exists)
    broken = hospitals[1]
    break_storage(broken)
    queue.work()
    report = run.report_work
    assert report.status == "COMPLETE"
    assert f"{broken}'s fine-tuned model could not be read" in report.reason
    assert f"{broken}'s model trained alone was not stored" in report.reason
    choice = run.choices.get(envoy=broken)
    assert choice.kind == Kind.GLOBAL
    assert set(choice.figures["losses"]) == {"global"}
    assert run.choices.count() == 3


def test_a_choice_counts_where_its_run_has_been_delivered(choice, doctor):
    study = choice.run.study
    assert services.choice_in_use(study, doctor.envoy) == choice  # nothing is delivered yet
    newer = make_run(status=TrainingRun.Status.FINISHED, study=study)
    version = make_version(make_round(newer, number=3))
    make_distribution(version, doctor.envoy)
    assert services.choice_in_use(study, doctor.envoy) is None  # it has no report yet
    of_newer = make_choice(newer, doctor.envoy)
    assert services.choice_in_use(study, doctor.envoy) == of_newer


# Overruled


def test_a_doctor_overrules_a_choice_and_takes_that_back(choice, doctor):
    study = choice.run.study
    overrule(choice, doctor)
    assert (choice.kind, choice.kind_in_use) == (Kind.GLOBAL, Kind.FINE_TUNED)
    assert choice.overruled_by == doctor
    assert choice.in_words == "it knows our patients (a doctor of the hospital decided)."
    in_use = services.choice_in_use(study, doctor.envoy)
    assert in_use is not None
    assert services.chosen_version(in_use) is not None

    services.take_back_overruling(choice, taken_back_by=doctor)
    assert choice.kind_in_use == Kind.GLOBAL
    assert (choice.overruled_by, choice.overrule_reason) == (None, "")
    actions = AuditEvent.objects.filter(target=f"modelchoice:{choice.pk}").order_by("pk")
    assert [event.action for event in actions] == ["overruled model choice", "took back overruling"]
    with pytest.raises(ConflictError, match="nothing to take back"):
        services.take_back_overruling(choice, taken_back_by=doctor)


def test_what_cannot_be_overruled_is_refused_in_words(choice, doctor):
    with pytest.raises(ConflictError, match="is the model in use already"):
        overrule(choice, doctor, Kind.GLOBAL)
    with pytest.raises(NotReadyError, match="Alpha has no such model of this run"):
        overrule(choice, doctor, Kind.LOCAL)
    with pytest.raises(TrainingError, match="say why"):
        overrule(choice, doctor, reason=" ")
    for stranger in (make_user(), make_user(User.Role.DATA_SCIENTIST, doctor.envoy)):
        with pytest.raises(NotAllowedError, match="only a doctor of Alpha"):
            overrule(choice, stranger)
    overrule(choice, doctor)
    with pytest.raises(ConflictError, match="take the overruling back"):
        overrule(choice, doctor, Kind.GLOBAL)
    assert AuditEvent.objects.count() == 1


def test_two_doctors_who_decide_at_once_are_told(choice, doctor):
    as_read = ModelChoice.objects.get(pk=choice.pk)
    overrule(choice, doctor)
    with pytest.raises(ConflictError, match="somebody else has just changed"):
        overrule(as_read, doctor)


# Its pages and calls


def page(user: User, name: str, *args: Any, **data: Any) -> str:
    client = Client()
    client.force_login(user)
    url = reverse(name, args=args)
    response = client.post(url, data, follow=True) if data else client.get(url)
    assert response.status_code == 200
    return " ".join(response.content.decode().split())


def test_the_page_shows_what_was_compared_and_a_doctor_decides_otherwise(choice, doctor):
    html = page(doctor, "training:model-choice-detail", choice.pk)
    assert "In use: the federation&#x27;s" in html
    assert "0.6120" in html
    assert "0.0110 to 0.0460" in html
    assert "Trained at the hospital alone" not in html  # there is no such model of this run

    html = page(
        doctor, "training:model-choice-overrule", choice.pk, kind="FINE_TUNED", reason="ours"
    )
    assert "In use: fine-tuned at the hospital" in html
    assert "“ours”" in html
    assert "overruled" in page(doctor, "training:model-choice-list")
    html = page(doctor, "training:model-choice-take-back", choice.pk, sure="yes")
    assert "In use: the federation&#x27;s" in html


def test_who_runs_the_federation_reads_every_choice_and_overrules_none(choice):
    scientist = make_user(User.Role.DATA_SCIENTIST)
    assert "Alpha" in page(scientist, "training:model-choice-list")
    assert "Use another model" not in page(scientist, "training:model-choice-detail", choice.pk)
    assert choice.reason in page(scientist, "training:envoy-detail", choice.envoy_id)


def test_the_api_says_and_changes_the_same(choice, doctor):
    client = Client()
    client.force_login(doctor)
    (found,) = client.get(reverse("api:model-choice-list")).json()["results"]
    assert (found["kind"], found["kind_in_use"]) == ("GLOBAL", "GLOBAL")
    assert found["figures"] == FIGURES
    overruled = client.post(
        reverse("api:model-choice-overrule", args=[choice.pk]),
        {"kind": "FINE_TUNED", "reason": "ours"},
        content_type="application/json",
    )
    assert overruled.json()["kind_in_use"] == "FINE_TUNED"
    again = client.post(
        reverse("api:model-choice-overrule", args=[choice.pk]),
        {"kind": "LOCAL", "reason": "ours"},
        content_type="application/json",
    )
    assert again.status_code == 409
    back = client.post(reverse("api:model-choice-take-back", args=[choice.pk]))
    assert back.json()["overruled_by"] is None
