import pytest
from django.utils import timezone

from diagnoses.services import load_icd_codes
from inference.explaining import category_titles, explain
from tests.factories import make_admission, make_envoy, make_patient, make_prediction, make_version

pytestmark = pytest.mark.django_db

INPUTS = {
    "primary code I50": ("Heart failure (I50) as the main diagnosis", 0.2),
    "code I50": ("Heart failure (I50)", 0.1),
    "chapter Diseases of the eye": ("A diagnosis among: Diseases of the eye", -0.05),
    "age unknown": ("Age not known", 0.02),
    "female": ("Female", 0.01),
    "ICD-10": ("Coded in ICD-10", 0.001),  # too little to be told
}
UPDATES = [
    {"envoy": name, "sha256": "", "num_examples": 500} for name in ("alpha", "beta", "gamma")
]


def version_with(**values):
    manifest = {"classes": ["Low", "Medium", "High"], "lineage": {"updates": UPDATES}}
    return make_version(manifest=manifest, **values)


def explained(version, admission, num_diagnoses=1, **values):
    values.setdefault(
        "contributions", [{"input": name, "change": change} for name, (_, change) in INPUTS.items()]
    )
    prediction = make_prediction(version, admission, **values)
    return explain(
        prediction,
        admission=admission,
        titles=category_titles([prediction]),
        num_diagnoses=num_diagnoses,
        now=timezone.now(),
    )


def test_inputs_are_named_as_a_doctor_reads_them_and_small_ones_left_out():
    load_icd_codes()
    found = explained(version_with(), make_admission())
    assert [(driver.text, driver.points, driver.raises) for driver in found.drivers] == [
        (text, 100 * change, change > 0) for text, change in list(INPUTS.values())[:-1]
    ]
    assert found.predicted == "High"
    assert [(share.name, share.percent) for share in found.shares if share.is_likeliest] == [
        ("High", pytest.approx(70))
    ]


def test_how_far_to_trust_it_follows_from_admission_and_model():
    envoy = make_envoy(name="Alpha")
    version = version_with()
    admission = make_admission(make_patient(envoy), admitted_at=timezone.now())
    trust = " ".join(
        explained(version, admission, num_diagnoses=0, probabilities=[0.3, 0.34, 0.36]).trust
    )
    assert "No diagnosis is recorded" in trust
    assert "almost equally likely" in trust
    assert "The patient is still here" in trust
    assert "1,500 admissions of 3 hospitals" in trust
    assert "has not been measured" in trust

    version.run.report = {"envoys": [{"name": "Alpha", "global": {"auroc": 0.81}}]}
    trust = " ".join(explained(version, make_admission(make_patient(envoy))).trust)
    assert "On this hospital's test patients its AUROC is 0.81" in trust
    assert "that is good" in trust
    assert "almost equally likely" not in trust


def test_a_hospitals_own_model_is_told_from_the_federations():
    envoy = make_envoy(name="Alpha")
    version = version_with(envoy=envoy, metrics={"validation_auroc": 0.65})
    trust = " ".join(explained(version, make_admission(make_patient(envoy))).trust)
    assert "of this hospital alone" in trust
    assert "its AUROC is 0.65" in trust
    assert "that is weak" in trust
