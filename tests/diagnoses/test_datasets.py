from typing import Any

import pytest

from diagnoses.datasets import count_labelled_patients
from diagnoses.services import admission_records
from federated.targets import DIAGNOSES, targets
from tests.factories import make_admission, make_diagnosis, make_envoy, make_patient

pytestmark = pytest.mark.django_db


@pytest.mark.parametrize("target", targets(DIAGNOSES), ids=lambda target: target.name)
def test_patients_with_an_outcome_are_counted_once(target):
    envoy = make_envoy()
    outcomes: list[dict[str, Any]] = [
        {},
        {"risk_tier": 2},
        {"clinician_risk_level": 0},
        {"died_in_hospital": True},
        {"readmit_30d": False, "los_days": 8.0},
    ]
    for outcome in outcomes:
        patient = make_patient(envoy=envoy)
        for _ in range(2):
            make_diagnosis(make_admission(patient, **outcome))
    make_admission(died_in_hospital=True)  # another hospital's
    labelled = {
        record.subject_id
        for record in admission_records(envoy)
        if target.label_of(record) is not None
    }
    assert count_labelled_patients(envoy.pk, target.name) == len(labelled) > 0
    assert count_labelled_patients(envoy.pk, target.name, 1) == 1
    assert count_labelled_patients(envoy.pk, target.name, 10**6) == len(labelled)


def test_a_patient_without_an_admission_is_no_record_and_no_obstacle():
    envoy = make_envoy()
    make_patient(envoy=envoy)
    assert list(admission_records(envoy)) == []
