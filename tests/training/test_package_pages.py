import pytest
from django.urls import reverse

from envoys.models import AuditEvent, Envoy, User
from federated.architectures import architectures
from federated.strategies import strategies
from tests.factories import make_envoy, make_user
from tests.federation import break_storage
from tests.training.test_run_pages import text_of
from training import services
from training.models import Study, StudyMembership
from training.plan_words import STRATEGIES, plan_in_words

pytestmark = [pytest.mark.django_db, pytest.mark.filterwarnings("ignore:No directory at")]

Answer = StudyMembership.Answer
LIST, CREATE = reverse("training:package-list"), reverse("training:package-create")


@pytest.fixture
def study() -> Study:
    return services.study_for("risk_tier")


@pytest.fixture
def alpha() -> Envoy:
    return make_envoy(name="Alpha")


@pytest.fixture
def beta() -> Envoy:
    return make_envoy(name="Beta")


@pytest.fixture
def package(study, alpha) -> StudyMembership:
    return services.package_training(study, alpha, services.plan_for(study, num_rounds=3))


@pytest.fixture
def scientist(client) -> User:
    user = make_user(User.Role.DATA_SCIENTIST)
    client.force_login(user)
    return user


@pytest.fixture
def doctor(alpha) -> User:
    return make_user(envoy=alpha)


def url(name, package):
    return reverse(f"training:package-{name}", args=[package.pk])


def answer_of(package) -> str:
    found: str = vars(StudyMembership.objects.with_answer().get(pk=package.pk))["answer"]
    return found


def plan_values(study, envoys, **values):
    return {
        "study": study.pk,
        "envoys": [envoy.pk for envoy in envoys],
        "num_rounds": 5,
        "strategy": "fedavg",
        "local_epochs": 2,
        "batch_size": 64,
        "learning_rate": 0.25,
        "weight_decay": 0,
        **values,
    }


def test_a_doctor_sees_the_packages_of_their_hospital_the_waiting_one_first(
    client, study, package, alpha, beta, doctor
):
    newer = services.package_training(study, alpha, services.plan_for(study, num_rounds=9))
    services.refuse_package(newer, refused_by=doctor, reason="nine is a lot")
    services.package_training(study, beta, services.plan_for(study, num_rounds=4))
    waiting = services.package_training(study, alpha, services.plan_for(study, num_rounds=6))
    StudyMembership.objects.filter(pk=newer.pk).update(packaged_at=waiting.packaged_at)
    client.force_login(doctor)
    text = text_of(client.get(LIST))
    assert text.index("6 rounds") < text.index("9 rounds")
    assert "Refused nine is a lot" in text
    assert "Replaced by a newer one" in text  # the first, of three rounds
    assert "4 rounds" not in text
    assert "Package a training" not in text


def test_who_runs_the_federation_filters_by_answer_and_hospital(
    client, study, package, alpha, beta, doctor, scientist
):
    services.approve_package(package, approved_by=doctor, plan_hash=package.plan_sha256)
    services.package_training(study, beta, services.plan_for(study, num_rounds=4))
    assert {"3 rounds", "4 rounds"} == rounds_in(client.get(LIST))
    assert {"3 rounds"} == rounds_in(client.get(LIST, {"answer": "APPROVED"}))
    assert {"4 rounds"} == rounds_in(client.get(LIST, {"envoy": beta.pk}))
    nothing = client.get(LIST, {"envoy": beta.pk, "answer": "REFUSED"})
    assert "No package like that" in text_of(nothing)
    assert rounds_in(client.get(LIST, {"envoy": "x", "answer": "x"})) == {"3 rounds", "4 rounds"}


def rounds_in(response) -> set[str]:
    return {f"{number} rounds" for number in (3, 4) if f"{number} rounds" in text_of(response)}


def test_the_list_takes_no_more_queries_for_more_packages(
    client, study, scientist, django_assert_max_num_queries
):
    for _ in range(12):
        services.package_training(study, make_envoy(), services.plan_for(study))
    with django_assert_max_num_queries(9):
        client.get(LIST)


def test_without_a_package_the_list_says_what_comes(client, doctor, scientist):
    assert "Package a training" in text_of(client.get(LIST))
    client.force_login(doctor)
    assert "asks Alpha to take part" in text_of(client.get(LIST))


def test_the_whole_plan_can_be_read_before_it_is_answered(client, package, doctor):
    client.force_login(doctor)
    text = text_of(client.get(url("detail", package)))
    for said in (
        "Risk tier : Low, Medium, High.",
        "What leaves the hospital Round 0: count, mean",
        "What stays in the hospital Every row of every patient",
        "Strategy: FedAvg",
        "Learning rate",
        "Rounds 3",
        package.plan_sha256,
        "&quot;num_rounds&quot;: 3",
        "Approve this plan",
        "Refuse it",
    ):
        assert said in text


def test_a_plan_of_another_program_is_shown_and_not_offered_for_approval(client, package, doctor):
    StudyMembership.objects.filter(pk=package.pk).update(plan={"strategy": "of old"})
    client.force_login(doctor)
    text = text_of(client.get(url("detail", package)))
    assert "was made by another version of the program" in text
    assert "Approve this plan" not in text


def test_approving_sends_the_hash_that_was_shown(client, package, doctor):
    client.force_login(doctor)
    page = client.get(url("detail", package)).content.decode()
    assert f'name="plan_sha256" value="{package.plan_sha256}"' in page
    shown = client.post(url("approve", package), {"plan_sha256": "0" * 64}, follow=True)
    assert "read it again before you approve" in text_of(shown)
    assert answer_of(package) == Answer.WAITING

    response = client.post(
        url("approve", package), {"plan_sha256": package.plan_sha256}, follow=True
    )
    assert "Approved. The hospital takes part" in text_of(response)
    assert "Revoke the approval" in text_of(response)
    assert answer_of(package) == Answer.APPROVED
    assert AuditEvent.objects.filter(action="approved package").count() == 1


def test_refusing_needs_a_reason_and_can_be_taken_back(client, package, doctor):
    client.force_login(doctor)
    response = client.post(url("refuse", package), {"reason": " "})
    assert "This field is required." in text_of(response)
    assert answer_of(package) == Answer.WAITING
    response = client.post(url("refuse", package), {"reason": "Too many rounds"}, follow=True)
    assert "“Too many rounds” Alpha sits out" in text_of(response)
    assert answer_of(package) == Answer.REFUSED
    package.refresh_from_db()
    seen = {"plan_sha256": package.plan_sha256, "refused_at": package.refused_at.isoformat()}
    client.post(url("approve", package), seen)
    assert answer_of(package) == Answer.APPROVED


def test_an_approval_is_revoked_and_given_again(client, package, doctor):
    client.force_login(doctor)
    response = client.post(url("revoke", package), follow=True)
    assert "has no standing approval" in text_of(response)
    services.approve_package(package, approved_by=doctor, plan_hash=package.plan_sha256)
    response = client.post(url("revoke", package), follow=True)
    assert "Revoked from the next launch on" in text_of(response)
    assert answer_of(package) == Answer.REVOKED
    assert "Approve this plan" in text_of(response)


def test_a_stranger_sees_and_answers_nothing(client, package, scientist):
    page = text_of(client.get(url("detail", package)))
    assert "A doctor of Alpha has to approve" in page
    assert "Approve this plan" not in page
    assert client.post(url("approve", package)).status_code == 404
    client.force_login(make_user(envoy=make_envoy()))
    assert client.get(url("detail", package)).status_code == 404
    for name in ("approve", "refuse", "revoke"):
        assert client.post(url(name, package), {"reason": "no"}).status_code == 404
    client.force_login(make_user(User.Role.PUBLIC_HEALTH))
    assert client.get(LIST).status_code == 404


def test_a_training_is_packaged_for_the_chosen_hospitals(client, study, alpha, beta, scientist):
    make_envoy(name="Gamma")
    response = client.post(CREATE, plan_values(study, [alpha, beta]), follow=True)
    assert "Packaged for Alpha, Beta." in text_of(response)
    packages = StudyMembership.objects.all()
    assert {package.envoy for package in packages} == {alpha, beta}
    assert packages[0].plan["num_rounds"] == 5
    assert packages[0].plan["local_training"] == {
        "local_epochs": 2,
        "batch_size": 64,
        "learning_rate": 0.25,
        "weight_decay": 0.0,
    }
    assert AuditEvent.objects.filter(action="packaged training").count() == 1


def test_a_hospital_that_cannot_be_reached_is_named_and_the_others_are_asked(
    client, study, alpha, beta, scientist
):
    break_storage(beta)
    text = text_of(client.post(CREATE, plan_values(study, [alpha, beta]), follow=True))
    assert "Packaged for Alpha." in text
    assert "Not packaged: Beta:" in text


def test_the_form_asks_for_the_parameters_of_the_chosen_strategy_only(
    client, study, alpha, scientist
):
    first = client.get(CREATE, {"study": study.pk}).content.decode()
    assert "parameter_" not in first
    values = plan_values(study, [], strategy="fedprox", num_rounds="")
    # Without JavaScript: a button, which checks nothing and keeps what has been filled in.
    again = client.post(CREATE, {**values, "choose": "strategy"})
    page = again.content.decode()
    assert 'name="parameter_mu"' in page
    assert "beta_1" not in page
    assert 'value="64"' in page
    assert "This field is required" not in page
    # With it: the part alone.
    part = client.post(
        CREATE, {**values, "choose": "strategy"}, headers={"HX-Request": "true"}
    ).content.decode()
    assert 'name="parameter_mu"' in part
    assert "<html" not in part
    assert not StudyMembership.objects.exists()


@pytest.mark.parametrize("strategy", strategies(), ids=lambda strategy: strategy.name)
def test_every_strategy_can_be_packaged_as_its_form_comes(
    client, study, alpha, scientist, strategy
):
    for _ in range(4):  # as many as Multi-Krum needs
        make_envoy()
    values = plan_values(study, [alpha], strategy=strategy.name)
    form = client.post(CREATE, {**values, "choose": "strategy"}).context["form"]
    sent = {field.html_name: field.value() for field in form.strategy_fields()}
    sent = {name: value for name, value in sent.items() if value is not None and value is not False}
    client.post(CREATE, {**values, **sent})
    plan = StudyMembership.objects.get().plan
    assert plan["strategy_parameters"] == vars(strategy.parameters())
    words = plan_in_words(plan)
    assert words is not None
    assert words.strategy == strategy
    assert strategy.name in STRATEGIES


def test_what_a_strategy_refuses_is_said_on_the_form(client, study, alpha, scientist):
    values = plan_values(study, [alpha], strategy="fedprox", parameter_mu=-1)
    assert "mu lies in [0, 1 / learning_rate], not -1.0" in text_of(client.post(CREATE, values))
    values = plan_values(study, [alpha], strategy="majority vote")
    assert "majority vote is not one of the available choices" in text_of(
        client.post(CREATE, values)
    )
    values = plan_values(study, [])
    assert "This field is required" in text_of(client.post(CREATE, values))
    values = plan_values(study, [alpha], learning_rate=0)
    assert "learning_rate lies in (0, 100)" in text_of(client.post(CREATE, values))
    assert not StudyMembership.objects.exists()


def test_every_network_says_what_it_is():
    assert all(network.title and network.definition for network in architectures())


def test_the_page_of_a_hospital_leads_to_a_package_for_it_alone(
    client, scientist, study, alpha, beta
):
    page = client.get(reverse("training:envoy-detail", args=[alpha.pk])).content.decode()
    assert f"{CREATE}?envoys={alpha.pk}" in page
    chosen = client.get(CREATE, {"envoys": alpha.pk}).context["form"]["envoys"].value()
    assert chosen == [str(alpha.pk)]
    everybody = client.get(CREATE).context["form"]["envoys"].value()
    assert set(everybody) == {alpha.pk, beta.pk}


def test_a_page_opened_before_a_colleagues_refusal_does_not_overturn_it(client, package, alpha):
    doctor = make_user(envoy=alpha)
    client.force_login(doctor)
    sent = {"plan_sha256": package.plan_sha256, "refused_at": ""}
    services.refuse_package(package, refused_by=make_user(envoy=alpha), reason="Too many rounds")
    page = client.post(url("approve", package), sent, follow=True).content.decode()
    assert "has refused it since you opened the page" in page
    assert "Too many rounds" in page
    assert answer_of(package) == Answer.REFUSED
    sent["refused_at"] = "as the page shows it"
    client.post(url("approve", package), sent)
    assert answer_of(package) == Answer.APPROVED
